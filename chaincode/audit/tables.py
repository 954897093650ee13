# SPDX-License-Identifier: Apache-2.0
"""The tables of a ledger file, row by row against what follows from the entries.

Only the envelopes are evidence. Ids, tree nodes, state, index columns and the facts of the founding are copies for
speed; a query that trusts a changed copy would tell an untruth, so each is computed again.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from chaincode import state as states
from chaincode.audit.report import SHOWN, Finding
from chaincode.entries import Entry
from chaincode.ledgers.tables import errors_of, facet_of, segment_of, subjects_of
from chaincode.log import Frontier, node_position
from chaincode.state import Federation, Present
from identity.errors import EvidenceError
from identity.wording import counted

Row = tuple[Any, ...]
_WHOLE, _STATE = 1, 4  # the claims that a table bears on
_COLUMNS = ("idx", "kind", "member", "did", "agreement", "round", "at", "latest")


def ascending(rows: Iterable[Row], columns: int, table: str) -> Iterator[Row]:
    """Rows whose first columns must ascend, as their primary key does: a file of few pages cannot repeat them for ever.

    Raises EvidenceError(ledger-corrupt).
    """
    last: Row | None = None
    for row in rows:
        key = row[:columns]
        try:
            if last is not None and not last < key:
                raise EvidenceError("ledger-corrupt", f"The rows of table {table} are not in the order of their keys.")
        except TypeError as error:
            raise EvidenceError("ledger-corrupt", f"The keys of table {table} are not of one type.") from error
        last = key
        yield row


class _Cursor:
    """The rows of a table in the order of their number, which is their first column."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self._next = next(rows, None)
        self.extra: list[int] = []

    def take(self, number: int) -> Row | None:
        """The row of a number, None where it is missing; what lies before it and was not asked for is ``extra``."""
        while self._next is not None and self._next[0] <= number:
            row, self._next = self._next, next(self._rows, None)
            if row[0] == number:
                return row
            if len(self.extra) < SHOWN:
                self.extra.append(row[0])
        return None

    def end(self) -> list[int]:
        """The numbers of all rows that were not asked for, up to a bound."""
        self.take(1 << 63)
        return self.extra


