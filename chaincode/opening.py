# SPDX-License-Identifier: Apache-2.0
"""Opening the entries of a long log on all cores: in threads, or from some thousands of entries on in child processes.

OpenSSL verifies without Python's lock, but reading an entry and judging it need the lock; so threads of one process gain
little beside a caller that judges. A child opens what it is sent and answers with what it read. It gets no key and decides
nothing: a child that ends leaves its entries to this process.

Run as a module it is such a child: frames of a length and a marshalled list, bytes in and rows out.
"""

import marshal
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain, cycle, islice
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any

from chaincode.entries import Entry, Fields, open_entry, open_fields
from chaincode.log import leaf_hash
from identity.errors import EvidenceError

Opened = tuple[bytes, bytes, Entry | EvidenceError]
"""An envelope, its leaf hash, and the entry that it holds or why it holds none."""

Row = tuple[bytes, Fields | tuple[str, str]]
"""A leaf hash, and the entry's fields, or code and message of why it is none."""

_CORES = min(8, os.cpu_count() or 1)
_BATCH, _BATCH_BYTES = 64, 1 << 18  # envelopes that are sent together
_LONG = 64  # batches from which on children pay: some 4,000 entries, or a third of a second
_AHEAD = 3  # batches that a child has before it, so that it never waits for the caller
_HEAD = 8  # bytes of a frame's length
_ROOT = str(Path(__file__).resolve().parents[1])


def opened(envelopes: Iterable[bytes]) -> Iterator[Opened]:
    """Open each envelope, in order. The envelopes are read somewhat ahead."""
    batches = _batches(iter(envelopes))
    first = list(islice(batches, _LONG))
    if len(first) == _LONG and _CORES > 1:
        yield from _by_children(chain(first, batches))
    elif len(first) > 1 and _CORES > 1:
        with ThreadPoolExecutor(_CORES) as pool:
            for some in pool.map(_open_some, first):
                yield from some
    else:
        for batch in chain(first, batches):
            yield from _open_some(batch)


def _batches(envelopes: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch, size = list[bytes](), 0
    for data in envelopes:
        batch.append(data)
        size += len(data)
        if len(batch) == _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _open_some(batch: Sequence[bytes]) -> list[Opened]:
    return [(data, leaf_hash(data), _open(data)) for data in batch]


def _open(data: bytes) -> Entry | EvidenceError:
    try:
        return open_entry(data)
    except EvidenceError as error:
        return error


def _by_children(batches: Iterator[list[bytes]]) -> Iterator[Opened]:
    """Send batches to the children in turn and take their answers in the same order."""
    children = [_Child() for _ in range(_CORES)]
    try:
        turns, under_way = cycle(children), deque[tuple[_Child, list[bytes]]]()
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
    """A process that opens entries. Whatever goes wrong with it, its entries are opened here instead."""

    def __init__(self) -> None:
        path = os.pathsep.join([_ROOT, *filter(None, sys.path)])
        # -P: nothing is imported from the working folder.
        command = [sys.executable, "-P", "-B", "-m", "chaincode.opening"]
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(
                command, env={"PYTHONPATH": path}, cwd="/",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError:  # no memory for a process
            return

    def send(self, batch: list[bytes]) -> None:
        if self._process is not None and self._process.stdin is not None:
            try:
                _write(self._process.stdin, marshal.dumps(batch))
            except OSError:  # it has ended
                self.end()

    def receive(self, batch: list[bytes]) -> list[Opened]:
        if self._process is not None and self._process.stdout is not None:
            # Something else in its output, a greeting of the interpreter's site, is no frame, whatever is made of it.
            with suppress(OSError, EOFError, ValueError, TypeError, OverflowError, MemoryError):
                rows = _read(self._process.stdout)
                if rows is not None:
                    pairs = zip(batch, rows, strict=True)
                    return [(data, leaf, _from_row(fields, data)) for data, (leaf, fields) in pairs]
        self.end()
        return _open_some(batch)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()  # it holds nothing that could be lost
            self._process.communicate()
            self._process = None


def _write(pipe: IO[bytes], frame: bytes) -> None:
    pipe.write(len(frame).to_bytes(_HEAD, "big") + frame)
    pipe.flush()


def _read(pipe: IO[bytes]) -> Any:
    """The next frame, None where the other side has ended."""
    length = int.from_bytes(pipe.read(_HEAD), "big")
    frame = pipe.read(length)
    return marshal.loads(frame) if frame and len(frame) == length else None  # noqa: S302 (our own process wrote it)


def _to_row(data: bytes) -> Row:
    """What a child answers for one envelope."""
    try:
        return leaf_hash(data), open_fields(data)
    except EvidenceError as error:
        return leaf_hash(data), (error.code, error.message)


def _from_row(fields: Fields | tuple[str, str], data: bytes) -> Entry | EvidenceError:
    return EvidenceError(*fields) if len(fields) == 2 else Entry(*fields, data)


def _serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """The child: answer each batch, with a thread that reads ahead, so that neither side waits for the other to read."""
    batches = SimpleQueue[list[bytes] | None]()

    def read_ahead() -> None:
        try:
            while (batch := _read(source)) is not None:
                batches.put(batch)
        finally:  # also where there is no memory for a batch: the other side waits for answers
            batches.put(None)

    Thread(target=read_ahead, daemon=True).start()
    while (batch := batches.get()) is not None:
        _write(sink, marshal.dumps([_to_row(data) for data in batch]))


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
