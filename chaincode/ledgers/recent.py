# SPDX-License-Identifier: Apache-2.0
"""What a connection knows of a ledger's state without asking the file: the values that it has read and written itself.

SQLite says whether any other connection has committed. As long as none has, these values are the file's. When one has,
all of them are forgotten, and so they are when a transaction of our own fails.
"""

from collections.abc import Callable, Collection, Mapping

from chaincode.ledgers.connection import Connection

_MOST = 1 << 17  # values; with its key one takes some 500 bytes. Ten rounds of ten thousand sites


class Recent:
    """Values of the ledger's state by key, never absent ones. Whoever calls holds the connection's lock."""

    def __init__(self, connection: Connection, read: Callable[[Collection[str]], dict[str, bytes | None]]) -> None:
        """`read` asks the file through the same connection."""
        self._connection, self._read = connection, read
        self._values: dict[str, bytes] = {}
        self._version: int | None = None  # of the file that the values are from; None where they are of none

    def hold(self) -> bool:
        """Whether nobody else has committed since `renew`; in a transaction that is so until its end."""
        return self._version == self._connection.version()

    def renew(self) -> None:
        """Forget every value; what is read from now on is the file's as it is now."""
        self._values.clear()
        self._version = self._connection.version()

    def forget(self) -> None:
        """Hold no longer, whatever the file says."""
        self._version = None

    def known(self, keys: Collection[str]) -> dict[str, bytes | None] | None:
        """Return the state under each key where all of it is known and still the file's, else None."""
        try:
            found: dict[str, bytes | None] = {key: self._values[key] for key in keys}
        except KeyError:
            return None
        return found if self.hold() else None

    def get(self, keys: Collection[str]) -> dict[str, bytes | None]:
        """Return the state under each key, None where there is none; in a transaction in which the values hold."""
        found = {key: self._values.get(key) for key in keys}
        if unknown := [key for key, value in found.items() if value is None]:
            read = self._read(unknown)
            found.update(read)
            self.keep({key: value for key, value in read.items() if value is not None})
        return found

    def keep(self, values: Mapping[str, bytes]) -> None:
        """Know these values, which were read in the open transaction or are about to be committed in it."""
        self._values.update(values)
        if len(self._values) > _MOST:  # what is newest is asked for soonest
            self._values = dict(values) if len(values) <= _MOST else {}
