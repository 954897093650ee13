# SPDX-License-Identifier: Apache-2.0
"""What can be asked of a ledger file. Each question uses an index and holds a bounded number of rows in memory.

Answers come in pages, and no page keeps a read open: a slow consumer neither stops the writer's housekeeping nor sees
half a commit.
"""

import heapq
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby, islice
from typing import Any, NamedTuple, TypeVar

from chaincode import state
from chaincode.ledgers.tables import INTERNED, SEGMENT_BITS, SEGMENTED, segment_of
from chaincode.log import node_position
from identity.errors import EvidenceError, UsageError

_IDS = 500  # bound values in one statement
_KEYS = 100_000  # keys in one statement, of some 150 bytes each
_PAGE = 1024  # rows of small columns
_ENVELOPES = 16  # rows that may have 1.4 MB each
_PREFIX_LEAST = 4
_ID_DIGITS = 64

_T = TypeVar("_T")
Types = tuple[type, ...] | None
Rows = Callable[[str, Sequence[Any], Types], list[tuple[Any, ...]]]

_INT = (int,)
_KEY_PAIR = (str, bytes)
_RAW_PAIR = (bytes, bytes)
_LOGGED = (int, bytes, bytes)


class Logged(NamedTuple):
    """An entry where it stands in the log."""

    index: int  # type: ignore[assignment]  # the tuple's own method gives way
    id: str
    envelope: bytes


