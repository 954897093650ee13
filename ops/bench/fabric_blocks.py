# SPDX-License-Identifier: Apache-2.0
"""The verification of a channel's blocks beside the bare rate of the signatures in them, on one core."""

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from chaincode.blocks import orderers, transactions
from chaincode.blocks.chain import Chain, Fault, Trust, read_or_fault
from chaincode.blocks.readers import read_blocks
from chaincode.blocks.reading import Block
from chaincode.blocks.signatures import named, verifies
from ops.bench.limits_crypto import messages, prepared
from ops.bench.limits_measure import Paired, take_turns

Verified = tuple[bytes, bytes, bytes]
"""(identity, message, signature)"""
_ECDSA = ec.ECDSA(SHA256())


@dataclass(frozen=True, slots=True)
class Verification:
    """What was measured: seconds of both, and what there is in the blocks."""

    taken: Paired
    blocks: int
    entries: int
    signatures: int
    """Of orderers, endorsers and clients (ECDSA); each entry has one of its author's (Ed25519) beside."""
    all_cores: float
    """Seconds of the same verification as the auditor does it: on all cores."""


def verification(blocks: Sequence[bytes], trust: Trust, turns: int) -> Verification:
    """Verify blocks and their signatures alone in turns. Raises RuntimeError where the blocks do not verify."""

    def whole(read: Iterable[Block | Fault] = ()) -> list[bytes]:
        chain = Chain(trust)
        read = read or (read_or_fault(data, number, trust.chaincode) for number, data in enumerate(blocks))
        entries = [entry.envelope for entry in chain.entries(read)]
        if chain.faults:
            raise RuntimeError(f"the blocks of the benchmark do not verify: {chain.faults[0].what}")
        return entries

    with _noted() as asked:
        entries = whole()
    bare = _bare(asked, entries)
    gc.collect()
    gc.freeze()  # an auditor's process has no benchmark's objects for the collector to look at
    taken = take_turns(bare, lambda: _seconds(whole), turns)
    all_cores = _seconds(lambda: whole(read_blocks(blocks, trust.chaincode)))
    gc.unfreeze()
    return Verification(taken, len(blocks), len(entries), len(asked), all_cores)


def _seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


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


def _bare(asked: Sequence[Verified], entries: Sequence[bytes]) -> Callable[[], float]:
    """Seconds in which one thread verifies these signatures, their keys ready, and does nothing else."""
    keys = [(who.key, message, signature) for identity, message, signature in asked if (who := named(identity))]
    authors = prepared(messages(entries))

    def run() -> float:
        begin = time.perf_counter()
        for key, message, signature in keys:
            if isinstance(key, Ed25519PublicKey):
                key.verify(signature, message)
            else:
                key.verify(signature, message, _ECDSA)
        for author, signature, message in authors:
            author.verify(signature, message)
        return time.perf_counter() - begin

    return run
