# SPDX-License-Identifier: Apache-2.0
"""How entries that were accepted get into a ledger file: one durable transaction with the tree, the columns and the head."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Self, TypeVar

from chaincode import state
from chaincode.checkpoints import Checkpoint, open_checkpoint, parse_checkpoint
from chaincode.entries import Entry
from chaincode.ledgers.connection import Connection
from chaincode.ledgers.queries import Queries
from chaincode.ledgers.recent import Recent
from chaincode.ledgers.tables import errors_of, facet_of, segment_of, subjects_of
from chaincode.log import Frontier, consistency_proof, leaf_hash, node_position, verify_consistency
from chaincode.notes import parse_vkey
from identity.errors import EvidenceError
from identity.wording import counted

_NUMBERS = 1 << 17  # how many texts' numbers are kept in memory
_Result = TypeVar("_Result")
Judged = tuple[_Result, list[Entry], dict[str, bytes]]
"""What a writer answers, the entries to store, and what they write."""


class _End(NamedTuple):
    """How a log ends: the edge of its tree, the note of its head, and the latest time that an entry states (UTC seconds)."""

    frontier: Frontier
    note: str
    latest: int


class Store(ABC):
    """The one place that writes a ledger file, under its write lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inside = Queries(connection.rows)
        self._recent = Recent(connection, self._inside.get)
        self._numbers: dict[str, int] = {}  # of texts in `name`, whose rows never change
        try:
            note = self._inside.checkpoint()
            self._checkpoint, frontier = check_head(self._inside)
            self._end = _End(frontier, note, self._latest())
        except BaseException:
            connection.close()
            raise

    @abstractmethod
    def head_of(self, checkpoint: Checkpoint) -> str:
        """The note that is stored as the log's head."""

    def close(self) -> None:
        self._connection.close()

    def recent(self, keys: Collection[str]) -> dict[str, bytes | None] | None:
        """Return the state under each key where nothing need be read for it: see `Recent.known`; else None.

        None too while a submission is under way, whose end is not waited for.
        """
        if not self._connection.lock.acquire(blocking=False):
            return None
        try:
            return self._recent.known(keys)
        finally:
            self._connection.lock.release()

    def write(self, judge: Callable[[], Judged[_Result]]) -> _Result:
        """Have a batch judged while nobody else writes, and store what is accepted. Raises as `SqliteLedger.submit`."""
        raw = self._connection.raw
        with self._connection.lock:
            with errors_of(self._connection.path):
                raw.execute("BEGIN IMMEDIATE")
            try:
                self._catch_up()
                outcomes, accepted, writes = judge()
                if not accepted:
                    raw.execute("ROLLBACK")
                    return outcomes
                with errors_of(self._connection.path):
                    numbers = self._number(accepted)
                    end = self._store(accepted, writes, numbers)
                self._connection.check_there()
                self._recent.keep(writes)  # before the commit: after it, an interrupt would leave what was before
                with errors_of(self._connection.path, committing=True):
                    raw.execute("COMMIT")
                self._end, self._numbers = end, numbers
            except BaseException:
                self._recent.forget()
                self._abandon()
                raise
            return outcomes

    def _abandon(self) -> None:
        """Undo an open transaction; SQLite has done so itself after some errors."""
        if self._connection.raw.in_transaction:
            with errors_of(self._connection.path):
                self._connection.raw.execute("ROLLBACK")

    def _catch_up(self) -> None:
        """Take over the head that another process has left since the last turn; its tree must extend ours."""
        if self._recent.hold():
            return
        self._recent.renew()
        note = self._inside.checkpoint()
        if note == self._end.note:
            return
        checkpoint, frontier = check_head(self._inside)
        old, ours = self._end.frontier.size, self._end.frontier.root()
        if old:
            path = consistency_proof(old, checkpoint.size, self._inside.node) if old <= checkpoint.size else []
            verify_consistency(old, checkpoint.size, ours, checkpoint.root, path)
        self._end = _End(frontier, note, self._latest())

    def _store(self, accepted: Sequence[Entry], writes: dict[str, bytes], numbers: Mapping[str, int]) -> _End:
        """Write a batch and its head into the open transaction; return how the log ends with them.

        Of `writes` those that are columns of the entries are taken out: what is left is what the table `state` holds.
        """
        raw, frontier, latest = self._connection.raw, self._end.frontier.copy(), self._end.latest
        nodes, entries, facets, subjects = [], [], [], []
        for index, entry in enumerate(accepted, frontier.size):
            nodes += frontier.append(leaf_hash(entry.envelope))
            entries.append((index, bytes.fromhex(entry.id), writes.pop(state.entry_key(entry.id)), entry.envelope))
            facet, latest = facet_of(entry), max(latest, entry.at)
            names = (numbers[facet.member], numbers[facet.did], numbers[facet.agreement] if facet.agreement else None)
            facets.append((index, facet.kind, *names, facet.round, facet.at, latest))
            subjects += [(segment_of(index), digest, index) for digest in subjects_of(entry)]
        raw.executemany("INSERT INTO entry VALUES (?, ?, ?, ?)", entries)
        raw.executemany("INSERT INTO node VALUES (?, ?)", [(node_position(lv, i), value) for lv, i, value in nodes])
        raw.executemany("INSERT INTO facet VALUES (?, ?, ?, ?, ?, ?, ?, ?)", facets)
        raw.executemany("INSERT INTO subject VALUES (?, ?, ?)", sorted(subjects))
        raw.executemany("INSERT OR REPLACE INTO state VALUES (?, ?)", sorted(writes.items()))
        note = self.head_of(Checkpoint(self._checkpoint.origin, frontier.size, frontier.root()))
        raw.execute("UPDATE checkpoint SET note = ? WHERE one = 1", (note,))
        return _End(frontier, note, latest)

    def _latest(self) -> int:
        """Return the latest time that an entry states, 0 where there is none."""
        return int(self._connection.rows("SELECT ifnull(max(latest), 0) FROM facet")[0][0])

    def _number(self, accepted: Sequence[Entry]) -> dict[str, int]:
        """Return the number of each text in the interned columns, after giving one to those that have none."""
        texts = {text for entry in accepted for text in (entry.member, entry.did, entry.agreement) if text}
        if texts <= self._numbers.keys():
            return self._numbers
        rows = self._connection.rows
        known = "SELECT text, number FROM name WHERE text IN (SELECT value FROM json_each(?))"
        numbers: dict[str, int] = dict(rows(known, (json.dumps(sorted(texts)),)))
        first = rows("SELECT ifnull(max(number), 0) + 1 FROM name")[0][0]
        new = {text: number for number, text in enumerate(sorted(texts - numbers.keys()), first)}
        self._connection.raw.executemany("INSERT INTO name VALUES (?, ?)", [(n, text) for text, n in new.items()])
        kept = self._numbers if len(self._numbers) < _NUMBERS else {}
        return {**kept, **numbers, **new}


