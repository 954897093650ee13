# SPDX-License-Identifier: Apache-2.0
"""The blocks of a run's channel: each is verified as an auditor would, kept as it came, and replayed into the replica.

    a peer's block -> chaincode.blocks.Chain (orderers, endorsements, policies, validity, contract) -> blocks/ -> replica

So a run acts on nothing that a peer merely says; whose peer shows the blocks does not matter. ``blocks/`` is the evidence, the
replica follows from it: whatever of both is missing is made again, from the kept blocks and then from the peers.
"""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chaincode import artefacts
from chaincode.blocks.chain import Chain, Trust
from chaincode.blocks.reading import Block, Fault, read_or_fault
from chaincode.entries import Entry
from chaincode.files import read_bounded, replacing
from chaincode.ledgers.fabric.asking import Asking, UnfoundedError
from chaincode.ledgers.fabric.gateway import CallFailed, Peer
from chaincode.ledgers.fabric.identity import Member
from chaincode.ledgers.replica import Replica
from identity.errors import EvidenceError, Unavailable
from ops.ledger_network import UNTRUE

_CALL_SECONDS = 30.0
_NEXT_SECONDS = 1.0
Notice = Callable[[CallFailed], None]


class Feed:
    """The verified blocks of a channel, as far as this process knows them. Thread-safe."""

    def __init__(
        self, folder: Path, trust: Trust, replica: Replica, peers: Sequence[Peer], member: Member, *, notice: Notice,
        seconds: float,
    ) -> None:  # fmt: skip
        """``folder`` is the run's; the ``peers`` are asked in their order. ``seconds`` is how long nobody may answer."""
        self._folder, self._trust, self._replica, self._peers = folder, trust, replica, list(peers)
        self._asking = Asking(member, trust.channel, seconds, notice=notice)
        self._lock = threading.RLock()
        self._chain, self._count = Chain(trust), 0
        self._indexes: dict[str, int] = {}

    def resume(self) -> None:
        """Take over the blocks that an earlier process kept; those from a damaged one on are fetched again.

        Raises EvidenceError: mirror-*.
        """
        (self._folder / artefacts.BLOCKS).mkdir(exist_ok=True)
        for number in range(1 << 62):
            path = self._path(number)
            if not path.exists():
                break
            block = read_or_fault(read_bounded(path, artefacts.BLOCK_LIMIT), number, self._trust.chaincode)
            entries = list(self._chain.entries([block]))
            if self._chain.faults:
                self._forget(number)
                break
            self._replay(entries)

    def _forget(self, first: int) -> None:
        """Begin again without the kept blocks from a number on."""
        for path in sorted((self._folder / artefacts.BLOCKS).iterdir()):
            if path.name >= self._path(first).name:
                path.unlink()
        self._chain, self._count = Chain(self._trust), 0
        self._indexes.clear()
        self.resume()

    def catch_up(self, size: int = 0) -> None:
        """Read on to the newest block, and until there are ``size`` entries.

        Raises Unavailable(fabric-blocks) where no peer shows them; EvidenceError where what it shows does not hold.
        """
        with self._lock:
            self._read(None, _CALL_SECONDS)
            end = time.monotonic() + self._asking.patience
            while self._count < size:  # the peer that answers is behind the one that took the entries
                self._read(self._chain.height, _NEXT_SECONDS)
                if self._count < size and time.monotonic() >= end:
                    raise Unavailable("fabric-blocks", f"No peer shows the block of entry {size - 1}.")

    def index_of(self, entry: str) -> int | None:
        """The number of an entry that a verified block holds, None where none does."""
        return self._indexes.get(entry)

    def read_to(self, _peers: Sequence[Peer], block: int | None) -> None:
        """Read up to a block, which may be still to come, or (None) to the newest one. Raises as ``catch_up``."""
        with self._lock:
            if block is None:
                self._read(None, _CALL_SECONDS)
            elif block >= self._chain.height:
                self._read(block, _NEXT_SECONDS)

    def _read(self, last: int | None, turn: float) -> None:
        """Read up to a block, which may be still to come, or (None) to the newest one."""
        for _ in self._asking.blocks(self._peers, self._chain.height, last, self._take, turn=turn):
            pass

    def _take(self, shown: Any, peer: Peer, number: int) -> None:
        """Verify the next block, keep it, and replay it. Raises UnfoundedError, which names the peer that shows it."""
        data = shown.SerializeToString()
        block = read_or_fault(data, number, self._trust.chaincode)
        entries = list(self._chain.entries([block]))
        if self._chain.faults:
            fault, node = self._chain.faults[0], peer.node
            message = f"The channel, as {node.msp}'s peer {node.address} shows it, does not hold: {fault.what}"
            self._forget(number)  # a chain that has seen a fault believes nothing after it
            self._asking.notice(CallFailed("blocks", node, UNTRUE, message))
            self._peers.remove(peer)
            self._peers.append(peer)  # it is asked last from now on
            raise UnfoundedError(fault.code, message)
        with replacing(self._path(number), fsync=False) as file:  # a peer has it too
            file.write(data)
        self._replay(entries)

    def _replay(self, entries: list[Entry]) -> None:
        """Add to the replica what it has not, and hold it to what it has."""
        held = self._replica.size
        for index, entry in enumerate(entries, self._count):
            if index < held and self._replica.entry(index).id != entry.id:
                message = f"Entry {index} of the replica is not the one in the channel's blocks."
                raise EvidenceError(
                    "replica-differs", message, next=f"Remove {self._folder / 'ledger.sqlite'}: it is made again."
                )
        self._replica.extend(entries[max(0, held - self._count) :])
        self._indexes.update((entry.id, index) for index, entry in enumerate(entries, self._count))
        self._count += len(entries)

    def first(self) -> bytes:
        """The channel's first block, as it is kept."""
        return read_bounded(self._path(0), artefacts.BLOCK_LIMIT)

    def _path(self, number: int) -> Path:
        return self._folder / artefacts.block(number)


def first_hash(peers: Sequence[Peer], member: Member, channel: str, notice: Notice) -> bytes:
    """The hash of a channel's first block as peers show it, for a profile without one.

    Raises Unavailable(fabric-blocks), EvidenceError(block-malformed).
    """
    asking = Asking(member, channel, notice=notice)
    (first,) = asking.blocks(peers, 0, 0, lambda block, _peer, _place: block.SerializeToString(), turn=_CALL_SECONDS)
    return hash_of(first)


def hash_of(block: bytes) -> bytes:
    """The hash of a block. Raises EvidenceError(block-malformed)."""
    read: Block | Fault = read_or_fault(block, 0, "")
    if isinstance(read, Fault):
        raise EvidenceError(read.code, read.what)
    return read.hash
