# SPDX-License-Identifier: Apache-2.0
"""Claims about the log: that it is whole (1), holds a head from outside (2), and that witnesses cosigned it (10)."""

from dataclasses import dataclass

from chaincode import notes, state
from chaincode.artefacts import CHECKPOINT
from chaincode.audit.replay import Replay
from chaincode.audit.report import Draft
from chaincode.audit.source import Source
from chaincode.checkpoints import Checkpoint, is_plain, open_checkpoint, parse_proof, stated_head
from chaincode.log import root
from chaincode.notes import Verifier
from chaincode.proofs import is_proof
from chaincode.state import Federation
from chaincode.trust import KEY_FILE, LIMIT, FederationKey, parse_key
from chaincode.views import value_of
from identity.errors import EvidenceError
from identity.wording import counted


@dataclass(frozen=True, slots=True)
class Head:
    """The log's head as far as it could be trusted: the key, the signed checkpoint, and the note that holds it.

    ``origin`` is the name of a log that no key signs, a channel's; empty for one that a key does.
    """

    log: Verifier | None = None
    checkpoint: Checkpoint | None = None
    note: str | bytes = b""
    origin: str = ""

    @property
    def of_channel(self) -> bool:
        """Whether the log is a channel's: its blocks are signed, and of its heads only what members cosigned."""
        return self.log is None and bool(self.origin)


def check_whole(draft: Draft, source: Source, replayed: Replay, given: FederationKey | None) -> Head:
    """Claim 1: leaves, root, checkpoint and keys agree. Returns what later claims may trust."""
    federation = policy(replayed)
    key = _carried_key(draft, source, given)
    if given is None:
        draft.note("The key came with this evidence: it shows that the evidence is whole, not whose it is. "
                   "Give a federation.vkey that you had from the federation.")  # fmt: skip
    log = key.log if key else _stated_key(draft, federation)
    _compare_founding(draft, replayed, federation, key)
    head = _open_head(draft, source, log)
    if head.checkpoint is not None:
        compare_tree(draft, replayed, head.checkpoint)
    if replayed.facts.found is not None:
        draft.rest(replayed.facts.found.index)
    return head


def policy(replayed: Replay) -> Federation | None:
    """The federation's constitution after the last entry."""
    return value_of(Federation, replayed.state.get(state.FEDERATION))


def _carried_key(draft: Draft, source: Source, given: FederationKey | None) -> FederationKey | None:
    """The key that the verdicts rest on: the given one, else that of the evidence's own key file."""
    carried = None
    try:
        with source.open(KEY_FILE) as data:
            if data is None and given is None:
                draft.lose(KEY_FILE)
            elif data is not None:
                carried = parse_key(bytes(data[: LIMIT + 1]))
    except EvidenceError as error:
        draft.fail(error.code, KEY_FILE, error.message)
    if given is not None and carried is not None and carried != given:
        draft.fail("key-differs", KEY_FILE, f"The key file in the evidence is of federation {carried.federation} and log "
                   f"{carried.log.name}; the given key is another one.")  # fmt: skip
    return given or carried


def _stated_key(draft: Draft, federation: Federation | None) -> Verifier | None:
    """The log key that the founding entry states: all that is left where there is no key file."""
    try:
        return notes.parse_vkey(federation.log_key) if federation is not None else None
    except EvidenceError as error:
        draft.fail(error.code, "entry 0", f"The founding entry's log key: {error.message}")
        return None


def _compare_founding(draft: Draft, replayed: Replay, federation: Federation | None, key: FederationKey | None) -> None:
    if federation is None:
        draft.fail("not-founded", "entry 0", "The log has no founding entry that could be applied.")
        return
    if key is None:
        return
    where = str(replayed.facts.found)
    vkey = notes.format_vkey(key.log.name, key.log.public_key)
    for code, what, stated, held in (
        ("federation-differs", "federation", federation.id, key.federation),
        ("log-key-differs", "log key", federation.log_key, vkey),
        ("origin-differs", "origin", federation.origin, key.log.name),
    ):
        if stated != held:
            draft.fail(
                code, where, f"The founding entry gives the {what} {stated}; the federation's key file says {held}."
            )


def _open_head(draft: Draft, source: Source, log: Verifier | None) -> Head:
    if log is None:
        draft.fail("log-key-missing", KEY_FILE, "There is no key to verify the log's head with.")
        return Head()
    try:
        note = source.checkpoint()
        checkpoint, _ = open_checkpoint(note, log)
    except EvidenceError as error:
        draft.fail(error.code, CHECKPOINT, error.message)
        return Head(log)
    return Head(log, checkpoint, note)


