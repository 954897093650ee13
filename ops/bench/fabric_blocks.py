# SPDX-License-Identifier: Apache-2.0
"""The verification of a channel's blocks beside the bare rate of the signatures in them: on one core with what each part of it
takes, and on all cores.

On one core it is processor time that is compared, of the one thread: what else the machine does meanwhile is not in it.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from chaincode.blocks import orderers, transactions
from chaincode.blocks.chain import Chain, Trust
from chaincode.blocks.readers import read_blocks
from chaincode.blocks.reading import Block, Fault, read_or_fault
from chaincode.blocks.signatures import named, verifies
from chaincode.threads import CORES
from ops.bench.limits_crypto import AllCores, messages, prepared, verify_seconds
from ops.bench.limits_measure import Paired, Timed, as_an_auditor, take_turns, timed

Verified = tuple[bytes, bytes, bytes]
"""(identity, message, signature)"""
_ECDSA = ec.ECDSA(SHA256())
SAMPLE = 2000
"""Entries whose signatures say how much faster all cores verify than one."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Processor seconds, the least of some turns: the network's signatures (of clients, endorsers and orderers), the authors', reading the blocks,
    opening the entries in them, and judging both: validity, the contract's replay, what was written."""

    network: float
    authors: float
    reading: float
    opening: float
    judging: float

    @property
    def whole(self) -> float:
        return self.network + self.authors + self.reading + self.opening + self.judging


@dataclass(frozen=True, slots=True)
class Verification:
    """What was measured: processor seconds of both, and what there is in the blocks."""

    taken: Paired
    parts: Parts
    blocks: int
    entries: int
    signatures: int
    """Of orderers, endorsers and clients (ECDSA); each entry has one of its author's (Ed25519) beside."""


@dataclass(frozen=True, slots=True)
class Everywhere:
    """Seconds for a longer channel on all cores, as an auditor does it. ``bare`` are those of its signatures alone."""

    seconds: float
    bare: float
    speedup: float
    """How much faster all cores verify signatures than one of them, measured."""
    entries: int
    size: int


class _Channel:
    """Blocks that verify, and the signatures in them with their keys ready."""

    def __init__(self, blocks: Sequence[bytes], trust: Trust) -> None:
        """Raises RuntimeError where the blocks do not verify."""
        self.blocks, self.trust = blocks, trust
        with _noted() as asked:
            self.entries = self.verify()
        self.network = [(who.key, message, signature) for one, message, signature in asked if (who := named(one))]
        self.authors = prepared(messages(self.entries))

    def verify(self, *, cores: bool = False) -> list[bytes]:
        """Verify the blocks, on this core or as an auditor does it; the entries."""
        chain = Chain(self.trust)
        read: Iterable[Block | Fault] = (
            read_blocks(self.blocks, self.trust.chaincode) if cores else self.read(self.trust.chaincode)
        )
        entries = [entry.envelope for entry in chain.entries(read)]
        if chain.faults:
            raise RuntimeError(f"the blocks of the benchmark do not verify: {chain.faults[0].what}")
        return entries

    def read(self, chaincode: str) -> Iterator[Block | Fault]:
        """Read the blocks, and open the entries in them that are for a chaincode."""
        return (read_or_fault(data, number, chaincode) for number, data in enumerate(self.blocks))

    def check_network(self) -> None:
        """Verify the network's signatures, and do nothing else."""
        for key, message, signature in self.network:
            if isinstance(key, Ed25519PublicKey):
                key.verify(signature, message)
            else:
                key.verify(signature, message, _ECDSA)

    def check_authors(self) -> None:
        """Verify the authors' signatures, and do nothing else."""
        for key, signature, message in self.authors:
            key.verify(signature, message)

    def check_all(self) -> None:
        """Verify all signatures, and do nothing else."""
        self.check_network()
        self.check_authors()


def verification(blocks: Sequence[bytes], trust: Trust, turns: int) -> Verification:
    """Verify blocks and their signatures alone in turns. Raises RuntimeError where the blocks do not verify."""
    channel = _Channel(blocks, trust)
    with as_an_auditor():
        taken = take_turns(_processor(channel.check_all), _processor(channel.verify), turns)
        parts = _parts(channel, turns)
    return Verification(taken, parts, len(blocks), len(channel.entries), len(channel.network))


def everywhere(blocks: Sequence[bytes], trust: Trust) -> Everywhere:
    """Verify a long channel on all cores. Raises RuntimeError where the blocks do not verify."""
    channel = _Channel(blocks, trust)
    some = messages(channel.entries[:SAMPLE])
    with AllCores(some) as cores, as_an_auditor():
        pairs = [(verify_seconds(channel.authors[: len(some)]), cores.seconds()) for _ in range(3)]
        speedup = max(1.0, CORES * min(one for one, _ in pairs) / min(all_ for _, all_ in pairs))
        bare = timed(channel.check_all)() / speedup
        seconds = median(timed(lambda: channel.verify(cores=True))() for _ in range(3))
    return Everywhere(seconds, bare, speedup, len(channel.entries), sum(map(len, blocks)))


def _parts(channel: _Channel, turns: int) -> Parts:
    """What each part of a verification takes: the difference that it makes."""
    own = channel.trust.chaincode
    actions = (channel.check_network, channel.check_authors, lambda: list(channel.read("")), lambda: list(channel.read(own)),
               channel.verify)  # fmt: skip
    times = [[_processor(action)() for action in actions] for _ in range(turns)]
    network, authors, read, opened, whole = map(min, zip(*times, strict=True))
    ordered = network * len(channel.blocks) / len(channel.network)  # the orderers' signatures are verified in judging
    return Parts(network, authors, read - network + ordered, opened - read - authors, whole - opened - ordered)


def _processor(action: Callable[[], object]) -> Timed:
    """An action of whose processor time everything counts."""

    def run() -> float:
        begin = time.thread_time()
        action()
        return time.thread_time() - begin

    return run


@contextmanager
def _noted() -> Iterator[list[Verified]]:
    """Note which of the network's signatures are verified meanwhile."""
    asked: list[Verified] = []
    places = (transactions, orderers)
    real = verifies

    def noting(identity: bytes, message: bytes, signature: bytes) -> bool:
        asked.append((identity, message, signature))
        return real(identity, message, signature)

    for place in places:
        place.verifies = noting  # type: ignore[attr-defined]
    try:
        yield asked
    finally:
        for place in places:
            place.verifies = real  # type: ignore[attr-defined]
