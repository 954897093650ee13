# SPDX-License-Identifier: Apache-2.0
"""The pool of worker processes on Ray: one actor per slot, asked through Ray or over a line, replaced when it dies."""

import importlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from coordinator.answers import UNREADABLE, held
from coordinator.jobs import ClusterSettings
from coordinator.line import Line
from coordinator.pool import DIED, LATE, Call, Reference
from coordinator.wire import pack, unpack
from identity.errors import Error, Unavailable, UsageError

TURN_SECONDS = 0.01
"""Lines and references of Ray are waited for in turns of this length, where there are both."""
TELL_SECONDS = 10.0
"""So long Ray may take to say why a worker's line has ended."""


@dataclass(slots=True)
class _Slot:
    """A place for a worker process: ``opening`` until it has said hello, ``call`` and ``answer`` while it works, in
    both cases at the latest ``until`` on the monotonic clock. ``path`` is where it takes a line, "" where it takes none;
    ``serving`` is its answer to being told to, which comes when the ``line`` ends."""

    number: int
    generation: int = 0
    deaths: int = 0
    handle: Any = None
    opening: Reference = None
    call: Call | None = None
    answer: Reference = None
    until: float = math.inf
    path: str = ""
    line: Line | None = None
    serving: Reference = None


class _Actor:
    """What Ray runs in a worker process. It loads the code that needs torch there, and only there."""

    def __init__(self) -> None:
        self._host = importlib.import_module("coordinator.host").Host()

    def call(self, method: str, *arguments: Any) -> Any:
        return self._host.call(method, *map(unpack, arguments))


class Workers:
    """The pool of ``coordinator.dispatch`` on Ray: one actor per slot."""

    def __init__(
        self, settings: ClusterSettings, workers: int, label: str, folder: str, tell: Callable[[str], None]
    ) -> None:
        """Start the workers without waiting for them; on this machine they take lines in ``folder``, which may be "". ``tell``
        is told of each that is replaced."""
        self.workers, self._tell = workers, tell
        self._settings, self._label, self._folder, self._code = settings, label, folder, ""
        self._actor = ray.remote(_Actor)
        self._slots = [_Slot(number) for number in range(workers)]
        for slot in self._slots:
            self._open(slot)

    def ready(self) -> None:
        """See ``Cluster.ready``."""
        for slot in self._slots:
            while slot.opening is not None:
                ray.wait([slot.opening], timeout=max(0.0, slot.until - time.monotonic()))
                self._opened(slot)

    def run(self, calls: deque[Call], limit: Callable[[Call], float]) -> Iterator[tuple[Call, Any]]:
        """See ``Pool.run``. A run that was given up before its end loses its workers when the next one begins."""
        trouble: Error = Unavailable("worker-start", "There is no worker.")
        for slot in self._slots:
            if slot.handle is None or slot.call is not None:
                slot.deaths = 0
                self._open(slot)
        while calls or any(slot.call for slot in self._slots):
            self.begin(calls, limit)
            waiting = {slot.opening if slot.call is None else slot.answer: slot for slot in self._slots}
            waiting.pop(None, None)
            if not waiting:
                raise trouble
            patience = min(slot.until for slot in waiting.values()) - time.monotonic()
            ready = _wait(list(waiting), None if patience == math.inf else max(0.0, patience))
            for slot in [waiting[reference] for reference in ready] or list(waiting.values()):
                if not ready and slot.until > time.monotonic():
                    continue
                if slot.call is not None:
                    yield self._finished(slot, slot.call)
                    continue
                try:
                    self._opened(slot)
                except Error as error:
                    trouble = error

    def end(self) -> None:
        """End every worker, whatever it does."""
        for slot in self._slots:
            self._end(slot)

    def _open(self, slot: _Slot) -> None:
        """Start a worker in a slot, in the place of the one before."""
        self._end(slot)
        slot.generation += 1
        name = f"{self._label} worker {slot.number}.{slot.generation}"
        slot.handle = self._actor.options(name=name, num_cpus=1, scheduling_strategy="SPREAD").remote()
        slot.opening = slot.handle.call.options(name=f"{self._label} open").remote("open", self._settings, self._folder)
        slot.until = time.monotonic() + self._settings.start_seconds

    def _replace(self, slot: _Slot, why: Error) -> None:
        """Start a worker in the place of one that was lost, and say so: whoever watches sees no more than a pause."""
        self._tell(f"a worker was replaced: {why.message}")
        self._open(slot)

    def _end(self, slot: _Slot) -> None:
        _hang_up(slot)
        if slot.handle is not None:
            ray.kill(slot.handle)
        slot.handle = slot.opening = slot.call = slot.answer = None
        slot.until = math.inf

    def _opened(self, slot: _Slot) -> None:
        """Take a worker's hello; one that died is started again a few times, its machine may have gone with it.

        Raises as ``Cluster.ready``; the slot is empty then.
        """
        hello = _value(slot.opening)
        if isinstance(hello, Error):
            slot.deaths += hello.code == DIED
            if hello.code == DIED and slot.deaths < self._settings.tries:
                self._replace(slot, hello)
                return
            self._end(slot)
            if hello.code not in (DIED, LATE):
                raise hello
            message = f"Worker {slot.number} did not start in {self._settings.start_seconds:.0f} s: {hello.message}"
            raise Unavailable("worker-start", message, next="fedledger doctor")
        code, slot.path = hello
        if code != (self._code or code):
            self._end(slot)
            raise UsageError(
                "task-changed", f"The source of task {self._settings.task.reference} has changed during the run."
            )
        self._code, slot.opening, slot.until, slot.deaths = code, None, math.inf, 0

    def begin(self, calls: deque[Call], limit: Callable[[Call], float]) -> None:
        """See ``Pool.begin``; each call goes to the worker that is best for it where that is idle."""
        idle = {s.number: s for s in self._slots if s.handle is not None and s.opening is None and s.call is None}
        while calls and idle:
            call = calls.popleft()
            slot = idle.pop(call.slot if call.slot in idle else next(iter(idle)))
            slot.call, slot.until = call, time.monotonic() + limit(call)
            if not (call.light and self._ask(slot, call)):
                _hang_up(slot)
                method = slot.handle.call.options(name=call.name, num_returns=call.returns)
                references = method.remote(call.method, *map(pack, call.arguments))
                slot.answer, *call.kept = references if call.returns > 1 else [references]

    def poll(self, seconds: float) -> bool:
        """See ``Pool.poll``. Of an answer over a line all must be there: to read the rest may take long."""
        until = time.monotonic() + seconds
        answers = [slot.answer for slot in self._slots if slot.call is not None]
        ready = _wait(answers, seconds) if answers else []
        return any(not isinstance(one, Line) or one.arrives(until - time.monotonic()) for one in ready)

    def _ask(self, slot: _Slot, call: Call) -> bool:
        """Call a worker over its line; whether that could be done."""
        if not slot.path:
            return False
        try:
            if slot.line is None:
                line = Line(slot.path)
                slot.serving = slot.handle.call.options(name=f"{self._label} line").remote("serve")
                slot.line = line
            slot.line.ask(call.method, *call.arguments)
        except OSError:  # it is gone: Ray says why
            return False
        slot.answer = slot.line
        return True

    def _finished(self, slot: _Slot, call: Call) -> tuple[Call, Any]:
        """A call and its result; a worker that is lost or late is replaced."""
        result = held(call, _value(slot.answer) if slot.line is None else _heard(slot, slot.line))
        slot.call, slot.answer, slot.until = None, None, math.inf
        if isinstance(result, Error) and result.code in (DIED, LATE, UNREADABLE):
            self._replace(slot, result)
        return call, result


