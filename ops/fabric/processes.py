# SPDX-License-Identifier: Apache-2.0
"""Processes that outlive the command that starts them, and are ended by id and start time, never by name.

A node's folder holds ``process.json`` (boot, id and start time) while the node runs, and ``log``. A process is ours
only if all three are the recorded ones: an id that the system has given to somebody else meanwhile is left alone.
"""

import json
import os
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from chaincode.files import replacing
from coordinator.processes import BOOT, PROC, Process, started
from identity.errors import UsageError

GRACE_SECONDS = 10.0
KILL_SECONDS = 5.0
_TAIL_BYTES = 1 << 16

_children: dict[int, subprocess.Popen[bytes]] = {}
"""Those that this process started itself: it must collect their exit status, or they would stay as zombies."""


def need_proc() -> None:
    """Raises UsageError(fabric-system) where the system does not say when a process started (not Linux)."""
    if not BOOT.is_file():
        raise UsageError(
            "fabric-system", "The local Fabric network needs Linux: without /proc nothing could be ended safely."
        )


def launch(folder: Path, command: Sequence[str], environment: Mapping[str, str], cwd: Path) -> Process | None:
    """Start a process in a session of its own, its output appended to the log; None if it ended at once."""
    handle = os.open(log_file(folder), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(handle, "ab") as log:
        child = subprocess.Popen(
            command, env=dict(environment), cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    _children[child.pid] = child
    process = started(child.pid)
    if process is not None:
        record = {"boot": BOOT.read_text().strip(), "pid": process.pid, "started": process.started}
        with replacing(_record_file(folder), fsync=False) as file:
            file.write(json.dumps(record).encode())
    return process


def log_file(folder: Path) -> Path:
    """Where a node's output goes."""
    return folder / "log"


def _record_file(folder: Path) -> Path:
    return folder / "process.json"


def running(folder: Path) -> Process | None:
    """The recorded process if it still runs, None otherwise. An unreadable record names nobody."""
    try:
        record = json.loads(_record_file(folder).read_bytes())
        process = Process(record["pid"], record["started"])
        if record["boot"] != BOOT.read_text().strip() or type(process.pid) is not int or process.pid <= 1:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if process.pid in _children:
        _children[process.pid].poll()
    return process if started(process.pid) == process else None


def end(folder: Path, *, grace: float = GRACE_SECONDS) -> bool:
    """End the recorded process and forget it; whether there was one.

    It is asked first (SIGTERM) and given ``grace`` seconds; with 0 it is killed at once.

    Raises:
        UsageError: ``fabric-process``: it cannot be ended (it belongs to another user, or hangs in the kernel).
    """
    process = running(folder)
    ended = process is not None and _end(process, grace)
    _record_file(folder).unlink(missing_ok=True)
    return ended


def _end(process: Process, grace: float) -> bool:
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        # The handle names the process whose start time is then checked, whatever becomes of the id meanwhile.
        if started(process.pid) != process:
            return False
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, KILL_SECONDS)):
            if seconds == 0:
                continue
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], seconds)[0]:  # readable when it has ended
                _collect(process.pid)
                return True
    except PermissionError as error:
        raise UsageError("fabric-process", f"Process {process.pid} belongs to another user.") from error
    finally:
        os.close(handle)
    raise UsageError("fabric-process", f"Process {process.pid} does not end, even when it is killed.")


def _collect(pid: int) -> None:
    if (child := _children.pop(pid, None)) is not None:
        child.wait()


def tail(path: Path, lines: int = 12) -> list[str]:
    """The last lines of a log; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace").splitlines()[-lines:] if lines else []
    except OSError:
        return []


def resident_bytes(process: Process) -> int:
    """The memory that a process has in use, 0 where that cannot be told."""
    with suppress(OSError, ValueError, IndexError):
        pages = int((PROC / str(process.pid) / "statm").read_bytes().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0
