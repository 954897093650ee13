# SPDX-License-Identifier: Apache-2.0
"""The first part of the benchmark: a plain loop, Flower and Fedledger on the same work, one after the other, in turns."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles

from chaincode.threads import CORES
from identity.wording import counted
from ops.bench.contestants import FEDERATIONS, FEDLEDGER, FLOWER, ONE_BY_ONE, PHASES, PLAIN, Run, carry_out
from ops.bench.prepare import prepare
from ops.bench.report import Row, Table, row, seconds, size
from ops.bench.workloads import Workload

SAME = 4
"""Decimal places to which the accuracy and the loss of the last model must agree."""
QUIET = 0.3
"""Cores that others may keep busy before a verdict says that it is doubtful."""
STEADY = 1.15
"""How much longer the plain loop, or Fedledger, may take in one turn than in another before a verdict says that it is doubtful: a
core that is shared with other machines is slower for a while, and nothing on this one says so."""
SHORT = 0.5
"""Seconds of warm rounds below which CPU times are too coarse to be told."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A contestant's runs of a workload: all warm rounds of all runs, and what each run is as a whole."""

    contestant: str
    runs: tuple[Run, ...]

    @property
    def rounds(self) -> list[float]:
        """Seconds of every warm round."""
        return [seconds_ for run in self.runs for seconds_ in run.rounds]

    @property
    def others(self) -> float:
        """Cores that were busy with something else, in the worst of the runs."""
        return max(run.others for run in self.runs)

    @property
    def round(self) -> float:
        """The median of the warm rounds, in seconds."""
        return median(self.rounds)

    @property
    def turns(self) -> tuple[float, float]:
        """The medians of the fastest run and of the slowest one, in seconds."""
        medians = [median(run.rounds) for run in self.runs]
        return min(medians), max(medians)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The quartiles of the warm rounds, in seconds."""
        rounds = self.rounds
        first, _, third = quantiles(rounds, method="inclusive") if len(rounds) > 1 else (rounds[0],) * 3
        return first, third

    @property
    def launch(self) -> float:
        """Seconds from the start of the process to the end of round 1: the median of the runs."""
        return median(run.ends[0] for run in self.runs)

    @property
    def memory(self) -> int:
        """Bytes at the peak: of the runs the one with the most."""
        return max(sum(run.pss.values()) for run in self.runs)

    @property
    def cpu(self) -> Mapping[str, float]:
        """CPU seconds of a warm round by role: the mean of the runs."""
        total: dict[str, float] = defaultdict(float)
        for run in self.runs:
            for what, used in run.cpu.items():
                total[what] += used / len(self.runs)
        return total

    @property
    def phases(self) -> Mapping[str, float]:
        """The median seconds of each phase of a warm round."""
        spans = {phase: [s for run in self.runs for s in run.phases.get(phase, ())] for phase in PHASES}
        return {phase: median(values) for phase, values in spans.items() if values}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A workload, carried out by each contestant."""

    workload: Workload
    measured: Mapping[str, Measured]

    @property
    def agrees(self) -> bool:
        """Whether every run ended with the same accuracy and loss, to SAME places."""
        runs = [run for one in self.measured.values() for run in one.runs]
        return len({(round(run.accuracy, SAME), round(run.loss, SAME)) for run in runs}) == 1

    def pair(self, contestant: str, to: str) -> tuple[Measured, Measured] | None:
        """Two contestants' runs in the turns that both took, which are the first ones; None where one of them did not run.

        A machine is faster in one minute than in the next: what was measured in other turns would decide the ratio.
        """
        if contestant not in self.measured or to not in self.measured:
            return None
        one, other = self.measured[contestant], self.measured[to]
        both = min(len(one.runs), len(other.runs))
        return replace(one, runs=one.runs[:both]), replace(other, runs=other.runs[:both])

    def ratio(self, contestant: str, to: str) -> float | None:
        """A contestant's median round to another's, in the turns that both took; None where one of them did not run."""
        pair = self.pair(contestant, to)
        return pair[0].round / pair[1].round if pair is not None else None

    def memory_ratio(self, contestant: str, to: str) -> float | None:
        """A contestant's peak memory to another's, as `ratio`."""
        pair = self.pair(contestant, to)
        return pair[0].memory / pair[1].memory if pair is not None else None


