# SPDX-License-Identifier: Apache-2.0
"""How entries share transactions: as many as fit in one, and side by side only what cannot meet.

Transactions that are under way at once see the same state. So two of them may go together only where neither can change
what the other reads; else the second one would be judged on a state that it should not see, and refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from chaincode.entries import Entry

BATCH_BYTES = 128 << 10
"""Bytes of envelopes in one transaction; a larger envelope goes alone. Some hundred commitments: larger transactions are
slower, since a peer endorses after another, and several side by side keep both busy. An orderer takes up to 10 MiB."""
BATCH_ENTRIES = 1000

OWN_WRITES = {"commit": "seat/", "decline": "seat/", "claim": "seat/", "sign": "party/", "withdraw": "party/",
              "attest": "attest/"}  # fmt: skip
"""Kinds that write, beside their own entry, one key: of this prefix, ending in their author's name."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries of one transaction: their places in what was submitted."""

    places: tuple[int, ...]
    entries: tuple[Entry, ...]

    @property
    def envelopes(self) -> list[bytes]:
        """Return the envelopes, in order."""
        return [entry.envelope for entry in self.entries]


def waves(entries: Sequence[tuple[int, Entry]]) -> Iterator[list[Batch]]:
    """Cut entries (with their places) into batches, in order, and yield those together that may be under way together.

    These are batches of one kind that writes its author's own key, with no author in two of them.
    """
    wave: list[Batch] = []
    authors: set[str] = set()
    for batch in _batches(entries):
        own = {entry.member for entry in batch.entries} if own_keys_only(batch) else None
        if wave and (own is None or not authors or authors & own or wave[-1].entries[0].kind != batch.entries[0].kind):
            yield wave
            wave, authors = [], set()
        wave.append(batch)
        authors |= own or set()
    if wave:
        yield wave


def own_keys_only(batch: Batch) -> bool:
    """Whether all entries are of one kind that writes its author's own key."""
    kinds = {entry.kind for entry in batch.entries}
    return len(kinds) == 1 and kinds <= OWN_WRITES.keys()


def _batches(entries: Sequence[tuple[int, Entry]]) -> Iterator[Batch]:
    batch: list[tuple[int, Entry]] = []
    size = 0
    for place, entry in entries:
        full = size + len(entry.envelope) > BATCH_BYTES or len(batch) >= BATCH_ENTRIES
        if batch and full:
            yield _batch(batch)
            batch, size = [], 0
        batch.append((place, entry))
        size += len(entry.envelope)
    if batch:
        yield _batch(batch)


def _batch(items: Sequence[tuple[int, Entry]]) -> Batch:
    return Batch(tuple(place for place, _ in items), tuple(entry for _, entry in items))