class TablesObserver:
    """Follows the replay with a cursor in each table that has a row per entry, and reads the others at the end."""

    def __init__(self, raw: sqlite3.Connection, path: Path, faults: Iterable[str]) -> None:
        """``faults`` are what SQLite's own check of the file says."""
        self._raw, self._path = raw, path
        self._found = [(_WHOLE, Finding("ledger-corrupt", path.name, fault)) for fault in faults]
        self._unlisted: Counter[str] = Counter()
        self._names: dict[Any, Any] = dict(self._scan("name", "SELECT number, text FROM name ORDER BY number"))
        self._named: set[str | None] = set()
        self._entries = _Cursor(self._scan("entry", "SELECT idx, id, present FROM entry ORDER BY idx"))
        self._facets = _Cursor(self._scan("facet", "SELECT * FROM facet ORDER BY idx"))
        self._subjects: list[bytes] = []
        self._unknown: set[int] = set()
        self._latest = 0

    def see(self, index: int, entry: Entry | None) -> None:
        """The next entry: compare its rows. Nothing is known of the rows of one that could not be opened."""
        row, facet = self._entries.take(index), self._facets.take(index)
        if entry is None:
            self._unknown.add(index)
            return
        if row is None or row[1] != bytes.fromhex(entry.id):
            self._differs("entry", f"row {index}", f"it should be there and have the id {entry.id}")
        elif row[2] != states.encode(Present(entry.kind)):
            self._differs(
                "entry", f"row {index}", f"present should be the state's value under entry/{entry.id}", _STATE
            )
        self._latest = max(self._latest, entry.at)
        expected = (index, *facet_of(entry), self._latest)
        self._named.update(expected[2:5])
        found = () if facet is None else (*facet[:2], *map(self._name, facet[2:5]), *facet[5:])
        if found != expected:
            columns = [c for c, a, b in zip(_COLUMNS, found or [None] * len(_COLUMNS), expected, strict=True) if a != b]
            self._differs("facet", f"row {index}", f"{', '.join(columns)} should be as in entry {index}")
        self._subjects += [digest + index.to_bytes(8, "big") for digest in subjects_of(entry)]

    def finish(self, leaves: Sequence[bytes], state: Mapping[str, bytes]) -> Iterable[tuple[int, Finding]]:
        """What differs: the state against claim 4, all other tables against claim 1."""
        for table, cursor in (("entry", self._entries), ("facet", self._facets)):
            for number in cursor.end():
                self._differs(
                    table,
                    f"row {number}",
                    f"the log has {counted(len(leaves), 'entry')}, numbered from 0",
                )
        self._check_nodes(leaves)
        self._check_subjects()
        self._check_state(state)
        self._check_names()
        self._check_meta(state)
        for table, count in self._unlisted.items():
            what = f"{counted(count, 'more row differs', 'more rows differ')}."
            self._found.append((_WHOLE, Finding("table-differs", f"table {table}", what)))
        return self._found

    def _name(self, number: object) -> object:
        """The text that a number of the facets stands for; a number without one stands for nothing that is expected."""
        return None if number is None else self._names.get(number, ("no such name", number))

    def _check_nodes(self, leaves: Sequence[bytes]) -> None:
        cursor, frontier = _Cursor(self._scan("node", "SELECT position, hash FROM node ORDER BY position")), Frontier()
        for index, leaf in enumerate(leaves):
            for level, number, digest in frontier.append(leaf):
                position = node_position(level, number)
                if cursor.take(position) != (position, digest):
                    what = f"it should be the hash of the subtree {level}/{number}, which entry {index} completes"
                    self._differs("node", f"row {position}", what)
        for number in cursor.end():
            self._differs("node", f"row {number}", "the tree has no such complete subtree")

    def _check_subjects(self) -> None:
        expected, found = set(self._subjects), set[bytes]()
        for segment, digest, index in self._scan(
            "subject", "SELECT segment, digest, idx FROM subject ORDER BY segment, digest, idx", 3
        ):
            sound = isinstance(digest, bytes) and isinstance(index, int) and 0 <= index < 1 << 63
            item = digest + index.to_bytes(8, "big") if sound else b""
            if (item not in expected and index not in self._unknown) or (sound and segment != segment_of(index)):
                self._differs(
                    "subject",
                    f"row {segment}, {_text(digest)}, {index}",
                    "no such entry is about this digest, or it is in another segment",
                )
            else:
                found.add(item)
        for item in sorted(expected - found):
            index = int.from_bytes(item[-8:], "big")
            self._differs(
                "subject", f"row {item[:-8].hex()}, {index}", f"it is missing; entry {index} is about this digest"
            )

    def _check_state(self, state: Mapping[str, bytes]) -> None:
        found = set()
        for key, value in self._scan("state", "SELECT key, value FROM state ORDER BY key"):
            found.add(key)
            if key not in state or key.startswith(states.entry_key("")):
                self._differs("state", f"key {_text(key)}", "no accepted entry writes it here", _STATE)
            elif value != state[key]:
                self._differs(
                    "state", f"key {key}", f"it holds {_text(value)}; the entries give {_text(state[key])}", _STATE
                )
        for key in sorted(state.keys() - found):
            if key.startswith(states.entry_key("")):
                continue  # in the table entry, in the column present
            self._differs("state", f"key {key}", "it is missing; an accepted entry writes it", _STATE)

    def _check_names(self) -> None:
        """No name is there that no entry has; one that is missing was found in the facets."""
        for number, text in self._names.items():
            if text not in self._named and not self._unknown:
                self._differs(
                    "name", f"row {number}", f"no entry has {_text(text)} for an author, a key or an agreement"
                )

    def _check_meta(self, state: Mapping[str, bytes]) -> None:
        """The ledger's own name and key are those of the founding entry."""
        facts: dict[Any, Any] = dict(self._scan("meta", "SELECT name, value FROM meta ORDER BY name"))
        if states.FEDERATION not in state:
            return
        federation = states.decode(Federation, state[states.FEDERATION])
        expected = {"origin": federation.origin, "vkey": federation.log_key}
        for name in sorted(map(str, facts.keys() | {"vkey"})):
            if name not in facts or facts[name] != expected.get(name):
                what = f"it says {_text(facts.get(name))}; the founding entry says {expected.get(name)}"
                self._differs("meta", f"row {name}", what)

    def _scan(self, table: str, statement: str, columns: int = 1) -> Iterator[Row]:
        """The rows of a statement, whose first columns are the table's key; where the file cannot be read any further, that is a finding and the end."""
        try:
            with errors_of(self._path):
                yield from ascending(self._raw.execute(statement), columns, table)
        except EvidenceError as error:
            self._found.append((_WHOLE, Finding(error.code, f"table {table}", error.message)))

    def _differs(self, table: str, row: str, what: str, claim: int = _WHOLE) -> None:
        if sum(f.where.startswith(f"table {table},") for _, f in self._found) >= SHOWN:
            self._unlisted[table] += 1
            return
        where = f"table {table}, {row}"
        self._found.append(
            (claim, Finding("table-differs", where, f"The row does not follow from the entries: {what}."))
        )


def _text(value: object) -> str:
    """A column's value for a message: text as it is, bytes as text or hex."""
    if isinstance(value, bytes):
        return value.decode("ascii") if value.isascii() else value.hex()
    return str(value)
