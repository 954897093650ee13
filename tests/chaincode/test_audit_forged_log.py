# SPDX-License-Identifier: Apache-2.0
"""Forgeries by whoever holds everything, the log's real key included: each is found, and what differs is named."""

from collections.abc import Callable
from pathlib import Path

import pytest

from chaincode import artefacts
from chaincode.audit import ABSENT, PASS
from chaincode.checkpoints import Checkpoint, cosign, parse_checkpoint, sign_checkpoint
from chaincode.entries import make_entry, open_entry
from chaincode.log import leaf_hash, root
from chaincode.notes import add_signature, format_vkey, parse_note, parse_vkey
from chaincode.trust import KEY_FILE, FederationKey, format_key
from identity.did import public_key_from_did
from tests.chaincode.audit_evidence import (
    LOG,
    LOG_KEY,
    ORIGIN,
    VKEY,
    Run,
    claim,
    files_of,
    found,
    head_of,
    judged,
    verdicts,
    where,
    whole_run,
)  # fmt: skip
from tests.chaincode.contract.memory import key


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return whole_run(tmp_path_factory.mktemp("tamper") / "run")


# The log, and who holds its head


def test_a_history_rewritten_with_the_real_key_is_found_by_a_head_from_outside(tmp_path: Path, run: Run) -> None:
    held = head_of(run.world.envelopes[:20]).encode()
    other = Run(tmp_path / "run").opened().commit(1, 2).commit(3, examples=11).sealed().recorded().rounds(1).released()
    alone = other.audit()
    assert not alone.failed
    assert verdicts(alone)[2] == ABSENT
    assert "rewritten by whoever holds the log's key, cannot be seen" in claim(alone, 2).summary
    report = other.audit(head=held)
    assert found(report) == {"2:log-rewritten"}
    assert claim(report, 2).findings[0].where == "outside head"
    assert "first 20 entries" in claim(report, 2).findings[0].what


def test_entries_cut_off_under_an_old_checkpoint_are_found_by_a_head_from_outside(tmp_path: Path) -> None:
    run = whole_run(tmp_path / "run")
    held, size = run.note.encode(), len(run.world.entries)
    run.world.entries = run.world.entries[: run.index("release")]
    for name in artefacts.RELEASED:
        (run.folder / name).unlink()
    run.write()
    alone = run.audit()
    assert not alone.failed
    assert "entries cut off at the end" in claim(alone, 2).summary
    report = run.audit(head=held)
    assert found(report) == {"2:log-cut-short"}
    assert f"covers {size} entries, this evidence has {size - 1}: 1 is missing" in claim(report, 2).findings[0].what


@pytest.mark.parametrize(("change", "code"), [
    (lambda note: b"", "note-unsigned"),
    (lambda note: note[:-10], "note-signature-line"),
    (lambda note: note.replace(b"ledger.example", b"ledger.elsewhere"), "checkpoint-origin"),
    (lambda note: note.replace(b"\n23\n", b"\n22\n"), "note-signature"),
    (lambda note: b"c2sp.org/tlog-proof@v1\nindex 0\n", "proof-malformed"),
    (lambda note: bytes(range(256)) * 9, "note-not-utf8"),
    (lambda note: sign_checkpoint(Checkpoint(ORIGIN, 23, bytes(32)), LOG_KEY, key("coordinator").sign).encode(), "note-signature"),
])  # fmt: skip
def test_a_head_that_is_not_the_logs_is_refused(run: Run, change: Callable[[bytes], bytes], code: str) -> None:
    assert found(run.audit(head=change(run.note.encode()))) == {f"2:{code}"}


@pytest.mark.parametrize(("origin", "says"), [
    ("ledger.example/other", f"It is a head of another log: of ledger.example/other, not of {ORIGIN}."),
    (ORIGIN, f"It is a head of another log that is called {ORIGIN} too: this one's key has not signed it."),
])  # fmt: skip
def test_a_head_of_another_federation_is_called_so(run: Run, origin: str, says: str) -> None:
    stranger = key("stranger")
    head = sign_checkpoint(Checkpoint(origin, 23, bytes(32)), public_key_from_did(stranger.did), stranger.sign)
    outside = claim(run.audit(head=head.encode()), 2)
    assert (outside.summary, outside.findings[0].what) == (
        "What was given as a head from outside is none of this log.",
        says,
    )


def test_an_empty_head_shows_nothing(run: Run) -> None:
    assert verdicts(run.audit(head=head_of([]).encode()))[2] == ABSENT


def test_evidence_under_another_key_than_the_trusted_one(run: Run) -> None:
    stranger = public_key_from_did(key("stranger").did)
    trusted = FederationKey(parse_vkey(VKEY), run.world.federation)
    for other in (
        FederationKey(parse_vkey(VKEY), "0" * 64),
        FederationKey(parse_vkey(format_vkey(ORIGIN, stranger)), trusted.federation),
    ):
        report = run.audit(key=other)
        assert "1:key-differs" in found(report)
        assert report.key == "given"
    assert not run.audit(key=trusted).failed


def test_another_key_file_in_the_evidence(tmp_path: Path, run: Run) -> None:
    files = files_of(run)
    other = format_key(FederationKey(parse_vkey(VKEY), "0" * 64)).encode()
    report = judged(tmp_path, {**files, KEY_FILE: other})
    assert "1:federation-differs" in found(report)
    assert "entry 0" in where(report)
    report = judged(tmp_path, {**files, KEY_FILE: b"nonsense"})
    assert found(report) == {"1:federation-key"}
    assert KEY_FILE in where(report)


