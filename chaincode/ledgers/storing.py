# SPDX-License-Identifier: Apache-2.0
"""How entries that were accepted get into a ledger file: one durable transaction with the tree, the columns and the head."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from chaincode import state
from chaincode.checkpoints import Checkpoint, open_checkpoint, parse_checkpoint
from chaincode.entries import Entry
from chaincode.ledgers.connection import Connection
from chaincode.ledgers.queries import Queries
from chaincode.ledgers.tables import errors_of, facet_of, segment_of, subjects_of
from chaincode.log import Frontier, consistency_proof, leaf_hash, node_position, verify_consistency
from chaincode.notes import parse_vkey
from identity.errors import EvidenceError

_NUMBERS = 1 << 17  # how many texts' numbers are kept in memory
_Result = TypeVar("_Result")
Judged = tuple[_Result, list[Entry], dict[str, bytes]]
"""What a writer answers, the entries to store, and what they write."""


class Store(ABC):
    """The one place that writes a ledger file, under its write lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inside = Queries(connection.rows)
        self._numbers: dict[str, int] = {}  # of texts in `name`, whose rows never change
        try:
            self._note = self._inside.checkpoint()
            self._checkpoint, self._frontier = check_head(self._inside)
        except BaseException:
            connection.close()
            raise

    @abstractmethod
    def head_of(self, checkpoint: Checkpoint) -> str:
        """The note that is stored as the log's head."""

    def close(self) -> None:
        self._connection.close()

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
                    frontier, note = self._store(accepted, writes, numbers)
                with errors_of(self._connection.path, committing=True):
                    raw.execute("COMMIT")
            except BaseException:
                self._abandon()
                raise
            self._frontier, self._note, self._numbers = frontier, note, numbers
            return outcomes

    def _abandon(self) -> None:
        """Undo an open transaction; SQLite has done so itself after some errors."""
        if self._connection.raw.in_transaction:
            with errors_of(self._connection.path):
                self._connection.raw.execute("ROLLBACK")

    def _catch_up(self) -> None:
        """Take over the head that another process has left since the last turn; its tree must extend ours."""
        note = self._inside.checkpoint()
        if note == self._note:
            return
        checkpoint, frontier = check_head(self._inside)
        old = self._frontier.size
        if old:
            path = consistency_proof(old, checkpoint.size, self._inside.node) if old <= checkpoint.size else []
            verify_consistency(old, checkpoint.size, self._frontier.root(), checkpoint.root, path)
        self._frontier, self._note = frontier, note

    def _store(
        self, accepted: Sequence[Entry], writes: dict[str, bytes], numbers: Mapping[str, int]
    ) -> tuple[Frontier, str]:
        """Write a batch and its head into the open transaction; return the new edge of the tree and the checkpoint."""
        raw, frontier, numbered = self._connection.raw, self._frontier.copy(), enumerate(accepted, self._frontier.size)
        nodes, entries, facets, subjects = [], [], [], []
        latest = self._latest()
        for index, entry in numbered:
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
        return frontier, note

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


def check_head(queries: Queries) -> tuple[Checkpoint, Frontier]:
    """Verify the stored head: signed by the ledger's key, over as many entries as there are, with the root of the tree.

    A mirror has no key, and its head no signature.
    """
    note, size = queries.head()
    vkey = queries.vkey
    checkpoint = open_checkpoint(note, parse_vkey(vkey))[0] if vkey else parse_checkpoint(note)
    if checkpoint.size != size:
        message = f"The checkpoint is of {checkpoint.size} entries, the ledger holds {size}."
        raise EvidenceError("ledger-head-mismatch", message)
    frontier = Frontier.from_nodes(size, queries.node)
    if checkpoint.root != frontier.root():
        raise EvidenceError("ledger-head-mismatch", f"The checkpoint of {size} entries is not that of the stored tree.")
    return checkpoint, frontier
