# SPDX-License-Identifier: Apache-2.0
"""A ledger in memory: the port in its plainest form, one entry after the other, as an oracle and for quick tests."""

from collections.abc import Callable, Collection, Iterator, Sequence

from chaincode import contract, log, state
from chaincode.entries import open_entry
from chaincode.ledgers import DEFAULT_SKEW, Door, Receipt
from chaincode.proofs import Found
from identity.errors import EvidenceError, Rejected


class MemoryLedger:
    """Holds the log and the state in lists and dicts; forgets them with the process."""

    def __init__(self, *, origin: str, log_key: str | None, clock: Callable[[], int], skew: int = DEFAULT_SKEW) -> None:
        self._door = Door(origin, log_key, skew)
        self._clock = clock
        self._log: list[bytes] = []
        self._receipts: dict[str, Receipt] = {}
        self._state: dict[str, bytes] = {}

    def submit(self, envelopes: Sequence[bytes]) -> list[Receipt | Rejected]:
        door = self._door.under(self._state.get(state.FEDERATION))
        return [self._submit_one(envelope, door) for envelope in envelopes]

    def get(self, keys: Collection[str]) -> dict[str, bytes | None]:
        return {key: self._state.get(key) for key in keys}

    def entries(self, start: int = 0) -> Iterator[bytes]:
        yield from self._log[max(start, 0) :]

    def entry(self, which: str) -> Found:
        """The entry of an id."""
        return Found(self._log[self._receipts[which].index])

    def root(self) -> bytes:
        return log.root([log.leaf_hash(envelope) for envelope in self._log])

    def state_items(self) -> list[tuple[str, bytes]]:
        return sorted(self._state.items())

    def _submit_one(self, envelope: bytes, door: Door) -> Receipt | Rejected:
        try:
            entry = open_entry(envelope)
        except EvidenceError as error:
            return Rejected(error.code, error.message)
        if entry.id in self._receipts:
            return self._receipts[entry.id]
        if refusal := door.refusal(entry, self._clock()):
            return refusal
        try:
            self._state.update(contract.apply(entry, self.get(contract.keys(entry))))
        except Rejected as refusal:
            return refusal
        self._receipts[entry.id] = Receipt(entry.id, len(self._log))
        self._log.append(envelope)
        return self._receipts[entry.id]
