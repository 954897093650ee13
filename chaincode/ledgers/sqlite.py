# SPDX-License-Identifier: Apache-2.0
"""The embedded ledger: one SQLite file with the entries, their tree, the state and the signed head.

One transaction holds everything that a batch of entries changes, and ends with one signed checkpoint. A receipt is
given when that transaction is on the disk, never before. Any number of processes may write, one at a time: each reads
the head again when its turn comes.
"""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from chaincode import contract, state
from chaincode.checkpoints import Checkpoint, open_checkpoint, sign_checkpoint
from chaincode.entries import Entry, open_entry
from chaincode.ledgers import DEFAULT_SKEW, Door, Receipt
from chaincode.ledgers.connection import DEFAULT_TIMEOUT, Connection, create_file
from chaincode.ledgers.queries import Queries
from chaincode.ledgers.tables import errors_of, facet_of, segment_of, subjects_of
from chaincode.log import EMPTY_ROOT, Frontier, consistency_proof, leaf_hash, node_position, verify_consistency
from chaincode.notes import format_vkey, parse_vkey
from identity.errors import EvidenceError, Rejected, UsageError
from identity.keys import Signer

Clock = Callable[[], int]
Outcome = Receipt | Rejected

_VERIFIED_TOGETHER = 32  # entries that a thread verifies before it asks for more
_THREADS = min(4, os.cpu_count() or 1)


class SqliteLedger(Queries):
    """A ledger in a file. Thread-safe. `create` makes one, `open` opens one; as a context manager it closes."""

    def __init__(self, reads: Connection, writer: "_Writer | None") -> None:
        """For `create` and `open` only."""
        super().__init__(reads.rows)
        self._reads = reads
        self._writer = writer

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        origin: str,
        public_key: bytes,
        sign: Signer,
        clock: Clock,
        skew: int = DEFAULT_SKEW,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Self:
        """Create an empty ledger whose head is signed by `public_key` under the log's name, and open it for writing.

        The file appears under its name only when it is whole. Raises UsageError(ledger-exists), EvidenceError for a
        name or key that cannot sign notes, Unavailable.
        """
        target = Path(path)
        if target.exists():
            raise UsageError("ledger-exists", f"{target} exists; a ledger is never overwritten.")
        vkey = format_vkey(origin, public_key)
        note = sign_checkpoint(Checkpoint(origin, 0, EMPTY_ROOT), public_key, sign)
        create_file(target, {"origin": origin, "vkey": vkey}, note)
        return cls.open(target, sign=sign, clock=clock, skew=skew, timeout=timeout)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        sign: Signer | None = None,
        clock: Clock | None = None,
        skew: int = DEFAULT_SKEW,
        timeout: float = DEFAULT_TIMEOUT,
        check: bool = True,
    ) -> Self:
        """Open a ledger: for writing with the log's signer and a clock, for reading only without them.

        Checks that the head is signed by the ledger's key and is that of the stored tree; with `check=False`, which a
        reader may ask for that judges a damaged ledger itself, it does not. Whether the tree is that of the entries is
        for an audit to say.

        Raises UsageError: ledger-missing, ledger-wrong-key (`sign` is another key's); EvidenceError:
        ledger-not-a-ledger, ledger-schema-newer, ledger-schema, ledger-head-mismatch, note-*, checkpoint-*;
        Unavailable: ledger-locked, ledger-cannot-open, ledger-not-writable, ledger-wal-pending.
        """
        target = Path(path)
        if not target.exists():
            raise UsageError("ledger-missing", f"There is no ledger {target}.", next="Create the federation first.")
        if sign is None or clock is None:
            ledger = cls(Connection.reader(target, timeout), None)
            try:
                if check:
                    ledger.check_head()
            except BaseException:
                ledger.close()
                raise
            return ledger
        writer = _Writer(Connection.writer(target, timeout), sign, clock, skew)
        try:
            return cls(Connection.reader(target, timeout), writer)
        except BaseException:
            writer.close()
            raise

    def submit(self, envelopes: Sequence[bytes]) -> list[Outcome]:
        """Judge and store entries, as the port says, in one durable transaction.

        Raises UsageError(ledger-read-only); Unavailable: ledger-locked, ledger-disk-full, ledger-io,
        ledger-not-writable; OutcomeUnknown(ledger-outcome-unknown); EvidenceError for a damaged file.
        """
        if self._writer is None:
            raise UsageError("ledger-read-only", f"{self._reads.path} was opened for reading only.")
        return self._writer.submit(_open_all(envelopes))

    def check_head(self) -> Checkpoint:
        """Verify the latest checkpoint against the ledger's key and the stored tree's edge; return it."""
        return _check_head(self)[0]

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._reads.close()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Self:
        """Return the ledger itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()


class _Writer:
    """The one place that writes: judges a batch and stores it under the file's write lock."""

    def __init__(self, connection: Connection, sign: Signer, clock: Clock, skew: int) -> None:
        self._connection, self._sign, self._clock = connection, sign, clock
        self._inside = Queries(connection.rows)
        try:
            self._note = self._inside.checkpoint()
            checkpoint, self._frontier = _check_head(self._inside)
            self._log = parse_vkey(self._inside.meta("vkey"))
            self._door = Door(self._inside.meta("origin"), self._inside.meta("vkey"), skew)
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
                    frontier, note = self._store(accepted, writes)
                with errors_of(self._connection.path, committing=True):
                    raw.execute("COMMIT")
            except BaseException:
                self._abandon()
                raise
            self._frontier, self._note = frontier, note
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
        checkpoint, frontier = _check_head(self._inside)
        old = self._frontier.size
        if old:
            path = consistency_proof(old, checkpoint.size, self._inside.node) if old <= checkpoint.size else []
            verify_consistency(old, checkpoint.size, self._frontier.root(), checkpoint.root, path)
        self._frontier, self._note = frontier, note

    def _judge(self, opened: Sequence[Entry | Rejected]) -> tuple[list[Outcome], list[Entry], dict[str, bytes]]:
        """Return an outcome for each, the entries to store, and what they write."""
        known = self._inside.indexes([e.id for e in opened if isinstance(e, Entry)])
        door = self._door.under(self._inside.get([state.FEDERATION])[state.FEDERATION])
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
        verdicts, writes = contract.apply_all(entries, self._inside.get(contract.keys_of(entries)))
        accepted: list[Entry] = []
        for (i, entry), verdict in zip(judged, verdicts, strict=True):
            if verdict is None:
                known[entry.id] = self._frontier.size + len(accepted)
                accepted.append(entry)
            # Twice in one batch: the second one answers with the receipt of the first.
            outcomes[i] = Receipt(entry.id, known[entry.id]) if entry.id in known else verdict
        return [outcome for outcome in outcomes if outcome is not None], accepted, writes

    def _store(self, accepted: Sequence[Entry], writes: dict[str, bytes]) -> tuple[Frontier, str]:
        """Write a batch and its head into the open transaction; return the new edge of the tree and the checkpoint."""
        raw, frontier, numbered = self._connection.raw, self._frontier.copy(), enumerate(accepted, self._frontier.size)
        nodes, entries, facets, subjects = [], [], [], []
        numbers, latest = self._numbers(accepted), self._inside.latest()
        for index, entry in numbered:
            nodes += frontier.append(leaf_hash(entry.envelope))
            entries.append((index, bytes.fromhex(entry.id), writes.pop(state.entry_key(entry.id)), entry.envelope))
            facet, latest = facet_of(entry), max(latest, entry.at)
            names = (numbers[facet.member], numbers[facet.did], numbers.get(facet.agreement))
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

    def _numbers(self, accepted: Sequence[Entry]) -> dict[str | None, int]:
        """Return the number of each text in the interned columns, and give one to those that have none."""
        texts = {text for entry in accepted for text in (entry.member, entry.did, entry.agreement) if text}
        rows = self._connection.rows
        known = "SELECT text, number FROM name WHERE text IN (SELECT value FROM json_each(?))"
        numbers: dict[str | None, int] = dict(rows(known, (json.dumps(sorted(texts)),)))
        first = rows("SELECT ifnull(max(number), 0) + 1 FROM name")[0][0]
        new = [(number, text) for number, text in enumerate(sorted(texts - numbers.keys()), first)]
        self._connection.raw.executemany("INSERT INTO name VALUES (?, ?)", new)
        return {**numbers, **{text: number for number, text in new}}

    def _check_signer(self, checkpoint: Checkpoint) -> None:
        """Refuse a signer whose signatures are not those of the ledger's key (UsageError ledger-wrong-key)."""
        try:
            open_checkpoint(sign_checkpoint(checkpoint, self._log.public_key, self._sign), self._log)
        except EvidenceError as error:
            message = f"The key at hand is not the log key of {self._connection.path} ({self._log.name})."
            raise UsageError("ledger-wrong-key", message) from error


