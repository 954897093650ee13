# SPDX-License-Identifier: Apache-2.0
"""What a run asks of its ledger, wherever that is: the embedded one in its folder, or a Fabric channel with a replica there."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol, Unpack

from chaincode.ledgers import Ledger
from chaincode.ledgers.queries import Logged
from chaincode.ledgers.search import Sought
from chaincode.state import Federation
from ops.founding import Keys
from ops.run_folder import RunFolder


class RunLedger(Ledger, Protocol):
    """The port, and the questions that a run has about single entries."""

    def entry(self, which: int | str) -> Logged:
        """The entry of an index, or of the beginning of an id. Raises UsageError: entry-*."""

    def find(self, kind: str | None = None, **sought: Unpack[Sought]) -> Iterator[Logged]:
        """The entries that have all of these."""

    @property
    def whole(self) -> bool:
        """Whether only the evidence of the whole ledger proves an entry, so that no entry has a proof of its own."""

    def prove(self, entry: str) -> bytes | None:
        """The proof file of an entry; None on a ledger that is ``whole``."""


class Home(Protocol):
    """Where a run's ledger is, and what belongs to it beside the entries."""

    def open(self, folder: RunFolder, keys: Keys) -> AbstractContextManager[RunLedger]:
        """The run's ledger, made if there is none. Raises Unavailable, EvidenceError, Rejected, UsageError."""

    @property
    def origin(self) -> str:
        """The log's name, which the founding entry states."""

    def log_key(self, keys: Keys) -> str | None:
        """The log's verifier key, which the founding entry states; None where nobody signs the log."""

    def founded(self, folder: RunFolder, keys: Keys, federation: Federation) -> str:
        """Write the key file that outsiders keep; what it holds, in words. Called at every start of a run."""

    def released(self, folder: RunFolder) -> bool:
        """Whether all files of a release lie in the folder."""

    @property
    def elsewhere(self) -> str:
        """The options that a run needs to begin anew."""
