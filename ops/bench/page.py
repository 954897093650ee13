# SPDX-License-Identifier: Apache-2.0
"""The page of results, and the same as JSON: made by the benchmark, never by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.bench import compare, growth
from ops.bench.compare import Comparison
from ops.bench.contestants import FEDLEDGER, FLOWER, PLAIN
from ops.bench.growth import Growth
from ops.bench.report import Row, Table, goals_table, markdown, seconds
from ops.bench.tried import tried

HEAD = """# What Fedledger costs

This page is written by `make bench`, in one run on one machine; do not edit it. Times depend on the machine: compare the
ratios. `make bench QUICK=1` measures the first two parts in small (one run each, fewer rounds; W2 and the contestant
"one by one" left out, W4 with 200 sites, because Flower takes a minute for a thousand) within two minutes, and writes nothing.
Our modules are compiled to bytecode before anything is measured, as an installation has them and everybody else's are here.
"""

COMPARED = """## Beside a plain loop and Flower

The contestants do the same work, each as a process of its own, one after the other, in turns; after the first
few the plain loop and Fedledger go on alone, for the ratio of these two is the closest:

* **plain**: one process, one thread, torch; federated averaging and nothing else. It has no clients, no messages, no files.
* **Flower**: its simulation engine on Ray with its own strategy, as many clients at a time as there are cores.
* **Fedledger**: `fedledger run`, the ledger on. Every update is committed to, signed, verified, kept, and recorded in a
  durable log; after the last round the run is audited and the audit must pass (not part of a round's time). The tasks of
  W1, W2 and W4 say `stacked = True`: a worker trains its small sites as one stack of matrices, which the others do not.
* **Fedledger, one by one**: the same without that line, to tell what the stack gives from what the rest costs.

The data, the split, the model, the initial weights, the batches and their order, and the local steps are the same, one local
epoch with all sites in every round; each contestant evaluates every round's model once, on the same held-out rows (synthetic
ones for W3 and W4). So the last model's accuracy and loss must agree, and the run fails where they do not. Training uses
one thread a process everywhere. A round's time is that between the ends of two rounds; the first ones, in which everything
warms up, are left out; a ratio is that of the medians in the turns that both took. "Launch to round 1" counts from the start of the
process. Memory is the largest sum of the PSS of all of a contestant's processes up to the end of the last round.
The plain loop is what one would write: one process, one thread, `torch.optim.SGD`; the full run shows beside it one
that is tuned for small models (`torch.autograd.grad` and an addition, the same bits), which is not judged.
"""


@dataclass(slots=True)
class Results:
    """What a run of the benchmark found; empty what was not asked for."""

    machine: Mapping[str, Any]
    quick: bool
    comparisons: Sequence[Comparison] = ()
    floor: Table | None = None
    round_profiles: Sequence[str] = ()
    limits: Sequence[Row] = ()
    profiles: Sequence[str] = ()
    growth: Growth | None = None

    def compared_goals(self) -> list[Row]:
        """The goals of the comparison, judged."""
        return [row for one in self.comparisons for row in compare.rows(one)]

    def compared(self) -> list[Table]:
        """The tables of the comparison."""
        if not self.comparisons:
            return []
        return [
            compare.side_by_side(self.comparisons),
            goals_table("Goals", self.compared_goals()),
            compare.where_time_goes(self.comparisons),
            compare.where_cpu_goes(self.comparisons),
            *([self.floor] if self.floor is not None else []),
        ]

    def to_json(self) -> dict[str, Any]:
        """The comparison for programs: seconds and bytes, every round of every run."""
        return {"quick": self.quick, "work": [_comparison(one) for one in self.comparisons]}


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        "name": one.workload.name, "title": one.workload.title, "parameters": one.workload.parameters,
        "agrees": one.agrees, "goals": [_goal(row) for row in compare.rows(one)],
        "contestants": {name: {
            "round": m.round, "quartiles": m.quartiles, "launch": m.launch, "memory": m.memory, "cpu": dict(m.cpu),
            "phases": dict(m.phases),
            "runs": [{"ends": run.ends, "accuracy": run.accuracy, "loss": run.loss, "pss": dict(run.pss), "after": run.after,
                      "others": run.others}
                     for run in m.runs],
        } for name, m in one.measured.items()},
    }  # fmt: skip


def _goal(row: Row) -> dict[str, Any]:
    return {"what": row.what, "ratio": row.ratio, "goal": row.goal, "better": row.better, "reached": row.reached}


def write_page(folder: Path, results_folder: Path, results: Results) -> None:
    """Write ``folder``/README.md; plots and curves go to ``results_folder``."""
    parts = [HEAD, _machine(results.machine)]
    if results.comparisons:
        parts += [COMPARED, *map(markdown, results.compared())]
        parts += [f"```\n{text}\n```\n" for text in results.round_profiles]
    if results.limits:
        parts += [
            "## Beside limits of the machine\n",
            markdown(goals_table("Measured in the same run", results.limits)),
        ]
        parts += [f"```\n{text}\n```\n" for text in results.profiles]
    if results.growth is not None:
        parts.append(_growth(results.growth, folder, results_folder))
    (folder / "README.md").write_text("\n".join(parts))


BEGIN, END = "<!-- written by make bench -->\n", "<!-- end of what make bench writes -->\n"


def write_summary(readme: Path, results: Results) -> None:
    """Put the table of the comparison between the marks in a page that people write.

    Raises ValueError where the marks are not there.
    """
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{readme} has not the lines {BEGIN.strip()} and {END.strip()}")
    readme.write_text(before + begin + _summary(results) + end + after)


def _summary(results: Results) -> str:
    """A line for each workload: what a round takes, and the ratios."""
    lines = [
        "| a round | plain loop | Fedledger | Flower | to plain | Flower to ours | memory to Flower's |",
        "|" + " --- |" * 7,
    ]
    for one in results.comparisons:
        cells = [
            seconds(one.measured[name].round) if name in one.measured else "" for name in (PLAIN, FEDLEDGER, FLOWER)
        ]
        ratios = [one.ratio(FEDLEDGER, PLAIN), one.ratio(FLOWER, FEDLEDGER), one.memory_ratio(FEDLEDGER, FLOWER)]
        told = [f"{ratio:.2f}" if ratio is not None else "" for ratio in ratios]
        lines.append("| " + " | ".join([one.workload.title, *cells, *told]) + " |")
    return "\n".join(lines) + "\n"


def _growth(found: Growth, folder: Path, results_folder: Path) -> str:
    section = growth.render(found, results_folder)
    if results_folder != folder:
        section = section.replace("](growth-", f"]({results_folder.relative_to(folder).as_posix()}/growth-")
    rows = growth.growth_rows(found)
    said = [f"```\n{text}\n```\n" for text in tried(rows)]
    return "\n".join([section, markdown(goals_table("What is wanted of it", rows)), *said])


def _machine(machine: Mapping[str, Any]) -> str:
    def versions(of: Mapping[str, str]) -> str:
        return ", ".join(f"{name} {version}" for name, version in of.items())

    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 1e9:.0f} GB; {machine['kernel']}; "
        f"Python {machine['python']}; {versions(machine['fedledger'])}.",
    ]
    if machine["flower"]:
        lines.append(f"Flower's environment: {versions(machine['flower'])}.")
    return "\n".join(lines) + "\n"
