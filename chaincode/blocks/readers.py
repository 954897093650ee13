# SPDX-License-Identifier: Apache-2.0
"""Reading the blocks of a long channel on all cores: in child processes, which verify signatures and decide nothing else.

What a block says does not depend on any other block (``reading``); so children read, and the caller judges in order. A child
gets no key, and one that ends leaves its blocks to the caller's own process.

Run as a module it is such a child: frames of a length and marshalled blocks, bytes in and readings out.
"""

import marshal
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, cycle, islice
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any, Final

from chaincode.blocks.chain import Fault, read_or_fault
from chaincode.blocks.reading import Block
from chaincode.blocks.transactions import Call, Space, Transaction

_CORES: Final = min(8, os.cpu_count() or 1)
_BATCH_BYTES: Final = 1 << 18
_LONG: Final = 16  # batches from which on children pay: some 4 MB of blocks
_AHEAD: Final = 3  # batches that a child has before it
_HEAD: Final = 8  # bytes of a frame's length
_ROOT: Final = str(Path(__file__).resolve().parents[2])
Batch = list[tuple[int, bytes]]


def read_blocks(blocks: Iterable[bytes], chaincode: str) -> Iterator[Block | Fault]:
    """Read each block, in order, with the entries in it that are for ``chaincode``. The blocks are taken somewhat ahead."""
    batches = _batches(enumerate(blocks))
    first = list(islice(batches, _LONG))
    if len(first) == _LONG and _CORES > 1:
        yield from _by_children(chain(first, batches), chaincode)
    else:
        for batch in chain(first, batches):
            yield from _read_some(batch, chaincode)


def _batches(blocks: Iterator[tuple[int, bytes]]) -> Iterator[Batch]:
    batch, size = list[tuple[int, bytes]](), 0
    for number, data in blocks:
        batch.append((number, data))
        size += len(data)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read_some(batch: Batch, chaincode: str) -> list[Block | Fault]:
    return [read_or_fault(data, number, chaincode) for number, data in batch]


def _by_children(batches: Iterator[Batch], chaincode: str) -> Iterator[Block | Fault]:
    children = [_Child(chaincode) for _ in range(_CORES)]
    try:
        turns, under_way = cycle(children), deque[tuple[_Child, Batch]]()
        for batch, child in zip(batches, turns, strict=False):
            child.send(batch)
            under_way.append((child, batch))
            if len(under_way) >= _AHEAD * len(children):
                first, sent = under_way.popleft()
                yield from first.receive(sent)
        for child, batch in under_way:
            yield from child.receive(batch)
    finally:
        for child in children:
            child.end()


class _Child:
    """A process that reads blocks. Whatever goes wrong with it, its blocks are read here instead."""

    def __init__(self, chaincode: str) -> None:
        self._chaincode = chaincode
        path = os.pathsep.join([_ROOT, *filter(None, sys.path)])
        command = [sys.executable, "-P", "-B", "-m", "chaincode.blocks.readers", chaincode]
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(
                command, env={"PYTHONPATH": path}, cwd="/",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError:  # no memory for a process
            return

    def send(self, batch: Batch) -> None:
        if self._process is not None and self._process.stdin is not None:
            try:
                _write(self._process.stdin, batch)
            except OSError:  # it has ended
                self.end()

    def receive(self, batch: Batch) -> list[Block | Fault]:
        rows = None
        if self._process is not None and self._process.stdout is not None:
            rows = _read(self._process.stdout)
        if rows is None:
            self.end()
            return _read_some(batch, self._chaincode)
        return [_from_row(row) for row in rows]

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()  # it holds nothing that could be lost
            self._process.communicate()
            self._process = None


def _to_row(block: Block | Fault) -> tuple[Any, ...]:
    """A reading as plain tuples all through, which marshal takes."""
    if isinstance(block, Fault):
        return tuple(block)
    return (*block[:5], tuple(_plain(one) for one in block.transactions), block.fault)


def _plain(transaction: Transaction) -> tuple[Any, ...]:
    call = transaction.call
    row = None if call is None else (*call[:7], tuple(map(tuple, call.spaces)), call.entries)
    return (*transaction[:9], row, transaction.data)


def _from_row(row: tuple[Any, ...]) -> Block | Fault:
    if len(row) == len(Fault._fields):
        return Fault._make(row)
    return Block._make((*row[:5], tuple(_transaction(one) for one in row[5]), row[6]))


def _transaction(row: tuple[Any, ...]) -> Transaction:
    call = row[9]
    made = None if call is None else Call._make((*call[:7], tuple(Space._make(one) for one in call[7]), call[8]))
    return Transaction._make((*row[:9], made, row[10]))


def _write(pipe: IO[bytes], rows: Any) -> None:
    frame = marshal.dumps(rows)
    pipe.write(len(frame).to_bytes(_HEAD, "big") + frame)
    pipe.flush()


def _read(pipe: IO[bytes]) -> Any:
    """The next frame, None where the other side has ended."""
    length = int.from_bytes(pipe.read(_HEAD), "big")
    frame = pipe.read(length)
    return marshal.loads(frame) if frame and len(frame) == length else None  # noqa: S302 (our own process wrote it)


def _serve(source: IO[bytes], sink: IO[bytes], chaincode: str) -> None:
    """The child: answer each batch, with a thread that reads ahead."""
    batches = SimpleQueue[Batch | None]()

    def read_ahead() -> None:
        while (batch := _read(source)) is not None:
            batches.put(batch)
        batches.put(None)

    Thread(target=read_ahead, daemon=True).start()
    while (batch := batches.get()) is not None:
        _write(sink, [_to_row(one) for one in _read_some(batch, chaincode)])


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer, sys.argv[1])
