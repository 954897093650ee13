# SPDX-License-Identifier: Apache-2.0
"""Claim 1 on a channel: the blocks are one chain from the pinned first one, and all that is said of the log follows from them."""

from typing import Final

from chaincode.artefacts import CHECKPOINT
from chaincode.audit.channel_source import ChannelSource
from chaincode.audit.log_claims import Head, compare_tree, policy
from chaincode.audit.replay import Replay
from chaincode.audit.report import Draft
from chaincode.channel_key import ChannelKey
from chaincode.checkpoints import Checkpoint, stated_head
from chaincode.log import root
from chaincode.trust import KEY_FILE
from identity.errors import EvidenceError
from identity.wording import counted

_UNREAD: Final = "what comes from there on is not read, here or for any claim below"
TITLE: Final = "The blocks are one chain from the pinned first block, ordered and endorsed by the organisations' keys"


def check_channel(draft: Draft, source: ChannelSource, replayed: Replay, given: ChannelKey | None) -> Head:
    """Claim 1: the chain, the key and the stated head agree; the chain's own findings are in the draft already.

    Returns what later claims may trust: the head that follows from the blocks.
    """
    draft.title = TITLE
    _check_key(draft, source, given)
    key, chain = source.key, source.chain
    if key is None or chain is None:
        return Head()
    _compare_founding(draft, replayed, key)
    head = Head(None, Checkpoint(key.origin, len(replayed.leaves), root(replayed.leaves)), origin=key.origin)
    try:
        note = source.checkpoint()
        stated = stated_head(note)
        if stated.origin != key.origin:
            raise EvidenceError("checkpoint-origin", f"It is a head of {stated.origin}, not of {key.origin}.")
        compare_tree(draft, replayed, stated)
        head = Head(None, head.checkpoint, note, key.origin)
    except EvidenceError as error:
        draft.fail(error.code, CHECKPOINT, error.message)
    if replayed.facts.found is not None:
        draft.rest(replayed.facts.found.index)
    _describe(draft, source, replayed)
    return head


def _check_key(draft: Draft, source: ChannelSource, given: ChannelKey | None) -> None:
    """The key that the verdicts rest on: the given one, else that of the evidence's own key file."""
    if source.unreadable is not None:
        draft.fail(source.unreadable.code, KEY_FILE, source.unreadable.message)
    if given is None:
        draft.note("The key came with this evidence: it shows that the evidence is whole, not whose it is. "
                   "Give a federation.vkey that you had from the federation.")  # fmt: skip
    elif source.carried is not None and source.carried != given:
        draft.fail("key-differs", KEY_FILE, f"The key file in the evidence is of federation {source.carried.federation} on "
                   f"{source.carried.origin}; the given key is another one.")  # fmt: skip


def _compare_founding(draft: Draft, replayed: Replay, key: ChannelKey) -> None:
    federation = policy(replayed)
    if federation is None:
        draft.fail("not-founded", "entry 0", "The log has no founding entry that could be applied.")
        return
    for code, what, stated, held in (
        ("federation-differs", "federation", federation.id, key.federation),
        ("origin-differs", "origin", federation.origin, key.origin),
        ("log-key-differs", "log key", federation.log_key, ""),
    ):
        if stated != held:
            said = f"says {held}" if held else "is of a channel, whose log no key signs"
            where = str(replayed.facts.found)
            draft.fail(code, where, f"The founding entry gives the {what} {stated}; the federation's key file {said}.")


def _describe(draft: Draft, source: ChannelSource, replayed: Replay) -> None:
    chain, size = source.chain, len(replayed.leaves)
    if chain is None:
        return
    if not chain.height:
        draft.summary = f"The first block of {chain.trust.channel} does not hold: {_UNREAD}."
    else:
        only = (
            f"Only the first {counted(chain.height, 'block holds', 'blocks hold')}: {_UNREAD}. " if chain.broken else ""
        )
        draft.summary = (
            f"{only}{counted(chain.height, 'block')} of {chain.trust.channel} with {counted(chain.transactions, 'transaction')}, {chain.invalid} of "
            f"them invalid; {counted(size, 'entry')} of federation {replayed.facts.federation[:12] or 'unknown'}. The last block's hash "
            f"is {chain.tip.hex()}."
        )
    draft.note("Blocks cut off at the end cannot be seen from the blocks: compare the last one's hash with another organisation, "
               "or give a head that was held outside (--head).")  # fmt: skip
    if chain.unjudged:
        draft.note(
            f"{counted(chain.unjudged, 'transaction of another chaincode uses', 'transactions of other chaincodes use')} what is not judged here; the log does not depend on them."
        )
    for change in chain.changes:
        draft.note(f"Configuration, {change}.")
    first = 0
    for version, count in chain.contract.versions:
        what = f"entry {first}" if count == 1 else f"entries {first}-{first + count - 1}"
        draft.note(f"Version {version[:12]} of the contract judged {what}; this version judges alike.")
        first += count
