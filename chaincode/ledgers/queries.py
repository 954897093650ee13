# SPDX-License-Identifier: Apache-2.0
"""What can be asked of a ledger file. Each question uses an index and holds a bounded number of rows in memory.

Answers come in pages, and no page keeps a read open: a slow consumer neither stops the writer's housekeeping nor sees
half a commit.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar, Unpack

from chaincode import state
from chaincode.ledgers.search import PAGE, Search, Sought, Types, wanted_of
from chaincode.log import node_position
from identity.errors import EvidenceError, UsageError

_IDS = 500  # bound values in one statement
_KEYS = 100_000  # keys in one statement, of some 150 bytes each
_FEW = 64  # keys that are bound one by one, which is quicker than a list, and keeps few statements compiled
_STATE_OF = "SELECT s.key, s.value FROM json_each(?) AS wanted CROSS JOIN state AS s ON s.key = wanted.value"
_ENVELOPES = 16  # rows that may have 1.4 MB each
_PREFIX_LEAST = 4
_ID_DIGITS = 64
_ENTRY = state.entry_key("")

_T = TypeVar("_T")
_KEY_PAIR = (str, bytes)
_RAW_PAIR = (bytes, bytes)
_LOGGED = (int, bytes, bytes)


class Logged(NamedTuple):
    """An entry where it stands in the log."""

    index: int  # type: ignore[assignment]  # the tuple's own method gives way
    id: str
    envelope: bytes


class Queries(Search):
    """The reading half of a ledger, over a function that answers a statement with its rows."""

    def checkpoint(self) -> str:
        """The latest signed checkpoint. Raises EvidenceError(ledger-inconsistent) where there is none."""
        return str(self._one("SELECT note FROM checkpoint WHERE one = 1", (), (str,), "checkpoint")[0])

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
        ids = {raw: key for key in found if (raw := _entry_id(key)) is not None}
        for some in _batches(iter(ids), _IDS):
            statement = f"SELECT id, present FROM entry WHERE id IN ({_marks(some)})"  # noqa: S608
            found.update((ids[raw], value) for raw, value in self._rows(statement, some, _RAW_PAIR))
        others = found.keys() - ids.values() if ids else found
        for some_keys in _batches(iter(sorted(others)), _KEYS):  # in order, as the table is
            if len(some_keys) <= _FEW and all(map(str.isascii, some_keys)):  # half a surrogate pair cannot be bound
                statement = f"SELECT key, value FROM state WHERE key IN ({_marks(some_keys)})"  # noqa: S608
                found.update(self._rows(statement, some_keys, _KEY_PAIR))
            else:
                found.update(self._rows(_STATE_OF, (json.dumps(some_keys),), _KEY_PAIR))
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

    def find(self, kind: str | None = None, **sought: Unpack[Sought]) -> Iterator[Logged]:
        """Iterate, in the log's order, over the entries that have all of these.

        Raises UsageError(find-round) for a round without an agreement.
        """
        wanted, since, limit = wanted_of(kind, sought), sought.get("since"), sought.get("limit")
        if limit is None:
            return self._logged_at(self._matches(wanted, since))
        # No more rows are looked at than are asked for.
        return self._logged_at(islice(self._matches(wanted, since, page=max(1, min(limit, PAGE))), max(limit, 0)))

    def at(self, indexes: Iterable[int]) -> Iterator[Logged]:
        """Iterate over the entries of these indexes, in the order in which they are asked for.

        Raises EvidenceError(ledger-inconsistent) for one that is not there.
        """
        for some in _batches(iter(indexes), _ENVELOPES):
            found = {row.index: row for row in self._logged_at(iter(some))}
            for index in some:
                if index not in found:
                    raise EvidenceError(
                        "ledger-inconsistent", f"The ledger has columns of an entry {index}, but no entry."
                    )
                yield found[index]

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
    if not key.startswith(_ENTRY):
        return None
    digits = key[len(_ENTRY) :]
    if len(digits) != _ID_DIGITS:
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
