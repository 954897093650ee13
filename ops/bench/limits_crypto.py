# SPDX-License-Identifier: Apache-2.0
"""The two physical limits: bare Ed25519 verification and bare SHA-256, on one core and on all of them at once."""

import hashlib
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chaincode.threads import CORES
from identity import envelope
from identity.did import public_key_from_did

Signed = tuple[bytes, bytes, bytes]
"""(public key, signature, message)"""


def messages(envelopes: Iterable[bytes]) -> list[Signed]:
    """What is verified of envelopes, taken apart beforehand."""
    opened = [envelope.parse(data) for data in envelopes]
    return [(public_key_from_did(e.did), e.signature, envelope.pae(e.payload_type, e.payload)) for e in opened]


def prepared(signed: Sequence[Signed]) -> list[tuple[Ed25519PublicKey, bytes, bytes]]:
    """The same with the key objects of the library that verifies, each made once."""
    keys = {raw: Ed25519PublicKey.from_public_bytes(raw) for raw in {raw for raw, _, _ in signed}}
    return [(keys[raw], signature, message) for raw, signature, message in signed]


def verify_seconds(ready: Sequence[tuple[Ed25519PublicKey, bytes, bytes]]) -> float:
    """Seconds in which one thread verifies the messages, and does nothing else."""
    begin = time.perf_counter()
    for key, signature, message in ready:
        key.verify(signature, message)
    return time.perf_counter() - begin


class AllCores:
    """A process on each core that verifies the same messages when it is told to, all at the same time."""

    def __init__(self, signed: Sequence[Signed], count: int = CORES) -> None:
        context = get_context("spawn")
        self.messages = len(signed) * count
        self._ends: list[Connection] = []
        self._processes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, list(signed)), daemon=True)
            process.start()
            theirs.close()  # so that a process which dies is an EOFError here, and nobody waits for it
            self._ends.append(ours)
            self._processes.append(process)
        for end in self._ends:
            end.recv()

    def seconds(self) -> float:
        """Seconds from the first one's start to the last one's end, for ``messages`` messages together."""
        for end in self._ends:
            end.send(True)
        spans = [end.recv() for end in self._ends]
        return float(max(stop for _, stop in spans) - min(start for start, _ in spans))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in self._ends:
            end.send(False)
        for process in self._processes:
            process.join()


def _serve(end: Connection, signed: list[Signed]) -> None:
    ready = prepared(signed)
    end.send(None)
    while end.recv():
        begin = time.perf_counter()  # one clock for all processes of the machine
        verify_seconds(ready)
        end.send((begin, time.perf_counter()))


def hash_seconds(parts: Sequence[memoryview | bytes], threads: int = 1) -> float:
    """Seconds of SHA-256 over bytes, the parts dealt out once to ``threads`` threads: to hand over a small part costs more
    than to hash it."""
    begin = time.perf_counter()
    if threads == 1:
        _hash(parts)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(_hash, [parts[number::threads] for number in range(threads)]))
    return time.perf_counter() - begin


def _hash(parts: Sequence[memoryview | bytes]) -> None:
    for part in parts:
        hashlib.sha256(part).digest()


def cut(data: memoryview, count: int) -> list[memoryview]:
    """Bytes in that many parts of about one size."""
    cuts = [len(data) * i // count for i in range(count + 1)]
    return [data[low:high] for low, high in pairwise(cuts)]
