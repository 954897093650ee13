# SPDX-License-Identifier: Apache-2.0
"""The contract: two pure functions that every host, mirror and auditor runs unchanged (rule R3).

    keys(entry)           -> the ledger keys that the entry may read or write; from the entry alone
    apply(entry, values)  -> the writes, or Rejected(code)

No clock, no I/O, no randomness, no floats, no searching. Whoever calls reads the keys, applies, and stores what
comes back; nothing else writes the ledger's state.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chaincode import state
from chaincode.entries import Entry
from chaincode.rules import agreements, members, results, rounds
from chaincode.state import Present
from chaincode.views import View, WholeView, encode_all
from identity.errors import Rejected


@dataclass(frozen=True, slots=True)
class Rule:
    """What one kind of entry may touch, and what it does."""

    keys: Callable[[Entry], set[str]]
    apply: Callable[[Entry, View], None]


RULES: Mapping[str, Rule] = {
    "found": Rule(members.found_keys, members.found),
    "amend": Rule(members.amend_keys, members.amend),
    "admit": Rule(members.admit_keys, members.admit),
    "revoke": Rule(members.revoke_keys, members.revoke),
    "rotate": Rule(members.rotate_keys, members.rotate),
    "propose": Rule(agreements.propose_keys, agreements.propose),
    "sign": Rule(agreements.party_keys, agreements.sign),
    "withdraw": Rule(agreements.party_keys, agreements.withdraw),
    "open": Rule(rounds.open_keys, rounds.open_),
    "commit": Rule(rounds.seat_keys, rounds.commit),
    "decline": Rule(rounds.seat_keys, rounds.decline),
    "seal": Rule(rounds.seal_keys, rounds.seal),
    "claim": Rule(results.claim_keys, results.claim),
    "record": Rule(results.record_keys, results.record),
    "abort": Rule(results.abort_keys, results.abort),
    "release": Rule(results.release_keys, results.release),
    "attest": Rule(results.attest_keys, results.attest),
}

_PRESENT = {kind: state.encode(Present(kind)) for kind in RULES}  # one value for each kind, written by every entry


def keys(entry: Entry) -> frozenset[str]:
    """The ledger keys that ``apply`` may read or write for this entry."""
    found = RULES[entry.kind].keys(entry)
    found.add(state.FEDERATION)
    found.add(state.entry_key(entry.id))
    return frozenset(found)


def apply(entry: Entry, values: Mapping[str, bytes | None]) -> dict[str, bytes]:
    """The writes of one entry on the values of its ``keys`` (None for an absent one).

    Raises:
        Rejected: the rules refuse the entry; nothing is to be written.
    """
    return encode_all(judge(entry, View(values)))


def judge(entry: Entry, view: View) -> dict[str, Any]:
    """As ``apply``, for a caller that keeps values as they are: the view may hold some of them so, and the writes all are."""
    present = state.entry_key(entry.id)
    if view.get(Present, present) is not None:
        raise Rejected("duplicate-entry", f"Entry {entry.id[:12]} is on the ledger already.")
    RULES[entry.kind].apply(entry, view)
    view.writes[present] = _PRESENT[entry.kind]
    return view.writes


def apply_all(
    entries: Iterable[Entry], values: Mapping[str, bytes | None]
) -> tuple[list[Rejected | None], dict[str, bytes]]:
    """Apply entries one after the other: an outcome each (None for accepted), and all writes together.

    ``values`` holds the keys of all entries. Every host runs this, so a batch means the same everywhere.
    """
    overlay: dict[str, Any] = dict(values)
    return _fold(entries, overlay, lambda entry: View({key: overlay[key] for key in keys(entry)}))


def apply_whole(entries: Iterable[Entry], held: dict[str, Any]) -> tuple[list[Rejected | None], dict[str, bytes]]:
    """As ``apply_all``, for a process that holds the whole state, as values, and takes the writes into it."""
    return _fold(entries, held, lambda _: WholeView(held))


def _fold(
    entries: Iterable[Entry], held: dict[str, Any], view: Callable[[Entry], View]
) -> tuple[list[Rejected | None], dict[str, bytes]]:
    """Apply entries to what is held, each through the ``view`` of it."""
    outcomes: list[Rejected | None] = []
    writes: dict[str, Any] = {}
    for entry in entries:
        try:
            written = judge(entry, view(entry))
        except Rejected as refusal:
            outcomes.append(refusal)
            continue
        held.update(written)
        writes.update(written)
        outcomes.append(None)
    return outcomes, encode_all(writes)


def keys_of(entries: Sequence[Entry]) -> frozenset[str]:
    """The keys of all entries together: what a host reads before ``apply_all``."""
    return frozenset[str]().union(*(keys(entry) for entry in entries))
