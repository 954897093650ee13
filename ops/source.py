# SPDX-License-Identifier: Apache-2.0
"""What query commands read: the ledger of a run folder, or an exported bundle, behind one small port."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, Unpack

from chaincode.bundle import is_bundle
from chaincode.entries import Entry, open_entry
from chaincode.ledgers import Ledger
from chaincode.ledgers.queries import Logged
from chaincode.ledgers.search import Place, Sought, Wanted
from chaincode.ledgers.sqlite import SqliteLedger
from chaincode.opening import opened as opened_entries
from identity.errors import EvidenceError, UsageError
from ops import output, run_folder
from ops.bundle_source import BundleSource
from ops.run_folder import RunFolder

_INDEX_DIGITS, _ID_LEAST = 19, 4
_OF_OTHER_FILES = ("model-", "proof-", "credential", "file-", "not-founded")  # errors that are not about the ledger
_DIGEST = re.compile(r"[0-9a-f]{6,64}")


class Source(Ledger, Protocol):
    """A ledger to read: what ``submit`` gets, it refuses. Every answer is in the log's order.

    ``given`` is the PATH that a command was given, None where the run was found; ``place`` is where it is.
    """

    given: str | None
    place: str

    @property
    def size(self) -> int:
        """The number of entries."""

    def checkpoint(self) -> str:
        """The latest signed checkpoint."""

    def entry(self, which: int | str) -> Logged:
        """The entry of an index, or of the beginning of an id. Raises UsageError: entry-*."""

    def by_subject(self, digest: str) -> Iterator[int]:
        """The indexes of the entries about a digest."""

    def digests(self, prefix: str) -> list[str]:
        """Up to two of the digests that entries are about and that begin with these hex digits."""

    def find(self, kind: str | None = None, **sought: Unpack[Sought]) -> Iterator[Logged]:
        """The entries that have all of these."""

    def at(self, indexes: Iterable[int]) -> Iterator[Logged]:
        """The entries of these indexes, in the order in which they are asked for."""

    def newest(self, wanted: Wanted, since: int | None, limit: int) -> list[int]:
        """The indexes of the last ``limit`` entries with these values (all of them where it is 0), ascending."""

    def places(self, wanted: Wanted, since: int | None = None, start: int = 0) -> Iterator[Place]:
        """Where the entries with these values stand, from the end of the log down to the index ``start``."""


class LedgerSource(SqliteLedger):
    """The embedded ledger as a source."""

    given: str | None = None
    place: str = ""


@contextmanager
def opened(path: str | None, *, announce: bool = False) -> Iterator[Source]:
    """The source that a command's PATH means; ``run_folder.resolve`` says how it is found.

    ``announce`` says on stderr which folder is read where none was given.

    Raises:
        UsageError: there is none. EvidenceError, Unavailable: it cannot be read as what it must be.
    """
    try:
        if path is not None and Path(path).is_file():
            if not is_bundle(Path(path)):
                here = _newest("status") or output.command_line("new", "my-federation")
                raise UsageError("not-a-run", f"{path} is neither a run folder nor an exported bundle.", next=here)
            bundle = BundleSource(Path(path))
            bundle.given = bundle.place = path
            yield bundle
            return
        folder = folder_of(path, announce=announce)
        with LedgerSource.open(folder.ledger) as ledger:
            ledger.given, ledger.place = path, str(folder.path)
            yield ledger
    except EvidenceError as error:
        if not error.code.startswith(
            _OF_OTHER_FILES
        ):  # what is wrong with the evidence as a whole is for the audit to say
            error.next = output.command_line("audit", "verify", *([path] if path else []))
        raise


def folder_of(path: str | None, *, announce: bool = False) -> RunFolder:
    """The run folder that a command's PATH means; ``announce`` says on stderr which it is where none was given.

    Raises:
        UsageError: ``run-missing``, ``not-a-run``, always with a next command.
    """
    try:
        folder = run_folder.resolve(path)
    except UsageError as error:
        error.next = error.next or output.command_line("new", "my-federation")
        raise
    if announce and path is None:
        output.note(f"reading {output.relative(folder.path)}", "dim")
    return folder


def _newest(command: str) -> str | None:
    """A command on the newest run, None where there is no run."""
    with suppress(UsageError):
        return output.command_line(command, run_folder.resolve().path)
    return None


def next_for(source: Source, command: str, *arguments: object) -> str:
    """A command to run next on the same source."""
    return output.command_line(command, *([source.given] if source.given else []), *arguments)


def which(text: str, size: int) -> int | str:
    """An entry as a person names it: its index (also ``#12``), or the beginning of its id."""
    digits = text.removeprefix("#")
    if (
        digits.isascii()
        and digits.isdigit()
        and len(digits) <= _INDEX_DIGITS
        and (text != digits or int(digits) < size or len(digits) < _ID_LEAST)
    ):
        return int(digits)
    return text.lower()


def digest(source: Source, text: str, what: str) -> str:
    """A digest as a person names it: all of its 64 hex digits, or enough of the first ones.

    Raises:
        UsageError: ``digest-malformed``, ``digest-unknown``, ``digest-ambiguous``.
    """
    prefix = text.lower()
    if not _DIGEST.fullmatch(prefix):
        message = f"{text[:80]!r} is no digest.\nallowed: 6 to 64 hex digits, or for a model its file"
        raise UsageError("digest-malformed", message, next=next_for(source, "log"))
    found = source.digests(prefix)
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError("digest-ambiguous", f"More than one digest begins with {prefix}: give more digits.")
    raise UsageError("digest-unknown", f"No entry is about {what} {prefix}.", next=next_for(source, "log"))


def read(source: Source, index: int | str) -> tuple[Logged, Entry]:
    """An entry where it stands, its bytes checked and its signature verified.

    Raises:
        UsageError: ``entry-*``, with the entries that there are. EvidenceError: its bytes are not what they must be.
    """
    try:
        logged = source.entry(index)
    except UsageError as error:
        there = f"entries 0 to {source.size - 1}" if source.size else "no entries"
        raise UsageError(
            error.code, f"{error.message}\nThe ledger has {there}.", next=next_for(source, "log")
        ) from error
    return logged, open_entry(logged.envelope)


def read_many(source: Source, indexes: Iterable[int]) -> Iterator[tuple[Logged, Entry]]:
    """The entries of these indexes in their order, each as ``read`` gives it; many of them are opened on all cores.

    Raises:
        EvidenceError: one is not what it must be, or not there.
    """
    under_way: deque[Logged] = deque()

    def envelopes() -> Iterator[bytes]:
        for logged in source.at(indexes):
            under_way.append(logged)
            yield logged.envelope

    for _, _, entry in opened_entries(envelopes()):
        if isinstance(entry, EvidenceError):
            raise entry
        yield under_way.popleft(), entry
