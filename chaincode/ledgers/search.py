# SPDX-License-Identifier: Apache-2.0
"""Finding entries in a ledger file: by their columns, by a digest that they are about, by how such a digest begins.

Each search uses an index and yields positions in the log, in pages: none keeps a read open. The ends of long answers are
found from the end, so that the newest few of a million cost what few cost.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any, NamedTuple, TypedDict

from chaincode.ledgers.tables import INTERNED, SEGMENT_BITS, SEGMENTED, segment_of
from identity.errors import EvidenceError, UsageError

PAGE = 1024  # rows of small columns
_DIGITS = 64
_AFTER_ALL = (1 << 63) - 1
_INT = (int,)
_INDEX = "f.idx"
_PLACE = "f.idx, f.kind, ifnull((SELECT text FROM name WHERE number = f.agreement), ''), ifnull(f.round, 0)"

Types = tuple[type, ...] | None
Rows = Callable[[str, Sequence[Any], Types], list[tuple[Any, ...]]]
Wanted = Mapping[str, str | int]
"""What an entry must have, by column: kind, member, did, agreement, round (with its agreement)."""


class Sought(TypedDict, total=False):
    """What entries are found by; None is as nothing.

    ``since`` is in UTC seconds and compared with the time that the entry states. ``limit`` bounds their number.
    """

    member: str | None
    did: str | None
    agreement: str | None
    round: int | None
    since: int | None
    limit: int | None


def wanted_of(kind: str | None, sought: Sought) -> Wanted:
    """The columns of what is sought. Raises UsageError(find-round) for a round without an agreement."""
    columns: dict[str, str | int | None] = {
        "kind": kind, "member": sought.get("member"), "did": sought.get("did"),
        "agreement": sought.get("agreement"), "round": sought.get("round"),
    }  # fmt: skip
    if columns["round"] is not None and columns["agreement"] is None:
        raise UsageError("find-round", "A round is one of an agreement: name the agreement too.")
    return {column: value for column, value in columns.items() if value is not None}


class Place(NamedTuple):
    """Where an entry stands, from the columns alone: ``agreement`` is empty and ``round`` 0 for one that is of none."""

    index: int  # type: ignore[assignment]  # the tuple's own method gives way
    kind: str
    agreement: str
    round: int


class Search:
    """The searching half of a ledger's questions, over a function that answers a statement with its rows."""

    def __init__(self, rows: Rows) -> None:
        """`rows(statement, values, types)` executes on the ledger's file and checks the types of the columns."""
        self._rows = rows

    @property
    def size(self) -> int:
        """The number of entries."""
        return int(self._rows("SELECT ifnull(max(idx) + 1, 0) FROM entry", (), _INT)[0][0])

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

    def digests(self, prefix: str) -> list[str]:
        """Return up to two of the digests that entries are about and that begin with these hex digits, the least first."""
        low, high = (_digest(prefix.ljust(_DIGITS, fill)) for fill in "0f")
        statement = "SELECT DISTINCT digest FROM subject WHERE segment = ? AND digest BETWEEN ? AND ? LIMIT 2"
        found: set[bytes] = set()
        for segment in range(segment_of(self.size) + 1):
            found.update(digest for (digest,) in self._rows(statement, (segment, low, high), (bytes,)))
        return sorted(digest.hex() for digest in found)[:2]

    def newest(self, wanted: Wanted, since: int | None, limit: int) -> list[int]:
        """Return the indexes of the last `limit` entries with these values (all of them where it is 0), ascending.

        `since` is in UTC seconds and compared with the time that the entry states.
        """
        if not wanted and since is None:
            size = self.size
            return list(range(max(size - limit, 0) if limit else 0, size))
        if not limit:
            return list(self._matches(wanted, since))
        return list(islice(self._matches(wanted, since, down=True, page=min(limit, PAGE)), limit))[::-1]

    def places(self, wanted: Wanted, since: int | None = None, start: int = 0) -> Iterator[Place]:
        """Iterate, from the end of the log down to the index `start`, over where the entries with these values stand."""
        types = (int, str, str, int)
        return (Place(*row) for row in self._select(_PLACE, types, wanted, since, start=start, down=True))

    def _matches(
        self, wanted: Wanted, since: int | None, *, down: bool = False, page: int | None = None
    ) -> Iterator[int]:
        """Iterate over the indexes of entries with these columns, ascending or `down` from the end."""
        return (index for (index,) in self._select(_INDEX, _INT, wanted, since, down=down, page=page))

    def _select(
        self, columns: str, types: Types, wanted: Wanted, since: int | None, *, start: int = 0, down: bool = False,
        page: int | None = None,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Iterate over the rows of entries with these columns, by the index that leaves fewest rows to look at."""
        conditions: dict[str, Any] = {} if since is None else {"f.at >= ?": since}
        for column, value in wanted.items():
            number = (
                self._rows("SELECT number FROM name WHERE text = ?", (value,), _INT) if column in INTERNED else None
            )
            if number == []:
                return
            conditions[f"f.{column} = ?"] = number[0][0] if number else value
        first = max(self._first_at(since), start)
        best = next((c for c in ("round", "member", "did", "agreement", "kind") if c in wanted), None)
        hint = f"INDEXED BY facet_{best}" if best else ""
        order = "f.idx >= ? AND f.idx < ? ORDER BY f.idx DESC" if down else "f.idx > ? ORDER BY f.idx"
        segments: Iterable[int | None] = self._segments(first, down=down) if best in SEGMENTED else [None]
        for segment in segments:
            within = conditions if segment is None else {**conditions, f"f.idx >> {SEGMENT_BITS} = ?": segment}
            where = " AND ".join([*within, order])
            statement = f"SELECT {columns} FROM facet AS f {hint} WHERE {where} LIMIT ?"  # noqa: S608
            before, last = (*within.values(), *([first] if down else [])), _AFTER_ALL if down else first - 1
            yield from self._paged(statement, last, types=types, before=before, page=page, down=down)

    def _first_at(self, since: int | None) -> int:
        """Return the first index whose entry may state a time from `since` on."""
        if since is None:
            return 0
        # `latest` never falls: before the first entry that reaches `since`, no entry does.
        reached = "SELECT idx FROM facet INDEXED BY facet_latest WHERE latest >= ? ORDER BY latest, idx LIMIT 1"
        found = self._rows(reached, (since,), _INT)
        return int(found[0][0]) if found else self.size

    def _segments(self, first: int = 0, *, down: bool = False) -> Iterator[int]:
        """Iterate over the segments that have entries from `first` on; gaps, in a file from elsewhere, cost nothing."""
        order = "idx >= ? AND idx < ? ORDER BY idx DESC" if down else "idx >= ? AND idx < ? ORDER BY idx"
        statement, bounds = f"SELECT idx FROM facet WHERE {order} LIMIT 1", (first, _AFTER_ALL)  # noqa: S608
        while found := self._rows(statement, bounds, _INT):
            segment = segment_of(found[0][0])
            yield segment
            bounds = (first, segment << SEGMENT_BITS) if down else ((segment + 1) << SEGMENT_BITS, _AFTER_ALL)

    def _paged(
        self, statement: str, last: Any, *after: Any, types: Types, before: tuple[Any, ...] = (), page: int | None = None,
        down: bool = False,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Iterate over the rows of a statement that goes on after `last`, its first column, up to a limit."""
        page = page or PAGE
        while rows := self._rows(statement, (*before, last, *after, page), types):
            if not (rows[-1][0] < last if down else last < rows[-1][0]):
                # only in a damaged file, where it would go on for ever
                raise EvidenceError("ledger-corrupt", "The ledger's rows are out of order.")
            yield from rows
            last = rows[-1][0]


def _digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise UsageError("digest-malformed", f"{text[:80]!r} is not a digest in hex digits.") from error
