# SPDX-License-Identifier: Apache-2.0
"""What our own cluster leaves on a machine: its folder, and a record of its processes, so that those that a kill
orphaned are ended at the next start.

Reads /proc; where there is none (not Linux) nothing is recorded and nothing ended. A process is ours only if its id
and its start time are the recorded ones, in the same boot of the same machine, or if it holds open a file in the
cluster's own folder, which has a random name.
"""

import os
import select
import shutil
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaincode.files import replacing
from identity import canonical
from identity.errors import EvidenceError

PREFIX = "fedledger-ray-"
END_SECONDS = 5.0
PROC = Path("/proc")
BOOT = PROC / "sys" / "kernel" / "random" / "boot_id"


def make_folder() -> str:
    """A folder for a cluster's own files, which nobody else can enter.

    The path is short: a socket's has room for 107 bytes, of which Ray needs up to 80.
    """
    usual = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix=PREFIX, dir=usual if len(usual) <= len("/var/tmp") else "/tmp")  # noqa: S108


@dataclass(frozen=True, slots=True)
class Process:
    """A process: its id, and when it started, in the kernel's ticks since boot; a reused id starts later."""

    pid: int
    started: int


def started(pid: int) -> Process | None:
    """The process with this id, None where there is none (or only its exit status)."""
    try:
        # The name in brackets may hold anything; what follows the last bracket is numbers (proc_pid_stat(5)).
        fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else Process(pid, int(fields[19]))


def _parents() -> dict[int, int]:
    """Every process's parent."""
    parents = {}
    for entry in PROC.glob("[0-9]*"):
        with suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
    return parents


def _mentions(pid: int, folder: str) -> bool:
    """Whether a process was started with the folder in its command line, or holds a file in it open."""
    try:
        if os.fsencode(folder) in (PROC / str(pid) / "cmdline").read_bytes():
            return True
        return any(os.readlink(link).startswith(f"{folder}/") for link in (PROC / str(pid) / "fd").iterdir())
    except OSError:  # it has ended meanwhile, or belongs to somebody else
        return False


def _is_stray(pid: int, folder: str) -> bool:
    """Whether a process that the record may have missed is one of Ray's, and not somebody's who reads its logs."""
    try:
        command = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return False
    return (command.startswith(b"ray::") or b"/ray/" in command) and _mentions(pid, folder)


def cluster_processes(folder: str) -> list[Process]:
    """The processes of the cluster whose own folder this is: those below this process that mention it, and theirs."""
    parents = _parents()
    ours: set[int] = set()
    for pid in parents:
        line = [pid]
        while (parent := parents.get(line[-1], 0)) and parent != os.getpid():
            line.append(parent)
        # ``line`` ends with a child of this process, or with a stranger.
        if parent and _mentions(line[-1], folder):
            ours.add(pid)
    return [process for pid in sorted(ours) if (process := started(pid))]


def record_processes(path: Path | str, folder: str) -> None:
    """Write down this process, the cluster's folder and its processes so far. Called again, it replaces the file."""
    if not BOOT.is_file():
        return
    value = {
        "boot": BOOT.read_text().strip(),
        "driver": _to_json(started(os.getpid())),
        "folder": folder,
        "processes": [_to_json(process) for process in cluster_processes(folder)],
    }
    with replacing(Path(path), fsync=False) as file:
        file.write(canonical.dumps(value))


def _to_json(process: Process | None) -> list[int]:
    return [] if process is None else [process.pid, process.started]


def end_orphans(path: Path | str) -> list[Process]:
    """End what is left of the cluster that is recorded in ``path``, remove its folder and the record; who was ended.

    A cluster whose driver is alive is left alone, unless the driver is this process, and so is everything where the
    record cannot be read.
    """
    path = Path(path)
    record = _read(path)
    if record is None or (_is_alive(record["driver"]) and record["driver"][0] != os.getpid()):
        return []
    folder = record["folder"]
    candidates = [Process(pid, at) for pid, at in record["processes"]]
    candidates += [process for pid in _parents() if _is_stray(pid, folder) and (process := started(pid))]
    ended = [process for process in dict.fromkeys(candidates) if _end(process)]
    shutil.rmtree(folder, ignore_errors=True)
    path.unlink(missing_ok=True)
    return ended


def _read(path: Path) -> Mapping[str, Any] | None:
    """The record, None where there is none of this boot."""
    try:
        value: Mapping[str, Any] = canonical.loads(path.read_bytes())
        folder = Path(value["folder"])  # it will be removed: only one of ours
        if value["boot"] != BOOT.read_text().strip() or not folder.is_absolute() or not folder.name.startswith(PREFIX):
            return None
        for pid, at in [*value["processes"], *([value["driver"]] if value["driver"] else [])]:
            if type(pid) is not int or type(at) is not int or pid <= 1:
                return None
        return value
    except (OSError, EvidenceError, KeyError, TypeError, ValueError):
        return None


def _is_alive(pair: list[int]) -> bool:
    return bool(pair) and started(pair[0]) == Process(*pair)


def _end(process: Process) -> bool:
    """Kill a process if it is still the one that is meant, and wait for its end; whether it was."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        # The handle names the process whose start time is then checked, whatever becomes of the id meanwhile.
        if started(process.pid) != process:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [], END_SECONDS)  # readable when it has ended
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
