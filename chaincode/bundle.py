# SPDX-License-Identifier: Apache-2.0
"""The evidence bundle: one file with everything that an audit reads, in which every byte is accounted for.

The first line is the index, canonical JSON (RFC 8785) and a newline:

    {"files":[{"length":N,"name":"...","sha256":"..."},...],"format":"fedledger-bundle","version":1}

The bodies follow in the index's order (names ascending, by bytes), uncompressed, without anything between or after
them. Names are those of ``chaincode.artefacts``; nothing is ever unpacked. The same files give the same bytes.

Loaded before all else where a bundle is audited, whose bytes are then hashed while the rest loads: so it needs little, and what
it needs is loaded fast (dataclasses and executors are not).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from threading import Lock, Thread
from typing import Final, NamedTuple, NoReturn

from chaincode import artefacts
from chaincode.files import mapped
from chaincode.threads import CORES, stand_back
from identity.errors import EvidenceError
from identity.limits import ENVELOPE_LIMIT, NOTE_LIMIT
from identity.wording import counted

MAX_FILES: Final = 1_000_000
_MAGIC: Final = b'{"files":['
_FOOT: Final = b'],"format":"fedledger-bundle","version":1}\n'
_ANY_FOOT: Final = re.compile(rb'\],"format":"([!-~]{1,64}?)","version":([0-9]{1,9})}\n')
# A record in its one canonical spelling: reading it so keeps a hostile index from costing memory before it is refused.
_RECORD: Final = re.compile(
    rb'\{"length":(0|[1-9][0-9]{0,14}),"name":"([a-z0-9./-]{1,100})","sha256":"([0-9a-f]{64})"\}'
)
_LINE: Final = re.compile(rb"[^\n]*\n")
_LARGE: Final = 1 << 16  # bytes of a body that is worth a thread
_PIECE: Final = 1 << 22
"""Bytes that are hashed before anybody asks whether to go on: to ask, the interpreter is waited for."""


class File(NamedTuple):
    """One line of the index, and where the file's body lies in the bundle."""

    name: str
    length: int
    sha256: str
    offset: int


class _Hashing:
    """The hash of one body, piece by piece: begun by a thread that stands back, taken over by whoever needs it now."""

    def __init__(self, view: memoryview, file: File) -> None:
        self._view, self._position, self._end = view, *_span(file)
        self._hash, self._lock = sha256(), Lock()
        self.taken = False

    def step(self) -> bool:
        """Hash the next piece; False where there is none."""
        with self._lock:
            stop = min(self._position + _PIECE, self._end)
            self._hash.update(self._view[self._position : stop])
            self._position = stop
            return stop < self._end

    def finish(self) -> str:
        """The hash, of which the rest is made here."""
        self.taken = True
        while self.step():
            pass
        return self._hash.hexdigest()


class Bundle:
    """A bundle that is open for reading, mapped and never copied. Use it as a context manager, or ``close`` it."""

    def __init__(self, view: memoryview, files: dict[str, File]) -> None:
        """For ``open_bundle`` only."""
        self._view, self.files = view, files
        self._ahead: dict[str, _Hashing] = {}
        self._threads: list[Thread] = []
        self._stopped = False

    def body(self, name: str) -> memoryview | None:
        """A file's bytes, None where the bundle has no such file. NOT verified: ``altered`` does that."""
        file = self.files.get(name)
        return None if file is None else self._view[file.offset : file.offset + file.length]

    def hash_ahead(self, threads: int = CORES) -> None:
        """Have large bodies hashed from now on until ``stop``, the largest first, so that nobody waits for one at the end."""
        large = sorted((f for f in self.files.values() if f.length >= _LARGE), key=lambda file: -file.length)
        self._ahead = {file.name: _Hashing(self._view, file) for file in large}
        waiting = iter(self._ahead.values())
        for _ in range(threads):
            thread = Thread(target=self._stand_by, args=(waiting,))
            thread.start()
            self._threads.append(thread)

    def _stand_by(self, waiting: Iterator[_Hashing]) -> None:
        stand_back()
        self._hash_some(waiting)

    def _hash_some(self, waiting: Iterator[_Hashing]) -> None:
        for hashing in waiting:
            while not (self._stopped or hashing.taken) and hashing.step():
                pass

    def stop(self) -> None:
        """Have nothing more hashed ahead, and wait for the threads that do it."""
        self._stopped = True
        for thread in self._threads:
            thread.join()

    def altered(self, file: File) -> bool:
        """Whether a file's bytes are not those of the index: what has not been hashed of them yet is hashed here, for the
        threads that stand back may not come to it for long."""
        hashing = self._ahead.get(file.name) or _Hashing(self._view, file)
        return hashing.finish() != file.sha256

    @property
    def of_channel(self) -> bool:
        """Whether the evidence is a Fabric channel's blocks."""
        return artefacts.FIRST_BLOCK in self.files

    def blocks(self) -> Iterator[bytes]:
        """The raw blocks of a channel, by their names' order; nothing of them verified, not even that none is missing."""
        for name, file in self.files.items():
            if name.startswith(artefacts.BLOCKS):
                yield bytes(self._view[file.offset : file.offset + file.length])

    def checkpoint(self) -> bytes:
        """The log's signed head, nothing of it verified; of a longer one than a note may be, the beginning."""
        start, stop = _span(self.files[artefacts.CHECKPOINT])
        return bytes(self._view[start : min(stop, start + NOTE_LIMIT + 1)])

    def entries(self) -> Iterator[bytes]:
        """The envelopes in the log's order, nothing of them verified.

        Raises EvidenceError(bundle-entries), after the whole ones, for a line that is too long or does not end.
        """
        position, end = _span(self.files[artefacts.ENTRIES])
        number = 0
        while position < end:
            found = _LINE.match(self._view, position, end)
            if found is None or found.end() - position > ENVELOPE_LIMIT + 1:
                message = f"{artefacts.ENTRIES}: entry {number} does not end with a newline, or is too long."
                raise EvidenceError("bundle-entries", message)
            yield bytes(self._view[position : found.end() - 1])
            position, number = found.end(), number + 1


