# SPDX-License-Identifier: Apache-2.0
"""An evidence bundle as a source for queries: its entries are replayed in memory, and nothing else of it is believed.

What a query shows of a bundle has passed every signature, the contract and the log's signed head; that the rest of
the evidence bears it out is for ``fedledger audit verify`` to say.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, Unpack

from chaincode import artefacts, contract, trust
from chaincode.audit.channel_source import ChannelSource, NoObserver
from chaincode.bundle import Bundle, open_bundle
from chaincode.channel_key import ChannelKey
from chaincode.checkpoints import open_checkpoint, stated_head
from chaincode.entries import Entry, open_entry
from chaincode.ledgers import Receipt
from chaincode.ledgers.queries import Logged
from chaincode.ledgers.search import Place, Sought, Wanted, wanted_of
from chaincode.ledgers.tables import Facet, facet_of, subjects_of
from chaincode.log import leaf_hash, root
from identity.errors import EvidenceError, Rejected, UsageError
from identity.wording import counted
from ops import output

_LEAST_DIGITS = 4


class BundleSource:
    """A bundle that was replayed; it is all in memory, and the file is closed again."""

    given: str | None = None
    place: str = ""

    def __init__(self, path: Path) -> None:
        """Read and replay a bundle.

        Raises:
            EvidenceError: ``bundle-*``; ``entry-*``, ``signature-invalid``, ``replay-refused``; ``checkpoint-*``,
                ``bundle-head``; ``federation-key``. OSError where it cannot be opened.
        """
        self._entries: list[Entry] = []
        self._facets: list[Facet] = []
        self._of: dict[tuple[str | None, int | None], list[int]] = {}  # the indexes of each round of each agreement
        self._state: dict[str, bytes] = {}
        with open_bundle(path) as bundle:
            self._note = bundle.checkpoint().decode("utf-8", "replace")
            key = self._read_channel(bundle) if bundle.of_channel else self._read_log(bundle)
        self._indexes = {entry.id: index for index, entry in enumerate(self._entries)}
        head = (
            open_checkpoint(self._note, key.log)[0] if isinstance(key, trust.FederationKey) else stated_head(self._note)
        )
        if (head.size, head.root) != (self.size, root([leaf_hash(e.envelope) for e in self._entries])):
            self._refuse(
                "bundle-head",
                f"The signed head is of {counted(head.size, 'entry')}, or of other ones than {artefacts.ENTRIES} holds.",
            )
        if self._entries and self._entries[0].federation != key.federation:
            self._refuse("bundle-federation", "The entries are of another federation than the key.")

    def _read_log(self, bundle: Bundle) -> trust.FederationKey:
        for envelope in bundle.entries():
            self._take(open_entry(envelope))
        return trust.parse_key(bytes(bundle.body(trust.KEY_FILE) or b""))

    def _read_channel(self, bundle: Bundle) -> ChannelKey:
        """Take the entries of a channel's blocks, once these hold under the bundle's own key."""

        @contextmanager
        def body(name: str) -> Iterator[memoryview | None]:
            yield bundle.body(name)

        source = ChannelSource(bundle.blocks, body, NoObserver)
        source.trust(None)
        if source.key is None:
            raise source.unreadable or AssertionError
        for _, _, entry in source.opened(source.entries()):
            if isinstance(entry, Entry):
                self._take(entry)
        if source.chain is None or source.chain.faults:
            self._refuse("bundle-blocks", source.chain.faults[0].what if source.chain else "The blocks cannot be read.")
        return source.key

    def _take(self, entry: Entry) -> None:
        values = {key: self._state.get(key) for key in contract.keys(entry)}
        try:
            self._state |= contract.apply(entry, values)
        except Rejected as error:
            self._refuse(
                "replay-refused", f"Entry {len(self._entries)} ({entry.id[:12]}): the contract refuses it: {error}"
            )
        facet = facet_of(entry)
        self._of.setdefault((facet.agreement, facet.round), []).append(len(self._entries))
        self._entries.append(entry)
        self._facets.append(facet)

    def _refuse(self, code: str, message: str) -> NoReturn:
        raise EvidenceError(code, message, next=output.command_line("audit", "verify"))

    @property
    def size(self) -> int:
        """The number of entries."""
        return len(self._entries)

    def checkpoint(self) -> str:
        """The signed head of the bundle's log."""
        return self._note

    def submit(self, envelopes: Sequence[bytes]) -> list[Receipt | Rejected]:
        """Refused: a bundle is evidence."""
        raise UsageError(
            "ledger-read-only", f"A bundle takes no entries; {counted(len(envelopes), 'was', 'were')} submitted."
        )

    def get(self, keys: Collection[str]) -> dict[str, bytes | None]:
        """The replayed state under each key."""
        return {key: self._state.get(key) for key in keys}

    def entries(self, start: int = 0) -> Iterator[bytes]:
        """The envelopes from number ``start``."""
        return (entry.envelope for entry in self._entries[max(start, 0) :])

    def entry(self, which: int | str) -> Logged:
        """The entry of an index, or of the beginning of an id. Raises UsageError: entry-*."""
        if isinstance(which, str):
            if len(which) < _LEAST_DIGITS:
                raise UsageError("entry-id", f"{which[:80]!r} is not the beginning of an id: 4 to 64 hex digits.")
            found = [index for id_, index in self._indexes.items() if id_.startswith(which)]
        else:
            found = [which] if 0 <= which < self.size else []
        if not found:
            raise UsageError("entry-unknown", f"There is no entry {which} in this bundle.")
        if len(found) > 1:
            raise UsageError(
                "entry-ambiguous", f"More than one entry's id begins with {which}.", next="Give more digits."
            )
        return self._logged(found[0])

    def at(self, indexes: Iterable[int]) -> Iterator[Logged]:
        """The entries of these indexes, in the order in which they are asked for."""
        return map(self._logged, indexes)

    def _logged(self, index: int) -> Logged:
        return Logged(index, self._entries[index].id, self._entries[index].envelope)

    def by_subject(self, digest: str) -> Iterator[int]:
        """The indexes of the entries about a digest, or of the agreement with this digest."""
        wanted = bytes.fromhex(digest)
        return (i for i, e in enumerate(self._entries) if e.agreement == digest or wanted in subjects_of(e))

    def digests(self, prefix: str) -> list[str]:
        """Up to two of the digests that entries are about and that begin so."""
        about = {digest.hex() for entry in self._entries for digest in subjects_of(entry)}
        return sorted(digest for digest in about if digest.startswith(prefix))[:2]

    def find(self, kind: str | None = None, **sought: Unpack[Sought]) -> Iterator[Logged]:
        """The entries that have all of these."""
        limit = sought.get("limit")
        found = self.newest(wanted_of(kind, sought), sought.get("since"), 0)
        return map(self._logged, found if limit is None else found[: max(limit, 0)])

    def newest(self, wanted: Wanted, since: int | None, limit: int) -> list[int]:
        """The indexes of the last ``limit`` entries with these values (all of them where it is 0), ascending."""
        own = (
            self._of.get((str(wanted["agreement"]), int(wanted["round"])), [])
            if {"agreement", "round"} <= wanted.keys()
            else None
        )
        found = [
            index
            for index in (range(self.size) if own is None else own)
            if all(getattr(self._facets[index], column) == value for column, value in wanted.items())
            and (since is None or self._facets[index].at >= since)
        ]
        return found[-limit:] if limit else found

    def places(self, wanted: Wanted, since: int | None = None, start: int = 0) -> Iterator[Place]:
        """Where the entries with these values stand, from the end of the log down to the index ``start``."""
        for index in reversed(self.newest(wanted, since, 0)):
            if index >= start:
                facet = self._facets[index]
                yield Place(index, facet.kind, facet.agreement or "", facet.round or 0)
