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
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from select import POLLIN, poll
from threading import Thread
from typing import IO, Any, Final, Generic, TypeVar

from chaincode.threads import CORES

B = TypeVar("B")
T = TypeVar("T")

PROCESSES: Final = min(8, CORES)
"""How many processes read at once, this one included."""

_AHEAD = 3  # batches that a child has before it, so that it never waits for the caller
_ROOM = 12  # batches for each child that are under way or done, and not asked for yet
_HEAD = 8  # bytes of a frame's length
_PIPE = 1 << 20  # bytes that one side need not wait for the other to read; the most that Linux grants everybody
_ROOT = str(Path(__file__).resolve().parents[1])


def in_children(
    batches: Iterable[B],
    count: int,
    module: Sequence[str],
    *,
    rows: Callable[[B, Any], list[T]],
    here: Callable[[B], list[T]],
) -> Iterator[T]:
    """What `count` processes make of batches, in their order: children, and this one whenever it would have to wait for
    them. `module` is the child's name and its arguments.

    `rows` reads a child's answer to a batch, and raises TypeError or ValueError for what is none; `here` does the
    child's work in this process.
    """
    source = iter(batches)
    children = [_Child(module, rows, here) for _ in range(max(1, count - 1))]
    under_way = deque[tuple[_Child[B, T], B] | list[T]]()
    try:
        while True:
            for child in children:
                for batch in islice(source, _AHEAD - child.waiting):
                    child.send(batch)
                    under_way.append((child, batch))
            if not under_way:
                return
            first = under_way.popleft()
            if isinstance(first, tuple):
                child, sent = first
                while len(under_way) < _ROOM * len(children) and not child.ready():
                    done = [here(batch) for batch in islice(source, 1)]
                    if not done:
                        break
                    under_way += done
                first = child.receive(sent)
            yield from first
    finally:
        for child in children:
            child.end()


class _Child(Generic[B, T]):
    """A process that reads batches. ``waiting`` counts those that it was sent and that were not received."""

    def __init__(self, module: Sequence[str], rows: Callable[[B, Any], list[T]], here: Callable[[B], list[T]]) -> None:
        self._rows, self._here = rows, here
        self.waiting = 0
        self._unsent = SimpleQueue[bytes | None]()
        self._answers = poll()
        path = os.pathsep.join([_ROOT, *filter(None, sys.path)])
        # -P: nothing is imported from the working folder.
        command = [sys.executable, "-P", "-B", "-m", *module]
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(
                command, env={"PYTHONPATH": path}, cwd="/",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, pipesize=_PIPE,
            )  # fmt: skip
        except OSError:  # no memory for a process
            return
        if self._process.stdin is not None and self._process.stdout is not None:
            self._answers.register(self._process.stdout, POLLIN)
            # A thread writes: a child that begins or is at work does not read at once, and its caller has work to do.
            self._writer = Thread(target=write_frames, args=(self._process.stdin, self._unsent), daemon=True)
            self._writer.start()

    def send(self, batch: Any) -> None:
        self.waiting += 1
        if self._process is not None:
            self._unsent.put(marshal.dumps(batch))

    def ready(self) -> bool:
        """Whether `receive` will not have to wait for the child."""
        return self._process is None or bool(self._answers.poll(0))

    def receive(self, batch: B) -> list[T]:
        self.waiting -= 1
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
            self._unsent.put(None)
            self._writer.join()
            self._process.communicate()
            self._process = None


def write_frames(pipe: IO[bytes], frames: "SimpleQueue[bytes | None]") -> None:
    """Send marshalled values until there is None, or nobody who reads."""
    with suppress(OSError):
        while (frame := frames.get()) is not None:
            pipe.write(len(frame).to_bytes(_HEAD, "big"))
            pipe.write(frame)
            pipe.flush()


def read_frame(pipe: IO[bytes]) -> Any:
    """The next value, None where the other side has ended."""
    length = int.from_bytes(pipe.read(_HEAD), "big")
    frame = pipe.read(length)
    return marshal.loads(frame) if frame and len(frame) == length else None  # noqa: S302 (our own process wrote it)


def serve(source: IO[bytes], sink: IO[bytes], answer: Callable[[Any], Any]) -> None:
    """The child: answer each batch, with threads that read ahead and write, so that neither side waits for the other."""
    batches, answers = SimpleQueue[Any](), SimpleQueue[bytes | None]()

    def read_ahead() -> None:
        try:
            while (batch := read_frame(source)) is not None:
                batches.put(batch)
        finally:  # also where there is no memory for a batch: the other side waits for answers
            batches.put(None)

    Thread(target=read_ahead, daemon=True).start()
    writer = Thread(target=write_frames, args=(sink, answers))
    writer.start()
    try:
        while (batch := batches.get()) is not None:
            answers.put(marshal.dumps(answer(batch)))
    finally:
        answers.put(None)
        writer.join()
