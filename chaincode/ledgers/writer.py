# SPDX-License-Identifier: Apache-2.0
"""The writing half of the embedded ledger: judges a batch and stores it under the file's write lock."""

from collections.abc import Callable, Sequence

from chaincode import contract, state
from chaincode.checkpoints import Checkpoint, open_checkpoint, sign_checkpoint
from chaincode.entries import Entry
from chaincode.ledgers import Door, Receipt
from chaincode.ledgers.connection import Connection
from chaincode.ledgers.storing import Store
from chaincode.notes import parse_vkey
from identity.errors import EvidenceError, Rejected, UsageError
from identity.keys import Signer

Clock = Callable[[], int]
Outcome = Receipt | Rejected


class Writer(Store):
    """Judges a batch as a host does, and stores what is accepted under a head that the log's key signs."""

    def __init__(self, connection: Connection, sign: Signer, clock: Clock, skew: int) -> None:
        super().__init__(connection)
        self._sign, self._clock = sign, clock
        try:
            if not self._inside.vkey:
                message = f"{connection.path} is the replica of a Fabric channel: entries come into it with the channel's blocks."
                raise UsageError("ledger-replica", message)
            self._log = parse_vkey(self._inside.vkey)
            self._door = Door(self._log.name, self._inside.vkey, skew)
            self._check_signer(self._checkpoint)
        except BaseException:
            connection.close()
            raise

    def head_of(self, checkpoint: Checkpoint) -> str:
        return sign_checkpoint(checkpoint, self._log.public_key, self._sign)

    def submit(self, opened: Sequence[Entry | Rejected]) -> list[Outcome]:
        return self.write(lambda: self._judge(opened))

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
                known[entry.id] = self._end.frontier.size + len(accepted)
                accepted.append(entry)
            # Twice in one batch: the second one answers with the receipt of the first.
            outcomes[i] = Receipt(entry.id, known[entry.id]) if entry.id in known else verdict
        return [outcome for outcome in outcomes if outcome is not None], accepted, writes

    def _values(self, new: Sequence[Entry]) -> dict[str, bytes | None]:
        """Return what the contract asks for about entries that the ledger does not hold, in one read."""
        absent = dict.fromkeys(state.entry_key(entry.id) for entry in new)
        return {**absent, **self._recent.get((contract.keys_of(new) | {state.FEDERATION}) - absent.keys())}

    def _check_signer(self, checkpoint: Checkpoint) -> None:
        """Refuse a signer whose signatures are not those of the ledger's key (UsageError ledger-wrong-key)."""
        try:
            open_checkpoint(sign_checkpoint(checkpoint, self._log.public_key, self._sign), self._log)
        except EvidenceError as error:
            message = f"The key at hand is not the log key of {self._connection.path} ({self._log.name})."
            raise UsageError("ledger-wrong-key", message) from error
