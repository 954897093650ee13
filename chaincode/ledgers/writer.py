# SPDX-License-Identifier: Apache-2.0
"""The writing half of the embedded ledger: judges a batch and stores it under the file's write lock."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

from chaincode import contract, state
from chaincode.checkpoints import Checkpoint, open_checkpoint, sign_checkpoint
from chaincode.entries import Entry, open_entry
from chaincode.ledgers import Door, Receipt
from chaincode.ledgers.connection import Connection
from chaincode.ledgers.queries import Queries
from chaincode.ledgers.tables import errors_of, facet_of, segment_of, subjects_of
from chaincode.log import Frontier, consistency_proof, leaf_hash, node_position, verify_consistency
from chaincode.notes import parse_vkey
from identity.errors import EvidenceError, Rejected, UsageError
from identity.keys import Signer

Clock = Callable[[], int]
Outcome = Receipt | Rejected

# Entries that a thread verifies before it asks for more. Handing four over costs less than verifying one.
_TOGETHER, _AT_MOST = 4, 32
_THREADS = min(4, os.cpu_count() or 1)
_NUMBERS = 1 << 17  # how many texts' numbers are kept in memory


class Writer:
    """The one place that writes: judges a batch and stores it under the file's write lock."""

    def __init__(self, connection: Connection, sign: Signer, clock: Clock, skew: int) -> None:
        self._connection, self._sign, self._clock = connection, sign, clock
        self._inside = Queries(connection.rows)
        self._numbers: dict[str, int] = {}  # of texts in `name`, whose rows never change
        try:
            self._note = self._inside.checkpoint()
            checkpoint, self._frontier = check_head(self._inside)
            self._log = parse_vkey(self._inside.vkey)
            self._door = Door(self._log.name, self._inside.vkey, skew)
            self._check_signer(checkpoint)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def submit(self, opened: Sequence[Entry | Rejected]) -> list[Outcome]:
        raw = self._connection.raw
        with self._connection.lock:
            with errors_of(self._connection.path):
                raw.execute("BEGIN IMMEDIATE")
            try:
                self._catch_up()
                outcomes, accepted, writes = self._judge(opened)
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

    def _judge(self, opened: Sequence[Entry | Rejected]) -> tuple[list[Outcome], list[Entry], dict[str, bytes]]:
        """Return an outcome for each, the entries to store, and what they write."""
        known = self._inside.indexes([e.id for e in opened if isinstance(e, Entry)])
        values = self._values([e for e in opened if isinstance(e, Entry) and e.id not in known])
        door = self._door.under(values[state.FEDERATION])
        outcomes: list[Outcome | None] = []
        now: int | None = None
        for entry in opened:
            if isinstance(entry, Rejected):
                outcomes.append(entry)
            elif entry.id in known:
                outcomes.append(Receipt(entry.id, known[entry.id]))
            else:
                now = self._clock() if now is None else now
                outcomes.append(door.refusal(entry, now))
        judged = [(i, e) for i, e in enumerate(opened) if isinstance(e, Entry) and outcomes[i] is None]
        entries = [entry for _, entry in judged]
        verdicts, writes = contract.apply_all(entries, values)
        accepted: list[Entry] = []
        for (i, entry), verdict in zip(judged, verdicts, strict=True):
            if verdict is None:
                known[entry.id] = self._frontier.size + len(accepted)
                accepted.append(entry)
            # Twice in one batch: the second one answers with the receipt of the first.
            outcomes[i] = Receipt(entry.id, known[entry.id]) if entry.id in known else verdict
        return [outcome for outcome in outcomes if outcome is not None], accepted, writes

    def _values(self, new: Sequence[Entry]) -> dict[str, bytes | None]:
        """Return what the contract asks for about entries that the ledger does not hold, in one read."""
        absent = dict.fromkeys(state.entry_key(entry.id) for entry in new)
        return {**absent, **self._inside.get((contract.keys_of(new) | {state.FEDERATION}) - absent.keys())}

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
        checkpoint = Checkpoint(self._log.name, frontier.size, frontier.root())
        note = sign_checkpoint(checkpoint, self._log.public_key, self._sign)
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

    def _check_signer(self, checkpoint: Checkpoint) -> None:
        """Refuse a signer whose signatures are not those of the ledger's key (UsageError ledger-wrong-key)."""
        try:
            open_checkpoint(sign_checkpoint(checkpoint, self._log.public_key, self._sign), self._log)
        except EvidenceError as error:
            message = f"The key at hand is not the log key of {self._connection.path} ({self._log.name})."
            raise UsageError("ledger-wrong-key", message) from error


def check_head(queries: Queries) -> tuple[Checkpoint, Frontier]:
    """Verify the stored head: signed by the ledger's key, over as many entries as there are, with the root of the tree."""
    log = parse_vkey(queries.vkey)
    note, size = queries.head()
    checkpoint, _ = open_checkpoint(note, log)
    if checkpoint.size != size:
        message = f"The checkpoint is of {checkpoint.size} entries, the ledger holds {size}."
        raise EvidenceError("ledger-head-mismatch", message)
    frontier = Frontier.from_nodes(size, queries.node)
    if checkpoint.root != frontier.root():
        raise EvidenceError("ledger-head-mismatch", f"The checkpoint of {size} entries is not that of the stored tree.")
    return checkpoint, frontier


def open_all(envelopes: Sequence[bytes], pool: Executor | None = None) -> list[Entry | Rejected]:
    """Open each envelope, or say with the evidence's code why it is none.

    OpenSSL verifies without Python's lock, so the threads of a pool verify a batch together.
    """
    each = max(_TOGETHER, min(_AT_MOST, -(-len(envelopes) // _THREADS)))
    if pool is None or len(envelopes) < 2 * _TOGETHER:
        return _open_some(envelopes)
    others = pool.map(_open_some, [envelopes[i : i + each] for i in range(each, len(envelopes), each)])
    return [*_open_some(envelopes[:each]), *(opened for part in others for opened in part)]


def verifying_threads() -> ThreadPoolExecutor | None:
    """Return the pool for `open_all`, whose threads start when they are first needed; None on a machine of one core."""
    return ThreadPoolExecutor(_THREADS, "fedledger-verify") if _THREADS > 1 else None


def _open_some(envelopes: Sequence[bytes]) -> list[Entry | Rejected]:
    return [_open_one(envelope) for envelope in envelopes]


def _open_one(envelope: bytes) -> Entry | Rejected:
    try:
        return open_entry(envelope)
    except EvidenceError as error:
        return Rejected(error.code, error.message)
