# SPDX-License-Identifier: Apache-2.0
"""The port that every ledger implements, and what a host checks at its door before the contract is asked."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from chaincode.entries import Entry, open_entry
from chaincode.state import Federation
from chaincode.views import value_of
from identity.errors import EvidenceError, Rejected

DEFAULT_SKEW = 60
"""Seconds that an entry's time may be off the host's clock where no federation says otherwise yet."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The entry is on the ledger, durably: its id (hex) and its number in the log, from 0."""

    entry: str
    index: int


class Ledger(Protocol):
    """An append-only log of entries and the state that the contract made of them."""

    def submit(self, envelopes: Sequence[bytes]) -> list[Receipt | Rejected]:
        """Judge entries one after the other; an outcome each, in order.

        An entry that is in already answers with its first receipt, before any clock is asked. Bytes that are no
        entry are Rejected with the code of what is wrong with them. A rejected entry leaves nothing behind.

        Raises Unavailable where nothing was stored, OutcomeUnknown where that cannot be told; to submit the
        same entries again is safe.
        """

    def get(self, keys: Collection[str]) -> dict[str, bytes | None]:
        """Return the state under each key, None where there is none."""

    def entries(self, start: int = 0) -> Iterator[bytes]:
        """Iterate over the envelopes in the log's order, from number `start`."""


def open_or_refuse(data: bytes) -> Entry | Rejected:
    """Open an envelope, or say with the evidence's code why it is none."""
    try:
        return open_entry(data)
    except EvidenceError as error:
        return Rejected(error.code, error.message)


@dataclass(frozen=True, slots=True)
class Door:
    """What a host holds an entry to beside the contract: its clock, its log's name and its log's key.

    `log_key` is None where the ledger signs no log; `skew` (seconds) is the policy in force when a batch arrives;
    replay never asks it.
    """

    origin: str
    log_key: str | None
    skew: int = DEFAULT_SKEW

    def under(self, federation: Federation | bytes | None) -> "Door":
        """Return the door under the policy of the stored federation, if there is one yet."""
        found = value_of(Federation, federation)
        return self if found is None else Door(self.origin, self.log_key, found.skew)

    def refusal(self, entry: Entry, now: int) -> Rejected | None:
        """Return why the entry may not pass at the host's time `now` (UTC seconds): clock-skew, log-key-mismatch."""
        if abs(entry.at - now) > self.skew:
            message = f"Entry {entry.id[:12]} says {entry.at}; it is {now}, and {self.skew} s apart are allowed."
            return Rejected("clock-skew", message)
        stated = (entry.body["origin"], entry.body["log_key"]) if entry.kind == "found" else None
        if stated and stated != (self.origin, self.log_key):
            message = f"The founding entry is for the log {stated[0]} with key {stated[1]}, not for this ledger."
            return Rejected("log-key-mismatch", message)
        return None
