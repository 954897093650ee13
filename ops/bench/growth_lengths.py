# SPDX-License-Identifier: Apache-2.0
"""The cost of the ledger's length: appending to, opening and keeping ledgers of different lengths."""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from chaincode import state
from chaincode.author import demand
from chaincode.state import Head
from ops.bench import ledgers
from ops.bench.ledgers import OPEN_END, ClockedLedger, Deal, Length, Place, append, reopen, round_entries
from ops.bench.limits_measure import repeat, timed
from ops.bench.people import people
from ops.run_folder import RunFolder

TOGETHER = 3  # rounds in a batch that is appended: few, for they make the shortest ledger longer
TURNS, OPENINGS = 9, 7
APPENDED_IN_PLACE = 10**6  # from here on a few thousand entries more do not matter; shorter ledgers are copied first


@dataclass(frozen=True, slots=True)
class LengthPoint:
    """A ledger of so many entries: seconds to append one, those to the shortest ledger's (a median of ratios of the same
    turn), seconds to open the ledger for writing, and bytes of its file for each entry."""

    entries: int
    append: float
    to_first: float
    opening: float
    bytes_per_entry: float


def measure_lengths(lengths: Sequence[int], cache: Path, tell: Callable[[str], None]) -> tuple[LengthPoint, ...]:
    """Append to all ledgers in turns, so that what disturbs the machine disturbs each of them."""
    with ExitStack() as stack:
        made = [(Length(n), *_own(Length(n), cache, stack)) for n in lengths]
        before = [_opened(length, run) for length, run, _ in made]
        appenders = [
            Appender(stack.enter_context(reopen(run, people(length.sites))), length, place)
            for length, run, place in made
        ]
        for _, run, _ in made:
            with run.ledger.open("rb") as file:
                hashlib.file_digest(file, "sha256")  # so that all of it is in memory, like a ledger in use
        for one in appenders:
            one.append()
        turns = [[one.append() for one in appenders] for _ in range(TURNS)]
    points = []
    for number, (entries, opening, bytes_each) in enumerate(before):
        taken, ratio = median(t[number] for t in turns), median(t[number] / t[0] for t in turns)
        points.append(LengthPoint(entries, taken, ratio, opening, bytes_each))
        tell(str(points[-1]))
    return tuple(points)


def _own(length: Length, cache: Path, stack: ExitStack) -> tuple[RunFolder, Place]:
    """A made ledger that may be appended to."""
    run, place = ledgers.cached(cache, length)
    if length.entries >= APPENDED_IN_PLACE:
        return run, place
    copy = RunFolder(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedledger-bench-"))))
    shutil.copyfile(run.ledger, copy.ledger)
    return copy, place


def _opened(length: Length, run: RunFolder) -> tuple[int, float, float]:
    """A ledger's entries, the seconds in which it opens for writing, and the bytes of its file for each entry."""
    who = people(length.sites)

    def opened() -> None:
        with reopen(run, who):
            pass

    seconds = repeat(timed(opened), OPENINGS)
    with reopen(run, who) as ledger:
        return ledger.size, seconds, run.ledger.stat().st_size / ledger.size


class Appender:
    """Goes on with the agreement in progress of a made ledger."""

    def __init__(self, ledger: ClockedLedger, length: Length, place: Place) -> None:
        self._ledger, self._agreement = ledger, place.agreement
        self._deal = Deal(length.sites, place.federation, place.number, OPEN_END)

    def append(self) -> float:
        """Sign the next rounds, and store them in one durable batch; seconds of storing for an entry."""
        head = demand(self._ledger.ledger, Head, state.head_key(self._agreement))
        signed = round_entries(self._deal, head.at + 1, head.round + 1, head.round + TOGETHER)
        begin = time.perf_counter()
        append(self._ledger, signed, head.at + TOGETHER)
        return (time.perf_counter() - begin) / len(signed)
