# SPDX-License-Identifier: Apache-2.0
"""Files that are evidence: written whole or not at all, and read without copying or following links."""

from __future__ import annotations

import errno
import mmap
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn

from identity.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGE_BUFFER: Final = 1 << 21
"""Bytes of small pieces that are written at once: the system keeps what it is given so in larger parts, at half the price."""


@contextmanager
def replacing(path: Path, *, fsync: bool, buffering: int = -1) -> Iterator[BinaryIO]:
    """Write a file so that `path` holds either what it held or all of the new bytes, whenever the process dies.

    Yields a file beside it that nobody else can read (mode 0600), and renames it onto `path` at the end; on an
    error it is removed. Two writers of one path do not disturb each other: the last rename stays. `fsync` makes
    it outlive a power cut as well. `buffering` as for `open`.
    """
    beside = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        with open(_made(beside, path), "wb", buffering) as file:
            yield file
            if fsync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if fsync:
        sync(path.parent)


def _made(beside: Path, path: Path) -> int:
    """A new file's handle. Where it cannot be made, the error names `path`: nobody asked for the other."""
    try:
        return os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        error.filename = str(path)
        raise


def allocate(file: BinaryIO, size: int) -> None:
    """Have the disk's blocks for ``size`` bytes given to a new file at once: one by one, as it is written, takes longer.

    Does nothing where the system or the file's file system cannot. Raises OSError where the disk is too full.
    """
    if not size or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole or not at all, durably; a link in its place is replaced, not followed."""
    with replacing(path, fsync=True) as file:
        file.write(data)


@contextmanager
def mapped(path: Path | str, *, folder: int | None = None, follow_links: bool = False) -> Iterator[memoryview]:
    """The bytes of a regular file as a read-only view of the page cache; nothing is copied.

    A pipe does not block, and a link is followed only where asked for. `path` may be relative to an open
    folder's handle. Views cut from it stay valid after the end of the block; the mapping goes with the last of
    them. Whoever can write the file changes what the view shows, and cutting the file short while it is read
    ends the process (SIGBUS): map only files whose writers have finished.

    Raises EvidenceError(file-not-regular); OSError where the file cannot be opened.
    """
    view = _map(path, folder, 0 if follow_links else os.O_NOFOLLOW)
    try:
        yield view
    finally:
        with suppress(BufferError):  # an array made from it is still in use: the mapping lives as long as that
            view.release()


def _map(path: Path | str, folder: int | None, no_follow: int) -> memoryview:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | no_follow, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a socket
            refuse_file(path)
        raise
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            refuse_file(path)
        if status.st_size == 0:  # an empty file cannot be mapped
            return memoryview(b"")
        return memoryview(mmap.mmap(handle, status.st_size, access=mmap.ACCESS_READ))
    finally:
        os.close(handle)


def read_bounded(path: Path | str, limit: int) -> bytes:
    """The first ``limit`` bytes of a regular file and one more, so that a longer file is seen to be one.

    Links are followed; a pipe or a device is refused and not waited for. Raises EvidenceError(file-not-regular);
    OSError where the file cannot be opened.
    """
    with mapped(path, follow_links=True) as data:
        return bytes(data[: limit + 1])


def refuse_file(path: Path | str) -> NoReturn:
    """Raise EvidenceError(file-not-regular)."""
    raise EvidenceError("file-not-regular", f"{path} is a link, a folder or a device, not a regular file.")


def sync(path: Path) -> None:
    """Have a file's bytes, or a folder's names, written to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def ours_alone(path: Path) -> bool:
    """Whether a path is that of a regular file which nobody but our own user can open, under this name or another."""
    status = os.lstat(path)
    regular, shared = stat.S_ISREG(status.st_mode), status.st_mode & 0o077 or status.st_nlink != 1
    return regular and not shared and status.st_uid == os.geteuid()
