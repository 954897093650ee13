# SPDX-License-Identifier: Apache-2.0
"""What stands beside a missed goal: the bare cost of a round's parts, and the functions that it runs. Nothing here asserts
how long anything takes."""

import cProfile
import gc
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chaincode.process import collect_rarely
from chaincode.threads import CORES
from ops.bench import compare, page
from ops.bench.compare import Comparison, Measured, slower_than_wanted
from ops.bench.contestants import FEDLEDGER, PLAIN, TUNED, Run
from ops.bench.floor import floor
from ops.bench.limits_profile import _functions
from ops.bench.page import BEGIN, END, Results, write_summary
from ops.bench.report import row, seconds
from ops.bench.round_profile import _report, round_profile
from ops.bench.tried import tried
from ops.bench.workloads import WORKLOADS

W1 = WORKLOADS[0]


def measured(contestant: str, round_: float) -> Measured:
    ends = (1.0, 1.0 + round_, 1.0 + 2 * round_)
    return Measured(contestant, (Run(contestant, ends, 1, 0.9, 0.25, {}, {}, {}, 0.0, 0.0),))


def compared(**rounds: float) -> Comparison:
    names = {"plain": PLAIN, "tuned": TUNED, "ours": FEDLEDGER}
    return Comparison(W1, {names[who]: measured(names[who], round_) for who, round_ in rounds.items()})


def test_the_floor_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    table = floor([compared(plain=0.5, tuned=0.25, ours=100.0), compared(ours=1.0)], place)
    assert len(table.rows) == 1, "nothing to say without the plain loop"
    name, alone, *parts, whole, to_plain, goal, ours, ratio = table.rows[0]
    assert (name, alone, goal, ours) == ("W1", "250 ms", "2.5", "100 s")
    assert parts[0] == seconds(0.25 / CORES), "others hash and sign on all cores: so does the arithmetic"
    assert len(parts) == 5
    found = sum(float(part.split()[0]) / {"ms": 1e3, "s": 1}[part.split()[1]] for part in parts)
    assert abs(float(whole.split()[0]) / 1e3 - found) < 0.01 * found
    assert abs(float(to_plain) - found / 0.5) < 0.02 * found / 0.5
    assert abs(float(ratio) - 100 / found) < 0.02 * 100 / found
    assert list(place.iterdir()) == []


def test_only_a_missed_goal_is_profiled() -> None:
    assert W1.goals is not None
    assert slower_than_wanted([compared(plain=1.0, ours=W1.goals.plain)]) == []
    assert slower_than_wanted([compared(plain=1.0, ours=W1.goals.plain * 1.01)]) == [W1]
    assert slower_than_wanted([compared(ours=9.0)]) == []


def test_functions_of_one_name_are_told_apart(tmp_path: Path) -> None:
    profiler = cProfile.Profile()
    for number, place in enumerate(("first.py", "second.py"), 1):
        space: dict[str, Any] = {}
        exec(compile("def same():\n    return 1\n", str(tmp_path / place), "exec"), space)  # noqa: S102
        for _ in range(number):
            profiler.runcall(space["same"])
    lines = [line.split() for line in _report(profiler, 1) if "same" in line]
    assert sorted((line[2], line[4].rsplit("/", 1)[1]) for line in lines) == [
        ("1", "first.py:1)"),
        ("2", "second.py:1)"),
    ]


def test_the_profile_is_of_warm_rounds(tmp_path: Path) -> None:
    said = round_profile(replace(W1, rounds=3))
    assert said.startswith("W1, the leading process:\n   own ms")
    assert "executemany" in said


def test_a_program_collects_rarely() -> None:
    code = "import gc, sys, ops.cli\nsys.argv[1:] = ['--version']\ntry:\n    ops.cli.main()\nfinally:\n    print(gc.get_threshold())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, usual = gc.get_threshold(), 700
    try:
        gc.set_threshold(usual)  # another test may have run the program in this process
        collect_rarely()
        assert said.splitlines()[-1] == str(gc.get_threshold())
        assert gc.get_threshold()[0] > usual
    finally:
        gc.set_threshold(*before)


def test_the_table_of_the_readme_is_written_between_its_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}old\n{END}after\n")
    results = Results({}, quick=False, comparisons=[compared(plain=0.5, ours=1.0)])
    for _ in range(2):
        write_summary(readme, results)
    before, *table, after = readme.read_text().replace(BEGIN, "").replace(END, "").splitlines()
    assert (before, after) == ("before", "after")
    assert table[2] == f"| {W1.title} | 500 ms | 1 s |  | 2.00 |  |  |"
    readme.write_text("no marks")
    with pytest.raises(ValueError, match="has not the lines"):
        write_summary(readme, results)
    assert readme.read_text() == "no marks"
    ours = (Path(page.__file__).parents[2] / "README.md").read_text()
    assert ours.index(BEGIN) < ours.index(END)


def test_what_was_tried_is_said_of_missed_goals_alone() -> None:
    missed = row("replay and verification of a ledger of 9 entries", "1", "2", 0.5, 0.7, "at-least")
    said = tried([missed, missed, row("W1: round, to the plain loop's", "1", "2", 2.0, 2.5, "at-most")])
    assert len(said) == 1
    assert said[0].startswith("Not reached: replay")
    names = [judged.what for judged in compare.rows(compared(plain=1.0, ours=9.0))]
    assert len(tried([row(name, "1", "2", 9.0, 1.0, "at-most") for name in names])) == 1


def test_a_profile_names_no_folder_of_the_machine() -> None:
    profiler = cProfile.Profile()
    profiler.runcall(tried, [])
    said = _functions(profiler)
    assert "tried.py" in said
    assert str(Path(page.__file__).parents[2]) not in said
