# SPDX-License-Identifier: Apache-2.0
"""Connections to a ledger file: one that writes, and one that only reads and leaves no trace in the folder.

SQLite keeps recent commits in a side file, `-wal`, and needs a second one, `-shm`, to read it. Where no commits wait
there, a file can be opened as immutable, which needs neither. Then nothing stops a writer from changing the file
under the reader; so each answer counts only if the file is the same after it as before.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from chaincode.files import sync
from chaincode.ledgers.tables import (
    APPLICATION_ID,
    MAX_VALUE_BYTES,
    SCHEMA,
    SCHEMA_VERSION,
    check_header,
    check_schema,
    errors_of,
)  # fmt: skip
from identity.errors import EvidenceError, Unavailable, UsageError

DEFAULT_TIMEOUT = 10.0
"""Seconds to wait for another process that is writing."""

_CACHE_KIB = 32768
_CHECKPOINT_PAGES = 16384  # 64 MiB of side file: fewer, larger write-backs than SQLite's 1000 pages
_SIDE_FILE_BYTES = 64 << 20
_ATTEMPTS = 20

Rows = list[tuple[Any, ...]]


class Connection:
    """A thread-safe connection that answers whole statements. `writer` and `reader` make one."""

    raw: sqlite3.Connection

    def __init__(self, path: Path, timeout: float) -> None:
        """For `writer` and `reader` only."""
        self.path = path
        self.lock = threading.RLock()
        self._timeout = timeout
        self._opened = _identity(path)
        self._mark: object = None  # what the file looked like when it was opened as immutable

    @classmethod
    def writer(cls, path: Path, timeout: float = DEFAULT_TIMEOUT) -> "Connection":
        """Open for writing: WAL, and a commit returns when it is on the disk. Raises as `errors_of` and checks do."""
        check_header(path)
        made = cls(path, timeout)
        with errors_of(path):
            made.raw = made._connect("mode=rw")
            return made._checked(_prepare)

    @classmethod
    def reader(cls, path: Path, timeout: float = DEFAULT_TIMEOUT) -> "Connection":
        """Open for reading, on a folder that cannot be written too. Raises as `errors_of` and the checks do."""
        check_header(path)
        made = cls(path, timeout)
        with errors_of(path):
            made._open_reader()
            return made._checked()

    def rows(self, statement: str, values: Sequence[Any] = (), types: tuple[type, ...] | None = None) -> Rows:
        """Execute one statement and return all of its rows; the caller bounds their number.

        `types` are those of the columns: a file from elsewhere may hold anything, whatever its schema says. Raises
        EvidenceError(ledger-corrupt) for another type, UsageError(number-out-of-range), and as `errors_of` does.
        """
        with self.lock, errors_of(self.path):
            for _ in range(_ATTEMPTS):
                rows = self._execute(statement, values)
                if rows is not None:
                    _check_types(rows, types, self.path)
                    return rows
                self.raw.close()
                self._open_reader()
        raise Unavailable("ledger-locked", f"{self.path}: another process keeps changing the file.")

    def version(self) -> int:
        """Return a number that changes when another connection has committed to the file, and at no commit of this one's."""
        with errors_of(self.path):
            return int(self.raw.execute("PRAGMA data_version").fetchone()[0])

    def _execute(self, statement: str, values: Sequence[Any]) -> Rows | None:
        """Return the rows; None where a file that was opened as immutable has changed meanwhile."""
        try:
            rows = self.raw.execute(statement, values).fetchall()
        except OverflowError as error:
            raise UsageError("number-out-of-range", "A number does not fit into 64 bits.") from error
        except sqlite3.DatabaseError:
            if self._mark is None or self._mark == _look(self.path):
                raise
            return None
        return rows if self._mark is None or self._mark == _look(self.path) else None

    def check_there(self) -> None:
        """Refuse a file that was taken from under its name since it was opened: what is written to it nobody finds again.

        Raises Unavailable(ledger-gone).
        """
        if _identity(self.path) != self._opened:
            message = f"{self.path} was removed or replaced while it was open; nothing more is written to it."
            raise Unavailable("ledger-gone", message)

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        with self.lock:
            self.raw.close()

    def _connect(self, query: str) -> sqlite3.Connection:
        raw = sqlite3.connect(
            f"file:{quote(str(self.path.absolute()))}?{query}",
            uri=True,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
            raw.execute("PRAGMA trusted_schema = OFF")
            raw.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")  # reads the file, so it fails where that cannot be done
        except BaseException:
            raw.close()
            raise
        return raw

    def _checked(self, prepare: Callable[[sqlite3.Connection], None] = lambda raw: None) -> "Connection":
        """Return the connection when its file is fit for use; close it where it is not."""
        try:
            prepare(self.raw)
            check_schema(self.raw, self.path)
        except BaseException:
            self.raw.close()
            raise
        return self

    def _open_reader(self) -> None:
        """Connect without writing: through the side files where commits wait in them, else as immutable."""
        mark = _look(self.path)
        waiting, shared = _size(self.path, "-wal"), _size(self.path, "-shm")
        if waiting is None or (waiting == 0 and shared is None):
            self._mark, self.raw = mark, self._connect("mode=ro&immutable=1")
            return
        try:
            self._mark, self.raw = None, self._connect("mode=ro")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            if waiting == 0:
                self._mark, self.raw = mark, self._connect("mode=ro&immutable=1")
                return
            raise Unavailable(
                "ledger-wal-pending",
                f"{self.path}: commits wait in {self.path.name}-wal, and the folder cannot be written.",
                next=f"Copy {self.path.name} and {self.path.name}-wal to a folder that you can write.",
            ) from error


def _prepare(raw: sqlite3.Connection) -> None:
    """Set what a writer promises: a commit is on the disk when it returns, and readers do not wait."""
    mode = raw.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise Unavailable("ledger-not-writable", f"The file system allows no write-ahead log (mode {mode}).")
    raw.execute("PRAGMA synchronous = FULL")
    raw.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    raw.execute(f"PRAGMA journal_size_limit = {_SIDE_FILE_BYTES}")


def _check_types(rows: Rows, types: tuple[type, ...] | None, path: Path) -> None:
    columns = zip(*rows, strict=True)
    if types is not None and rows and any({*map(type, c)} != {t} for c, t in zip(columns, types, strict=True)):
        raise EvidenceError("ledger-corrupt", f"{path} holds a value of a type that its column cannot have.")


def _look(path: Path) -> object:
    """Return what changes when a writer has been at the file; a writer in WAL mode creates `-wal` first."""
    seen = os.stat(path)
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, _size(path, "-wal") in (None, 0)


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has this name; None where none has it."""
    try:
        seen = os.stat(path)
    except OSError:
        return None
    return seen.st_dev, seen.st_ino


def _size(path: Path, suffix: str) -> int | None:
    try:
        return os.stat(f"{path}{suffix}").st_size
    except FileNotFoundError:
        return None


def create_file(target: Path, facts: Mapping[str, str], note: str) -> None:
    """Create an empty ledger: written beside the target, which gets its name when all of it is on the disk.

    Raises UsageError(ledger-exists), Unavailable.
    """
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.new")
    unfinished.unlink(missing_ok=True)
    try:
        with errors_of(unfinished):
            _fill_new(unfinished, facts, note)
        _give_name(unfinished, target)
        sync(target.parent)
    except FileExistsError as error:
        raise UsageError("ledger-exists", f"{target} exists; a ledger is never overwritten.") from error
    except OSError as error:
        raise Unavailable("ledger-cannot-open", f"{target}: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _give_name(unfinished: Path, target: Path) -> None:
    try:
        os.link(unfinished, target)  # unlike a rename, this never replaces a file
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise
        unfinished.rename(target)


def _fill_new(path: Path, facts: Mapping[str, str], note: str) -> None:
    raw = sqlite3.connect(path, isolation_level=None)
    try:
        raw.execute("PRAGMA synchronous = FULL")
        raw.executescript(
            f"BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};{SCHEMA}"
        )
        raw.executemany("INSERT INTO meta VALUES (?, ?)", facts.items())
        raw.execute("INSERT INTO checkpoint VALUES (1, ?)", (note,))
        raw.execute("COMMIT")
    finally:
        raw.close()
