# SPDX-License-Identifier: Apache-2.0
"""Proof files: one entry of a log, shown to be in it to whoever holds the federation's key and nothing else.

A proof is a C2SP tlog-proof whose ``extra`` is the entry's envelope, to the byte: the leaf. It needs no ledger, no
network and no other file.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from chaincode import notes
from chaincode.checkpoints import (
    MAX_EXTRA_CHARACTERS,
    Checkpoint,
    Proof,
    format_proof,
    parse_checkpoint,
    parse_proof,
    verify_proof,
)  # fmt: skip
from chaincode.entries import Entry, open_entry
from chaincode.log import Frontier, inclusion_proof, leaf_hash, verify_inclusion
from chaincode.trust import FederationKey
from identity import canonical
from identity.errors import EvidenceError

_HEADER = b"c2sp.org/tlog-proof@"


class Logged(Protocol):
    """An entry where it stands in a log."""

    @property
    def envelope(self) -> bytes: ...


class LogSource(Protocol):
    """What a proof is made from: a ledger (``chaincode.ledgers.queries.Queries``) or a bundle."""

    def checkpoint(self) -> str:
        """The log's signed head."""
        ...

    def entry(self, which: int, /) -> Logged:
        """The entry of an index."""
        ...

    def node(self, level: int, index: int, /) -> bytes:
        """The hash of a complete subtree."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """An entry's envelope."""

    envelope: bytes


class ScannedLog:
    """A ``LogSource`` over nothing but a log's envelopes and its signed head, for proofs out of a bundle.

    Holds the hashes of the tree and the envelopes of the entries that ``wanted`` picks.
    """

    def __init__(self, envelopes: Iterable[bytes], note: str, wanted: Callable[[int, bytes], bool]) -> None:
        """Read the log once; ``wanted(index, envelope)`` says which entries may be asked for."""
        self._note, self._nodes, frontier = note, dict[tuple[int, int], bytes](), Frontier()
        self.found: dict[int, Found] = {}
        for index, envelope in enumerate(envelopes):
            self._nodes.update(((level, n), digest) for level, n, digest in frontier.append(leaf_hash(envelope)))
            if wanted(index, envelope):
                self.found[index] = Found(envelope)

    def checkpoint(self) -> str:
        """The log's signed head."""
        return self._note

    def entry(self, which: int, /) -> Found:
        """A wanted entry. Raises EvidenceError(inclusion-index) for any other."""
        if which not in self.found:
            raise EvidenceError("inclusion-index", f"The log has no entry {which}.")
        return self.found[which]

    def node(self, level: int, index: int, /) -> bytes:
        """The hash of a complete subtree. Raises EvidenceError(inclusion-index) beyond the log's entries."""
        if (level, index) not in self._nodes:
            raise EvidenceError("inclusion-index", "The log's head covers more entries than there are.")
        return self._nodes[level, index]


def make_entry_proof(source: LogSource, index: int) -> str:
    """The proof file of entry number `index` under the log's present head.

    Raises EvidenceError: proof-entry-too-large (an envelope beyond 48 KiB does not fit the format), inclusion-*
    where the log's head is not that of its entries, and what the source raises.
    """
    envelope, note = bytes(source.entry(index).envelope), source.checkpoint()
    if len(canonical.b64encode(envelope)) > MAX_EXTRA_CHARACTERS:
        message = (
            f"Entry {index} has {len(envelope)} bytes; a proof file carries {MAX_EXTRA_CHARACTERS // 4 * 3} at most."
        )
        raise EvidenceError("proof-entry-too-large", message)
    head = parse_checkpoint(notes.parse_note(note).text)
    path = tuple(inclusion_proof(index, head.size, source.node))
    verify_inclusion(leaf_hash(envelope), index, head.size, path, head.root)
    return format_proof(Proof(index, path, note, envelope))


def verify_entry_proof(proof: str | bytes, key: FederationKey) -> tuple[Entry, Checkpoint]:
    """The entry that a proof file shows to be in the log of `key`, and the signed head that says so.

    That the entry is in the log says that the federation's ledger accepted it; what it says is for the caller to judge.

    Raises EvidenceError: proof-* (not a proof, or one without its entry), entry-*, envelope-*, json-*,
    signature-invalid (no entry), proof-federation (an entry of another federation), note-*, checkpoint-* (not the
    log's signed head), inclusion-* (not in it).
    """
    parsed = parse_proof(proof)
    if parsed.extra is None:
        raise EvidenceError("proof-extra", "The proof does not carry its entry.")
    entry = open_entry(parsed.extra)
    if entry.federation != key.federation:
        message = f"The entry is of federation {entry.federation[:12]}, the key is another federation's: {key.federation[:12]}."
        raise EvidenceError("proof-federation", message)
    checkpoint, _ = verify_proof(parsed, leaf_hash(parsed.extra), key.log)
    return entry, checkpoint


def is_proof(data: bytes) -> bool:
    """Whether bytes begin like a proof file."""
    return data.startswith(_HEADER)