def _span(file: File) -> tuple[int, int]:
    return file.offset, file.offset + file.length


def is_bundle(path: Path) -> bool:
    """Whether a path is a file that begins like a bundle. Raises OSError where it cannot be read."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


@contextmanager
def open_bundle(path: Path, *, ahead: bool = False) -> Iterator[Bundle]:
    """Open a bundle: its index is checked and accounts for every byte; the bodies are not yet verified.

    With ``ahead`` threads hash the large ones from now on, on cores for which the caller has nothing else to do.

    Raises EvidenceError: bundle-index, bundle-version, bundle-name, bundle-order, bundle-missing (a file that every
    bundle has), bundle-length, file-not-regular; OSError where the file cannot be opened.
    """
    with mapped(path, follow_links=True) as view:
        bundle = parse_bundle(view)
        try:
            if ahead:
                bundle.hash_ahead()
            yield bundle
        finally:
            bundle.stop()


def parse_bundle(view: memoryview) -> Bundle:
    """The bundle that bytes are. Raises EvidenceError as ``open_bundle`` does."""
    return Bundle(view, _parse(view))


def _parse(view: memoryview) -> dict[str, File]:
    records, start = _records(view)
    files: dict[str, File] = {}
    last = ""
    for length, name, digest in records:
        if not artefacts.is_name(name):
            refuse_index("bundle-name", f"{name[:80]!r} is not the name of evidence")
        if name <= last:
            refuse_index("bundle-order", f"{name} does not follow {last}: names must ascend, each once")
        files[name] = File(name, length, digest, start)
        last, start = name, start + length
    for name in artefacts.CHANNEL_REQUIRED if artefacts.FIRST_BLOCK in files else artefacts.REQUIRED:
        if name not in files:
            refuse_index("bundle-missing", f"it names no {name}, which every bundle has")
    if start != len(view):
        refuse_index("bundle-length", f"it accounts for {counted(start, 'byte')}, the file has {len(view)}")
    return files


def _records(view: memoryview) -> tuple[list[tuple[int, str, str]], int]:
    """The records of the index line, and where the line ends."""
    if bytes(view[: len(_MAGIC)]) != _MAGIC:
        refuse_index("bundle-index", "the file does not begin like an evidence bundle")
    records: list[tuple[int, str, str]] = []
    position = len(_MAGIC)
    while (found := _RECORD.match(view, position)) is not None:
        records.append((int(found[1]), found[2].decode(), found[3].decode()))
        position = found.end()
        if len(records) > MAX_FILES:
            refuse_index("bundle-index", f"it names more than {MAX_FILES} files")
        if bytes(view[position : position + 1]) != b",":
            break
        position += 1
    else:
        refuse_index("bundle-index", f"record {len(records)}, at byte {position}, is not in its one form")
    foot = _ANY_FOOT.match(view, position)
    if foot is None:
        refuse_index(
            "bundle-index", f"it does not end as it must after {counted(len(records), 'record')}, at byte {position}"
        )
    if foot[0] != _FOOT:
        refuse_index("bundle-version", f"format {foot[1].decode()!r} version {foot[2].decode()} is not known here")
    return records, foot.end()


def refuse_index(code: str, why: str) -> NoReturn:
    """Raise EvidenceError about the index line."""
    raise EvidenceError(code, f"The bundle's index line: {why}.")
