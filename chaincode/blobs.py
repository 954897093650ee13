# SPDX-License-Identifier: Apache-2.0
"""Blobs: the bytes that a digest on the ledger stands for, and the folder that keeps them.

An update's blob is one header line (canonical JSON and a newline, at most 1024 bytes) and the raw
little-endian integers after it. A blob's digest is the RFC 6962 root over its chunks of 1 MiB, the last one
shorter: chunk i holds bytes i * 2**20 up to (i + 1) * 2**20 of the whole blob, so the header is part of chunk
0 and an integer may lie across a chunk's end. Standard library only.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from chaincode import log
from chaincode.files import mapped, refuse_file, replacing, sync
from identity import canonical
from identity.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from typing_extensions import Buffer

CHUNK: Final = 1 << 20
HEADER_LIMIT: Final = 1024
ITEM_SIZE: Final = {"int32": 4, "int64": 8}

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_MEMBER: Final = re.compile(r"did:[!-~]{1,196}")
_LEAF: Final = b"\x00"  # RFC 6962 section 2.1: what tells a leaf from an inner node


@dataclass(frozen=True, slots=True)
class Header:
    """What an update's blob says about itself: its place, its author and its shape.

    `federation`, `agreement`, `base` (the base model's digest) and `salt` are 64 lower-case hex digits; `member`
    is the DID that names the author; `length` counts integers of type `encoding`. The salt keeps the digest,
    which is public for ever, from confirming guessed data.

    Raises EvidenceError(blob-header) for any other value: a Header that exists is well-formed.
    """

    federation: str
    agreement: str
    round: int
    attempt: int
    base: str
    member: str
    encoding: str
    length: int
    salt: str

    def __post_init__(self) -> None:
        for name in ("federation", "agreement", "base", "salt"):
            if not is_digest(getattr(self, name)):
                _refuse(f"{name} is not 64 lower-case hex digits")
        for name in ("round", "attempt", "length"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= canonical.INTEGER_LIMIT:
                _refuse(f"{name} is not an integer from 0 to 2^53 - 1")
        if not isinstance(self.member, str) or not _MEMBER.fullmatch(self.member):
            _refuse("member is not a DID")
        if not isinstance(self.encoding, str) or self.encoding not in ITEM_SIZE:
            _refuse(f"encoding is not one of {', '.join(ITEM_SIZE)}")


_FIELDS: Final = frozenset(field.name for field in fields(Header))


def is_digest(value: object) -> bool:
    """Whether a value is a digest as the ledger writes it: 64 lower-case hex digits."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def format_header(header: Header) -> bytes:
    """The header line: canonical JSON (RFC 8785) and a newline."""
    return canonical.dumps({name: getattr(header, name) for name in _FIELDS}) + b"\n"


def parse_header(data: Buffer) -> tuple[Header, int]:
    """The header of a blob, and the offset of its first integer. Reads at most 1024 bytes.

    Raises EvidenceError(blob-header): no newline within 1024 bytes, not canonical JSON, other fields than the
    Header's, or a field out of its range.
    """
    line = bytes(memoryview(data).cast("B")[:HEADER_LIMIT])
    end = line.find(b"\n")
    if end < 0:
        _refuse(f"there is no header line within the first {HEADER_LIMIT} bytes")
    try:
        value = canonical.loads(line[:end], limit=HEADER_LIMIT, depth=1)
    except EvidenceError as error:
        raise EvidenceError("blob-header", f"The blob's header cannot be read: {error}") from error
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        _refuse(f"it must have exactly the fields {', '.join(sorted(_FIELDS))}")
    return Header(**value), end + 1


def _refuse(why: str) -> NoReturn:
    raise EvidenceError("blob-header", f"The blob's header cannot be used: {why}.")


class ChunkHasher:
    """Hashes a blob as it is written, in pieces of any size, while they are in the cache.

    `update` each piece in order, then `digest` once.
    """

    __slots__ = ("_filled", "_hash", "_leaves", "size")

    def __init__(self) -> None:
        """Start an empty blob."""
        self.size = 0
        self._filled = 0
        self._hash = sha256(_LEAF)
        self._leaves: list[bytes] = []

    def update(self, piece: Buffer) -> None:
        """Add the next bytes of the blob (C-contiguous)."""
        rest = memoryview(piece).cast("B")
        self.size += len(rest)
        while len(rest):
            taken = rest[: CHUNK - self._filled]
            self._hash.update(taken)
            self._filled += len(taken)
            rest = rest[len(taken) :]
            if self._filled == CHUNK:
                self._close()

    def chunk_hashes(self) -> list[bytes]:
        """The hashes of all chunks, the last one included. Nothing may be added afterwards."""
        if self._filled:
            self._close()
        return self._leaves

    def digest(self) -> str:
        """The blob's digest, 64 hex digits. Nothing may be added afterwards."""
        return root_of(self.chunk_hashes())

    def _close(self) -> None:
        self._leaves.append(self._hash.digest())
        self._hash, self._filled = sha256(_LEAF), 0


def chunk_hashes(data: Buffer, *, threads: int = 1) -> list[bytes]:
    """The leaf hash SHA-256(00 || chunk) of each 1 MiB chunk, in order; nothing is copied.

    `threads` splits the chunks over that many threads (hashing lets go of the interpreter's lock). The result
    does not depend on it.
    """
    view = memoryview(data).cast("B")
    count = -(-len(view) // CHUNK)
    if threads <= 1 or count <= 1:
        return _hash_range(view, 0, count)
    cuts = [count * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        parts = pool.map(lambda i: _hash_range(view, cuts[i], cuts[i + 1]), range(threads))
        return [leaf for part in parts for leaf in part]


def _hash_range(view: memoryview, first: int, last: int) -> list[bytes]:
    leaves = [sha256(_LEAF) for _ in range(first, last)]
    for index, leaf in enumerate(leaves, first):
        leaf.update(view[index * CHUNK : (index + 1) * CHUNK])
    return [leaf.digest() for leaf in leaves]


def root_of(hashes: Sequence[bytes]) -> str:
    """The digest of a blob whose chunks have these leaf hashes: the RFC 6962 root as 64 hex digits."""
    return log.root(hashes).hex()


def chunk_root(data: Buffer, *, threads: int = 1) -> str:
    """The digest of a blob: RFC 6962 root over its 1 MiB chunks, 64 hex digits.

    Empty data has the root of the empty tree, SHA-256 of nothing.
    """
    return root_of(chunk_hashes(data, threads=threads))


class BlobStore:
    """A folder of blobs, each under its digest: ab/cd/abcd....

    A file under its name is whole, but not thereby genuine: what is read is verified by its reader, every time.
    Several processes may use one folder at the same time. `fsync=False` gives up what a power cut would take.
    """

    def __init__(self, folder: Path | str, *, fsync: bool = True) -> None:
        """Use a folder; it is made on the first `put` or `adopt`."""
        self.folder = Path(folder)
        self._fsync = fsync

    def path(self, digest: str) -> Path:
        """Where a blob is or would be.

        Raises EvidenceError(blob-name) for what is not a digest: such a name never becomes a path.
        """
        if not is_digest(digest):
            raise EvidenceError("blob-name", "A blob's name is its digest: 64 lower-case hex digits.")
        return self.folder / digest[:2] / digest[2:4] / digest

    def has(self, digest: str) -> bool:
        """Whether there is a regular file under this digest. Says nothing about its bytes."""
        try:
            return stat.S_ISREG(os.lstat(self.path(digest)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

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
        (models). Copied only where it lies on another file system. A process that still holds the file open for
        writing can go on changing it.

        Raises EvidenceError(file-not-regular); OSError where there is no such file.
        """
        source, target = Path(path), self._place(digest)
        if not stat.S_ISREG(os.lstat(source).st_mode):
            refuse_file(source)
        try:
            if self._fsync:
                sync(source)
            os.rename(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with mapped(source) as data, replacing(target, fsync=self._fsync) as file:
                file.write(data)
            source.unlink()
        if self._fsync:
            sync(target.parent)
        return target

    @contextmanager
    def open(self, digest: str) -> Iterator[memoryview]:
        """A blob's bytes, mapped read-only and NOT verified; see `mapped` for how long they last.

        Raises EvidenceError: blob-missing where there is none, file-not-regular where it, or a folder on the
        way to it, is a link or something else that could lead out of the store.
        """
        path = self.path(digest)
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


def _pieces(data: Buffer | Iterable[Buffer]) -> Iterable[Buffer]:
    """The data as pieces. Bytes can be iterated too, so what is a buffer is one piece."""
    try:
        return (memoryview(data).cast("B"),)  # type: ignore[arg-type]  # TypeError says that it is none
    except TypeError:
        return data  # type: ignore[return-value]