class Queries:
    """The reading half of a ledger, over a function that answers a statement with its rows."""

    def __init__(self, rows: Rows) -> None:
        """`rows(statement, values, types)` executes on the ledger's file and checks the types of the columns."""
        self._rows = rows

    @property
    def size(self) -> int:
        """The number of entries."""
        return int(self._rows("SELECT ifnull(max(idx) + 1, 0) FROM entry", (), _INT)[0][0])

    def checkpoint(self) -> str:
        """The latest signed checkpoint. Raises EvidenceError(ledger-inconsistent) where there is none."""
        return self.head()[0]

    def head(self) -> tuple[str, int]:
        """The latest signed checkpoint and the number of entries, both of one moment. Raises as `checkpoint` does."""
        statement = "SELECT note, (SELECT ifnull(max(idx) + 1, 0) FROM entry) FROM checkpoint WHERE one = 1"
        note, size = self._one(statement, (), (str, int), "checkpoint")
        return str(note), int(size)

    @property
    def vkey(self) -> str:
        """The log's verifier key, whose name is the log's origin; fixed at creation. Raises as `checkpoint` does."""
        return str(self._one("SELECT value FROM meta WHERE name = 'vkey'", (), (str,), "log key")[0])

    def node(self, level: int, index: int) -> bytes:
        """The stored hash of a complete subtree, for proofs. Raises EvidenceError(ledger-inconsistent)."""
        position = node_position(level, index)
        what = f"node {level}/{index}"
        return bytes(self._one("SELECT hash FROM node WHERE position = ?", (position,), (bytes,), what)[0])

    def get(self, keys: Collection[str]) -> dict[str, bytes | None]:
        """Return the state under each key, None where there is none.

        The values, but for those of `entry/<id>`, are of one moment (up to 100,000 keys).
        """
        found: dict[str, bytes | None] = dict.fromkeys(keys)
        ids = [raw for raw in map(_entry_id, found) if raw is not None]
        for some in _batches(iter(ids), _IDS):
            statement = f"SELECT id, present FROM entry WHERE id IN ({_marks(some)})"  # noqa: S608
            found.update((state.entry_key(raw.hex()), value) for raw, value in self._rows(statement, some, _RAW_PAIR))
        others = (key for key in found.copy() if _entry_id(key) is None)
        for some_keys in _batches(others, _KEYS):
            statement = "SELECT key, value FROM state WHERE key IN (SELECT value FROM json_each(?))"
            found.update(self._rows(statement, (json.dumps(some_keys),), _KEY_PAIR))
        return found

    def state_items(self) -> Iterator[tuple[str, bytes]]:
        """Iterate over the whole state in the order of its keys."""
        middle = state.entry_key("")
        below = "SELECT key, value FROM state WHERE key > ? AND key < ? ORDER BY key LIMIT ?"
        yield from self._paged(below, "", middle, types=_KEY_PAIR)
        for raw, value in self._paged(
            "SELECT id, present FROM entry WHERE id > ? ORDER BY id LIMIT ?", b"", types=_RAW_PAIR
        ):
            yield state.entry_key(raw.hex()), value
        above = "SELECT key, value FROM state WHERE key > ? ORDER BY key LIMIT ?"
        yield from self._paged(above, middle, types=_KEY_PAIR)

    def entries(self, start: int = 0) -> Iterator[bytes]:
        """Iterate over the envelopes in the log's order, from number `start`."""
        statement = "SELECT idx, envelope FROM entry WHERE idx > ? ORDER BY idx LIMIT ?"
        for _, envelope in self._paged(statement, start - 1, types=(int, bytes), page=_ENVELOPES):
            yield envelope

    def entry(self, which: int | str) -> Logged:
        """Return the entry of an index, or of an id of which at least 4 hex digits are given.

        Raises UsageError: entry-unknown, entry-ambiguous, entry-id.
        """
        if isinstance(which, int):
            found = self._rows("SELECT idx, id, envelope FROM entry WHERE idx = ?", (which,), _LOGGED)
        else:
            low, high = _id_range(which)
            statement = "SELECT idx, id, envelope FROM entry WHERE id BETWEEN ? AND ? LIMIT 2"
            found = self._rows(statement, (low, high), _LOGGED)
        if not found:
            raise UsageError("entry-unknown", f"There is no entry {which} on this ledger.")
        if len(found) > 1:
            raise UsageError(
                "entry-ambiguous", f"More than one entry's id begins with {which}.", next="Give more digits."
            )
        return _logged(found[0])

    def indexes(self, ids: Collection[str]) -> dict[str, int]:
        """Return the index of each of these entries that is on the ledger."""
        found: dict[str, int] = {}
        for some in _batches(iter(ids), _IDS):
            statement = f"SELECT id, idx FROM entry WHERE id IN ({_marks(some)})"  # noqa: S608
            rows = self._rows(statement, [bytes.fromhex(i) for i in some], (bytes, int))
            found.update((raw.hex(), index) for raw, index in rows)
        return found

    def by_subject(self, digest: str) -> Iterator[int]:
        """Iterate over the indexes of the entries about a digest (hex) or of the agreement with this digest."""
        raw = _digest(digest)
        about = "SELECT idx FROM subject WHERE segment = ? AND digest = ? AND idx > ? ORDER BY idx LIMIT ?"
        found = (
            index
            for segment in self._segments()
            for (index,) in self._paged(about, -1, types=_INT, before=(segment, raw))
        )
        both = heapq.merge(found, self._matches({"agreement": raw.hex()}, None))
        return (index for index, _ in groupby(both))

    def find(
        self,
        kind: str | None = None,
        *,
        member: str | None = None,
        did: str | None = None,
        agreement: str | None = None,
        round: int | None = None,
        since: int | None = None,
        limit: int | None = None,
    ) -> Iterator[Logged]:
        """Iterate, in the log's order, over the entries that have all of these.

        `since` is in UTC seconds and compared with the time that the entry states. `limit` bounds their number.
        Raises UsageError(find-round) for a round without an agreement.
        """
        if round is not None and agreement is None:
            raise UsageError("find-round", "A round is one of an agreement: name the agreement too.")
        wanted = {"kind": kind, "member": member, "did": did, "agreement": agreement, "round": round}
        wanted = {column: value for column, value in wanted.items() if value is not None}
        indexes = self._matches(wanted, since)
        return self._logged_at(indexes if limit is None else islice(indexes, max(limit, 0)))

    def _matches(self, wanted: dict[str, Any], since: int | None) -> Iterator[int]:
        """Iterate over the indexes of entries with these columns, by the index that leaves fewest rows to look at."""
        conditions: dict[str, Any] = {} if since is None else {"at >= ?": since}
        for column, value in wanted.items():
            number = (
                self._rows("SELECT number FROM name WHERE text = ?", (value,), _INT) if column in INTERNED else None
            )
            if number == []:
                return
            conditions[f"{column} = ?"] = number[0][0] if number else value
        first = self._first_at(since)
        best = next((c for c in ("round", "member", "did", "agreement", "kind") if c in wanted), None)
        if best not in SEGMENTED:
            yield from self._facets(best, conditions, first)
            return
        for segment in self._segments(first):
            yield from self._facets(best, {**conditions, f"idx >> {SEGMENT_BITS} = ?": segment}, first)

    def _facets(self, by: str | None, conditions: dict[str, Any], first: int) -> Iterator[int]:
        """Iterate over the indexes, from `first`, of the entries whose columns meet the conditions."""
        hint = f"INDEXED BY facet_{by}" if by else ""
        where = " AND ".join([*conditions, "idx > ?"])
        statement = f"SELECT idx FROM facet {hint} WHERE {where} ORDER BY idx LIMIT ?"  # noqa: S608
        return (i for (i,) in self._paged(statement, first - 1, types=_INT, before=tuple(conditions.values())))

    def _first_at(self, since: int | None) -> int:
        """Return the first index whose entry may state a time from `since` on."""
        if since is None:
            return 0
        # `latest` never falls: before the first entry that reaches `since`, no entry does.
        reached = "SELECT idx FROM facet INDEXED BY facet_latest WHERE latest >= ? ORDER BY latest, idx LIMIT 1"
        found = self._rows(reached, (since,), _INT)
        return int(found[0][0]) if found else self.size

    def _segments(self, first: int = 0) -> Iterator[int]:
        """Iterate over the segments that have entries from `first` on; gaps, in a file from elsewhere, cost nothing."""
        statement = "SELECT idx FROM facet WHERE idx >= ? ORDER BY idx LIMIT 1"
        while found := self._rows(statement, (first,), _INT):
            segment = segment_of(found[0][0])
            yield segment
            first = (segment + 1) << SEGMENT_BITS

    def _paged(
        self, statement: str, last: Any, *after: Any, types: Types, before: tuple[Any, ...] = (), page: int = _PAGE
    ) -> Iterator[tuple[Any, ...]]:
        """Iterate over the rows of a statement that goes on after `last`, its first column, up to a limit."""
        while rows := self._rows(statement, (*before, last, *after, page), types):
            if not last < rows[-1][0]:  # only in a damaged file, where it would go on for ever
                raise EvidenceError("ledger-corrupt", "The ledger's rows are out of order.")
            yield from rows
            last = rows[-1][0]

    def _logged_at(self, indexes: Iterator[int]) -> Iterator[Logged]:
        for some in _batches(indexes, _ENVELOPES):
            statement = f"SELECT idx, id, envelope FROM entry WHERE idx IN ({_marks(some)}) ORDER BY idx"  # noqa: S608
            yield from map(_logged, self._rows(statement, some, _LOGGED))

    def _one(self, statement: str, values: Sequence[Any], types: Types, what: str) -> tuple[Any, ...]:
        found = self._rows(statement, values, types)
        if not found:
            raise EvidenceError("ledger-inconsistent", f"The ledger holds no {what}.")
        return found[0]


