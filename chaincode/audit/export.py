# SPDX-License-Identifier: Apache-2.0
"""From a run folder to a bundle: what the entries name and nothing else, each file checked to be what it is called.

So no key, no file of a site and nothing that happens to lie in a folder can get in: a name must be on the ledger, and
the bytes must be those that the ledger means.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from chaincode import artefacts, notes
from chaincode.audit.folder_source import FolderSource
from chaincode.audit.source import Source
from chaincode.bundle import File
from chaincode.bundle_writer import Body, write_bundle
from chaincode.checkpoints import parse_checkpoint
from chaincode.chunks import chunk_root
from chaincode.entries import Entry, open_entry
from chaincode.models import model_digest, read_safetensors
from chaincode.proofs import verify_entry_proof
from chaincode.threads import CORES
from chaincode.trust import KEY_FILE, FederationKey, parse_key
from identity.errors import EvidenceError
from identity.wording import counted

T = TypeVar("T")
Pieces = Iterable[memoryview | bytes]


def export(source: FolderSource, out: Path) -> list[File]:
    """Write the bundle of a run folder's present moment; ``out`` holds all of it, or what it held before.

    The same run gives the same bytes. Blobs and models that were deleted are left out.

    Raises EvidenceError: entry-*, envelope-*, json-*, signature-invalid (an entry is none), log-size (the head is not
    that of the entries), export-missing (no key file), export-differs (a file is not what it is called), bundle-*,
    ledger-*; OSError where the bundle cannot be written.
    """
    note = source.checkpoint()
    note = note if isinstance(note, bytes) else note.encode()
    named, releases, size = set[str](), list[Entry](), 0
    for envelope in source.entries():
        entry = open_entry(envelope)
        named.update(artefacts.named_by(entry))
        releases += [entry] if entry.kind == "release" else []
        size += 1
    if parse_checkpoint(notes.parse_note(note).text).size != size:
        raise EvidenceError("log-size", f"The log's head is not that of its {counted(size, 'entry')}.", next=_NEXT)
    with source.open(KEY_FILE) as view:
        if view is None:
            raise EvidenceError("export-missing", f"There is no {KEY_FILE} in {source.path}.", next=_NEXT)
        text = bytes(view)
    key = _expected(KEY_FILE, lambda: parse_key(text))
    bodies: list[tuple[str, Callable[[], Body]]] = [
        (artefacts.CHECKPOINT, partial(body, lambda: note)),
        (artefacts.ENTRIES, partial(_entries, source)),
        (KEY_FILE, partial(artefact_body, source, KEY_FILE)),
    ]
    return write_bundle(out, [*bodies, *artefact_bodies(source, named, releases, key)])


_NEXT = "fedledger audit verify"


def artefact_bodies(
    source: Source, named: set[str], releases: list[Entry], key: FederationKey | None
) -> Iterator[tuple[str, Callable[[], Body]]]:
    """The files among these names that are there, each checked as ``check_artefact`` says, in ascending order."""
    for name in sorted(named):
        with source.open(name) as view:
            if view is None:
                continue
            check_artefact(name, view, releases, key)
        yield name, partial(artefact_body, source, name)


def check_artefact(name: str, data: memoryview, releases: list[Entry], key: FederationKey | None) -> None:
    """Refuse a file that is not what its name on the ledger means; ``key`` is None where no key signs the log.

    Raises EvidenceError(export-differs).
    """
    kind, _, rest = name.partition("/")
    digest = rest.partition(".")[0]
    if kind == "credentials":
        same = sha256(data).hexdigest() == digest
    elif kind == "blobs":
        same = chunk_root(data, threads=CORES) == digest
    elif kind == "models":
        same = _model(name, data) == digest
    elif name == artefacts.RELEASED_MODEL:
        same = _model(name, data) in {entry.subjects["model"] for entry in releases}
    elif name == artefacts.RELEASED_CARD:
        same = sha256(data).hexdigest() in {entry.subjects["model-card"] for entry in releases}
    elif key is None:
        same = False
    else:
        proven = _expected(name, lambda: verify_entry_proof(bytes(data), key)[0])
        same = proven.id in {entry.id for entry in releases}
    if not same:
        raise EvidenceError(
            "export-differs", f"{name} does not hold what the ledger calls so; nothing was exported.", next=_NEXT
        )


def _model(name: str, data: memoryview) -> str:
    return _expected(name, lambda: model_digest(read_safetensors(data), threads=CORES))


def _expected(name: str, read: Callable[[], T]) -> T:
    """What a file holds; that it cannot be read is said with its name."""
    try:
        return read()
    except EvidenceError as error:
        message = f"{name} is not what the ledger calls so; nothing was exported. {error.message}"
        raise EvidenceError("export-differs", message, next=_NEXT) from error


@contextmanager
def body(read: Callable[[], bytes]) -> Iterator[Pieces]:
    """A bundle's body that is read when its turn comes."""
    yield (read(),)


@contextmanager
def _entries(source: FolderSource) -> Iterator[Pieces]:
    yield (part for envelope in source.entries() for part in (envelope, b"\n"))


@contextmanager
def artefact_body(source: Source, name: str) -> Iterator[Pieces]:
    """An artefact's bytes as a bundle's body. Raises EvidenceError(bundle-changed) where it is gone."""
    with source.open(name) as data:
        if data is None:
            raise EvidenceError("bundle-changed", f"{name} went away while the bundle was written.")
        yield (data,)
