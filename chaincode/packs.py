# SPDX-License-Identifier: Apache-2.0
"""Packs: many small blobs in one file, because a file of its own costs a small blob more than its training.

One line of canonical JSON and a newline, ``[[digest, size], ...]`` with sizes in bytes, and the blobs after it in
that order. A pack's name is the SHA-256 of its first line and ``.pack``. Like a blob's file it is whole, but
not thereby genuine: what is read is verified by its reader, every time. Standard library only.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
import warnings
from array import array
from bisect import bisect_left, bisect_right
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import accumulate, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from chaincode.chunks import chunk_root, is_digest
from chaincode.files import LARGE_BUFFER, mapped, ours_alone, refuse_file, replacing, sync
from chaincode.place import Place
from identity.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from typing_extensions import Buffer

SMALL: Final = 1 << 18
"""Blobs of at most so many bytes are packed: above, a file of its own costs less than what is in it."""
MOST: Final = 4096
"""The blobs in a pack; with them its first line stays below ``LINE_LIMIT``."""
LINE_LIMIT: Final = 1 << 19
STALE_SECONDS: Final = 3600
"""After this long nobody is writing a pack any more. If somebody is, that call fails: nobody was promised what is not there."""

_NAME: Final = re.compile(r"[0-9a-f]{64}\.pack")
_UNFINISHED: Final = re.compile(r"\.[0-9a-f]{64}\.pack\.[0-9a-f]{16}")
# What matches is canonical JSON by its shape: one match does what parsing, writing and comparing would.
_LINE: Final = re.compile(rb'\[(?:\["[0-9a-f]{64}",(?:0|[1-9][0-9]{0,5})\](?:,(?=\[)|(?=\])))*+\]\n')
_ROW: Final = re.compile(rb'"([0-9a-f]{64})",([0-9]+)')

_PREFIX: Final = 8
_NUMBER: Final = 32
"""Of a digest so many hex digits are in an index, and behind them the number of its blob, of so many bits."""

_KEPT_AWAY: Final = frozenset({errno.ENOENT, errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS})
"""Why a file cannot be moved: it is gone, on another file system, or in a folder that is not ours to change."""


def write_packs(folder: Path, blobs: Sequence[tuple[str, Buffer]], *, fsync: bool) -> list[Path]:
    """Write blobs, each with its digest, into as few packs as hold them, in a folder that is made if need be.

    Each pack appears when it is whole, readable by its owner alone, and outlives a power cut where `fsync` says so.
    Raises ValueError, and writes nothing, for what no reader would take: a blob above SMALL, a name that is no digest.
    """
    sizes = [memoryview(blob).nbytes for _, blob in blobs]
    if not all(size <= SMALL and is_digest(digest) for (digest, _), size in zip(blobs, sizes, strict=True)):
        raise ValueError(f"a pack holds blobs of at most {SMALL} bytes, each under its digest")
    make_folder(folder, fsync=fsync)
    paths = []
    for first in range(0, len(blobs), MOST):
        part = blobs[first : first + MOST]
        rows = (f'["{digest}",{size}]' for (digest, _), size in zip(part, sizes[first:], strict=False))
        line = f"[{','.join(rows)}]\n".encode()
        paths.append(folder / _name(line))
        with replacing(paths[-1], fsync=fsync, buffering=LARGE_BUFFER) as file:
            file.write(line)
            file.writelines(blob for _, blob in part)
    return paths


def make_folder(folder: Path, *, fsync: bool) -> None:
    """Make a folder of packs where there is none, readable by its owner alone."""
    if os.path.isdir(folder):
        return
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
        if fsync:
            sync(folder.parent)  # its packs are found under its name only


def _name(line: bytes) -> str:
    return f"{sha256(line).hexdigest()}.pack"


def remove_unfinished(folder: Path, names: re.Pattern[str] = _UNFINISHED) -> None:
    """Remove what writers that were killed have left, of packs or of other names: files that nobody has written to for
    STALE_SECONDS."""
    with os.scandir(folder) as entries:
        left = [entry for entry in entries if names.fullmatch(entry.name)]
    for entry in left:
        with suppress(OSError):  # they are only in the way
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode) and status.st_mtime < time.time() - STALE_SECONDS:
                os.unlink(entry.path)


def read_index(path: Path) -> dict[str, Place]:
    """Where the blobs of a pack are, by digest.

    Raises EvidenceError(pack-malformed): its first line is not what `write_packs` writes, or not what the file is named
    for, or the file has another length than it states; file-not-regular. OSError where there is no such file.
    """
    return {digest: Place(*row) for digest, row in _rows(path, *_listing(path)).items()}


def _listing(path: Path) -> tuple[bytes, list[tuple[str, int]]]:
    """A pack's first line, and the digests and sizes in it. Raises as `read_index`."""
    with mapped(path) as data:
        return _first_line(path, data)


