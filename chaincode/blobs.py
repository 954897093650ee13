# SPDX-License-Identifier: Apache-2.0
"""Blobs: the bytes that a digest on the ledger stands for, and the folder that keeps them.

An update's blob is a header line (`chaincode.header`) and the raw little-endian integers after it. A blob's digest is its chunk
root (`chaincode.chunks`): the header is part of chunk 0, and an integer may lie across a chunk's end. Standard library only.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chaincode.chunks import ChunkHasher, is_digest
from chaincode.files import mapped, ours_alone, refuse_file, replacing, sync
from chaincode.packs import Packs, make_folder, remove_unfinished, write_packs
from chaincode.place import Place
from chaincode.threads import in_threads
from identity.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from typing_extensions import Buffer

_FEW: Final = 8


class BlobStore:
    """A folder of blobs, each under its digest: ab/cd/abcd..., or with other small ones in a pack: packs/....pack.

    A blob's own file goes before packs, whoever reads: what is put anew hides what a pack has. A file under its name is
    whole, but not thereby genuine: what is read is verified by its reader, every time. Several processes may use one
    folder at the same time. `fsync=False` gives up what a power cut would take.
    """

    def __init__(self, folder: Path | str, *, fsync: bool = True, **options: Any) -> None:
        """Use a folder; it is made on the first `put` or `adopt`. `options` are those of `Packs`."""
        self.folder = Path(folder)
        self._fsync, self._packing, self._packs = fsync, False, Packs(self.folder / "packs", **options)

    def path(self, digest: str) -> Path:
        """Where a blob is or would be.

        Raises EvidenceError(blob-name) for what is not a digest: such a name never becomes a path.
        """
        return Path(self._file(digest))

    def _file(self, digest: str) -> str:
        """`path` without the object: in a round of many sites that object costs more than asking for the file."""
        if not is_digest(digest):
            raise EvidenceError("blob-name", "A blob's name is its digest: 64 lower-case hex digits.")
        return f"{self.folder}/{digest[:2]}/{digest[2:4]}/{digest}"

    def find(self, digests: Sequence[str], *, look: bool = True) -> dict[str, Place]:
        """Where these blobs are, by digest, for those that are here. ``look``, and what is raised: see `Packs.find`."""
        loose = self._loose(digests)
        return self._packs.find([d for d in digests if d not in loose], look=look) | loose

    def _loose(self, digests: Sequence[str]) -> dict[str, Place]:
        """Those that have files of their own."""
        files = {digest: self._file(digest) for digest in digests}
        try:
            there = set(os.listdir(self.folder))  # where all blobs are small: nothing but packs
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {d: Place(path) for d, path in files.items() if d[:2] in there and _is_file(path)}

    def put_small(self, blobs: Sequence[tuple[str, Buffer]]) -> None:
        """Store many small blobs, each with its digest, WITHOUT verifying their bytes; durable when this returns."""
        self._pack()
        for path in write_packs(self._packs.folder, blobs, fsync=self._fsync):
            self._packs.read(path.name)

    def adopt_packs(self, packs: Mapping[str, Mapping[str, Place]]) -> dict[str, Path]:
        """Move packs here, by their paths, that are nothing but these blobs, verified at these places in them; where those
        are that have moved. See `Packs.adopt`."""
        if not packs:
            return {}
        self._pack()
        return self._packs.adopt(packs, fsync=self._fsync)

    def _pack(self) -> None:
        """Have the folder of packs there, also after a power cut, and without what was left half-written in it."""
        if not self._packing:
            make_folder(self._packs.folder, fsync=False)
            if self._fsync:
                sync(self.folder)  # also where another process has made it, and may not have got so far
            remove_unfinished(self._packs.folder)
            self._packing = True

    def put(self, data: Buffer | Iterable[Buffer], digest: str) -> Path:
        """Store a blob (one buffer, or its pieces in order); what was there under this digest is replaced.

        Raises EvidenceError(blob-digest), and stores nothing, where the bytes have another digest.
        """
        target, hasher = self._place(digest), ChunkHasher()
        with replacing(target, fsync=self._fsync) as file:
            for piece in _pieces(data):
                hasher.update(piece)
                file.write(piece)
            if (actual := hasher.digest()) != digest:
                raise EvidenceError("blob-digest", f"The bytes to be stored as {digest} have the digest {actual}.")
        return target

    def adopt(self, path: Path | str, digest: str) -> Path:
        """Move a delivered file to its place by renaming it, WITHOUT reading or verifying its bytes.

        For files that their reader verifies (updates), and for artefacts whose digest is not over the file
        (models). Copied only where it lies on another file system, has a second name, or is one that another user could
        change. A process that still holds the file open for writing can go on changing it.

        Raises EvidenceError(file-not-regular); OSError where there is no such file.
        """
        self.adopt_all([(path, digest)])
        return self.path(digest)

    def adopt_all(self, moves: Sequence[tuple[Path | str, str]]) -> None:
        """Adopt delivered files, each with its digest; when this returns, all of them are durable under their names.

        The disk is waited for once, not once for each. Raises as `adopt`, before any file has moved where one
        of them is no regular file.
        """
        sources = [(Path(path), digest) for path, digest in moves]
        for source, _ in sources:
            if not stat.S_ISREG(os.lstat(source).st_mode):
                refuse_file(source)
        if self._fsync:
            _sync_all([source for source, _ in sources])
        folders = {self._move(source, digest).parent for source, digest in sources}
        if self._fsync:
            _sync_all(sorted({*folders, *(folder.parent for folder in folders), self.folder} if folders else ()))

    def _move(self, source: Path, digest: str) -> Path:
        target = self._place(digest)
        if ours_alone(source):
            try:
                os.rename(source, target)
                return target
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
        # What has another name, or another owner, could be changed after it became evidence.
        with mapped(source) as data, replacing(target, fsync=self._fsync) as file:
            file.write(data)
        source.unlink()
        return target

    @contextmanager
    def open(self, digest: str) -> Iterator[memoryview]:
        """A blob's bytes, mapped read-only and NOT verified; see `mapped` for how long they last.

        Raises EvidenceError: blob-missing where there is none, file-not-regular where it, or a folder on the way to it, is a
        link or something else that could lead out of the store.
        """
        path = self.path(digest)
        if not _is_file(path) and (packed := self._packs.find([digest])):
            with packed[digest].open() as view:
                yield view
            return
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        with ExitStack() as stack:
            try:
                handle = os.open(self.folder, flags)
                stack.callback(os.close, handle)
                for name in (digest[:2], digest[2:4]):
                    handle = os.open(name, flags | os.O_NOFOLLOW, dir_fd=handle)
                    stack.callback(os.close, handle)
                view = stack.enter_context(mapped(digest, folder=handle))
            except FileNotFoundError as error:
                raise EvidenceError("blob-missing", f"There is no blob {digest} in {self.folder}.") from error
            except NotADirectoryError:
                refuse_file(path)
            yield view

    def _place(self, digest: str) -> Path:
        """A blob's path, its folders made (0700: an update is confidential) and not links."""
        target = self.path(digest)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (target.parent.parent, target.parent):
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            if not stat.S_ISDIR(os.lstat(folder).st_mode):
                refuse_file(folder)
        return target


def _is_file(path: Path | str) -> bool:
    """Whether a path leads to a regular file itself, not to a link."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _pieces(data: Buffer | Iterable[Buffer]) -> Iterable[Buffer]:
    """The data as pieces. Bytes can be iterated too, so what is a buffer is one piece."""
    try:
        return (memoryview(data).cast("B"),)  # type: ignore[arg-type]  # TypeError says that it is none
    except TypeError:
        return data  # type: ignore[return-value]


def _sync_all(paths: Sequence[Path]) -> None:
    """Have files or folders written to the disk; several at a time where they are many: the disk joins its waits."""
    in_threads(sync, paths, _FEW if len(paths) > _FEW else 1)
