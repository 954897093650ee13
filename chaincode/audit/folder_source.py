# SPDX-License-Identifier: Apache-2.0
"""A run folder as evidence: one snapshot of its ledger file, and the artefacts that lie beside it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from chaincode import artefacts
from chaincode.audit.tables import TablesObserver, ascending
from chaincode.blobs import BlobStore
from chaincode.files import mapped
from chaincode.ledgers.connection import Connection
from chaincode.ledgers.tables import errors_of
from identity.errors import EvidenceError, Unavailable
from identity.wording import counted

LEDGER = "ledger.sqlite"
BLOBS = "blobs"


class FolderFiles:
    """The artefacts that lie in a run folder."""

    def __init__(self, path: Path) -> None:
        self.remarks: list[str] = []
        self.path, self._blobs = path, BlobStore(path / BLOBS, warn=self.remarks.append)

    @contextmanager
    def open(self, name: str) -> Iterator[memoryview | None]:
        """The bytes of an artefact, mapped; None where it is not there.

        Raises EvidenceError: file-not-regular, artefact-unreadable, artefact-name.
        """
        if not artefacts.is_name(name) or name in (artefacts.CHECKPOINT, artefacts.ENTRIES):
            raise EvidenceError("artefact-name", f"A run folder has no file {name[:80]!r} that is evidence.")
        with ExitStack() as stack:
            try:
                data = self._open(name, stack)
            except (FileNotFoundError, NotADirectoryError):
                data = None
            except OSError as error:
                raise EvidenceError("artefact-unreadable", f"{self.path / name}: {error.strerror or error}") from error
            yield data

    def _open(self, name: str, stack: ExitStack) -> memoryview | None:
        if not name.startswith(f"{BLOBS}/"):
            return stack.enter_context(mapped(self.path / name))
        try:
            return stack.enter_context(self._blobs.open(name.removeprefix(f"{BLOBS}/")))
        except EvidenceError as error:
            if error.code == "blob-missing":
                return None
            raise


class FolderSource(FolderFiles):
    """The ``Source`` that a run folder is. All reads of the ledger are of one moment, also while a run writes it."""

    def __init__(self, path: Path, connection: Connection, faults: Sequence[str]) -> None:
        """``faults`` are what SQLite's own check of the file says."""
        super().__init__(path)
        self._connection, self._faults = connection, faults

    def checkpoint(self) -> str | bytes:
        """The log's signed head. Raises EvidenceError(ledger-inconsistent) where there is none."""
        with errors_of(self._connection.path):
            rows = self._connection.raw.execute("SELECT note FROM checkpoint").fetchmany(2)
        if len(rows) != 1 or not isinstance(rows[0][0], str | bytes):
            raise EvidenceError(
                "ledger-inconsistent", f"The table checkpoint has {counted(len(rows), 'row')}, or one that is no note."
            )
        note: str | bytes = rows[0][0]
        return note

    def entries(self) -> Iterator[bytes]:
        """The envelopes in the log's order. Raises EvidenceError: ledger-*."""
        with errors_of(self._connection.path):
            rows = self._connection.raw.execute("SELECT idx, envelope FROM entry ORDER BY idx")
            for _, envelope in ascending(rows, 1, "entry"):
                # A damaged file can hold any type here; what is no envelope is found when it is opened.
                yield envelope if isinstance(envelope, bytes) else str(envelope).encode()

    def are_same(self, name: str, other: str) -> bool:
        """Not known: a folder's files are hashed where they are needed."""
        return False

    def observer(self) -> TablesObserver:
        """One that compares every row of the database with what follows from the entries."""
        return TablesObserver(self._connection.raw, self._connection.path, self._faults)

    def check_still(self) -> None:
        """Refuse to blame evidence that a run is writing meanwhile: without a read lock a reader may see half of a write.

        Raises Unavailable(evidence-changing) where the ledger's head is another one by now.
        """
        fresh = Connection.reader(self._connection.path)
        try:
            statement = "SELECT note FROM checkpoint LIMIT 2"
            if fresh.rows(statement) != self._connection.rows(statement):
                message = f"A run is writing {self._connection.path} while it is read."
                raise Unavailable("evidence-changing", message, next="fedledger audit verify")
        finally:
            fresh.close()


def _check_pages(connection: Connection) -> list[str]:
    """What SQLite's own check finds: pages, and whether each index lists what its table holds.

    Raises EvidenceError(ledger-corrupt) where a page is in two places: a small file of that kind has rows without end.
    """
    with errors_of(connection.path):
        lines = [str(line) for (line,) in connection.raw.execute("PRAGMA integrity_check(20)")]
    for line in lines:
        if "reference to page" in line:
            raise EvidenceError("ledger-corrupt", f"{connection.path.name} is not one tree of pages: {line}")
    return [line for line in lines if line != "ok"]


@contextmanager
def folder_source(path: Path) -> Iterator[FolderSource]:
    """Open a run folder as evidence, and hold one read transaction meanwhile; nothing is written.

    Raises EvidenceError: ledger-* for a file that is no ledger; Unavailable where it cannot be opened.
    """
    ledger = path / LEDGER
    if not os.path.exists(ledger):
        raise EvidenceError("ledger-missing", f"There is no {LEDGER} in {path}.")
    connection = Connection.reader(ledger)
    try:
        with errors_of(ledger):
            connection.raw.execute("BEGIN")
            connection.raw.execute("SELECT count(*) FROM meta").fetchone()  # the moment that is read from now on
        yield FolderSource(path, connection, _check_pages(connection))
    finally:
        connection.close()
