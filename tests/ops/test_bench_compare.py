# SPDX-License-Identifier: Apache-2.0
"""The comparison's own logic: memory shared out, medians of warm rounds, phases, goals, and the same work for all.
Nothing here asserts how long anything takes, and nothing needs Flower."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ops.bench import compare, contestants, loop, memory
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
from ops.bench.memory import Process, Sample, Sampler, Tree, parse_stat
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


# Memory and CPU time


def test_a_stat_line_with_a_hostile_name() -> None:
    line = b"42 (a) b ( 7) S 7 8 9 0 -1 4194304 1 0 0 0 150 50 0 0 20 0 1 0 12345 1 2"
    assert parse_stat(42, line) == Process(42, "a) b ( 7", 7, 9, 12345, 200)


def test_pss_shares_out_what_processes_share() -> None:
    size_ = 64 << 20
    code = (
        "import mmap, os, sys, time\n"
        f"m = mmap.mmap(-1, {size_})\n"
        f"m.write(b'x' * {size_})\n"
        "pid = os.fork()\n"
        f"m[:{size_}:4096]\n"  # both touch every page
        "print('there', flush=True) if pid else None\n"
        "sys.stdin.read() if pid else time.sleep(100)\n"
        "pid and os.kill(pid, 9)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert parent.stdout is not None
        parent.stdout.readline()
        tree = Tree(parent.pid)
        until, members = time.monotonic() + 20, tree.members(memory.processes())
        while (both := sum(memory.read_pss(p.pid) for p in members)) < size_ and time.monotonic() < until:
            members = tree.members(memory.processes())
        assert len(members) == 2
        assert size_ <= both < 1.5 * size_, "shared pages count once"
    finally:
        parent.communicate()


def test_a_process_that_has_ended_has_no_memory(tmp_path: Path) -> None:
    assert memory.read_pss(1, tmp_path) == 0


def test_who_belongs_to_a_command() -> None:
    def process(pid: int, parent: int, session: int, started: int = 1) -> Process:
        return Process(pid, "p", parent, session, started, 0)

    tree = Tree(10)
    stranger = process(5, 1, 5)
    first = [stranger, process(10, 2, 10), process(11, 10, 10), process(12, 11, 12)]
    assert [p.pid for p in tree.members(first)] == [10, 11, 12]
    adopted = [stranger, process(10, 2, 10), process(12, 1, 12), process(13, 1, 12)]
    assert [p.pid for p in tree.members(adopted)] == [10, 12, 13], "its parent ended; a new one of its session"
    reused = [stranger, process(10, 2, 10), process(12, 1, 99, started=7)]
    assert [p.pid for p in tree.members(reused)] == [10], "another process with the id of one that ended"


def test_the_sampler_sees_a_child_that_leaves_its_session() -> None:
    code = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'sum(range(6 * 10**7))'], start_new_session=True)"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    with Sampler(process.pid) as sampler:
        process.wait()
    assert sampler.left() == []
    assert sampler.samples[-1].cpu["other"] > 0
    assert memory.peak(sampler.samples, float("inf"))["main process"] > 1 << 20
    assert memory.peak(sampler.samples, 0.0) == {}


def test_cpu_and_others_between_two_moments() -> None:
    samples = [Sample(float(t), {"workers": 0.5 * t, "main process": 1.0}, None, 2.0 * t) for t in range(10)]
    assert memory.cpu_between(samples, 2, 6) == {"workers": 2.0, "main process": 0.0}
    assert memory.cpu_between(samples, 2.1, 2.9) == {}
    assert memory.others(samples, 0, 9) == pytest.approx(1.5)


def test_roles() -> None:
    assert memory.role("python", "python -m x", first=True) == "main process"
    assert memory.role("raylet", "/somewhere/ray/core/src/ray/raylet/raylet --x", first=False) == "raylet"
    assert memory.role("ray::_Actor.cal", "ray::_Actor.call", first=False) == "workers"
    assert memory.role("ray::IDLE", "ray::IDLE", first=False) == "idle workers"
    assert memory.role("bash", "bash", first=False) == "other"


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
    steady, (first,) = three(), three().measured[PLAIN].runs
    turns = tuple(replace(first, ends=(1.0, 1.0 + 1.1 * n)) for n in (1, 1.1))
    slower = replace(turns[1], ends=(1.0, 2.4))
    for runs, doubted in ((turns, False), ((turns[0], slower), True)):
        measured = {**steady.measured, PLAIN: Measured(PLAIN, runs), FEDLEDGER: Measured(FEDLEDGER, runs[::-1])}
        found_ = compare.rows(Comparison(steady.workload, measured))
        assert all(("took 1.1 s to 1.4 s in its turns" in r.note) == doubted for r in found_)
        assert [r.what for r in found_ if r.note.startswith("ratio 0.")] == ["W1: round, to the plain loop's"]
    unjudged = three()
    assert compare.rows(Comparison(replace(unjudged.workload, goals=None), unjudged.measured)) == []


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
