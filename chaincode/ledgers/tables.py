# SPDX-License-Identifier: Apache-2.0
"""The tables of a ledger file, the columns derived from an entry, and what SQLite's errors mean.

The evidence is `entry`; `node`, `state`, `facet` and `subject` follow from it, and an auditor computes them again. The
triggers stop accidents, not whoever holds the file: heads held by others do that.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from chaincode.entries import Entry
from identity.errors import Error, EvidenceError, OutcomeUnknown, Unavailable

APPLICATION_ID = 0x466C6467  # "Fldg"
SCHEMA_VERSION = 1
MAX_VALUE_BYTES = 1 << 26  # more than any column holds; a hostile file is refused before it is read into memory

SEGMENT_BITS = 16
"""Keys without order (digests, members) are indexed per segment of 65,536 entries.

An append then touches pages of the newest segment only and costs the same however long the log is; a question asks each
segment.
"""

# `entry.present` is the state's value under `entry/<id>`: one index of the ids serves the state and the log.
SCHEMA = f"""
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE checkpoint (one INTEGER PRIMARY KEY CHECK (one = 1), note TEXT NOT NULL) STRICT;
CREATE TABLE entry (idx INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, present BLOB NOT NULL, envelope BLOB NOT NULL)
  STRICT;
CREATE TABLE node (position INTEGER PRIMARY KEY, hash BLOB NOT NULL) STRICT;
CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE name (number INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE facet (idx INTEGER PRIMARY KEY, kind TEXT NOT NULL, member INTEGER NOT NULL, did INTEGER NOT NULL,
  agreement INTEGER, round INTEGER, at INTEGER NOT NULL, latest INTEGER NOT NULL) STRICT;
CREATE TABLE subject (segment INTEGER NOT NULL, digest BLOB NOT NULL, idx INTEGER NOT NULL,
  PRIMARY KEY (segment, digest, idx)) STRICT, WITHOUT ROWID;
CREATE INDEX facet_kind ON facet (kind);
CREATE INDEX facet_member ON facet (idx >> {SEGMENT_BITS}, member);
CREATE INDEX facet_did ON facet (idx >> {SEGMENT_BITS}, did);
CREATE INDEX facet_agreement ON facet (agreement);
CREATE INDEX facet_round ON facet (agreement, round);
CREATE INDEX facet_latest ON facet (latest);
CREATE TRIGGER entry_update BEFORE UPDATE ON entry BEGIN SELECT RAISE(ABORT, 'entries are never changed'); END;
CREATE TRIGGER entry_delete BEFORE DELETE ON entry BEGIN SELECT RAISE(ABORT, 'entries are never removed'); END;
CREATE TRIGGER node_update BEFORE UPDATE ON node BEGIN SELECT RAISE(ABORT, 'nodes are never changed'); END;
CREATE TRIGGER node_delete BEFORE DELETE ON node BEGIN SELECT RAISE(ABORT, 'nodes are never removed'); END;
"""

INTERNED = frozenset({"member", "did", "agreement"})
"""The columns of `facet` that hold a number of `name` in the place of a text."""

SEGMENTED = frozenset({"member", "did"})
"""The columns whose index goes by segments."""

_FEDERATION_AND_AGREEMENT = ("federation", "agreement")


class Facet(NamedTuple):
    """The columns by which an entry is found. `round` is None where the entry is of no round."""

    kind: str
    member: str
    did: str
    agreement: str | None
    round: int | None
    at: int


def facet_of(entry: Entry) -> Facet:
    """Return the columns of an entry; the one place that derives them."""
    round_ = entry.body.get("round")
    return Facet(entry.kind, entry.member, entry.did, entry.agreement or None, round_, entry.at)


def subjects_of(entry: Entry) -> list[bytes]:
    """Return the digests by which an entry is found, each once, in ascending order.

    Not those of the federation, which every entry names, and of the agreement, which has a column.
    """
    named = {digest for name, digest in entry.subjects.items() if name not in _FEDERATION_AND_AGREEMENT}
    return sorted(bytes.fromhex(digest) for digest in named)


def segment_of(index: int) -> int:
    """Return the segment of the entry with this index."""
    return index >> SEGMENT_BITS


@cache
def schema_objects() -> tuple[tuple[str, ...], ...]:
    """Return what SQLite lists for our schema: a file with anything else in it (a view, a trigger) is not ours."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.executescript(SCHEMA)
        return read_objects(connection)
    finally:
        connection.close()


def read_objects(connection: sqlite3.Connection) -> tuple[tuple[str, ...], ...]:
    """Return the schema of an open file, as SQLite lists it."""
    return tuple(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"))


def check_header(path: Path) -> None:
    """Refuse a file that is no ledger, before SQLite sees it.

    Raises EvidenceError: ledger-not-a-ledger, ledger-schema-newer; Unavailable: ledger-cannot-open.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        raise Unavailable("ledger-cannot-open", f"{path}: {error.strerror or error}") from error
    # The SQLite file format, section 1.3: magic, user version at 60, application id at 68.
    if header[:16] != b"SQLite format 3\0" or int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise EvidenceError("ledger-not-a-ledger", f"{path} is not a ledger of Fedledger.")
    if (version := int.from_bytes(header[60:64], "big")) != SCHEMA_VERSION:
        raise EvidenceError(
            "ledger-schema-newer",
            f"{path} has schema {version}, this version reads {SCHEMA_VERSION}.",
            next="Use the version of Fedledger that wrote it.",
        )


def check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file whose tables, indexes and triggers are not exactly ours (EvidenceError ledger-schema)."""
    if read_objects(connection) != schema_objects():
        raise EvidenceError("ledger-schema", f"The tables in {path} are not those of a ledger.")


@contextmanager
def errors_of(path: Path, *, committing: bool = False) -> Iterator[None]:
    """Raise what went wrong in SQLite or with the file as an Error of ours; a programmer's error stays what it is."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise
    except sqlite3.Error as error:
        raise _translate(error, path, committing) from error
    except UnicodeDecodeError as error:  # SQLite's message about a damaged schema quotes it
        raise EvidenceError("ledger-corrupt", f"{path}: the file is damaged.") from error
    except OSError as error:
        raise Unavailable("ledger-cannot-open", f"{path}: {error.strerror or error}") from error


_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
_MEANINGS: dict[int, tuple[type[Error], str, str]] = {
    sqlite3.SQLITE_BUSY: (Unavailable, "ledger-locked", "another process is writing the ledger"),
    sqlite3.SQLITE_LOCKED: (Unavailable, "ledger-locked", "another process is writing the ledger"),
    sqlite3.SQLITE_NOTADB: (EvidenceError, "ledger-not-a-ledger", "the file is not a database"),
    sqlite3.SQLITE_CORRUPT: (EvidenceError, "ledger-corrupt", "the file is damaged"),
    sqlite3.SQLITE_CONSTRAINT: (EvidenceError, "ledger-inconsistent", "the tables contradict each other"),
    sqlite3.SQLITE_MISMATCH: (EvidenceError, "ledger-inconsistent", "the tables contradict each other"),
    sqlite3.SQLITE_TOOBIG: (EvidenceError, "ledger-corrupt", "a stored value is impossibly large"),
    sqlite3.SQLITE_READONLY: (Unavailable, "ledger-not-writable", "the file or its folder cannot be written"),
    sqlite3.SQLITE_CANTOPEN: (Unavailable, "ledger-cannot-open", "the file cannot be opened"),
    sqlite3.SQLITE_IOERR: (Unavailable, "ledger-io", "reading or writing failed"),
}


def _translate(error: sqlite3.Error, path: Path, committing: bool) -> Error:
    code: Any = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code in _FULL:
        message = f"The disk of {path} is full; nothing of the last submission was stored."
        return Unavailable("ledger-disk-full", message, next="Free space and submit again.")
    family, name, meaning = _MEANINGS.get(code & 0xFF, (EvidenceError, "ledger-corrupt", "the file is damaged"))
    if committing and name == "ledger-io":
        message = f"{path}: the sync failed ({error}); the entries may or may not be stored."
        return OutcomeUnknown("ledger-outcome-unknown", message, next="Submit the same entries again.")
    return family(name, f"{path}: {meaning} ({error}).")