class Held(Queries):
    """A ledger file that is open for questions, and for writing where it has a store. As a context manager it closes."""

    def __init__(self, reads: Connection, store: Store | None) -> None:
        """Answer over a connection of its own: a question does not wait for a submission."""
        super().__init__(reads.rows)
        self._reads, self._store = reads, store

    def get(self, keys: Collection[str]) -> dict[str, bytes | None]:
        """Return the state under each key, as `Queries.get` does; without asking the file what the store knows of it."""
        recent = None if self._store is None else self._store.recent(keys)
        return super().get(keys) if recent is None else recent

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._reads.close()
        if self._store is not None:
            self._store.close()

    def __enter__(self) -> Self:
        """Return the ledger itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


def check_head(queries: Queries) -> tuple[Checkpoint, Frontier]:
    """Verify the stored head: signed by the ledger's key, over as many entries as there are, with the root of the tree.

    A replica has no key, and its head no signature.
    """
    note, size = queries.head()
    vkey = queries.vkey
    checkpoint = open_checkpoint(note, parse_vkey(vkey))[0] if vkey else parse_checkpoint(note)
    if checkpoint.size != size:
        message = f"The checkpoint is of {counted(checkpoint.size, 'entry')}, the ledger holds {size}."
        raise EvidenceError("ledger-head-mismatch", message)
    frontier = Frontier.from_nodes(size, queries.node)
    if checkpoint.root != frontier.root():
        raise EvidenceError(
            "ledger-head-mismatch", f"The checkpoint of {counted(size, 'entry')} is not that of the stored tree."
        )
    return checkpoint, frontier
