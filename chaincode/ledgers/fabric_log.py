# SPDX-License-Identifier: Apache-2.0
"""The log on a channel: which entry has which number, learned from the blocks in their order.

It reads each block once, checks that it follows from the one before (so that peers that take turns cannot show different
histories), and remembers where entries are: some 150 bytes for each. Envelopes stay with the peers.
"""

import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from chaincode.ledgers.fabric_blocks import Logged, data_hash, entries_of, header_hash
from chaincode.ledgers.fabric_gateway import CallFailed, Peer
from chaincode.ledgers.fabric_identity import Member
from chaincode.ledgers.fabric_messages import FOR_EVER, seek
from chaincode.ledgers.fabric_profile import Place
from identity.errors import EvidenceError, Unavailable


class BlockLog:
    """The log as the blocks of a channel make it. Thread-safe.

    `genesis` is the hash of the channel's first block where it is known; another channel is refused then.
    """

    def __init__(self, member: Member, place: Place, genesis: bytes | None, patience: float) -> None:
        self._member, self._channel, self._chaincode = member, place.channel, place.chaincode
        self._genesis, self._patience = genesis, patience
        self._lock = threading.RLock()
        self._indexes: dict[bytes, int] = {}
        self._first: list[int] = []  # of each block that adds entries: the number of its first one
        self._block: list[int] = []  # and its own number
        self._versions: list[tuple[str, int]] = []
        self._next, self._tip = 0, b""

    @property
    def size(self) -> int:
        """The number of entries seen so far."""
        return len(self._indexes)

    @property
    def versions(self) -> list[tuple[str, int]]:
        """Which version of the contract judged the entries seen so far: its source's digest, and how many in a row."""
        with self._lock:
            return list(self._versions)

    def index_of(self, entry: str) -> int | None:
        """Return the number of an entry, None where it has not been seen."""
        return self._indexes.get(bytes.fromhex(entry))

    def read_to(self, peers: Sequence[Peer], block: int | None) -> None:
        """Read the blocks up to a number, waiting for it to come; None: up to the newest now.

        Raises Unavailable(fabric-blocks), EvidenceError: fabric-block, fabric-fork, fabric-genesis.
        """
        with self._lock:
            if block is None or block >= self._next:
                for _ in self._stream(peers, self._next, block, self._patience):
                    pass

    def entries(self, peers: Sequence[Peer], start: int, *, follow: bool = False) -> Iterator[bytes]:
        """Iterate over the envelopes from number `start` to the newest now; with `follow`, on as they come.

        Raises as `read_to`; with `follow` Unavailable only after `patience` without any peer.
        """
        with self._lock:
            place = bisect_right(self._first, start) - 1
            block = self._block[place] if 0 <= start < self.size else self._next
        for number, logged in self._stream(
            peers, block, FOR_EVER if follow else None, None if follow else self._patience
        ):
            if number >= start:
                yield logged.envelope

    def _stream(
        self, peers: Sequence[Peer], block: int, last: int | None, timeout: float | None
    ) -> Iterator[tuple[int, Logged]]:
        """Iterate over numbered entries from a block on, by another peer where one fails."""
        given_up = time.monotonic() + self._patience
        while True:
            for peer in peers:
                try:
                    for read in peer.blocks(seek(self._member, self._channel, block, last, int(time.time())), timeout):
                        block = read.header.number + 1
                        given_up = time.monotonic() + self._patience
                        yield from self._absorb(read)
                    return
                except CallFailed as failure:
                    if last is None and block and failure.code == "NOT_FOUND":
                        return  # there is no block after those that were read
                    failed = failure
            if time.monotonic() >= given_up:
                raise Unavailable(
                    "fabric-blocks", f"No peer shows the blocks: {failed}.", next="fedledger fabric status"
                )
            time.sleep(0.2)

    def _absorb(self, block: Any) -> list[tuple[int, Logged]]:
        """Number a block's entries, and remember them where the block is new."""
        number, logged = block.header.number, list(entries_of(block, self._chaincode))
        with self._lock:
            if number == self._next:
                self._check(block)
                self._next, self._tip = number + 1, header_hash(block.header)
                fresh = [one for one in logged if bytes.fromhex(one.entry) not in self._indexes]
                if fresh:
                    self._first.append(self.size)
                    self._block.append(number)
                for one in fresh:
                    self._indexes[bytes.fromhex(one.entry)] = self.size
                    self._count(one.version)
                return list(enumerate(fresh, self.size - len(fresh)))
            # A later reader of a block that was absorbed before: an entry that came twice is numbered where it came first.
            place = bisect_right(self._block, number) - 1
            first = self._first[place] if place >= 0 and self._block[place] == number else self.size
            found = [(self._indexes[bytes.fromhex(one.entry)], one) for one in logged]
            return [(index, one) for index, one in found if index >= first]

    def _count(self, version: str) -> None:
        """Note which version judged the next entry."""
        last, count = self._versions.pop() if self._versions else (version, 0)
        self._versions += [(last, count + 1)] if last == version else [(last, count), (version, 1)]

    def _check(self, block: Any) -> None:
        """Check that a block is whole, and the one that follows. Raises EvidenceError: fabric-fork, fabric-genesis."""
        number = block.header.number
        if data_hash(block) != block.header.data_hash:
            raise EvidenceError("fabric-fork", f"The transactions of block {number} are not those of its header.")
        if number and block.header.previous_hash != self._tip:
            raise EvidenceError(
                "fabric-fork", f"Block {number} does not follow from the block that was read before it."
            )
        if not number and self._genesis not in (None, header_hash(block.header)):
            raise EvidenceError(
                "fabric-genesis", f"The channel {self._channel} has another first block than the profile's."
            )