def _logged(row: tuple[Any, ...]) -> Logged:
    return Logged(row[0], row[1].hex(), row[2])


def _entry_id(key: str) -> bytes | None:
    """Return the id in a key `entry/<id>`, None for any other key."""
    digits = key.removeprefix(state.entry_key(""))
    if len(digits) != _ID_DIGITS or len(digits) == len(key):
        return None
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        return None
    return raw if raw.hex() == digits else None


def _marks(values: Collection[object]) -> str:
    return ",".join("?" * len(values))


def _batches(values: Iterator[_T], size: int) -> Iterator[list[_T]]:
    while some := list(islice(values, size)):
        yield some


def _id_range(prefix: str) -> tuple[bytes, bytes]:
    """Return the least and the greatest id that begin with the hex digits."""
    try:
        if not _PREFIX_LEAST <= len(prefix) <= _ID_DIGITS:
            raise ValueError(prefix)
        return bytes.fromhex(prefix.ljust(_ID_DIGITS, "0")), bytes.fromhex(prefix.ljust(_ID_DIGITS, "f"))
    except ValueError as error:
        raise UsageError("entry-id", f"{prefix[:80]!r} is not the beginning of an id: 4 to 64 hex digits.") from error


def _digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise UsageError("digest-malformed", f"{text[:80]!r} is not a digest in hex digits.") from error