def turns(workload: Workload, contestants: Sequence[str]) -> list[list[str]]:
    """Who runs when: one after the other in turns, so that a disturbed minute does not hit one alone; each begins with another
    one."""
    pair = [name for name in contestants if name in (PLAIN, FEDLEDGER)]
    taking = [contestants] * workload.repeats + [pair] * workload.more
    firsts = (number % len(some) for number, some in enumerate(taking))
    return [[*some[first:], *some[:first]] for some, first in zip(taking, firsts, strict=True)]


def compare(
    workload: Workload, folder: Path, flower: Path | None, *, contestants: Sequence[str], tell: Callable[[str], None],
) -> Comparison:  # fmt: skip
    """Run a workload, in turns, in a folder of its own in ``folder``, which is left for the caller to remove.

    Raises:
        ContestantError: one of them did.
    """
    contestants = [name for name in contestants if name != ONE_BY_ONE or workload.one_by_one]
    place = folder / workload.name
    runs: dict[str, list[Run]] = {contestant: [] for contestant in contestants}
    prepare(place, workload)
    planned = turns(workload, contestants)
    for number, turn in enumerate(planned, 1):
        for contestant in turn:
            run = carry_out(contestant, place, flower, workload.warm_up)
            runs[contestant].append(run)
            tell(f"{workload.name} {contestant}, turn {number} of {len(planned)}: {seconds(median(run.rounds))} a round, "
                 f"{seconds(run.ends[0])} to the end of round 1, {size(sum(run.pss.values()))}, others {run.others:.1f} cores")  # fmt: skip
    return Comparison(workload, {name: Measured(name, tuple(found)) for name, found in runs.items()})


def rows(comparison: Comparison) -> list[Row]:
    """The goals of a workload, judged; without those whose contestant did not run."""
    found, workload, goals = list[Row](), comparison.workload, comparison.workload.goals
    if FEDLEDGER not in comparison.measured or goals is None:
        return []
    if (pair := comparison.pair(FEDLEDGER, PLAIN)) is not None:
        ours, plain = pair
        found.append(row(f"{workload.name}: round, to the plain loop's", seconds(ours.round), seconds(plain.round),
                         ours.round / plain.round, goals.plain, "at-most", _by_turns(ours, plain)))  # fmt: skip
    if (pair := comparison.pair(FEDLEDGER, FLOWER)) is not None:
        ours, flower = pair
        found.append(row(f"{workload.name}: Flower's round to ours", seconds(ours.round), seconds(flower.round),
                         flower.round / ours.round, goals.flower, "at-least", _by_turns(flower, ours)))  # fmt: skip
        if goals.memory is not None:
            found.append(row(f"{workload.name}: peak memory, to Flower's", size(ours.memory), size(flower.memory),
                             ours.memory / flower.memory, goals.memory, "at-most"))  # fmt: skip
        if goals.launch_to_flower is not None:
            found.append(row(f"{workload.name}: launch to the end of round 1, to Flower's", seconds(ours.launch),
                             seconds(flower.launch), ours.launch / flower.launch, goals.launch_to_flower, "at-most"))  # fmt: skip
    if goals.launch is not None:
        launch = comparison.measured[FEDLEDGER].launch
        found.append(row(f"{workload.name}: launch to the end of round 1, to the goal", seconds(launch),
                         f"{goals.launch:g} s", launch / goals.launch, 1.0, "at-most"))  # fmt: skip
    doubt = "; ".join(_doubts(comparison.measured))
    return [
        replace(judged, note="; ".join(filter(None, (judged.note, doubt and f"doubtful: {doubt}")))) for judged in found
    ]


def _by_turns(one: Measured, other: Measured) -> str:
    """How far the ratio of two contestants differs from turn to turn."""
    ratios = [median(a.rounds) / median(b.rounds) for a, b in zip(one.runs, other.runs, strict=True)]
    return f"ratio {min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} turns" if len(ratios) > 1 else ""