def compare_tree(draft: Draft, replayed: Replay, checkpoint: Checkpoint) -> None:
    """Hold the entries against a head of the log."""
    size = len(replayed.leaves)
    if checkpoint.size != size:
        message = (
            f"The log's head covers {counted(checkpoint.size, 'entry')}; {counted(size, 'is', 'are')} in this evidence."
        )
        draft.fail("log-size", CHECKPOINT, message)
    if checkpoint.size <= size and (found := root(replayed.leaves[: checkpoint.size])) != checkpoint.root:
        message = f"The entries have the root {found.hex()}; the log's head signs {checkpoint.root.hex()}."
        draft.fail("log-root", CHECKPOINT, message)


def check_outside(draft: Draft, replayed: Replay, head: Head, note: bytes | None) -> None:
    """Claim 2: a head that somebody held outside, alone or in a proof file, is one of this log's."""
    if note is None:
        draft.summary = ("No outside head was given. Without one, entries cut off at the end, and a history rewritten by "
                         "whoever holds the log's key, cannot be seen.")  # fmt: skip
        if head.of_channel:
            draft.summary = "No outside head was given. Without one, blocks cut off at the end cannot be seen."
        draft.lack("a head of this log that was held outside (--head)")
        return
    if head.log is None and not head.of_channel:
        draft.lack("a key to verify the head with")
        return
    try:
        outside = _outside(note, head)
    except EvidenceError as error:
        draft.summary = "What was given as a head from outside is none of this log."
        draft.fail(error.code, "outside head", error.message)
        return
    size = len(replayed.leaves)
    draft.summary = f"The outside head covers {counted(outside.size, 'entry')}; this evidence has {size}."
    if outside.size == 0:
        draft.lack("a head of at least one entry")
    elif outside.size > size:
        what = f"It covers {counted(outside.size, 'entry')}, this evidence has {size}: {counted(outside.size - size, 'is', 'are')} missing at its end."
        draft.fail("log-cut-short", "outside head", what)
    elif (found := root(replayed.leaves[: outside.size])) != outside.root:
        what = f"The first {counted(outside.size, 'entry has', 'entries have')} the root {found.hex()}, the head signs {outside.root.hex()}: "
        draft.fail("log-rewritten", "outside head", what + "entries among them were changed, added or removed.")
    else:
        draft.rest_on_all(outside.size)


def _outside(note: bytes, head: Head) -> Checkpoint:
    """The head in a checkpoint or a proof. Raises EvidenceError where it is none, or is of another log."""
    note = parse_proof(note).checkpoint.encode() if is_proof(note) else note
    origin, expected = _stated_origin(note), head.log.name if head.log else head.origin
    if origin not in ("", expected):
        raise EvidenceError("checkpoint-origin", f"It is a head of another log: of {origin}, not of {expected}.")
    if head.log is None:
        return stated_head(note)
    try:
        return open_checkpoint(note, head.log)[0]
    except EvidenceError as error:
        if error.code == "note-unsigned" and origin:
            what = f"It is a head of another log that is called {origin} too: this one's key has not signed it."
            raise EvidenceError(error.code, what) from error
        raise


def _stated_origin(note: bytes) -> str:
    """The log that a head says it is of; empty for what is no head."""
    try:
        return stated_head(note).origin
    except EvidenceError:
        return ""


def check_witnesses(draft: Draft, replayed: Replay, head: Head) -> None:
    """Claim 10: cosigners of the federation's policy have signed this very head."""
    federation = policy(replayed)
    if federation is None or head.checkpoint is None or (head.log is None and not head.of_channel):
        draft.summary = "There is no verified head that a witness could have cosigned."
        draft.lack("a verified head")
        return
    draft.summary = "No witness outside this machine has cosigned."
    try:
        known = [notes.parse_vkey(text) for text in federation.cosigners]
        cosigned = bool(known) and not (head.of_channel and is_plain(head.note))
        _, signed = open_checkpoint(head.note, head.log, known, origin=head.origin or None) if cosigned else (None, [])
    except EvidenceError as error:
        draft.fail(error.code, CHECKPOINT, error.message)
        return
    if signed:
        draft.summary = f"{len(signed)} of {counted(len(known), 'witness has', 'witnesses have')} cosigned; the policy asks for {federation.quorum}."
    for one in signed:
        draft.note(f"{one.cosigner.name} cosigned at {one.time}.")
    if len(signed) < max(1, federation.quorum):
        draft.lack(f"cosignatures: {len(signed)} of {max(1, federation.quorum)}")
