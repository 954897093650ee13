# SPDX-License-Identifier: Apache-2.0
"""Reading on all cores, in child processes: batches out, rows back, in order. Standard library only.

A child gets no key and decides nothing: whatever goes wrong with one, its batches are read in the caller's own process. It
is a module that is run and calls `serve`; both sides speak in frames of a length and a marshalled value.
"""

import marshal
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import IO, Any, Generic, TypeVar

B = TypeVar("B")
T = TypeVar("T")

CORES = min(8, os.cpu_count() or 1)
_AHEAD = 3  # batches that a child has before it, so that it never waits for the caller
_HEAD = 8  # bytes of a frame's length
_ROOT = str(Path(__file__).resolve().parents[1])


def in_children(
    batches: Iterable[B],
    count: int,
    module: Sequence[str],
    *,
    rows: Callable[[B, Any], list[T]],
    here: Callable[[B], list[T]],
) -> Iterator[T]:
    """What `count` children make of batches, in their order. `module` is the child's name and its arguments.

    `rows` reads a child's answer to a batch, and raises TypeError or ValueError for what is none; `here` does the
    child's work in this process.
    """
    children = [_Child(module, rows, here) for _ in range(count)]
    try:
        turns, under_way = cycle(children), deque[tuple[_Child[B, T], B]]()
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


class _Child(Generic[B, T]):
    """A process that reads batches."""

    def __init__(self, module: Sequence[str], rows: Callable[[B, Any], list[T]], here: Callable[[B], list[T]]) -> None:
        self._rows, self._here = rows, here
        path = os.pathsep.join([_ROOT, *filter(None, sys.path)])
        # -P: nothing is imported from the working folder.
        command = [sys.executable, "-P", "-B", "-m", *module]
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(
                command, env={"PYTHONPATH": path}, cwd="/",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError:  # no memory for a process
            return

    def send(self, batch: B) -> None:
        if self._process is not None and self._process.stdin is not None:
            try:
                write_frame(self._process.stdin, batch)
            except OSError:  # it has ended
                self.end()

    def receive(self, batch: B) -> list[T]:
        if self._process is not None and self._process.stdout is not None:
            # Something else in its output, a greeting of the interpreter's site, is no frame, whatever is made of it.
            with suppress(OSError, EOFError, ValueError, TypeError, OverflowError, MemoryError):
                answer = read_frame(self._process.stdout)
                if answer is not None:
                    return self._rows(batch, answer)
        self.end()
        return self._here(batch)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()  # it holds nothing that could be lost
            self._process.communicate()
            self._process = None


def write_frame(pipe: IO[bytes], value: Any) -> None:
    """Send a value."""
    frame = marshal.dumps(value)
    pipe.write(len(frame).to_bytes(_HEAD, "big") + frame)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> Any:
    """The next value, None where the other side has ended."""
    length = int.from_bytes(pipe.read(_HEAD), "big")
    frame = pipe.read(length)
    return marshal.loads(frame) if frame and len(frame) == length else None  # noqa: S302 (our own process wrote it)


def serve(source: IO[bytes], sink: IO[bytes], answer: Callable[[Any], Any]) -> None:
    """The child: answer each batch, with a thread that reads ahead, so that neither side waits for the other to read."""
    batches = SimpleQueue[Any]()

    def read_ahead() -> None:
        try:
            while (batch := read_frame(source)) is not None:
                batches.put(batch)
        finally:  # also where there is no memory for a batch: the other side waits for answers
            batches.put(None)

    Thread(target=read_ahead, daemon=True).start()
    while (batch := batches.get()) is not None:
        write_frame(sink, answer(batch))
