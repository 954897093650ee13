# SPDX-License-Identifier: Apache-2.0
"""Where updates lie between training and delivery: large ones in files of their own, small ones in packs.

The process that trains writes, the one that signs reads; both know the folder only.
"""

import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from chaincode.files import allocate
from chaincode.packs import Packs, write_packs
from chaincode.place import Place
from chaincode.writeback import start_writing_back

_OURS = re.compile(r"[0-9a-f]{64}(\.pack|\.tampered)?|update-[0-9a-f]{16}|\..*\.pack\..*")
"""The names of what is written here, and of what is written on the way to it."""


class Outbox:
    """A folder of updates by their digests. Sites of a simulation may share one."""

    def __init__(self, folder: Path) -> None:
        """Use a folder; it is made when something is written."""
        self.folder = folder
        self._packs = Packs(folder, warn=lambda text: None)

    def write_small(self, blobs: Sequence[tuple[str, bytes | bytearray]]) -> None:
        """Write whole updates, each with its digest. Raises OSError."""
        if len(blobs) > 1:
            # A pack is to be on the disk soon. A large update's bytes, on their way there now, would keep commits waiting.
            for pack in write_packs(self.folder, blobs, fsync=False):
                start_writing_back(pack)
            return
        for digest, blob in blobs:  # the name is known before the file: one without renaming
            with self._create(digest) as file:
                file.write(blob)

    @contextmanager
    def write_large(self, size: int) -> Iterator[tuple[BinaryIO, list[str]]]:
        """A file to write an update of so many bytes into, and a list to put its digest into, under which it then appears, whole."""
        unnamed, name = f"update-{secrets.token_hex(8)}", list[str]()
        with self._create(unnamed) as file:
            allocate(file, size)
            yield file, name
        os.replace(self.folder / unnamed, self.folder / name[0])

    def find(self, digests: Iterable[str]) -> dict[str, Place]:
        """Where updates lie, for those that are here.

        A pack that a power cut has left in pieces is no delivery, and does not keep the others from delivering: nothing
        here outlives a power cut for certain.
        """
        wanted = list(digests)
        packed = self._packs.find(wanted)
        loose = {d: f"{self.folder}/{d}" for d in wanted if d not in packed}
        return packed | {d: Place(path) for d, path in loose.items() if os.path.isfile(path)}

    def clean(self) -> None:
        """Empty the folder after a round; what was delivered is with the coordinator, as evidence."""
        self._packs.forget()
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            if _OURS.fullmatch(path.name):  # nothing else that may lie there is this site's to delete
                with suppress(IsADirectoryError):
                    path.unlink(missing_ok=True)

    def _create(self, name: str) -> BinaryIO:
        """A new file that only its owner can read."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return open(os.open(self.folder / name, flags, 0o600), "wb")
