# SPDX-License-Identifier: Apache-2.0
"""What a ledger says about a member in entries of others: that admit it, revoke it, or leave it out of a round.

A long ledger has tens of thousands of entries that could. The state says of every round what became of the member in it,
so that only entries are opened that have something to say; and each one that is returned was opened and verified.
"""

import heapq
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from chaincode import state
from chaincode.entries import Entry
from chaincode.ledgers.search import Place, Wanted
from chaincode.state import Head, Result, Seat
from identity import envelope
from ops.source import Source, read_many

_LEFT_OUT = {"open": ("absent", "absent"), "seal": ("out", "sealed out"), "record": ("omitted", "omitted")}
_STANDING = ("admit", "revoke")
_TOGETHER = 192  # places whose rounds' state is read together

Round = tuple[str, int]
"""An agreement and the number of a round of it."""
_T = TypeVar("_T")


def about(
    source: Source, member: str, within: Sequence[Wanted], since: int | None, limit: int, *, start: int = 0
) -> list[tuple[int, Entry]]:
    """The entries about a member: that admit or revoke it, or leave it out. The newest ``limit`` (all where it is 0)
    from the index ``start`` on, in order, of those with all values of one of ``within``; they name a kind only where a
    single one is wanted."""
    agreements = _agreements(source, member)
    searches: list[Iterable[int]] = []
    for wanted in within:
        for kinds in (_STANDING, _LEFT_OUT if agreements else ()):
            asked = [{**wanted, "kind": kind} for kind in kinds if wanted.get("kind", kind) == kind]
            places = _newest_first([source.places(one, since, start) for one in asked])
            if kinds is _STANDING:
                searches.append(place.index for place in places)
            else:
                searches.append(_in_rounds(source, member, (p for p in places if p.agreement in agreements)))
    found = _mentioning(source, member, heapq.merge(*searches, reverse=True))
    return list(islice(found, limit or None))[::-1]


def is_about(entry: Entry, member: str) -> bool:
    """Whether an entry admits or revokes a member, or leaves it out."""
    return member in (entry.body.get("admits"), entry.body.get("revokes")) or left_out(entry, member) is not None


def left_out(entry: Entry, member: str) -> str | None:
    """Why an entry leaves a member out, None where it does not."""
    words = _LEFT_OUT.get(entry.kind)
    if words is None:
        return None
    field, how = words
    return next((f"{how}: {item['reason']}" for item in entry.body[field] if item["member"] == member), None)


def _mentioning(source: Source, member: str, indexes: Iterable[int]) -> Iterator[tuple[int, Entry]]:
    """Those of the entries that are about the member, in the order of the indexes."""
    # As canonical JSON spells it; an entry without one of these texts can be left unopened.
    spelled = [f'"{field}":"{member}"'.encode() for field in ("admits", "revokes")]
    spelled.append(f'{{"member":"{member}","reason":'.encode())
    for some in _batches(indexes, 16):
        payloads = ((logged.index, envelope.parse(logged.envelope).payload) for logged in source.at(some))
        likely = [index for index, payload in payloads if any(text in payload for text in spelled)]
        for logged, entry in read_many(source, likely):
            if is_about(entry, member):
                yield logged.index, entry


def _newest_first(searches: Sequence[Iterator[Place]]) -> Iterator[Place]:
    return heapq.merge(*searches, key=lambda place: place.index, reverse=True)


def _in_rounds(source: Source, member: str, places: Iterator[Place]) -> Iterator[int]:
    """The indexes of those opens, seals and records that leave the member out, and of few others, in their order."""
    for some in _batches(places, _TOGETHER):
        says = _says(source, member, {(p.agreement, p.round) for p in some})
        yield from (p.index for p in some if p.kind in says[p.agreement, p.round])


def _agreements(source: Source, member: str) -> set[str]:
    """The agreements that a member is or was a party of: only their rounds can leave it out."""
    keys = {state.party_key(p.agreement, member): p.agreement for p in source.places({"kind": "propose"})}
    return {keys[key] for key, value in source.get(list(keys)).items() if value is not None}


def _says(source: Source, member: str, rounds: Collection[Round]) -> dict[Round, set[str]]:
    """The kinds of entries of each round that may leave a party of its agreement out, from what the state holds of it.

    Who has no seat in an attempt is named absent by its opening, whose seat is out is named by its seal, and who is in
    may be omitted by a record that omits somebody.
    """
    results = {(a, n): state.result_key(a, n) for a, n in rounds}
    heads = {a: state.head_key(a) for a, _ in rounds}
    found = source.get([*results.values(), *heads.values()])
    recorded = {key: state.decode(Result, data) for key, data in found.items() if data and key.startswith("result/")}
    standing = {a: state.decode(Head, data) for a, key in heads.items() if (data := found[key]) is not None}
    seats: dict[Round, list[str]] = {}
    for (a, n), key in results.items():
        head, result = standing.get(a), recorded.get(key)
        attempts = result.attempt if result else head.attempt if head and head.round == n else 0
        seats[a, n] = [state.seat_key(a, n, attempt, member) for attempt in range(1, attempts + 1)]
    values = source.get([key for keys in seats.values() for key in keys])
    says: dict[Round, set[str]] = {}
    for where, keys in seats.items():
        states = {"" if (data := values[key]) is None else state.decode(Seat, data).state for key in keys}
        result = recorded.get(results[where])
        omits = result is not None and result.omitted > 0 and "in" in states
        says[where] = {
            kind for kind, does in (("open", "" in states), ("seal", "out" in states), ("record", omits)) if does
        }
        if not keys:  # of a round that no head has come to: a ledger that contradicts itself, to be read as it is
            says[where] = set(_LEFT_OUT)
    return says


def _batches(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    items = iter(values)
    while some := list(islice(items, size)):
        yield some
