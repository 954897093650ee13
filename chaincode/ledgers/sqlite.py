# SPDX-License-Identifier: Apache-2.0
"""The embedded ledger: one SQLite file with the entries, their tree, the state and the signed head.

One transaction holds everything that a batch of entries changes, and ends with one signed checkpoint. A receipt is
given when that transaction is on the disk, never before. Any number of processes may write, one at a time: each reads
the head again when its turn comes.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from chaincode.checkpoints import Checkpoint, sign_checkpoint
from chaincode.ledgers import DEFAULT_SKEW
from chaincode.ledgers.connection import DEFAULT_TIMEOUT, Connection, create_file
from chaincode.ledgers.opening import open_all
from chaincode.ledgers.storing import Held, check_head
from chaincode.ledgers.writer import Clock, Outcome, Writer
from chaincode.log import EMPTY_ROOT
from chaincode.notes import format_vkey
from identity.errors import UsageError
from identity.keys import Signer


class SqliteLedger(Held):
    """A ledger in a file. Thread-safe. `create` makes one, `open` opens one; as a context manager it closes."""

    def __init__(self, reads: Connection, writer: Writer | None) -> None:
        """For `create` and `open` only."""
        super().__init__(reads, writer)
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

        Raises UsageError: ledger-missing, ledger-replica (for writing), ledger-wrong-key (`sign` is another key's); EvidenceError:
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
        writer = Writer(Connection.writer(target, timeout), sign, clock, skew)
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
        return self._writer.submit(open_all(envelopes))

    def check_head(self) -> Checkpoint:
        """Verify the latest checkpoint against the ledger's key and the stored tree's edge; return it."""
        return check_head(self)[0]
