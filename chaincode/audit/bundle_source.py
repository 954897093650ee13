# SPDX-License-Identifier: Apache-2.0
"""A bundle as evidence: its index line must hold for every body, and name nothing that the entries do not."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from chaincode import artefacts
from chaincode.audit.channel_source import ChannelSource
from chaincode.audit.report import Finding
from chaincode.bundle import Bundle, open_bundle
from chaincode.entries import Entry


class BundleSource:
    """The ``Source`` that an open bundle is."""

    def __init__(self, bundle: Bundle) -> None:
        """Of an open bundle."""
        self._bundle = bundle
        self.remarks: tuple[str, ...] = ()

    def checkpoint(self) -> bytes:
        """The log's signed head."""
        return self._bundle.checkpoint()

    def entries(self) -> Iterator[bytes]:
        """The envelopes in the log's order. Raises EvidenceError(bundle-entries)."""
        return self._bundle.entries()

    @contextmanager
    def open(self, name: str) -> Iterator[memoryview | None]:
        """The bytes of an artefact, None where the bundle has it not."""
        yield self._bundle.body(name)

    def are_same(self, name: str, other: str) -> bool:
        """Whether the index states one SHA-256 for both, and both have it."""
        one, two = self._bundle.files.get(name), self._bundle.files.get(other)
        return (
            one is not None and two is not None and one.sha256 == two.sha256
            and not self._bundle.altered(one) and not self._bundle.altered(two)
        )  # fmt: skip

    def observer(self) -> "IndexObserver":
        """One that holds the index line against the bodies and the entries."""
        return IndexObserver(self._bundle)


class IndexObserver:
    """Gathers what the entries name, and compares the index line with it and with the bodies."""

    def __init__(self, bundle: Bundle) -> None:
        """Of an open bundle."""
        self._bundle = bundle
        self._named: set[str] = set(artefacts.REQUIRED)
        if bundle.of_channel:
            self._named = {
                *artefacts.CHANNEL_REQUIRED,
                *(name for name in bundle.files if name.startswith(artefacts.BLOCKS)),
            }

    def see(self, index: int, entry: Entry | None) -> None:
        """The next entry."""
        if entry is not None:
            self._named.update(artefacts.named_by(entry))

    def finish(self, leaves: Sequence[bytes], state: Mapping[str, bytes]) -> Iterable[tuple[int, Finding]]:
        """What differs; all of it is against claim 1."""
        for name, file in self._bundle.files.items():
            where = f"index line, file {name}"
            if self._bundle.altered(file):
                yield (
                    1,
                    Finding(
                        "bundle-digest",
                        where,
                        f"The bytes of {name} are not those whose SHA-256 the index line states.",
                    ),
                )
            if name not in self._named:
                yield 1, Finding("bundle-unnamed", where, f"No entry of the log names {name}.")


@contextmanager
def bundle_source(path: Path) -> Iterator[BundleSource | ChannelSource]:
    """Open a bundle as evidence. Raises as ``open_bundle`` does."""
    with open_bundle(path, ahead=True) as bundle:
        yield source_of(bundle)


def source_of(bundle: Bundle) -> BundleSource | ChannelSource:
    """An open bundle as evidence."""
    source = BundleSource(bundle)
    return ChannelSource(bundle.blocks, source.open, source.observer) if bundle.of_channel else source
