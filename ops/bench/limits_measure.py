# SPDX-License-Identifier: Apache-2.0
"""How a limit and what we do are measured beside each other on a machine that others use too.

The two take turns: limit, ours, limit, ours, limit. Each of our times is divided by the mean of the limits before and
after it, so that a machine which slows down slows both; what is reported is the median of these ratios.
"""

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from chaincode.process import collect_rarely

Timed = Callable[[], float]
"""Does something once, and says how many seconds of it count."""


@dataclass(frozen=True, slots=True)
class Paired:
    """Seconds of both, in the order in which they were taken; one more of the limit than of ours."""

    limit: tuple[float, ...]
    ours: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Ours to the limit, one for each turn."""
        return [ours * 2 / (a + b) for ours, (a, b) in zip(self.ours, pairwise(self.limit), strict=True)]

    @property
    def ratio(self) -> float:
        """Our seconds to the limit's: the median over the turns."""
        return median(self.ratios)

    @property
    def spread(self) -> str:
        """The least and the greatest of the ratios."""
        return f"{min(self.ratios):.2f} to {max(self.ratios):.2f} in {len(self.ours)} turns"

    @property
    def our_seconds(self) -> float:
        return median(self.ours)

    @property
    def limit_seconds(self) -> float:
        return median(self.limit)


def take_turns(limit: Timed, ours: Timed, turns: int, *, warm: bool = True) -> Paired:
    """Measure both in turns; each runs once before that is not counted, unless ``warm`` is False."""
    if warm:
        limit()
        ours()
    limits, mine = [limit()], []
    for _ in range(turns):
        mine.append(ours())
        limits.append(limit())
    return Paired(tuple(limits), tuple(mine))


def timed(action: Callable[[], object]) -> Timed:
    """An action of which everything counts."""

    def run() -> float:
        begin = time.perf_counter()
        action()
        return time.perf_counter() - begin

    return run


@contextmanager
def as_an_auditor() -> Iterator[None]:
    """The collector of garbage as in an auditor's process: it has no benchmark's objects to look at."""
    before = gc.get_threshold()
    collect_rarely()
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def repeat(action: Timed, times: int) -> float:
    """The median seconds of an action, which has run once before."""
    action()
    return median(action() for _ in range(times))


def command(*arguments: object) -> list[str]:
    """A ``fedledger`` command in this environment."""
    return [sys.executable, "-m", "ops.cli", *map(str, arguments)]


def run_command(words: Sequence[str], *, allowed: Sequence[int] = (0,)) -> str:
    """Run a command to its end; what it printed.

    Raises:
        RuntimeError: it ended with a code that is not one of ``allowed``: there is nothing to measure.
    """
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode not in allowed:
        raise RuntimeError(
            f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    return done.stdout


def command_seconds(*arguments: object, times: int, allowed: Sequence[int] = (0,)) -> float:
    """The median seconds of a ``fedledger`` command from its start to its end, its files in the page cache."""
    words = command(*arguments)
    return repeat(timed(lambda: run_command(words, allowed=allowed)), times)


def rate(count: int, seconds: float) -> str:
    """So many a second, for people."""
    return f"{count / seconds:,.0f}/s"


def spent(seconds: float) -> str:
    """Seconds for people: three digits."""
    if seconds >= 100:
        return f"{seconds:,.0f} s"
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"
