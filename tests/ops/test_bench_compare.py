# SPDX-License-Identifier: Apache-2.0
"""The comparison's own logic: memory shared out, medians of warm rounds, phases, goals, and the same work for all.
Nothing here asserts how long anything takes, and nothing needs Flower."""

import json
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ops.bench import compare, contestants, loop
from ops.bench.compare import Comparison, Measured
from ops.bench.contestants import (
    FEDLEDGER,
    FLOWER,
    PLAIN,
    ContestantError,
    Run,
    carry_out,
    command,
    read_phases,
    read_run,
)
from ops.bench.memory import Sample
from ops.bench.page import Results, write_page
from ops.bench.prepare import make_work, prepare
from ops.bench.report import Table, goals_table, markdown, row, seconds, size
from ops.bench.workloads import WORKLOADS, Workload
from ops.federation_file import load
from tests.ops.test_run_command import our_processes

SMALL = {"W1": 3, "W2": 1, "W3": 1, "W4": 1}


def workload(name: str) -> Workload:
    return replace(next(w for w in WORKLOADS if w.name == name), rounds=SMALL[name], repeats=1, more=0, warm_up=1)


def run_of(contestant: str, ends: tuple[float, ...], **changes: object) -> Run:
    made = Run(contestant, ends, 1, 0.9, 0.25, {"main process": 100}, {"main process": 0.5}, {}, 1.0, 0.0)
    return replace(made, **changes)  # type: ignore[arg-type]


# Runs


def test_a_run_out_of_a_journal() -> None:
    lines = [
        {"round": n, "seconds": s, "accuracy": 0.5, "loss": 0.1 * n} for n, s in enumerate((2.0, 3.0, 3.5, 4.5), 1)
    ]
    samples = [Sample(100.0 + t, {"main process": t}, {"main process": int(t)}, t) for t in range(10)]
    run = read_run(PLAIN, lines, samples, began=100.0, ended=106.0, warm_up=2)
    assert run.rounds == [0.5, 1.0]
    assert run.ends[0] == 2.0
    assert run.after == pytest.approx(1.5)
    assert run.pss == {"main process": 4}, "what came after the last round does not count"
    assert run.loss == pytest.approx(0.4)
    with pytest.raises(ContestantError):
        read_run(PLAIN, lines[:2], samples, began=100.0, ended=106.0, warm_up=2)


def test_phases_add_up_to_the_rounds() -> None:
    kinds = ("open", "train", "site-committed", "before-seal", "seal", "delivered", "before-record", "record")
    lines, now = [], 1.0
    for number in (1, 2, 3):
        for step, kind in enumerate(kinds):
            if (number, kind) == (3, "delivered"):
                continue  # nobody tells: its time goes to the phase that follows
            now += 0.1 * (step + 1)
            lines.append({"kind": kind, "round": number, "seconds": now})
    phases = read_phases(lines, 1)
    records = [line["seconds"] for line in lines if line["kind"] == "record"]
    for number, length in enumerate(b - a for a, b in pairwise(records)):
        assert sum(values[number] for values in phases.values()) == pytest.approx(length)
    assert phases["between rounds"][0] == pytest.approx(0.3)
    assert phases["train and commit"][0] == pytest.approx(0.7)
    assert phases["collect, verify, sum"] == pytest.approx((0.6, 0.0))


def test_medians_are_of_all_warm_rounds_and_launches_of_runs() -> None:
    one = Measured(PLAIN, (run_of(PLAIN, (2.0, 3.0, 5.0)), run_of(PLAIN, (4.0, 7.0, 11.0), pss={"a": 1, "b": 200})))
    assert one.rounds == [1.0, 2.0, 3.0, 4.0]
    assert (one.round, one.quartiles) == (2.5, (1.75, 3.25))
    assert one.launch == 3.0
    assert one.memory == 201
    assert one.cpu == {"main process": 0.5}


def test_cpu_time_spread_over_cores() -> None:
    cpu = {"main process": 1.0, "workers": 0.8}
    runs = {PLAIN: run_of(PLAIN, (1.0, 2.5)), FEDLEDGER: run_of(FEDLEDGER, (6.0, 8.0), cpu=cpu)}
    measured = {name: Measured(name, (run,)) for name, run in runs.items()}
    table = compare.where_cpu_goes([Comparison(workload("W1"), measured)], cores=2)
    assert table.columns[2:5] == ("in all", "spread over 2 cores", "that to plain")
    assert table.rows[1] == (
        "W1", FEDLEDGER, seconds(1.8), seconds(0.9), "0.60", f"main process {seconds(1.0)}, workers {seconds(0.8)}"
    )  # fmt: skip
    del measured[PLAIN]
    assert compare.where_cpu_goes([Comparison(workload("W1"), measured)], cores=1).rows[0][2:5] == (
        seconds(1.8), seconds(1.8), "",
    )  # fmt: skip


