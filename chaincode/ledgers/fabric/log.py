# SPDX-License-Identifier: Apache-2.0
"""The log on a channel: which entry has which number, learned from the blocks in their order.

It reads each block once, checks that it follows from the one before (so that peers that take turns cannot show different
histories), and remembers where entries are, also between processes: some 150 bytes for each. Envelopes stay with the peers.
"""

import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from chaincode.ledgers.fabric.asking import Asking, misplaced
from chaincode.ledgers.fabric.blocks import Logged, data_hash, entries_of, header_hash
from chaincode.ledgers.fabric.gateway import Peer
from chaincode.ledgers.fabric.identity import Member
from chaincode.ledgers.fabric.messages import FOR_EVER
from chaincode.ledgers.fabric.pauses import Pauses
from chaincode.ledgers.fabric.positions import Positions, load, place_of, save
from chaincode.ledgers.fabric.profile import Place
from identity.errors import EvidenceError

WORTH = 32
"""Blocks that are new since the last time, before what was seen is kept again."""
TURN_SECONDS = 5.0
"""How long one peer is waited for that is behind or slow, before the next one is asked; twice as long each time it is in vain."""


class Numbers(Protocol):
    """Where entries are in the log: what a client that submits asks of whoever reads the blocks."""

    def index_of(self, entry: str) -> int | None:
        """Return the number of an entry, None where it has not been seen."""

    def read_to(self, peers: Sequence[Peer], block: int | None) -> None:
        """Read the blocks up to a number, waiting for it to come; None: up to the newest now.

        The peers are those that the client knows. Raises Unavailable(fabric-blocks), EvidenceError.
        """


class BlockLog:
    """The log as the blocks of a channel make it. Thread-safe.

    `genesis` is the hash of the channel's first block where it is known; another channel is refused then, and what was seen
    is kept in `folder` for later processes.
    """

    def __init__(
        self, member: Member, place: Place, genesis: bytes | None, *, patience: float, pauses: Pauses,
        folder: Path | None = None,
    ) -> None:  # fmt: skip
        self._channel, self._chaincode, self._genesis = place.channel, place.chaincode, genesis
        self._asking = Asking(member, place.channel, patience, pauses)
        self._lock = threading.RLock()
        self._kept = None if folder is None or genesis is None else place_of(folder, genesis, place.chaincode)
        self._seen = Positions() if self._kept is None else load(self._kept)
        self._saved = self._seen.next

    @property
    def size(self) -> int:
        """The number of entries seen so far."""
        return len(self._seen.indexes)

    @property
    def versions(self) -> list[tuple[str, int]]:
        """Which version of the contract judged the entries seen so far: its source's digest, and how many in a row."""
        with self._lock:
            return list(self._seen.versions)

    def save(self) -> None:
        """Keep what was seen, where it is worth it: a later process goes on from there. It is a cache, so failures pass."""
        with self._lock, suppress(OSError):
            if self._kept is not None and self._seen.next >= self._saved + WORTH:
                save(self._kept, self._seen)
                self._saved = self._seen.next

    def index_of(self, entry: str) -> int | None:
        """Return the number of an entry, None where it has not been seen."""
        return self._seen.indexes.get(bytes.fromhex(entry))

    def read_to(self, peers: Sequence[Peer], block: int | None) -> None:
        """Read the blocks up to a number, waiting for it to come; None: up to the newest now.

        Raises Unavailable(fabric-blocks), EvidenceError: fabric-block, fabric-fork, fabric-genesis.
        """
        with self._lock:
            if block is None or block >= self._seen.next:
                for _ in self._stream(peers, self._seen.next, block):
                    pass

    def entries(self, peers: Sequence[Peer], start: int, *, follow: bool = False) -> Iterator[bytes]:
        """Iterate over the envelopes from number `start` to the newest now; with `follow`, on as they come.

        No entry that was seen here before is left out: a peer that is behind is waited for.
        Raises as `read_to`; with `follow` Unavailable only after `patience` without any peer.
        """
        with self._lock:
            place = bisect_right(self._seen.first, start) - 1
            block = self._seen.block[place] if 0 <= start < self.size else self._seen.next
            seen = self._seen.next
        if follow:
            blocks = self._stream(peers, block, FOR_EVER)
        else:
            blocks = chain(self._stream(peers, block, seen - 1), self._stream(peers, seen, None))
        for number, logged in blocks:
            if number >= start:
                yield logged.envelope

    def _stream(self, peers: Sequence[Peer], block: int, last: int | None) -> Iterator[tuple[int, Logged]]:
        """Iterate over numbered entries of the blocks from one to another."""
        turn = min(TURN_SECONDS, self._asking.patience)
        return chain.from_iterable(self._asking.blocks(peers, block, last, self._absorb, turn=turn))

    def _absorb(self, block: Any, peer: Peer, place: int) -> list[tuple[int, Logged]]:
        """Number a block's entries, and remember them where the block is new. Raises CallFailed where it is of another place."""
        if block.header.number != place:
            raise misplaced(peer, block, place)
        number, logged = block.header.number, list(entries_of(block, self._chaincode))
        with self._lock:
            if number == self._seen.next:
                self._check(block)
                self._seen.next, self._seen.tip = number + 1, header_hash(block.header)
                fresh = [one for one in logged if bytes.fromhex(one.entry) not in self._seen.indexes]
                if fresh:
                    self._seen.first.append(self.size)
                    self._seen.block.append(number)
                for one in fresh:
                    self._seen.indexes[bytes.fromhex(one.entry)] = self.size
                    self._seen.count(one.version)
                return list(enumerate(fresh, self.size - len(fresh)))
            # A later reader of a block that was absorbed before: an entry that came twice is numbered where it came first.
            known = bisect_right(self._seen.block, number) - 1
            first = after = self.size
            if known >= 0 and self._seen.block[known] == number:
                first = self._seen.first[known]
                after = self._seen.first[known + 1] if known + 1 < len(self._seen.first) else self.size
            found = [(self._seen.indexes.get(bytes.fromhex(one.entry), -1), one) for one in logged]
            own = [(index, one) for index, one in found if index >= first]
            if [index for index, _ in own] != list(range(first, after)) or any(index < 0 for index, _ in found):
                shown = f"as {peer.node.msp}'s peer {peer.node.address} shows it"
                raise EvidenceError("fabric-fork", f"Block {number}, {shown}, is another one than was read before.")
            return own

    def _check(self, block: Any) -> None:
        """Check that a block is whole, and the one that follows. Raises EvidenceError: fabric-fork, fabric-genesis."""
        number = block.header.number
        if data_hash(block) != block.header.data_hash:
            raise EvidenceError("fabric-fork", f"The transactions of block {number} are not those of its header.")
        if number and block.header.previous_hash != self._seen.tip:
            raise EvidenceError(
                "fabric-fork", f"Block {number} does not follow from the block that was read before it."
            )
        if not number and self._genesis not in (None, header_hash(block.header)):
            raise EvidenceError(
                "fabric-genesis", f"The channel {self._channel} has another first block than the profile's."
            )
