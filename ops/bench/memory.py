# SPDX-License-Identifier: Apache-2.0
"""Memory and CPU time of a command with all that it starts, sampled from /proc while it runs.

A process belongs to the command if it is its child, a child of one that belongs, or in a session of one; who belonged
once stays, also when its parent has ended and it is somebody else's child. Memory is PSS: a page that several
processes share counts in shares, so that Ray's shared memory is counted once.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

PROC = Path("/proc")
TICK_SECONDS = 0.1
DUTY = 0.04
"""The part of one core that reading PSS may take: it makes the kernel walk every page table."""

_HZ = os.sysconf("SC_CLK_TCK")
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Process:
    """A line of /proc/PID/stat: ``started`` and ``cpu`` (user and system) in the kernel's ticks."""

    pid: int
    name: str
    parent: int
    session: int
    started: int
    cpu: int


@dataclass(frozen=True, slots=True)
class Sample:
    """At ``seconds`` of the monotonic clock: CPU seconds so far by role, PSS in bytes by role or None where it was not
    read this time, and the CPU seconds that the whole machine has been busy."""

    seconds: float
    cpu: Mapping[str, float]
    pss: Mapping[str, int] | None
    busy: float


def parse_stat(pid: int, line: bytes) -> Process:
    """The fields of proc_pid_stat(5). The name may hold anything, also brackets and spaces."""
    head, _, rest = line.rpartition(b")")
    fields = rest.split()
    name = head.partition(b"(")[2].decode(errors="replace")
    return Process(pid, name, int(fields[1]), int(fields[3]), int(fields[19]), int(fields[11]) + int(fields[12]))


def processes(proc: Path = PROC) -> list[Process]:
    """All processes that there are."""
    found = []
    for entry in os.listdir(proc):
        if entry.isdigit():
            try:
                found.append(parse_stat(int(entry), (proc / entry / "stat").read_bytes()))
            except (OSError, IndexError, ValueError):  # it ended meanwhile
                continue
    return found


def busy_seconds(proc: Path = PROC) -> float:
    """CPU seconds that all cores have worked since the machine started (proc_stat(5)); a stolen one was not ours."""
    user, nice, system, _idle, _wait, irq, softirq, *_ = map(int, (proc / "stat").read_text().split(None, 8)[1:8])
    return (user + nice + system + irq + softirq) / _HZ


def read_pss(pid: int, proc: Path = PROC) -> int:
    """A process's proportional set size in bytes; 0 where it has ended or has no memory."""
    try:
        for line in (proc / str(pid) / "smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * _KIB
    except OSError:
        pass
    return 0


def role(name: str, command: str, *, first: bool) -> str:
    """What a process is in a contestant, by its name and its command line."""
    if first:
        return "main process"
    for word, what in (
        ("raylet", "raylet"), ("gcs_server", "gcs server"), ("plasma", "raylet"), ("ray::IDLE", "idle workers"),
        ("ray::", "workers"), ("default_worker.py", "workers"), ("log_monitor", "Ray's agents"),
        ("monitor.py", "Ray's agents"), ("dashboard", "Ray's agents"), ("runtime_env", "Ray's agents"), ("ray", "Ray's agents"),
    ):  # fmt: skip
        if name.startswith(word) or word in command:
            return what
    return "other"


@dataclass(slots=True)
class Tree:
    """Who belongs to a command. ``known`` maps process id to start time: a reused id starts later."""

    root: int
    known: dict[int, int] = field(default_factory=dict)
    sessions: set[int] = field(default_factory=set)

    def members(self, everybody: Iterable[Process]) -> list[Process]:
        """The processes that belong, out of all; remembers them."""
        everybody = list(everybody)
        if not self.known:
            self.known |= {p.pid: p.started for p in everybody if p.pid == self.root}
            self.sessions.add(self.root)  # its own: it is started as a session's leader
        alive = {p.pid for p in everybody if self.known.get(p.pid) == p.started}
        grown = True
        while grown:
            new = [p for p in everybody if p.pid not in alive and (p.parent in alive or p.session in self.sessions)]
            alive |= {p.pid for p in new}
            self.known |= {p.pid: p.started for p in new}
            # A session of one that belongs is the command's, unless somebody outside leads it.
            self.sessions |= {p.session for p in new if p.session in self.known}
            grown = bool(new)
        return [p for p in everybody if p.pid in alive]


class Sampler:
    """Samples a command's processes in a thread until it is left: CPU time at every tick, PSS as often as it may."""

    def __init__(self, root: int) -> None:
        self.samples: list[Sample] = []
        self._tree, self._ended = Tree(root), threading.Event()
        self._cpu: dict[int, tuple[str, int]] = {}
        self._next_pss = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def left(self) -> list[int]:
        """The ids of the command's processes that are still there."""
        return [p.pid for p in self._tree.members(processes())]

    def _run(self) -> None:
        while not self._ended.wait(TICK_SECONDS):
            self._sample()

    def _sample(self) -> None:
        members, now = self._tree.members(processes()), time.monotonic()
        roles = {p.pid: self._role(p) for p in members}
        for process in members:
            self._cpu[process.pid] = roles[process.pid], process.cpu
        cpu: dict[str, float] = defaultdict(float)
        for what, ticks in self._cpu.values():
            cpu[what] += ticks / _HZ
        self.samples.append(Sample(now, dict(cpu), self._pss(members, roles, now), busy_seconds()))

    def _pss(self, members: list[Process], roles: Mapping[int, str], now: float) -> Mapping[str, int] | None:
        if now < self._next_pss:
            return None
        used = time.thread_time()
        pss: dict[str, int] = defaultdict(int)
        for process in members:
            pss[roles[process.pid]] += read_pss(process.pid)
        self._next_pss = now + (time.thread_time() - used) / DUTY
        return dict(pss)

    def _role(self, process: Process) -> str:
        try:
            command = (PROC / str(process.pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            command = ""
        return role(process.name, command, first=process.pid == self._tree.root)


def peak(samples: Iterable[Sample], until: float) -> Mapping[str, int]:
    """The sample with the most memory in all up to a second of the monotonic clock, by role."""
    taken = [sample.pss for sample in samples if sample.pss is not None and sample.seconds <= until]
    return max(taken, key=lambda pss: sum(pss.values()), default={})


def cpu_between(samples: Iterable[Sample], begin: float, end: float) -> Mapping[str, float]:
    """CPU seconds by role between two seconds of the monotonic clock, to the nearest samples within."""
    within = [sample for sample in samples if begin <= sample.seconds <= end]
    if len(within) < 2:
        return {}
    first, last = within[0], within[-1]
    scale = (end - begin) / (last.seconds - first.seconds)
    return {what: (used - first.cpu.get(what, 0.0)) * scale for what, used in last.cpu.items()}


def others(samples: Sequence[Sample], begin: float, end: float) -> float:
    """How many cores were kept busy by processes that are not the command's, on average, sampling included."""
    within = [sample for sample in samples if begin <= sample.seconds <= end]
    if len(within) < 2:
        return 0.0
    first, last = within[0], within[-1]
    ours = sum(last.cpu.values()) - sum(first.cpu.values())
    return max(0.0, (last.busy - first.busy - ours) / (last.seconds - first.seconds))
