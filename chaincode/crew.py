# SPDX-License-Identifier: Apache-2.0
"""Threads for work that lets go of the interpreter's lock and takes microseconds: signatures and the hashes of small
updates, many at a time.

A thread that is woken for less than some milliseconds stays where Linux puts it, which is often the core of whoever woke
it: the two take turns, and the other cores idle. So before each use the caller's core is barred to the threads (two cores:
50 signatures verified in 3.0 ms in the place of 5.6).
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache
from typing import Any, Final, TypeVar

from chaincode.threads import CORES

T = TypeVar("T")
A = TypeVar("A")

CREW_THREADS: Final = min(4, CORES)
"""Threads of a process's crew, the caller among them: more would wait for the interpreter's lock."""

_PENDING: Final = object()


class Crew:
    """Some threads, which start when they are first needed. Thread-safe; of several callers at a time the last one's core is
    barred."""

    def __init__(self, others: int) -> None:
        """So many beside the caller; none on a machine of one core."""
        self._others = others
        self._pool = ThreadPoolExecutor(others, "fedledger-crew", initializer=self._join) if others else None
        self._ids: list[int] = []
        self._barred = -1  # the core that is barred to all of them

    def map(self, work: Callable[[A], T], items: Sequence[A], each: int) -> list[T]:
        """The results of ``work`` on each item, in the items' order; the caller works too.

        Whoever is free takes the next item. A thread joins in where there are ``each`` items for it. Raises what the
        work raises.
        """
        results: list[Any] = [_PENDING] * len(items)
        numbers = iter(range(len(items)))  # to take the next one is a single step of the interpreter

        def some() -> None:
            for number in numbers:
                results[number] = work(items[number])

        others = max(0, min(self._others, len(items) // each - 1))
        if self._pool is None or not others:
            some()
            return results
        self._bar_this_core()
        joined = [self._pool.submit(some) for _ in range(others)]
        try:
            some()
        finally:
            begun = [one for one in joined if not one.cancel()]
            wait(begun)
        for one in begun:
            one.result()
        if any(result is _PENDING for result in results):  # what decides about signatures fails closed
            raise RuntimeError("an item was left out")
        return results

    def _join(self) -> None:
        """A thread's first act."""
        self._ids.append(threading.get_native_id())
        self._barred = -1

    def _bar_this_core(self) -> None:
        core = _core()
        if core == self._barred or core < 0:
            return
        self._barred = core  # first: a thread that joins meanwhile asks for another time
        if rest := os.sched_getaffinity(0) - {core}:
            for thread in self._ids:
                with suppress(OSError):  # the system may know better
                    os.sched_setaffinity(thread, rest)


@cache
def own_crew() -> Crew:
    """This process's crew."""
    return Crew(CREW_THREADS - 1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=own_crew.cache_clear)  # threads do not outlive a fork


def _core() -> int:
    """The core that this thread runs on; -1 where that cannot be said (not Linux)."""
    return _getcpu()()


@cache
def _getcpu() -> Callable[[], int]:
    if not hasattr(os, "sched_setaffinity"):
        return lambda: -1
    import ctypes  # noqa: PLC0415 (whoever only reads a ledger does not pay for it)

    return getattr(ctypes.CDLL(None), "sched_getcpu", lambda: -1)
