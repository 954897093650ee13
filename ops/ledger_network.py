# SPDX-License-Identifier: Apache-2.0
"""Which Fabric network a run uses, started where that is ours to do; and what of it is away, in words for its operator."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from identity.errors import Error, Unavailable, UsageError
from ops import channel_run, output
from ops.fabric import network as networks
from ops.fabric import plan, processes
from ops.fabric.existing import opened
from ops.fabric.network import Wanted
from ops.fabric.profile import FILE as PROFILE
from ops.run_folder import RunFolder

EMBEDDED, FABRIC = "embedded", "fabric"
DEFAULT_FOLDER = ".fabric"
_PATIENCE_SECONDS = 3.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Channel:
    """The network of a run: its connection profile, and its folder where it is a local one, which a run may start.

    ``stays`` says that what a run started goes on running after it.
    """

    profile: Path
    folder: Path | None
    stays: bool = True

    @property
    def up(self) -> str:
        """The command that starts what of a local network does not run."""
        return output.command_line("fabric", "up", *_dir(self.folder))

    def start(self, say: Say) -> None:
        """Have a local network run. Raises UsageError, Unavailable as ``network.up``."""
        networks.need_packages()
        if self.folder is None or (_made(self.folder) and not self.missing()):
            return
        say(f"  the Fabric network in {output.relative(self.folder)} does not run, or not all of it: starting it")
        networks.up(self.folder, Wanted(), lambda text: say(f"    {text}"))
        if self.stays:
            say(f"  it runs on after this run; to end it: {output.command_line('fabric', 'down', *_dir(self.folder))}")

    def missing(self) -> list[str]:
        """The nodes of a local network that do not run, by name."""
        if self.folder is None:
            return []
        return [node.name for node in opened(self.folder).nodes if processes.running(node.folder) is None]


def _made(folder: Path) -> bool:
    made = plan.load(folder.absolute())
    return made is not None and made.state == plan.READY


def _dir(folder: Path | None) -> tuple[str, ...]:
    if folder is None or output.relative(folder) == DEFAULT_FOLDER:
        return ()
    return ("--dir", output.relative(folder))


def choose(run: RunFolder, ledger: str | None, folder: str | None, profile: str | None) -> Channel | None:
    """The network that a run is on, from the command line and from what its folder says; None for the embedded ledger.

    Raises:
        UsageError: ``run-ledger``: there is no ledger of that name, or the options contradict each other;
            ``run-other-ledger``: the run began on the other one.
    """
    if ledger not in (None, EMBEDDED, FABRIC):
        raise UsageError("run-ledger", f"No ledger is called {str(ledger)[:40]!r}.\nallowed: {EMBEDDED}, {FABRIC}")
    if (folder and profile) or (ledger == EMBEDDED and (folder or profile)):
        raise UsageError("run-ledger", "Give one of --ledger embedded, --fabric-dir and --fabric-profile.")
    kept = channel_run.read_run(run.path)
    wanted = ledger or (FABRIC if folder or profile or kept else EMBEDDED)
    began = FABRIC if kept else EMBEDDED if run.is_run() else wanted
    if wanted != began:
        message = f"The run in {run.path} began on the {began} ledger, and cannot change to the {wanted} one."
        raise UsageError("run-other-ledger", message, next=f"the same command with another --dir, or --ledger {began}")
    if wanted == EMBEDDED:
        return None
    if profile:
        return Channel(Path(profile), None)
    if kept and not folder:
        return Channel(kept.profile, kept.profile.parent if (kept.profile.parent / plan.FILE).exists() else None)
    place = Path(folder or DEFAULT_FOLDER)
    return Channel(place / PROFILE, place)


UNTRUE = "DATA_LOSS"
"""The code of a failed call to a peer that shows a block which does not hold."""
_EFFECTS = {
    "peer": "its organisation's clients go through another organisation's peer",
    "chaincode": "the other organisations endorse without it",
    "orderer": "what is submitted waits for the orderers",
}

_STATUS = "fedledger fabric status"  # which knows of the networks on this machine only
_OPERATORS = "Have the operators of the nodes named above start them; then the same command."


class Trouble:
    """Tells the operator what of the network is away while a run tries on, once each, and when it is back."""

    def __init__(self, channel: Channel, say: Say) -> None:
        self._channel, self._say, self._lock = channel, say, threading.Lock()
        self._since: float | None = None
        self._down: set[str] = set()
        self._told: set[str] = set()

    def __call__(self, failure: Exception) -> None:
        """A call failed, and the client goes on trying. Any thread may tell it."""
        with self._lock:
            self._tell(failure)

    def _tell(self, failure: Exception) -> None:
        if getattr(failure, "code", "") == UNTRUE and str(failure) not in self._told:
            self._told.add(str(failure))
            self._say(f"  another peer is asked instead: {failure}")
        missing = self._channel.missing()
        for name in missing:
            if name not in self._down:
                self._down.add(name)
                self._say(
                    f"  {name} does not run: {_EFFECTS.get(name.partition('-')[0], 'the others go on without it')}"
                )
                self._say(f"    to start it again: {self._channel.up}")
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if not missing and now - self._since > _PATIENCE_SECONDS and str(failure) not in self._told:
            self._told.add(str(failure))
            self._say(f"  trying again: {failure}")

    def passed(self) -> None:
        """Something was carried out: what runs again is said."""
        with self._lock:
            self._since = None
            self._told.clear()
            if self._down:
                missing = set(self._channel.missing())
                for name in sorted(self._down - missing):
                    self._say(f"  {name} runs again")
                self._down &= missing

    def explained(self, error: Unavailable) -> Error:
        """The error of a run that cannot go on, with what does not run and the next command."""
        missing = self._channel.missing()
        local = f"\nNot running: {', '.join(missing)}." if missing else ""
        message = (
            f"{error.message}{local}\nNothing is lost: with the network back, the same command goes on with the run."
        )
        said = error.next or _STATUS
        elsewhere = _OPERATORS if said == _STATUS else said
        return type(error)(error.code, message, next=self._channel.up if self._channel.folder else elsewhere)
