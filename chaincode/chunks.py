# SPDX-License-Identifier: Apache-2.0
"""Chunk roots: the digest of a blob, which many cores can compute and a part of the blob verifies alone.

The RFC 6962 root over the blob's chunks of 1 MiB, the last one shorter: chunk i holds bytes i * 2**20 up to (i + 1) * 2**20.
Standard library only.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from chaincode import log
from chaincode.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

CHUNK: Final = 1 << 20

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_LEAF: Final = b"\x00"  # RFC 6962 section 2.1: what tells a leaf from an inner node


def is_digest(value: object) -> bool:
    """Whether a value is a digest as the ledger writes it: 64 lower-case hex digits."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


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
    parts = in_threads(lambda i: _hash_range(view, cuts[i], cuts[i + 1]), range(threads), threads)
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
