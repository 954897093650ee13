# SPDX-License-Identifier: Apache-2.0
"""Writing to and reading from a ledger as a member: sign an entry and submit it, read a typed value."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from chaincode import state
from chaincode.codes import CODES
from chaincode.crew import Crew, own_crew
from chaincode.entries import write_entry
from chaincode.ledgers import Ledger, Receipt
from identity.envelope import Unsigned
from identity.errors import EvidenceError, Rejected
from identity.keys import Identity

Value = TypeVar("Value")
Clock = Callable[[], int]
NONE: Mapping[str, str] = {}
_WORTH_A_THREAD = 8
"""So many signatures take longer than waking a thread."""


@dataclass(frozen=True, slots=True)
class Author:
    """A member that signs: its name, its key in force, and the federation that it writes for."""

    federation: str
    member: str
    identity: Identity

    def entry(
        self, kind: str, at: int, body: Mapping[str, Any], *, agreement: str = "", subjects: Mapping[str, str] = NONE
    ) -> bytes:
        """The signed envelope of an entry; the federation, and the agreement if there is one, join its subjects."""
        return self.unsigned(kind, at, body, agreement=agreement, subjects=subjects).signed()

    def unsigned(
        self, kind: str, at: int, body: Mapping[str, Any], *, agreement: str = "", subjects: Mapping[str, str] = NONE
    ) -> Unsigned:
        """As ``entry``, but still to be signed."""
        digests = {**subjects, "federation": self.federation}
        if agreement:
            digests["agreement"] = agreement
        return write_entry(kind, member=self.member, at=at, subjects=digests, body=body, signer=self.identity)


def sign_all(entries: Sequence[Unsigned], crew: Crew | None = None) -> list[bytes]:
    """The signed envelopes of entries, in order. OpenSSL signs without Python's lock: threads, by default the process's
    crew, make the signatures of many together. Raises EvidenceError(envelope-signature)."""
    signatures = (crew or own_crew()).map(Unsigned.sign, entries, _WORTH_A_THREAD)
    return [entry.with_signature(signature) for entry, signature in zip(entries, signatures, strict=True)]


def submit(ledger: Ledger, envelope: bytes) -> Receipt:
    """Submit one entry that must be accepted. Raises as ``accepted``."""
    return accepted(ledger.submit([envelope])[0])


def accepted(outcome: Receipt | Rejected) -> Receipt:
    """The receipt of an entry that must have been accepted.

    Raises:
        Rejected: it was not; the message says what to do next.
    """
    if isinstance(outcome, Rejected):
        raise Rejected(outcome.code, outcome.message, next=outcome.next or CODES.get(outcome.code, ("", ""))[1] or None)
    return outcome


def read(ledger: Ledger, cls: type[Value], key: str) -> Value | None:
    """The value under a key of the ledger's state, None for an absent one."""
    return read_all(ledger, cls, {"": key})[""]


def read_all(ledger: Ledger, cls: type[Value], keys: Mapping[str, str]) -> dict[str, Value | None]:
    """The values under several keys in one read, by the names that the caller gave them."""
    return read_tables(ledger, (cls, keys))[0]


def read_tables(ledger: Ledger, *tables: tuple[type[Any], Mapping[str, str]]) -> list[dict[str, Any]]:
    """As ``read_all`` for several classes: all values of one moment, in one read."""
    found = ledger.get([key for _, keys in tables for key in keys.values()])
    return [
        {name: None if (data := found[key]) is None else state.decode(cls, data) for name, key in keys.items()}
        for cls, keys in tables
    ]


def demand(ledger: Ledger, cls: type[Value], key: str) -> Value:
    """The value under a key that must be there.

    Raises:
        EvidenceError: ``state-missing``.
    """
    value = read(ledger, cls, key)
    if value is None:
        raise EvidenceError("state-missing", f"The ledger has no {key}.", next="fedledger status")
    return value