def three(**changes: object) -> Comparison:
    ends = {PLAIN: (1.0, 2.0), FLOWER: (20.0, 30.0), FEDLEDGER: (6.0, 8.0)}
    return Comparison(workload("W1"), {n: Measured(n, (run_of(n, e, **changes),)) for n, e in ends.items()})


def test_goals_are_judged() -> None:
    found = {r.what: (r.ratio, r.reached) for r in compare.rows(three())}
    assert found == {
        "W1: round, to the plain loop's": (2.0, True),
        "W1: Flower's round to ours": (5.0, False),
        "W1: launch to the end of round 1, to Flower's": (0.3, True),
        "W1: launch to the end of round 1, to the goal": (pytest.approx(6 / 7), True),
    }
    assert all(r.note == "" for r in compare.rows(three()))
    assert all("1.5 cores" in r.note for r in compare.rows(three(others=1.5)))
    unjudged = three()
    assert compare.rows(Comparison(replace(unjudged.workload, goals=None), unjudged.measured)) == []


def in_turns(contestant: str, *rounds: float) -> Measured:
    return Measured(contestant, tuple(run_of(contestant, (1.0, 1.0 + seconds_)) for seconds_ in rounds))


@pytest.mark.parametrize("contestant", [PLAIN, FEDLEDGER])
def test_a_verdict_is_doubtful_where_a_contestant_was_unsteady(contestant: str) -> None:
    both = {PLAIN: in_turns(PLAIN, 1.1, 1.2), FEDLEDGER: in_turns(FEDLEDGER, 1.2, 1.1)}
    (steady, launch) = compare.rows(Comparison(workload("W1"), both))
    assert (steady.note, launch.note) == ("ratio 0.92 to 1.09 in 2 turns", "")
    measured = {**both, contestant: in_turns(contestant, 1.1, 1.4)}
    found = compare.rows(Comparison(workload("W1"), measured))
    assert all(f"a round of {contestant} took 1.1 s to 1.4 s in its turns" in r.note for r in found)


def test_a_ratio_is_of_the_turns_that_both_took() -> None:
    """Who runs longer than the others, on a machine that gets faster, is not faster for that."""
    measured = {
        PLAIN: in_turns(PLAIN, 1.0, 1.0, 1.0),
        FLOWER: in_turns(FLOWER, 20.0),
        FEDLEDGER: in_turns(FEDLEDGER, 4.0, 2.0, 2.0),
    }
    comparison = Comparison(workload("W1"), measured)
    assert (comparison.ratio(FLOWER, FEDLEDGER), comparison.ratio(FEDLEDGER, PLAIN)) == (5.0, 2.0)
    found = {r.what: (r.ours, r.ratio) for r in compare.rows(comparison)}
    assert found["W1: Flower's round to ours"] == ("4 s", 5.0)
    assert found["W1: round, to the plain loop's"] == ("2 s", 2.0)
    assert comparison.ratio(FLOWER, "nobody") is None


def test_who_runs_in_which_turn() -> None:
    names = [PLAIN, FLOWER, FEDLEDGER]
    planned = compare.turns(replace(workload("W1"), repeats=2, more=3), names)
    assert planned[:2] == [names, [FLOWER, FEDLEDGER, PLAIN]]
    assert planned[2:] == [[PLAIN, FEDLEDGER], [FEDLEDGER, PLAIN], [PLAIN, FEDLEDGER]], "neither is always the first"
    assert compare.turns(replace(workload("W1"), repeats=1, more=1), [PLAIN]) == [[PLAIN], [PLAIN]]


def test_models_that_differ_are_said() -> None:
    same = three()
    assert compare.disagreements([same]) == []
    slow = replace(same.measured[FLOWER].runs[0], accuracy=0.9, loss=0.2502)
    other = Comparison(same.workload, {**same.measured, FLOWER: Measured(FLOWER, (slow,))})
    assert len(compare.disagreements([other])) == 1
    assert "Flower" in compare.disagreements([other])[0]


# Reports


def test_a_table_for_a_page() -> None:
    text = markdown(Table("T", ("a", "b"), (("1|2", "x\ny"),), "said"))
    assert text.splitlines() == ["### T", "", "| a | b |", "| --- | --- |", "| 1\\|2 | x y |", "", "said", ""][:-1]
    shown = goals_table("G", [row("w", "1", "2", 0.5, 1, "at-most"), row("w", "1", "2", 0.5, 1, "at-least")])
    assert [cells[5] for cells in shown.rows] == ["reached", "not reached"]


