# SPDX-License-Identifier: Apache-2.0
"""Where an update went: what became of each commitment, and the models that have it inside.

An included update is in the model of its round and, because each round starts from the last result, in every later one.
Outcomes are read from the state; a record is opened where it omits somebody.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from chaincode import state
from chaincode.author import read_all
from chaincode.entries import Entry
from chaincode.state import Head, Release, Result, Seat
from ops.lineage import INCLUDED, Contribution, agreements, contribution, outcomes_of, producers, proposals
from ops.source import Source, read, read_many

_PAGE = 500  # rounds or commitments that are judged together
_FIRST = 20  # rounds of an agreement among which the first with an update most often is


@dataclass(frozen=True, slots=True)
class Use:
    """A model that an update went into: ``direct`` in its own round, otherwise through the base model."""

    agreement: str
    round: int
    model: str
    direct: bool
    released: bool


@dataclass(frozen=True, slots=True)
class _Place:
    """A member's place in an attempt."""

    agreement: str
    round: int
    attempt: int
    member: str

    @property
    def result(self) -> str:
        return state.result_key(self.agreement, self.round)

    @property
    def seat(self) -> str:
        return state.seat_key(self.agreement, self.round, self.attempt, self.member)


def contributions(source: Source, commits: Sequence[Entry]) -> list[Contribution]:
    """What became of commitments."""
    judged = []
    for start in range(0, len(commits), _PAGE):
        some = commits[start : start + _PAGE]
        places = [_Place(e.agreement, e.body["round"], e.body["attempt"], e.member) for e in some]
        outcomes = _outcomes(source, places)
        judged += [contribution(e, *outcome) for e, outcome in zip(some, outcomes, strict=True)]
    return judged


def _outcomes(source: Source, places: Sequence[_Place]) -> Iterator[tuple[str, str]]:
    """What became of the commitments of these places, and the models of their rounds; one after the other."""
    results = read_all(source, Result, {p.result: p.result for p in places})
    seats = read_all(source, Seat, {p.seat: p.seat for p in places})
    heads = read_all(source, Head, {p.agreement: state.head_key(p.agreement) for p in places})
    return (_outcome(source, p, results[p.result], seats[p.seat], heads[p.agreement]) for p in places)


def _outcome(
    source: Source, place: _Place, result: Result | None, seat: Seat | None, head: Head | None
) -> tuple[str, str]:
    if result is None or result.attempt != place.attempt:
        now = head is not None and (head.round, head.attempt) == (place.round, place.attempt)
        return "round in progress" if now and head and head.state in ("open", "sealed") else "attempt given up", ""
    if seat is not None and seat.state == "in" and result.omitted == 0:
        return INCLUDED, result.model
    record = read(source, result.entry)[1]
    left_out = f"sealed out: {seat.reason}" if seat else "not recorded"
    return outcomes_of(record).get(place.member, left_out), record.subjects["model"]


def contributions_of(source: Source, member: str, limit: int) -> list[Contribution]:
    """What a member committed, the newest ``limit`` of it (all where it is 0), oldest first."""
    found = source.newest({"kind": "commit", "member": member}, None, limit)
    return contributions(source, [entry for _, entry in read_many(source, found)])


def first_included(source: Source, member: str) -> dict[str, int]:
    """For each agreement in whose models a member's data is, the first round of which that is so."""
    rounds: dict[str, list[int]] = {agreement: [] for agreement in agreements(source)}
    for place in source.places({"kind": "commit", "member": member}):
        rounds[place.agreement].append(place.round)
    firsts = ((agreement, _first(source, member, agreement, some[::-1])) for agreement, some in rounds.items())
    return {agreement: first for agreement, first in firsts if first is not None}


def _first(source: Source, member: str, agreement: str, rounds: Sequence[int]) -> int | None:
    """The first of these rounds of an agreement whose recorded sum has the member's update."""
    for start in range(0, len(rounds), _FIRST):
        keys = {str(n): state.result_key(agreement, n) for n in dict.fromkeys(rounds[start : start + _FIRST])}
        results = read_all(source, Result, keys)
        places = [_Place(agreement, int(n), result.attempt, member) for n, result in results.items() if result]
        for place, (outcome, _) in zip(places, _outcomes(source, places), strict=True):
            if outcome == INCLUDED:
                return place.round
    return None


def commits_to(source: Source, update: str) -> list[Entry]:
    """The commitments to an update."""
    about = (entry for _, entry in read_many(source, source.by_subject(update)))
    return [entry for entry in about if entry.kind == "commit" and entry.subjects["update"] == update]


def uses(source: Source, first: Mapping[str, int], direct: Container[tuple[str, int]], limit: int) -> list[Use]:
    """The models that have something inside which was included first in these rounds: what taking it back would touch.

    ``direct`` says in which rounds' own sums it is. The newest ``limit`` of them (all where it is 0), oldest first.
    """
    start, agreed = dict(first), proposals(source)
    for agreement, proposal in agreed.items():  # in order: what goes on from an agreement follows it
        before = producers(source, proposal.subjects["initial-model"])
        touched = any(entry.body["round"] >= start[entry.agreement] for entry in before if entry.agreement in start)
        if touched or proposal.body["continues"] in start:
            start[agreement] = 1
    found = list(
        islice(_uses_backwards(source, [a for a in reversed(agreed) if a in start], start, direct), limit or None)
    )
    return found[::-1]


def _uses_backwards(
    source: Source, within: Sequence[str], start: Mapping[str, int], direct: Container[tuple[str, int]]
) -> Iterator[Use]:
    for a in within:
        head = read_all(source, Head, {"": state.head_key(a)})[""]
        for last in range(head.round if head else 0, start[a] - 1, -_PAGE):
            rounds = range(last, max(last - _PAGE, start[a] - 1), -1)
            results = read_all(source, Result, {str(n): state.result_key(a, n) for n in rounds})
            releases = read_all(source, Release, {str(n): state.release_key(a, n) for n in rounds})
            for n in rounds:
                if (result := results[str(n)]) is not None:
                    yield Use(a, n, result.model, (a, n) in direct, releases[str(n)] is not None)
