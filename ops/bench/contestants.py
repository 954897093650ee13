# SPDX-License-Identifier: Apache-2.0
"""The contestants as commands, one run of one of them, and what it measured."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from chaincode.threads import CORES
from ops.bench.memory import Sample, Sampler, cpu_between, others, peak

ROOT = Path(__file__).resolve().parent.parent.parent
PLAIN, FLOWER, FEDLEDGER = "plain", "Flower", "Fedledger"
TUNED, ONE_BY_ONE = "plain, tuned", "Fedledger, one by one"
"""For comparison, and not judged: a plain loop without ``torch.optim``, and Fedledger without stacks of small sites."""
FEDERATIONS = {FEDLEDGER: "federation.toml", ONE_BY_ONE: "one_by_one.toml"}
LIMIT_SECONDS = 900
END_SECONDS = 10
ROOM = 1 << 28
"""Bytes that a run may leave. Where a file system has no journal, as on many virtual machines, it is slow to make a file for minutes
after thousands have been removed (0.4 ms in the place of 0.014): the next run would pay for the one before."""
_ONE_THREAD = ("OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1")
"""For every contestant alike; each sets torch's own number, too."""

_MARKS = ("train", "before-seal", "seal", "delivered", "before-record", "record")
PHASES = (
    "train and commit",
    "last commits and seal",
    "collect, verify, sum",
    "finish",
    "record and open",
    "between rounds",
)


@dataclass(frozen=True, slots=True)
class Run:
    """One run. ``ends`` are the seconds since the process started at which each round's model was there; ``pss`` and
    ``cpu`` (bytes at the peak, seconds a warm round) by role; ``phases`` the seconds of each in each warm round, for
    Fedledger; accuracy and loss of the last model; ``after`` the seconds from there to the process's end; ``others`` how many cores were busy with
    something else until then."""

    contestant: str
    ends: tuple[float, ...]
    warm_up: int
    accuracy: float
    loss: float
    pss: Mapping[str, int]
    cpu: Mapping[str, float]
    phases: Mapping[str, tuple[float, ...]]
    after: float
    others: float

    @property
    def rounds(self) -> list[float]:
        """The seconds of each warm round."""
        first = self.warm_up
        return [b - a for a, b in zip(self.ends[first - 1 : -1], self.ends[first:], strict=True)]


class ContestantError(Exception):
    """A contestant ended with an error; the text is the end of what it said."""


def command(contestant: str, folder: Path, flower: Path | None) -> list[str]:
    """The command that a contestant is; its working folder is one in ``folder``, the workload is in ``folder``/data."""
    data, journal = str(folder / "data"), "journal.jsonl"
    settings = [*_ONE_THREAD, f"PYTHONPATH={ROOT}"]
    if contestant == FLOWER:
        settings += ["FLWR_TELEMETRY_ENABLED=0", "RAY_USAGE_STATS_ENABLED=0"]  # nothing waits for a network
        program = [str(flower), "-m", "ops.bench.peer_flower", data, journal, str(CORES)]
    elif contestant in (PLAIN, TUNED):
        how = ["tuned"] if contestant == TUNED else []
        program = [sys.executable, "-m", "ops.bench.loop", data, journal, *how]
    else:
        federation = str(folder / FEDERATIONS[contestant])
        program = [*_fedledger(), "run", federation, "--dir", "run", "--events", journal, "--no-baselines"]
    return ["env", *settings, *program]


def _fedledger() -> list[str]:
    """The installed program, or the same from the source."""
    script = Path(sys.executable).parent / "fedledger"
    return [str(script)] if script.is_file() else [sys.executable, "-m", "ops.cli"]


def carry_out(contestant: str, folder: Path, flower: Path | None, warm_up: int) -> Run:
    """Run a contestant to its end, alone on the machine as far as this program knows, in a new folder in ``folder``. It is
    for the caller to remove, unless there is more in it than ROOM.

    Raises:
        ContestantError: it ended with an error, took longer than LIMIT_SECONDS, or left no round.
    """
    place = Path(tempfile.mkdtemp(prefix=re.sub(r"\W+", "-", f"{contestant.lower()}-"), dir=folder))
    with (place / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command(contestant, folder, flower), cwd=place, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        began, sampler = time.monotonic(), Sampler(process.pid)
        try:
            with sampler:
                _wait(process)
            ended = time.monotonic()
        finally:
            _end(process, sampler)
    said = (place / "output.txt").read_text(errors="replace")
    if process.returncode:
        raise ContestantError(f"{contestant} ended with {process.returncode}:\n{said[-3000:]}")
    with (place / "journal.jsonl").open() as file:
        lines = [json.loads(line) for line in file]
    run = read_run(contestant, lines, sampler.samples, began=began, ended=ended, warm_up=warm_up)
    if sum(path.lstat().st_size for path in place.rglob("*")) > ROOM:
        shutil.rmtree(place)
    return run


def _wait(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(LIMIT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise ContestantError(f"{process.args!r} took longer than {LIMIT_SECONDS} s") from error


def _end(process: "subprocess.Popen[bytes]", sampler: Sampler) -> None:
    """End what a contestant has left running, also where it was interrupted: it would slow down the next one."""
    process.terminate()
    until = time.monotonic() + END_SECONDS
    while sampler.left() and time.monotonic() < until:
        time.sleep(0.2)
    for pid in sampler.left():
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def read_run(
    contestant: str, lines: Sequence[Mapping[str, Any]], samples: Sequence[Sample], *, began: float, ended: float,
    warm_up: int,
) -> Run:  # fmt: skip
    """What a contestant's own journal and the samples say. ``began`` and ``ended`` are of the monotonic clock.

    Raises:
        ContestantError: the journal has too few rounds.
    """
    if contestant in FEDERATIONS:
        records = [line for line in lines if line["kind"] == "record"]
        metrics = [line["facts"]["metrics"] for line in records]
    else:
        records = metrics = list(lines)
    ends = tuple(float(line["seconds"]) for line in records)
    if len(ends) <= warm_up:
        raise ContestantError(f"{contestant} has {len(ends)} rounds; {warm_up} are for warming up")
    begin, end = began + ends[warm_up - 1], began + ends[-1]
    cpu = {what: used / (len(ends) - warm_up) for what, used in cpu_between(samples, begin, end).items()}
    return Run(
        contestant, ends, warm_up, float(metrics[-1]["accuracy"]), float(metrics[-1]["loss"]), peak(samples, end), cpu,
        read_phases(lines, warm_up) if contestant in FEDERATIONS else {}, ended - end,
        others(samples, began, end),
    )  # fmt: skip


def read_phases(lines: Sequence[Mapping[str, Any]], warm_up: int) -> Mapping[str, tuple[float, ...]]:
    """The seconds of each phase in each warm round, from the events of a run without faults.

    An event that a round lacks gives its time to the phase that follows.
    """
    phases: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for number in sorted({line["round"] for line in lines if line["kind"] == "record"})[warm_up:]:
        at = {line["kind"]: float(line["seconds"]) for line in lines if line["round"] == number}
        before = max(float(x["seconds"]) for x in lines if x["round"] == number - 1 and x["kind"] == "record")
        times = [before]
        for kind in _MARKS:
            times.append(max(times[-1], at.get(kind, 0.0)))
        spans = [b - a for a, b in pairwise(times)]
        for phase, seconds in zip(("between rounds", *PHASES[:-1]), spans, strict=True):
            phases[phase].append(seconds)
    return {phase: tuple(seconds) for phase, seconds in phases.items()}