def test_units() -> None:
    assert [seconds(s) for s in (0.002714, 0.104, 13.54, 1234.0)] == ["2.71 ms", "104 ms", "13.5 s", "1234 s"]
    assert [size(s) for s in (3.5e8, 3.65e9)] == ["350 MB", "3.65 GB"]


def test_the_page_names_nobody_and_no_place(tmp_path: Path) -> None:
    results = Results({"processor": "P", "cores": 2, "memory_bytes": 8e9, "kernel": "Linux", "python": "3", "fedledger": {},
                       "flower": {"flwr": "1"}}, quick=False, comparisons=[three()])  # fmt: skip
    write_page(tmp_path, tmp_path, results)
    page = (tmp_path / "README.md").read_text()
    assert "| W1 | Flower | 10 s |" in page
    assert "| reached |" in page
    assert str(tmp_path) not in page
    assert os.uname().nodename not in page
    assert json.loads(json.dumps(results.to_json()))["work"][0]["contestants"][FLOWER]["round"] == 10.0


# The same work for all


@pytest.mark.parametrize("name", ["W1", "W2", "W4"])
def test_the_others_get_what_the_sites_train_on(tmp_path: Path, name: str) -> None:
    small = workload(name)
    path = prepare(tmp_path, small)
    file = load(path)
    assert (file.sites, file.rounds, file.agreement.optimiser) == (small.sites, small.rounds, "avg")
    (made, initial), read = make_work(small), loop.load(str(tmp_path / "data"))
    assert read.plan == made.plan
    begin = loop.load_initial(str(tmp_path / "data"))
    assert all(np.array_equal(a, b) for a, b in zip(begin, initial, strict=True))
    assert np.array_equal(read.seeds, made.seeds)
    for (x, y), (u, v) in zip(read.data, made.data, strict=True):
        assert x.equal(u)
        assert y.equal(v)
        assert x.is_contiguous()
    assert read.held_out[0].equal(made.held_out[0])


def test_a_workload_that_says_something_else_than_its_task() -> None:
    with pytest.raises(ValueError, match="not trained as"):
        make_work(replace(workload("W1"), batch=16))
    with pytest.raises(ValueError, match="another model"):
        make_work(replace(workload("W1"), layers=(30, 32, 2)))


def test_workloads_are_those_of_the_goals() -> None:
    assert [(w.sites, w.parameters, w.batch, w.learning_rate) for w in WORKLOADS] == [
        (10, 2114, 32, 0.1), (50, 9610, 32, 0.1), (10, 10_003_218, 4, 0.01), (1000, 210, 32, 0.1),
    ]  # fmt: skip
    assert all(w.rounds > w.warm_up >= 1 for w in WORKLOADS)
    assert all(w.quick().rounds > w.quick().warm_up >= 1 for w in WORKLOADS if w.quick_rounds)


def test_the_plain_loop_and_fedledger_end_with_the_same_model(tmp_path: Path) -> None:
    prepare(tmp_path, workload("W1"))
    plain, ours = (carry_out(who, tmp_path, None, 1) for who in (PLAIN, FEDLEDGER))
    assert plain.accuracy == ours.accuracy
    assert plain.loss == pytest.approx(ours.loss, rel=1e-6)
    assert len(ours.rounds) == len(ours.phases["finish"]) == 2
    assert {"main process", "workers", "raylet"} <= ours.pss.keys()
    assert sum(ours.pss.values()) > sum(plain.pss.values()) > 10 << 20
    assert {path.name.rpartition("-")[0] for path in tmp_path.glob("*-*/")} == {"fedledger", "plain"}


def test_a_contestant_that_fails_is_said(tmp_path: Path) -> None:
    with pytest.raises(ContestantError, match=r"plan\.json"):
        carry_out(PLAIN, tmp_path, None, 1)


def test_one_that_takes_too_long_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path, replace(workload("W1"), rounds=100_000))
    monkeypatch.setattr(contestants, "LIMIT_SECONDS", 3.0)
    with pytest.raises(ContestantError, match="took longer"):
        carry_out(FEDLEDGER, tmp_path, None, 1)
    assert our_processes(tmp_path) == []


def test_every_contestant_has_the_same_thread_settings(tmp_path: Path) -> None:
    for who in (PLAIN, FLOWER, FEDLEDGER):
        line = command(who, tmp_path, Path("python"))
        assert line[:3] == ["env", "OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1"]