def _rows(path: Path, line: bytes, listed: Sequence[tuple[str, int]]) -> dict[str, tuple[str, int, int]]:
    """The fields of the places of a pack's blobs, by digest, where the pack is at a path."""
    digests, sizes = zip(*listed, strict=True) if listed else ((), ())
    offsets = accumulate(sizes, initial=len(line))
    return dict(zip(digests, zip(repeat(str(path)), offsets, sizes, strict=False), strict=True))


def _first_line(path: Path, data: memoryview) -> tuple[bytes, list[tuple[str, int]]]:
    """A pack's first line and what it lists, held against the file's name and length. Raises as `read_index`."""
    match = _LINE.match(data, 0, LINE_LIMIT)
    if match is None:
        _refuse(path, f"has no first line of at most {LINE_LIMIT} bytes that lists digests and sizes")
    line = match.group()
    if path.name != _name(line):
        _refuse(path, "has another first line than it is named for")
    listed = [(digest.decode(), int(size)) for digest, size in _ROW.findall(line)]
    if any(size > SMALL for _, size in listed):
        _refuse(path, f"lists a blob of more than {SMALL} bytes")
    if (stated := len(line) + sum(size for _, size in listed)) != len(data):
        _refuse(path, f"has {len(data)} bytes, not the {stated} that its first line states")
    return line, listed


def _genuine(places: Sequence[Place], digest: str) -> Place:
    """Of the packs that list a blob the one that has its bytes; the first where none has."""
    for place in places:
        with suppress(EvidenceError, OSError), place.open() as data:
            if chunk_root(data) == digest:
                return place
    return places[0]