def _check_head(queries: Queries) -> tuple[Checkpoint, Frontier]:
    """Verify the stored head: signed by the ledger's key, over as many entries as there are, with the root of the tree."""
    log = parse_vkey(queries.meta("vkey"))
    note, size = queries.head()
    checkpoint, _ = open_checkpoint(note, log)
    if checkpoint.size != size:
        message = f"The checkpoint is of {checkpoint.size} entries, the ledger holds {size}."
        raise EvidenceError("ledger-head-mismatch", message)
    frontier = Frontier.from_nodes(size, queries.node)
    if checkpoint.root != frontier.root():
        raise EvidenceError("ledger-head-mismatch", f"The checkpoint of {size} entries is not that of the stored tree.")
    return checkpoint, frontier


def _open_all(envelopes: Sequence[bytes]) -> list[Entry | Rejected]:
    """Open each envelope, or say with the evidence's code why it is none.

    OpenSSL verifies without Python's lock, so a few threads verify a batch together.
    """
    if len(envelopes) < 2 * _VERIFIED_TOGETHER or _THREADS == 1:
        return [_open_one(e) for e in envelopes]
    some = [envelopes[i : i + _VERIFIED_TOGETHER] for i in range(0, len(envelopes), _VERIFIED_TOGETHER)]
    with ThreadPoolExecutor(_THREADS) as pool:
        return [opened for part in pool.map(lambda part: [_open_one(e) for e in part], some) for opened in part]


def _open_one(envelope: bytes) -> Entry | Rejected:
    try:
        return open_entry(envelope)
    except EvidenceError as error:
        return Rejected(error.code, error.message)
