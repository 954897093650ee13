# SPDX-License-Identifier: Apache-2.0
"""Work on large bytes in threads: hashing and arithmetic let go of the interpreter's lock. Standard library only."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")
A = TypeVar("A")

CORES: Final = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""How many threads can work at once in this process."""

_LEAST = 19  # the nice value of what gets a core when nobody else wants it


def stand_back() -> None:
    """Have this thread work where no other thread has work, on a system that ranks threads one by one; else do nothing."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LEAST)


def in_threads(work: Callable[[A], T], items: Iterable[A], threads: int = CORES) -> list[T]:
    """The results of `work` on each item, in the items' order, computed `threads` at a time.

    Raises what the work raises on the first item, in the items' order, on which it raises.
    """
    jobs = list(items)
    if threads <= 1 or len(jobs) <= 1:
        return [work(job) for job in jobs]
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 (a bundle is hashed before it is loaded)

    with ThreadPoolExecutor(min(threads, len(jobs))) as pool:
        return list(pool.map(work, jobs))
