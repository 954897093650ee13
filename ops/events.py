# SPDX-License-Identifier: Apache-2.0
"""What happens in a run, written to a file as it happens: where a round's time goes, for people and for programs.

One JSON object a line: ``kind``, ``round``, ``attempt`` (0 where there is none), ``seconds`` since this process
started, ``facts``. The first line of a process has the kind ``process``; a run that goes on adds its lines to the file.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from coordinator.steps import Event

FEW = 8
"""A longer list of facts is written as its length, ``{"count": 1000}``."""

_TURNS = {"record", "abort", "wait"}
_PLAIN = {str, int, float, bool, type(None)}
_LONG = (list, tuple, Mapping)
_STAT = Path("/proc/self/stat")


def process_age() -> float:
    """Seconds since this process was started, as the kernel knows it (to 0.01 s); 0 where it cannot be asked."""
    with suppress(OSError, ValueError, IndexError, AttributeError):
        # The name in brackets may hold anything; what follows the last bracket is numbers (proc_pid_stat(5)).
        ticks = int(_STAT.read_bytes().rpartition(b")")[2].split()[19])
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    return 0.0


class Recorder:
    """Writes every event to a file, and hands it on to ``then``.

    Lines are kept in memory within a round and written at its end, so that a round of many sites pays for a few
    microseconds a site. Closing writes what is left, also when the run fails.
    """

    def __init__(self, path: Path | str, then: Callable[[Event], None]) -> None:
        """Open the file. Raises OSError where it cannot be written."""
        self._then, self._lines = then, list[str]()
        self._began = time.monotonic() - process_age()
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  (closed by __exit__)
        self(Event("process", 0, 0, {"utc": int(time.time())}))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write()
        self._file.close()

    def __call__(self, event: Event) -> None:
        """Keep the event with the time at which it was told; written are the events of a whole round at a time."""
        seconds = time.monotonic() - self._began
        self._lines.append(
            _encode(
                {"kind": event.kind, "round": event.round, "attempt": event.attempt, "seconds": round(seconds, 6),
                 "facts": {name: _small(value) for name, value in event.facts.items()}}
            )
        )  # fmt: skip
        if not event.round or event.kind in _TURNS:
            self._write()
        if event.kind != "process":
            self._then(event)

    def _write(self) -> None:
        if self._lines:
            self._file.write("\n".join(self._lines) + "\n")
            self._file.flush()
            self._lines.clear()


def _small(value: Any) -> Any:
    """The fact itself, or how many there are."""
    if type(value) in _PLAIN:  # nearly every one: to ask for a family takes ten times as long
        return value
    if isinstance(value, _LONG):
        return {"count": len(value)} if len(value) > FEW else value
    return value


def _plain(value: object) -> object:
    """What JSON has no form for, in one that it has."""
    return dict(value) if isinstance(value, Mapping) else str(value)


_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, default=_plain).encode
