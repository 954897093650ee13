# SPDX-License-Identifier: Apache-2.0
"""Writing an evidence bundle (``chaincode.bundle``)."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from chaincode import artefacts
from chaincode.bundle import File, refuse_index
from chaincode.files import replacing
from identity import canonical
from identity.errors import EvidenceError

_PIECE: Final = 1 << 20

Body = AbstractContextManager[Iterable[memoryview | bytes]]


def write_bundle(path: Path, bodies: Iterable[tuple[str, Callable[[], Body]]]) -> list[File]:
    """Write a bundle; ``path`` holds all of it, or what it held before. Readable by its owner alone.

    Each body is opened twice, to be hashed and to be written, and must be the same both times.

    Raises EvidenceError: bundle-name (not the name of evidence, or given twice), bundle-changed; OSError.
    """
    sources: dict[str, Callable[[], Body]] = {}
    for name, body in bodies:
        if not artefacts.is_name(name) or name in sources:
            refuse_index("bundle-name", f"{name[:80]!r} is not the name of evidence, or given twice")
        sources[name] = body
    files = [_hash(name, sources[name], None) for name in sorted(sources)]
    with replacing(path, fsync=True) as out:
        index = {
            "files": [{"length": f.length, "name": f.name, "sha256": f.sha256} for f in files],
            "format": "fedledger-bundle", "version": 1,
        }  # fmt: skip
        out.write(canonical.dumps(index) + b"\n")
        for file in files:
            if _hash(file.name, sources[file.name], out) != file:
                raise EvidenceError("bundle-changed", f"{file.name} changed while the bundle was written.")
    return files


def _hash(name: str, body: Callable[[], Body], out: BinaryIO | None) -> File:
    """Hash a body, and write it where asked to."""
    hasher, length = sha256(), 0
    with body() as pieces:
        for piece in pieces:
            view = memoryview(piece)
            for start in range(0, len(view), _PIECE):  # hashed and written while it is in the cache
                part = view[start : start + _PIECE]
                hasher.update(part)
                if out is not None:
                    out.write(part)
            length += len(view)
    return File(name, length, hasher.hexdigest(), 0)
