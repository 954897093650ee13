# SPDX-License-Identifier: Apache-2.0
"""Signed transactions whose outcome is not known yet, one file each: written before they are sent.

A process that dies between sending a transaction and hearing of it finds it here, asks what became of it, and sends the
same bytes again where nobody knows.
"""

import re
from pathlib import Path

from chaincode.files import read_bounded, write_whole
from chaincode.ledgers.fabric.messages import Pending
from identity.errors import Unavailable

LIMIT = 16 << 20
_NAME = re.compile(r"[0-9a-f]{64}\.transaction")


class Journal:
    """A folder of pending transactions."""

    def __init__(self, folder: Path) -> None:
        """Make the folder where there is none. Raises Unavailable(fabric-journal)."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise self._failed(error) from error

    def keep(self, pending: Pending) -> None:
        """Put a transaction on the disk, durably. Raises Unavailable(fabric-journal)."""
        try:
            write_whole(self._path(pending.txid), pending.envelope)
        except OSError as error:
            raise self._failed(error) from error

    def drop(self, txid: str) -> None:
        """Forget a transaction whose outcome is known; to ask for it twice does no harm."""
        self._path(txid).unlink(missing_ok=True)

    def pending(self) -> list[Pending]:
        """Return what an earlier process left; files that are no such transactions are passed over."""
        found = []
        for path in sorted(self.folder.iterdir()):
            if _NAME.fullmatch(path.name) and 0 < len(data := read_bounded(path, LIMIT)) <= LIMIT:
                found.append(Pending(path.name.partition(".")[0], data))
        return found

    def _path(self, txid: str) -> Path:
        return self.folder / f"{txid}.transaction"

    def _failed(self, error: OSError) -> Unavailable:
        return Unavailable("fabric-journal", f"Pending transactions cannot be kept in {self.folder}: {error}.")