@pytest.mark.parametrize("count", [-1, 1])
def test_a_head_of_another_number_of_entries(tmp_path: Path, run: Run, count: int) -> None:
    envelopes = run.world.envelopes
    files = files_of(run)
    if count < 0:
        files[artefacts.CHECKPOINT] = head_of(envelopes[:-1]).encode()
    else:
        leaves = [leaf_hash(e) for e in (*envelopes, envelopes[0])]
        files[artefacts.CHECKPOINT] = sign_checkpoint(
            Checkpoint(ORIGIN, len(leaves), root(leaves)), LOG_KEY, LOG.sign
        ).encode()
    report = judged(tmp_path, files)
    assert "1:log-size" in found(report)
    assert "checkpoint" in where(report)


def test_a_root_of_other_entries(tmp_path: Path, run: Run) -> None:
    note = sign_checkpoint(Checkpoint(ORIGIN, len(run.world.entries), bytes(32)), LOG_KEY, LOG.sign).encode()
    report = judged(tmp_path, {**files_of(run), artefacts.CHECKPOINT: note})
    assert "1:log-root" in found(report)


# Entries, under a head that is signed with the real key and fits them


def swap(envelopes: list[bytes], a: int, b: int) -> list[bytes]:
    envelopes[a], envelopes[b] = envelopes[b], envelopes[a]
    return envelopes


def damaged(envelope: bytes) -> bytes:
    return envelope.replace(b'"sig":"', b'"sig":"A', 1)[:-4] + envelope[-3:]


@pytest.mark.parametrize(("forge", "code"), [
    (lambda e: swap(e, 10, 11), "4:round-not-open"),
    (lambda e: [*e[:12], *e[13:]], "4:"),
    (lambda e: [*e[:12], e[11], *e[12:]], "4:duplicate-entry"),
    (lambda e: e[1:], "4:not-founded"),
    (lambda e: [*e, e[0]], "4:duplicate-entry"),
    (lambda e: [*e[:12], damaged(e[12]), *e[13:]], "3:"),
    (lambda e: [*e[:12], b"{}", *e[13:]], "3:envelope-fields"),
    (lambda e: [*e[:12], b"", *e[13:]], "3:json-syntax"),
    (lambda e: [*e[:12], e[12] + b" ", *e[13:]], "3:json-not-canonical"),
    (lambda e: [], "1:not-founded"),
])  # fmt: skip
def test_a_log_with_other_entries_under_a_head_that_fits(
    tmp_path: Path, run: Run, forge: Callable[[list[bytes]], list[bytes]], code: str
) -> None:
    report = judged(tmp_path, files_of(run, forge(run.world.envelopes)))
    assert any(one.startswith(code) for one in found(report)), found(report)
    assert "entry " in where(report)


def test_an_entry_that_was_replaced_is_named(tmp_path: Path, run: Run) -> None:
    at = run.index("commit")
    old = run.world.entries[at]
    stranger = key("stranger")
    new = make_entry("commit", member=stranger.did, at=old.at, subjects=old.subjects, body=old.body, signer=stranger)
    envelopes = run.world.envelopes
    envelopes[at] = new
    report = judged(tmp_path, files_of(run, envelopes))
    first = claim(report, 4).findings[0]
    assert (first.code, first.where) == ("member-unknown", f"entry {at} ({open_entry(new).id[:12]})")
    assert f"entry {at} was refused, so the state is not known" in claim(report, 4).findings[1].what


def test_an_entry_of_a_revoked_member_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").opened().commit(1, 2)
    late = run.world.fork()
    late.commit(3)
    run.world.revoke(3)
    report = judged(tmp_path, files_of(run.write(), [*run.world.envelopes, late.envelopes[-1]]))
    assert "4:member-revoked" in found(report)


# Witnesses


def cosigned(run: Run, *witnesses: str, forge: bool = False) -> str:
    """The run's head with a cosignature by each of these."""
    note = run.note
    head = parse_checkpoint(parse_note(note).text)
    for name in witnesses:
        who = key(name)
        signer = key("stranger").sign if forge else who.sign
        note = add_signature(note, cosign(head, name, public_key_from_did(who.did), signer, 1_800_000_000))
    return note


@pytest.mark.parametrize(("witnesses", "quorum", "verdict"), [
    ((), 1, ABSENT), ((), 0, ABSENT), (("north",), 2, ABSENT), (("north",), 1, PASS), (("north", "south"), 2, PASS),
    (("stranger",), 1, ABSENT), (("log",), 0, ABSENT),
])  # fmt: skip
def test_witnesses_are_counted_against_the_policy(
    tmp_path: Path, witnesses: tuple[str, ...], quorum: int, verdict: str
) -> None:
    run = Run(tmp_path / "run")
    known = [format_vkey(name, public_key_from_did(key(name).did), 4) for name in ("north", "south")]
    run.world.policy |= {"cosigners": sorted(known), "quorum": quorum}
    run.founded().write()
    files = {**files_of(run), artefacts.CHECKPOINT: cosigned(run, *witnesses).encode()}
    report = judged(tmp_path, files)
    assert verdicts(report)[10] == verdict
    assert not report.failed
    if verdict == PASS:
        assert (
            f"{len(witnesses)} of 2 witnesses have cosigned; the policy asks for {quorum}" in claim(report, 10).summary
        )


def test_a_false_cosignature_is_found(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.world.policy |= {"cosigners": [format_vkey("north", public_key_from_did(key("north").did), 4)], "quorum": 1}
    run.founded().write()
    report = judged(tmp_path, {**files_of(run), artefacts.CHECKPOINT: cosigned(run, "north", forge=True).encode()})
    assert found(report) == {"10:note-signature"}