def _doubts(measured: Mapping[str, Measured]) -> Iterator[str]:
    """Why verdicts on these may say more of the machine than of them."""
    if (busy := max(one.others for one in measured.values())) > QUIET:
        yield f"others kept up to {busy:.1f} cores busy"
    for name in (PLAIN, FEDLEDGER):
        if name in measured and measured[name].turns[1] > STEADY * measured[name].turns[0]:
            low, high = map(seconds, measured[name].turns)
            yield f"not steady: a round of {name} took {low} to {high} in its turns"


def slower_than_wanted(comparisons: Iterable[Comparison]) -> list[Workload]:
    """The workloads whose goal beside the plain loop was not reached."""
    ratios = [(c.workload, c.ratio(FEDLEDGER, PLAIN)) for c in comparisons]
    return [work for work, ratio in ratios if work.goals is not None and ratio is not None and ratio > work.goals.plain]


def side_by_side(comparisons: Iterable[Comparison]) -> Table:
    """What was measured of each contestant."""
    cells = []
    for comparison in comparisons:
        for name, one in comparison.measured.items():
            low, high = one.quartiles
            ratio, last = comparison.ratio(name, PLAIN), one.runs[-1]
            cells.append((
                comparison.workload.name, name, seconds(one.round), f"{seconds(low)} to {seconds(high)}",
                f"{ratio:.2f}" if ratio is not None else "", seconds(one.launch), size(one.memory),
                f"{last.accuracy:.4f}", f"{last.loss:.4f}", str(len(one.rounds)),
                f"{one.others:.1f}",
            ))  # fmt: skip
    note = "others: cores that were busy with something else than the contestant, in the worst run. " + "; ".join(
        f"{c.workload.name}: {c.workload.title}" for c in comparisons
    )
    return Table(
        "Side by side",
        ("work", "contestant", "round", "quartiles", "to plain", "launch to round 1", "peak memory", "accuracy", "loss", "rounds", "others"),
        tuple(cells), note,
    )  # fmt: skip


def where_time_goes(comparisons: Iterable[Comparison]) -> Table:
    """Fedledger's phases: medians of the warm rounds."""
    cells = [
        (c.workload.name, name, *(seconds(c.measured[name].phases.get(phase, 0.0)) for phase in PHASES))
        for c in comparisons
        for name in FEDERATIONS
        if name in c.measured
    ]
    return Table("Where a round of Fedledger spends its time", ("work", "contestant", *PHASES), tuple(cells))


def where_cpu_goes(comparisons: Iterable[Comparison], cores: int = CORES) -> Table:
    """CPU time of a warm round, by the kind of process, and what the round would take if it were spread over all cores."""
    cells = []
    for comparison in comparisons:
        plain = comparison.measured.get(PLAIN)
        for name, one in comparison.measured.items():
            if sum(run.ends[-1] - run.ends[0] for run in one.runs) < SHORT:
                continue
            used = sorted(one.cpu.items(), key=lambda pair: -pair[1])
            named = ", ".join(f"{what} {seconds(s)}" for what, s in used if s >= 0.01 * one.round)
            all_ = sum(one.cpu.values())
            ratio = f"{all_ / cores / plain.round:.2f}" if plain is not None else ""
            cells.append((comparison.workload.name, name, seconds(all_), seconds(all_ / cores), ratio, named))
    return Table(
        "CPU time of a round", ("work", "contestant", "in all", f"spread over {counted(cores, 'core')}", "that to plain", "by process"), tuple(cells),
        f"Counted by the kernel to 10 ms in each process, over all warm rounds. Runs of less than {SHORT:g} s are left out. "
        "Spread: as if no step waited for another, which the steps of a round do; a goal below it needs less work, not more cores.",
    )  # fmt: skip


def disagreements(comparisons: Iterable[Comparison]) -> list[str]:
    """Workloads whose contestants did not end with the same model."""
    return [
        f"{c.workload.name}: the contestants did not train the same model: "
        + ", ".join(f"{n} {r.accuracy:.6f}/{r.loss:.6f}" for n, one in c.measured.items() for r in one.runs)
        for c in comparisons
        if not c.agrees
    ]