@contextmanager
def _left_there() -> Iterator[None]:
    """Leave a pack where it is that cannot be read, or is kept away from us."""
    try:
        yield
    except (EvidenceError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _KEPT_AWAY:
            raise


def _refuse(path: Path, why: str) -> NoReturn:
    raise EvidenceError("pack-malformed", f"The pack {path} {why}.")


def _warn(text: str) -> None:
    warnings.warn(f"{text} Next: fedledger audit verify", RuntimeWarning, stacklevel=2)


class Packs:
    """The packs of a folder. A pack that cannot be read is named once and holds nothing: what was only in it is missing.

    In memory are, of every pack, its name and 48 bytes for each of its blobs: a pack is read once, whatever is looked for.
    """

    def __init__(self, folder: Path, *, warn: Callable[[str], None] = _warn) -> None:
        """Use a folder, which need not be there. ``warn`` is told of a pack that cannot be read."""
        self.folder, self._warn = folder, warn
        self._warned: set[str] = set()
        self.forget()

    def forget(self) -> None:
        """Read everything anew: packs have been removed."""
        self._looked = False
        self._names = set[str]()
        self._paths: list[str] = []
        self._firsts: list[int] = []  # of each pack the number of its first blob; they are numbered as they come
        self._digests, self._offsets, self._sizes = bytearray(), array("I"), array("I")  # by a blob's number
        self._runs: list[array[int]] = []  # sorted; each at least twice as long as the one after it

    def find(self, digests: Iterable[str], *, look: bool = True) -> dict[str, Place]:
        """Where these blobs are, for those that a pack holds.

        Packs that others have added are looked for where a blob is in none of the known ones, which takes as long as there
        are packs; without ``look`` the first time only. Raises EvidenceError(file-not-regular): the folder is a link or a
        file.
        """
        wanted = list(dict.fromkeys(digests))
        found = self._known(wanted)
        if len(found) < len(wanted) and (look or not self._looked):
            self._look()
            found |= self._known([digest for digest in wanted if digest not in found])
        return found

    def read(self, name: str) -> None:
        """Take in a pack of the folder; one that has gone, or cannot be read, holds nothing."""
        try:
            self._take(name, *_listing(self.folder / name))
        except FileNotFoundError:
            return
        except (EvidenceError, PermissionError) as error:
            if name not in self._warned:
                self._warned.add(name)
                self._warn(f"{error} What was only in it counts as missing.")

    def adopt(self, packs: Mapping[str, Mapping[str, Place]], *, fsync: bool) -> dict[str, Path]:
        """Rename packs, by their paths, into the folder, which is there, durably with `fsync`; where those are that moved.

        A pack moves if its own rows are the places, by digest, at which the blobs have been verified, and nothing more, if it
        can be read and is ours to move: not on another file system, in a folder that we may not change, or a file that another
        user has, or can open or name. What remains: a process of our own user that holds it open for writing, and whoever may
        change its folder just then. Raises OSError; some may have moved by then.
        """
        ready: dict[Path, tuple[bytes, list[tuple[str, int]]]] = {}
        for path, places in packs.items():
            source = Path(path)
            with _left_there():
                line, listed = _listing(source)
                given = {digest: (place.path, place.offset, place.size) for digest, place in places.items()}
                if ours_alone(source) and len(listed) == len(given) and _rows(source, line, listed) == given:
                    if fsync:
                        sync(source)
                    ready[source] = line, listed
        moved = []
        try:
            for source in ready:
                with _left_there():
                    os.rename(source, self.folder / source.name)
                    moved.append(source)
        finally:  # whatever became of the others
            if fsync and moved:
                sync(self.folder)
            for source in moved:
                self._take(source.name, *ready[source])
        return {str(source): self.folder / source.name for source in moved}

    def _take(self, name: str, line: bytes, listed: Sequence[tuple[str, int]]) -> None:
        """Remember a pack's rows; those of one name are always the same."""
        if name in self._names:
            return
        first, rows = len(self._sizes), _rows(self.folder / name, line, listed)
        self._names.add(name)
        self._paths.append(str(self.folder / name))
        self._firsts.append(first)
        self._digests += bytes.fromhex("".join(rows))
        self._offsets.extend(offset for _, offset, _ in rows.values())
        self._sizes.extend(size for _, _, size in rows.values())
        self._index(rows, first)

    def _known(self, digests: Sequence[str]) -> dict[str, Place]:
        found = {}
        for digest in digests:
            numbers = self._candidates(digest)
            places = [self._place(n) for n in numbers if self._digests[32 * n : 32 * n + 32].hex() == digest]
            if places:
                found[digest] = places[0] if len(places) == 1 else _genuine(places, digest)
        return found

    def _place(self, number: int) -> Place:
        path = self._paths[bisect_right(self._firsts, number) - 1]
        return Place(path, self._offsets[number], self._sizes[number])

    def _candidates(self, digest: str) -> list[int]:
        """The numbers of the blobs whose digests begin as this one."""
        first, found = int(digest[:_PREFIX], 16) << _NUMBER, []
        for run in self._runs:
            at = bisect_left(run, first)
            while at < len(run) and run[at] >> _NUMBER == first >> _NUMBER:
                found.append(run[at] - first)
                at += 1
        return found

    def _index(self, digests: Iterable[str], first: int) -> None:
        """Make these, numbered from ``first``, be found; two runs become one where the older is no longer twice as long."""
        run = array("Q", sorted(int(d[:_PREFIX], 16) << _NUMBER | number for number, d in enumerate(digests, first)))
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            run = array("Q", sorted([*self._runs.pop(), *run]))
        self._runs.append(run)

    def _look(self) -> None:
        """Read the packs that have not been read yet."""
        self._looked = True
        try:
            if not stat.S_ISDIR(os.lstat(self.folder).st_mode):
                refuse_file(self.folder)
            names = [name for name in os.listdir(self.folder) if name not in self._names]
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in sorted(filter(_NAME.fullmatch, names)):
            self.read(name)
