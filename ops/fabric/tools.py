# SPDX-License-Identifier: Apache-2.0
"""Running Fabric's command line programs, so that a failure names the step, the program and what it said."""

import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from chaincode.ledgers.fabric.pauses import Pauses
from identity.errors import Unavailable
from ops import output, settings

_SHOWN_LINES = 8
_STEP_SECONDS = 60.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STOPPED = re.compile(
    r"deadline|timed? ?out|unavailable|connection refused|no raft leader|transport|eof", re.IGNORECASE
)


Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Tools:
    """Fabric's programs, run for the network in ``network`` (the folder that errors point to)."""

    programs: Path
    network: Path

    def run(
        self, step: str, program: str, arguments: Sequence[object], *, environment: Mapping[str, str] | None = None
    ) -> str:
        """What a program wrote on stdout and stderr, once it succeeded.

        Raises:
            Unavailable: ``fabric-step``.
        """
        command = [str(self.programs / program), *map(str, arguments)]
        try:
            done = subprocess.run(
                command, env=settings.node_environment(environment or {}), cwd=self.network, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_STEP_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise self.failed(step, program, f"no answer in {_STEP_SECONDS:.0f} s") from error
        said = _COLOUR.sub("", done.stdout.decode("utf-8", "replace"))
        if done.returncode:
            raise self.failed(step, program, _said(said))
        return said

    def failed(self, step: str, program: str, said: str) -> Unavailable:
        return Unavailable(
            "fabric-step", f"{step}: {program} failed:\n{said}",
            next=output.command_line("fabric", "status", "--dir", self.network),
        )  # fmt: skip


def _said(text: str) -> str:
    """The end of what a program said, without its usage."""
    lines = [line.rstrip() for line in text.partition("\nUsage:")[0].splitlines() if line.strip()]
    return "\n".join(lines[-_SHOWN_LINES:]) or "it said nothing"


def retried(act: Callable[[], Result], *, seconds: float, also: str = "") -> Result:
    """Do it again until it succeeds, as long as what fails may pass (no leader yet, nobody listens yet).

    ``also`` is what else may pass in this place, as the program says it.

    Raises what the last attempt raised.
    """
    for _ in Pauses().until(time.monotonic() + seconds):
        try:
            return act()
        except Unavailable as error:
            failed = error
            if not _STOPPED.search(error.message) and not (also and also in error.message):
                break
    raise failed


def side_by_side(act: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Do it for all at the same time; the results in order. Raises what the first of them that failed raised."""
    with ThreadPoolExecutor(max(1, len(items))) as pool:
        return list(pool.map(act, items))
