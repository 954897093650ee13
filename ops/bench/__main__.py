# SPDX-License-Identifier: Apache-2.0
"""``make bench``: the comparison, the limits and the curves in one run; a table, JSON, and the page of results.

Exit code 1 where the contestants did not train the same model; a goal that is not reached is printed, and no failure.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ops import output
from ops.bench import compare, growth, limits, machine
from ops.bench.compare import Comparison
from ops.bench.contestants import FEDLEDGER, FLOWER, ONE_BY_ONE, PLAIN, TUNED
from ops.bench.floor import floor
from ops.bench.page import Results, write_page, write_summary
from ops.bench.report import Row, Table, goals_table
from ops.bench.round_profile import round_profile
from ops.bench.tried import tried
from ops.bench.workloads import WORKLOADS

HERE = Path(__file__).resolve().parent
PARTS = ("compare", "limits", "growth")


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m ops.bench", description="What Fedledger costs, measured.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, one run each, smaller limits, no curves")
    parser.add_argument(
        "--flower", type=Path, help="the folder of an environment with Flower; without it there is no peer"
    )
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--work", default=",".join(w.name for w in WORKLOADS), help="some of the workloads")
    everybody = [PLAIN, FLOWER, FEDLEDGER, TUNED, ONE_BY_ONE]
    parser.add_argument("--contestants", nargs="+", default=everybody, choices=everybody, metavar="NAME",
                        help=f"some of {', '.join(map(repr, everybody))}")  # fmt: skip
    parser.add_argument(
        "--results", type=Path, help="the folder for JSON and page; without it only a full run writes them"
    )
    return parser.parse_args(given)


def is_full(chosen: argparse.Namespace) -> bool:
    """Whether a run measures all that the page tells: the peer is there, and nothing else was left out."""
    usual = arguments([])
    return chosen.flower is not None and all(
        getattr(chosen, name) == getattr(usual, name) for name in ("quick", "only", "work", "contestants")
    )


def flower_python(folder: Path | None) -> Path | None:
    """The interpreter of Flower's environment. A link is not followed: the environment is where the link lies."""
    return None if folder is None else folder.absolute() / "bin" / "python"


def run_compare(chosen: argparse.Namespace) -> list[Comparison]:
    """The comparison of the chosen workloads and contestants."""
    flower = flower_python(chosen.flower)
    left_out = ({FLOWER} if flower is None else set()) | ({TUNED, ONE_BY_ONE} if chosen.quick else set())
    who = [name for name in chosen.contestants if name not in left_out]
    work = [workload for workload in WORKLOADS if workload.name in chosen.work.split(",")]
    if chosen.quick:
        work = [workload.quick() for workload in work if workload.quick_rounds]
    folder = limits.CACHE / "compare"
    shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
    try:
        return [compare.compare(one, folder, flower, contestants=who, tell=output.note) for one in work]
    finally:  # not after each workload: see `contestants.ROOM`
        shutil.rmtree(folder, ignore_errors=True)


def show(table: Table) -> None:
    """A table on the terminal."""
    if table.rows:
        output.line()
        output.table(table.columns, table.rows, title=table.title)
        if table.note:
            output.paragraph(table.note)


def main(given: Sequence[str]) -> int:
    """Measure, show, and write."""
    chosen, began = arguments(given), time.monotonic()
    machine.compile_ours()
    parts = chosen.only.split(",")
    results = Results(machine.describe(flower_python(chosen.flower)), quick=chosen.quick)
    if "compare" in parts:
        results.comparisons = run_compare(chosen)
        results.floor = floor(results.comparisons, limits.CACHE)
        if not chosen.quick:
            slow = compare.slower_than_wanted(results.comparisons)
            results.round_profiles = [*tried(results.compared_goals()), *map(round_profile, slow)]
        for table in results.compared():
            show(table)
        for text in results.round_profiles:
            output.write(f"\n{text}\n")
    if "limits" in parts:
        results.limits = limits.run_limits(chosen.quick, tell=_tell)
        show(goals_table("Beside limits of the machine", results.limits))
        if not chosen.quick:
            results.profiles = [*tried(results.limits), *limits.profiles(results.limits, chosen.quick)]
        for text in results.profiles:
            output.write(f"\n{text}\n")
    if "growth" in parts and not chosen.quick:
        results.growth = growth.run_growth(chosen.quick, tell=output.note)
        rows = growth.growth_rows(results.growth)
        show(goals_table("How it grows", rows))
        for text in tried(rows):
            output.write(f"\n{text}\n")
    _write(results, chosen, round(time.monotonic() - began))
    wrong = compare.disagreements(results.comparisons)
    for text in wrong:
        output.note(f"error: {text}", "red")
    return 1 if wrong else 0


def _tell(row: Row) -> None:
    output.note(limits.line(row))


def _write(results: Results, chosen: argparse.Namespace, took: int) -> None:
    """Results and page: of a full run beside this file, of another where a folder is named."""
    full = is_full(chosen)
    folder = chosen.results or (HERE / "results" if full else None)
    output.note(f"took {took} s" + (f"; written to {output.relative(folder)}" if folder else ""))
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compare.json").write_text(json.dumps({"machine": results.machine, **results.to_json()}, indent=1) + "\n")
    (folder / "limits.json").write_text(
        json.dumps({"machine": results.machine, "rows": [asdict(row) for row in results.limits]}, indent=1) + "\n"
    )
    write_page(folder if chosen.results else HERE, folder, results)
    if full and not chosen.results:
        write_summary(HERE.parents[1] / "README.md", results)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
