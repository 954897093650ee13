# SPDX-License-Identifier: Apache-2.0
"""The audit: ten claims about a federation's evidence, each judged from the bytes alone (rule R7).

It has no side effects, needs no network and no clock, and believes nobody: not the database's tables, not the index of
a bundle, not whoever ran the federation. Hostile evidence gives findings, never anything else. Everything up to
recomputation (claim 8) runs on the standard library, ``cryptography`` and ``rfc8785``.
"""

from chaincode.audit.channel_claims import check_channel
from chaincode.audit.channel_source import ChannelSource
from chaincode.audit.log_claims import Head, check_outside, check_whole, check_witnesses
from chaincode.audit.member_claims import check_credentials, check_signatures
from chaincode.audit.release_claim import check_release
from chaincode.audit.replay import Replay, replay
from chaincode.audit.report import ABSENT, FAIL, INCOMPLETE, PASS, TITLES, Claim, Draft, Finding, Report, unreadable
from chaincode.audit.result_claims import Engine
from chaincode.audit.round_claims import check_rounds
from chaincode.audit.source import Observer, Progress, Source
from chaincode.channel_key import ChannelKey, Key
from chaincode.opening import opened
from chaincode.trust import KEY_FILE, FederationKey
from chaincode.views import Encoded
from identity.wording import counted

__all__ = [
    "ABSENT", "FAIL", "INCOMPLETE", "PASS", "Claim", "Finding", "Observer", "Progress", "Report", "Source", "audit", "unreadable",
]  # fmt: skip


def _silent(_stage: str, _done: int, _total: int) -> None:
    """No progress is reported."""


def audit(
    source: Source, *, key: Key | None = None, head: bytes | None = None, recompute: bool = True,
    progress: Progress = _silent,
) -> Report:  # fmt: skip
    """Judge evidence. ``key`` and ``head`` (a checkpoint note) are what the auditor had from outside, if anything.

    Without ``recompute`` numpy stays unloaded, and claim 8 is not in this evidence.

    Raises Unavailable(float-environment) where this process does not compute as IEEE 754 asks; otherwise whatever is
    wrong with the evidence is a finding.
    """
    drafts = {number: Draft(number) for number in TITLES}
    channel = source if isinstance(source, ChannelSource) else None
    if channel is not None:
        channel.trust(key if isinstance(key, ChannelKey) else None)
    observer = source.observer()
    engine = _engine() if recompute else None  # loads while the observer's threads already hash
    # (1, 3, 4) one pass over the log
    replayed = replay(
        source.entries(), observer, progress, form=drafts[3], rules=drafts[4], whole=drafts[1],
        opening=opened if channel is None else channel.opened,
    )  # fmt: skip
    # (5, 6) the people
    check_credentials(drafts[5], source, replayed.facts, progress)
    check_signatures(drafts[6], replayed.facts)
    # (7, 8) the work
    sound = check_rounds(drafts[7], drafts[8], source, replayed.facts, engine=engine, progress=progress)
    # (1) the container against the log: after the work, beside which the observer's threads still hash
    for number, finding in observer.finish(replayed.leaves, Encoded(replayed.state)):
        drafts[number].add(finding)
    _describe(drafts, replayed)
    trusted = _check_log(drafts[1], source, replayed, key)
    # (2) what only an outsider's memory can show
    check_outside(drafts[2], replayed, trusted, head)
    # (9, 10) what left the federation, and who watched
    check_release(drafts[9], source, replayed, trusted, sound)
    check_witnesses(drafts[10], replayed, trusted)
    return _report(drafts, replayed, trusted, key)


def _check_log(draft: Draft, source: Source, replayed: Replay, key: Key | None) -> Head:
    """Claim 1, of an embedded ledger's log or of a channel's blocks."""
    if isinstance(source, ChannelSource):
        head = check_channel(draft, source, replayed, key if isinstance(key, ChannelKey) else None)
    else:
        head = check_whole(draft, source, replayed, key if isinstance(key, FederationKey) else None)
    if isinstance(key, ChannelKey) is not isinstance(source, ChannelSource) and key is not None:
        kind = "a channel's blocks" if isinstance(source, ChannelSource) else "an embedded ledger's log"
        draft.fail(
            "key-differs",
            KEY_FILE,
            f"This evidence is {kind}; the given key is of a federation on another kind of ledger.",
        )
    return head


def _report(drafts: dict[int, Draft], replayed: Replay, trusted: Head, key: Key | None) -> Report:
    checkpoint = trusted.checkpoint
    return Report(
        federation=replayed.facts.federation,
        origin=trusted.log.name if trusted.log else trusted.origin,
        size=len(replayed.leaves),
        root=checkpoint.root.hex() if checkpoint else "",
        key="evidence" if key is None else "given",
        claims=tuple(draft.claim() for draft in drafts.values()),
        attestations=tuple(replayed.facts.attestations),
    )


def _engine() -> Engine:
    """What needs numpy, loaded now."""
    from chaincode.audit import recomputing  # noqa: PLC0415 (the auditor's path is free of numpy up to here)

    return recomputing


def _describe(drafts: dict[int, Draft], replayed: Replay) -> None:
    size, federation = len(replayed.leaves), replayed.facts.federation[:12] or "unknown"
    entries, keys = counted(size, "entry"), counted(len(replayed.state), "key")
    signed = counted(len(replayed.authors), "key has signed", "keys have signed")
    drafts[1].summary = f"{entries} of federation {federation}; leaves, root, head and keys compared."
    drafts[3].summary = f"{counted(size, 'envelope')} opened; {signed}."
    drafts[4].summary = f"{replayed.accepted} of {entries} accepted; the state has {keys}."
    for number in (3, 4):
        drafts[number].rest_on_all(size)
