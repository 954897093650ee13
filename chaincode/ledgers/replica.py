# SPDX-License-Identifier: Apache-2.0
"""A replica: the log of another ledger in the embedded ledger's tables, so that it can be asked as that one is.

It is derived, no evidence: it has no log key, signs nothing and takes nothing but the entries that the other ledger holds,
in its order. Each is replayed through the contract; one that the contract refuses is an error, not an outcome.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from chaincode import contract
from chaincode.checkpoints import Checkpoint
from chaincode.entries import Entry
from chaincode.ledgers.connection import DEFAULT_TIMEOUT, Connection, create_file
from chaincode.ledgers.storing import Held, Judged, Store
from chaincode.log import EMPTY_ROOT
from identity.errors import EvidenceError


class Replica(Held):
    """The replica of a log in a file, open for what comes. As a context manager it closes."""

    def __init__(self, reads: Connection, replay: "_Replay") -> None:
        """For `open` only."""
        super().__init__(reads, replay)
        self._replay = replay

    @classmethod
    def open(cls, path: Path, *, origin: str, timeout: float = DEFAULT_TIMEOUT) -> Self:
        """Open the replica of the log `origin`; make an empty one where there is none.

        Raises EvidenceError: replica-other (the file is a ledger of its own, or replays another log), and as
        `SqliteLedger.open`.
        """
        if not path.exists():
            create_file(path, {"origin": origin, "vkey": ""}, Checkpoint(origin, 0, EMPTY_ROOT).text())
        replay = _Replay(Connection.writer(path, timeout))
        try:
            if not replay.replays(origin):
                raise EvidenceError("replica-other", f"{path} is no replica of the log {origin}.")
            return cls(Connection.reader(path, timeout), replay)
        except BaseException:
            replay.close()
            raise

    def extend(self, entries: Sequence[Entry]) -> None:
        """Add the log's next entries. Raises EvidenceError(replica-refused) for one that the contract refuses."""
        if entries:
            self._replay.extend(entries)


class _Replay(Store):
    """The writing half."""

    def replays(self, origin: str) -> bool:
        """Whether this is the replica of that log, and no ledger of its own."""
        return not self._inside.vkey and self._checkpoint.origin == origin

    def head_of(self, checkpoint: Checkpoint) -> str:
        """The head as it is: nobody signs it here."""
        return checkpoint.text()

    def extend(self, entries: Sequence[Entry]) -> None:
        self.write(lambda: self._judge(entries))

    def _judge(self, entries: Sequence[Entry]) -> Judged[None]:
        verdicts, writes = contract.apply_all(entries, self._recent.get(contract.keys_of(entries)))
        for entry, refusal in zip(entries, verdicts, strict=True):
            if refusal is not None:
                message = f"The log holds entry {entry.id[:12]} ({entry.kind}), which the contract refuses: {refusal}"
                raise EvidenceError("replica-refused", message)
        return None, list(entries), writes
