# SPDX-License-Identifier: Apache-2.0
"""Packs: many small blobs in one file, because a file of its own costs a small blob more than its training.

One line of canonical JSON and a newline, ``[[digest, size], ...]`` with sizes in bytes, and the blobs after it in
that order. A pack's name is the SHA-256 of its first line and ``.pack``. Like a blob's file it is whole, but
not thereby genuine: what is read is verified by its reader, every time. Standard library only.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from chaincode.files import mapped, refuse_file, replacing, sync
from identity import canonical
from identity.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from typing_extensions import Buffer

SMALL: Final = 1 << 18
"""Blobs of at most so many bytes are packed: above, a file of its own costs less than what is in it."""
MOST: Final = 4096
"""The blobs in a pack; with them its first line stays below ``LINE_LIMIT``."""
LINE_LIMIT: Final = 1 << 19

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NAME: Final = re.compile(r"[0-9a-f]{64}\.pack")


@dataclass(frozen=True)  # no slots: it goes to another process
class Place:
    """Where a blob's bytes are: ``size`` bytes from ``offset`` of a file, or all of a file where ``size`` is -1."""

    path: str
    offset: int = 0
    size: int = -1

    @contextmanager
    def open(self) -> Iterator[memoryview]:
        """The bytes, mapped read-only and NOT verified; see `files.mapped`, which says what is raised."""
        with mapped(self.path) as data:
            yield self.cut(data)

    def cut(self, data: memoryview) -> memoryview:
        """The blob's part of its file's bytes; shorter where the file ends before it."""
        return data if self.size < 0 else data[self.offset : self.offset + self.size]


def write_packs(folder: Path, blobs: Sequence[tuple[str, Buffer]], *, fsync: bool) -> list[Path]:
    """Write blobs, each with its digest, into as few packs as hold them, in a folder that is made if need be.

    Each pack appears when it is whole, readable by its owner alone, and outlives a power cut where `fsync` says so.
    Raises ValueError, and writes nothing, for what no reader would take: a blob above SMALL, a name that is no digest.
    """
    if not all(_is_row([digest, memoryview(blob).nbytes]) for digest, blob in blobs):
        raise ValueError(f"a pack holds blobs of at most {SMALL} bytes, each under its digest")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    paths = []
    for first in range(0, len(blobs), MOST):
        part = blobs[first : first + MOST]
        line = canonical.dumps([[digest, memoryview(blob).nbytes] for digest, blob in part]) + b"\n"
        paths.append(folder / f"{sha256(line).hexdigest()}.pack")
        with replacing(paths[-1], fsync=fsync) as file:
            file.write(line)
            file.writelines(blob for _, blob in part)
    if fsync:
        sync(folder.parent)  # the folder may be new, and its packs are found under its name only
    return paths


def read_index(path: Path) -> dict[str, Place]:
    """Where the blobs of a pack are, by digest.

    Raises EvidenceError(pack-malformed): its first line is not what `write_packs` writes, or the file has another
    length than it states; file-not-regular. OSError where there is no such file.
    """
    with mapped(path) as data:
        line = bytes(data[:LINE_LIMIT])
        end = line.find(b"\n")
        if end < 0:
            _refuse(path, f"has no first line of at most {LINE_LIMIT} bytes")
        try:
            stated = canonical.loads(line[:end], limit=LINE_LIMIT, depth=2)
        except EvidenceError as error:
            _refuse(path, f"has a first line that cannot be read: {error}")
        if not isinstance(stated, list) or not all(map(_is_row, stated)):
            _refuse(path, "has a first line that is not a list of digests and sizes")
        offsets = list(accumulate((size for _, size in stated), initial=end + 1))
        if offsets[-1] != len(data):
            _refuse(path, f"has {len(data)} bytes, not the {offsets[-1]} that its first line states")
    return {digest: Place(str(path), at, size) for (digest, size), at in zip(stated, offsets, strict=False)}


def _is_row(row: Any) -> bool:
    match row:
        case [str(digest), int(size)]:
            return _DIGEST.fullmatch(digest) is not None and type(size) is int and 0 <= size <= SMALL
    return False


def _refuse(path: Path, why: str) -> NoReturn:
    raise EvidenceError("pack-malformed", f"The pack {path} {why}.")


class Packs:
    """The packs of a folder. Packs that others add are seen; each one's first line is read once."""

    def __init__(self, folder: Path, *, tolerant: bool = False) -> None:
        """Use a folder, which need not be there. ``tolerant``: a pack that cannot be read holds nothing."""
        self.folder, self._tolerant = folder, tolerant
        self._read: set[str] = set()
        self._places: dict[str, Place] = {}

    def find(self, digests: Iterable[str]) -> dict[str, Place]:
        """Where these blobs are, for those that a pack holds.

        Raises EvidenceError as `read_index`, and file-not-regular where the folder is a link or a file.
        """
        wanted = list(digests)
        if any(digest not in self._places for digest in wanted):
            self._look()
        return {digest: self._places[digest] for digest in wanted if digest in self._places}

    def forget(self) -> None:
        """Read everything anew: packs have been removed."""
        self._read, self._places = set(), {}

    def _look(self) -> None:
        try:
            if not stat.S_ISDIR(os.lstat(self.folder).st_mode):
                refuse_file(self.folder)
            names = [name for name in os.listdir(self.folder) if name not in self._read]
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in sorted(filter(_NAME.fullmatch, names)):
            try:
                self._places.update(read_index(self.folder / name))
            except EvidenceError:
                if not self._tolerant:
                    raise
            self._read.add(name)
