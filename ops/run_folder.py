# SPDX-License-Identifier: Apache-2.0
"""Run folders: where everything of one run lies, and which run a command means."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from chaincode.trust import KEY_FILE
from identity.errors import Unavailable, UsageError
from ops import output, settings


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of one run. Nothing is created here but by ``create``."""

    path: Path

    @property
    def federation_file(self) -> Path:
        """The copy of the federation file that the run began with."""
        return self.path / "federation.toml"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.sqlite"

    @property
    def key_file(self) -> Path:
        return self.path / KEY_FILE

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def keystore(self) -> Path:
        return self.keys / "keystore.json"

    @property
    def credentials(self) -> Path:
        return self.path / "credentials"

    @property
    def blobs(self) -> Path:
        return self.path / "blobs"

    @property
    def models(self) -> Path:
        return self.path / "models"

    @property
    def outbox(self) -> Path:
        """Where the sites' updates lie until they are delivered."""
        return self.path / "outbox"

    @property
    def blocks(self) -> Path:
        """The raw blocks of a run on a Fabric channel, whose ledger file is then a replica made of them."""
        return self.path / "blocks"

    @property
    def pending(self) -> Path:
        """Signed transactions of a run on a Fabric channel whose outcome is not known yet."""
        return self.path / "pending"

    @property
    def release(self) -> Path:
        return self.path / "release"

    @property
    def model(self) -> Path:
        """The released model."""
        return self.release / "model.safetensors"

    @property
    def proof(self) -> Path:
        """The proof that the model's release is in the log."""
        return self.release / "model.proof"

    @property
    def model_card(self) -> Path:
        return self.release / "model-card.md"

    @property
    def lock_file(self) -> Path:
        return self.path / "lock"

    @property
    def channel_file(self) -> Path:
        """Says which Fabric channel a run is on; missing for a run on the embedded ledger."""
        return self.path / "fabric.json"

    def create(self) -> None:
        """Make the folder and those below it; secrets are for the owner alone.

        Raises:
            UsageError: ``run-folder-link``: something of it is a link, and would be written, and emptied, elsewhere;
                ``run-folder-taken``: it holds something else than a run, which would be written over.
        """
        begun = self.is_run() or self.lock_file.exists() or self.channel_file.exists()
        if not begun and self.path.is_dir() and any(self.path.iterdir()):
            message = f"{self.path} is neither a run nor empty; nothing in it is overwritten."
            raise UsageError("run-folder-taken", message)
        self.path.mkdir(parents=True, exist_ok=True)
        os.close(self._open_lock())  # first: whatever is interrupted after it is a run that was begun
        for folder in (self.credentials, self.blobs, self.models, self.release, self.outbox):
            self.own(folder)
        self.own(self.keys, 0o700)

    def own(self, folder: Path, mode: int = 0o777) -> Path:
        """A folder of this run, made if it is missing. Raises UsageError as ``create``."""
        folder.mkdir(mode=mode, exist_ok=True)
        if folder.is_symlink():
            raise UsageError("run-folder-link", f"{folder} is a link; a run writes into its own folders only.")
        return folder

    def keeps_another(self, file: Path | None) -> bool:
        """Whether this folder has a file of the same name with other bytes: what the run began with was another one."""
        kept = file and self.path / file.name
        return bool(file and kept and kept.is_file() and kept.read_bytes() != file.read_bytes())

    def is_run(self) -> bool:
        """Whether a run began here."""
        return self.ledger.is_file()

    def holder(self) -> int | None:
        """The process that is carrying out this run, 0 where it cannot be told which, None for none."""
        try:
            with self.lock_file.open() as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._holder()
        except OSError:
            return None
        return None

    def _holder(self) -> int:
        with suppress(OSError, ValueError):
            return int(self.lock_file.read_bytes()[:20])
        return 0

    def _open_lock(self) -> int:
        return os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from carrying out this run meanwhile; the system ends the lock with the process.

        Raises:
            Unavailable: ``run-in-progress``.
        """
        with open(self._open_lock(), "r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                who = f" (process {holder})" if (holder := self._holder()) else ""
                message = f"Another process{who} is carrying out the run in {self.path}."
                raise Unavailable("run-in-progress", message, next=output.command_line("status", self.path)) from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield


def resolve(path: Path | str | None = None) -> RunFolder:
    """The run that a command means: the folder that it names, else the current one, else the newest under ``runs``.

    Raises:
        UsageError: ``run-missing`` where there is no such folder or no run, ``not-a-run`` where no run began there.
    """
    if path is not None:
        return _named(Path(path))
    here = RunFolder(Path())
    if here.is_run():
        return here
    if not (found := runs()):
        message = f"Neither the current folder nor a folder below {_below()} holds a run."
        raise UsageError("run-missing", message, next=output.command_line("new", "my-federation"))
    return RunFolder(found[0])


def runs() -> list[Path]:
    """The run folders under ``runs``, the newest first."""
    found = sorted(
        ((_began(folder), folder) for folder in _folders(_below()) if RunFolder(folder).is_run()), reverse=True
    )
    return [folder for _, folder in found]


def _below() -> Path:
    return Path(settings.text("runs") or "runs")


def _named(path: Path) -> RunFolder:
    if not path.exists():
        raise UsageError("run-missing", f"There is no file or folder {path}.", next=_list_runs())
    if not RunFolder(path).is_run():
        raise UsageError("not-a-run", f"{path} is no run folder: it has no ledger.sqlite.", next=_list_runs())
    return RunFolder(path)


def _list_runs() -> str | None:
    """The command for the newest run, if there is one."""
    with suppress(UsageError):
        return output.command_line("status", resolve().path)
    return None


def _folders(runs: Path) -> list[Path]:
    try:
        return [folder for folder in runs.iterdir() if folder.is_dir()]
    except OSError:
        return []


def _began(folder: Path) -> int:
    """When the run last wrote its ledger, in nanoseconds; 0 where that cannot be told."""
    ledger = RunFolder(folder).ledger
    newest = 0
    for path in (ledger, ledger.with_name("ledger.sqlite-wal")):
        with suppress(OSError):
            newest = max(newest, path.stat().st_mtime_ns)
    return newest
