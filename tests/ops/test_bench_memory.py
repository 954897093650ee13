# SPDX-License-Identifier: Apache-2.0
"""What the benchmark counts of a contestant's processes: memory shared out, CPU time, and what role each has."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from ops.bench import memory
from ops.bench.memory import Process, Sample, Sampler, Tree, parse_stat


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
