# SPDX-License-Identifier: Apache-2.0
"""What an audit reads: a run folder and a bundle both answer to this."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from chaincode.audit.report import Finding
from chaincode.entries import Entry

Progress = Callable[[str, int, int], None]
"""progress(stage, done, total): ``total`` is 0 where it is not known."""


class Observer(Protocol):
    """Follows the replay, and says at its end what in the container does not follow from the entries."""

    def see(self, index: int, entry: Entry | None) -> None:
        """The next entry of the log; None where its bytes are no entry."""
        ...

    def finish(self, leaves: Sequence[bytes], state: Mapping[str, bytes]) -> Iterable[tuple[int, Finding]]:
        """What differs, each with the number of the claim that it is against."""
        ...


class Source(Protocol):
    """Evidence, none of it verified. All methods may raise EvidenceError for what cannot be read."""

    @property
    def remarks(self) -> Sequence[str]:
        """What was seen while artefacts were opened, decides nothing, and the reader should know."""
        ...

    def checkpoint(self) -> str | bytes:
        """The log's signed head."""
        ...

    def entries(self) -> Iterator[bytes]:
        """The envelopes in the log's order."""
        ...

    def open(self, name: str) -> AbstractContextManager[memoryview | None]:
        """The bytes of an artefact (``chaincode.artefacts``), None where it is not in this evidence."""
        ...

    def are_same(self, name: str, other: str) -> bool:
        """Whether two artefacts are known to have the same bytes, from hashing that is done anyway; False says nothing."""
        ...

    def observer(self) -> Observer:
        """One that checks the container against the entries."""
        ...