def _value(reference: Reference) -> Any:
    """The value behind a reference, or the ``Error`` that came instead; LATE where there is nothing yet."""
    try:
        return ray.get(reference, timeout=0)
    except GetTimeoutError:
        return Unavailable(LATE, "The worker did not answer in time.")
    except RayError as error:
        cause = getattr(error, "cause", None)  # what the worker's code raised
        return cause if isinstance(cause, Error) else Unavailable(DIED, f"The worker died: {error_line(error, 0)}")


def _wait(sources: list[Any], seconds: float | None) -> list[Any]:
    """Those of Ray's references and of lines that have something to say; none after so many seconds."""
    lines = [source for source in sources if isinstance(source, Line)]
    references = [source for source in sources if not isinstance(source, Line)]
    if not lines:
        return ray.wait(references, timeout=seconds, fetch_local=False)[0]
    if not references:
        return _speaking(lines, seconds)
    until = math.inf if seconds is None else time.monotonic() + seconds
    while True:
        turn = max(0.0, min(TURN_SECONDS, until - time.monotonic()))
        ready = _speaking(lines, turn) or ray.wait(references, timeout=0, fetch_local=False)[0]
        if ready or time.monotonic() >= until:
            return ready


def _speaking(lines: list[Line], seconds: float | None) -> list[Any]:
    """The lines that have something to say; those alone, if there are any, that have said it."""
    complete = [line for line in lines if line.complete]
    return complete or list(wait(lines, seconds))  # type: ignore[arg-type]  # anything with a fileno


def _hang_up(slot: _Slot) -> None:
    """End a slot's line: the worker then carries out what it is asked through Ray."""
    if slot.line is not None:
        slot.line.close()
    slot.line = slot.serving = None


def _heard(slot: _Slot, line: Line) -> Any:
    """What comes over a slot's line: an answer, or an ``Error``; LATE where there is nothing yet. A line that has ended is
    hung up."""
    if not line.answered:
        return Unavailable(LATE, "The worker did not answer in time.")
    try:
        return line.answer()
    except (EOFError, OSError):
        line.close()  # the worker may still be there, in the middle of an answer
        ray.wait([slot.serving], timeout=TELL_SECONDS)
        why = _value(slot.serving)  # what Ray knows of the worker's end, or what ended its serving
        _hang_up(slot)
        return why if isinstance(why, Error) and why.code != LATE else Unavailable(DIED, "The worker hung up.")


def error_line(error: BaseException, which: int) -> str:
    """One line of what Ray says: the first of what it adds to a cause, or the last of a cause that it quotes."""
    return (str(error).strip().splitlines() or [type(error).__name__])[which][:300]
