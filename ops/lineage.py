# SPDX-License-Identifier: Apache-2.0
"""Where a model comes from, and where an update went: walks over the ledger's records in both directions.

Backwards, a recorded round leads to its base model, that to the round which recorded it, and so on to the initial model,
across agreements that continue one another. Forwards, an included update is in the model of its round and, because
each round starts from the last result, in every later one.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

from chaincode import state
from chaincode.author import read_all
from chaincode.entries import Entry
from chaincode.state import Head, Release, Result, Seat
from identity.errors import EvidenceError, UsageError
from ops import output
from ops.source import Source, Wanted, next_for, read

INCLUDED = "included"
_LEFT_OUT = {"open": ("absent", "absent"), "seal": ("out", "sealed out"), "record": ("omitted", "omitted")}
ABOUT = ("admit", "revoke", *_LEFT_OUT)
_PAGE = 500  # rounds that are read together


@dataclass(frozen=True, slots=True)
class Contribution:
    """An update that was committed. ``outcome`` is ``included``, or why it is in no model; ``model`` is empty then."""

    agreement: str
    round: int
    attempt: int
    member: str
    update: str
    examples: int
    at: int
    entry: str
    outcome: str
    model: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded round with the updates that were committed in its attempt."""

    agreement: str
    round: int
    attempt: int
    at: int
    entry: str
    base: str
    model: str
    metrics: Mapping[str, str]
    contributions: tuple[Contribution, ...]


@dataclass(frozen=True, slots=True)
class Use:
    """A model that an update went into: ``direct`` in its own round, otherwise through the base model."""

    agreement: str
    round: int
    model: str
    direct: bool
    released: bool


def about(
    source: Source, member: str, within: Sequence[Wanted], since: int | None, limit: int
) -> list[tuple[int, Entry]]:
    """The entries about a member: that admit or revoke it, or leave it out. The newest ``limit`` (all where it is 0),
    in order, of those with all values of one of ``within``; they name a kind only where a single one is wanted."""
    found = set()
    for wanted in within:
        kinds = [kind for kind in ABOUT if wanted.get("kind", kind) == kind]
        found |= {index for kind in kinds for index in source.newest({**wanted, "kind": kind}, since, 0)}
    entries = ((index, read(source, index)[1]) for index in sorted(found, reverse=True))
    concerned = ((index, entry) for index, entry in entries if is_about(entry, member))
    return list(islice(concerned, limit or None))[::-1]


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


def producers(source: Source, model: str) -> list[Entry]:
    """The records of rounds that made a model."""
    about = (read(source, index)[1] for index in source.by_subject(model))
    return [entry for entry in about if entry.kind == "record" and entry.subjects["model"] == model]


def proposals(source: Source) -> dict[str, Entry]:
    """The entries that proposed agreements, by the agreement's digest, in order."""
    entries = (read(source, logged.index)[1] for logged in source.find("propose"))
    return {entry.agreement: entry for entry in entries}


def ancestry(source: Source, model: str) -> Iterator[Recorded]:
    """The rounds behind a model, the latest first, down to the one that began with an initial model.

    Raises:
        UsageError: ``model-unknown``. EvidenceError: ``lineage-broken`` where a round's base is not what is recorded.
    """
    records, agreements = producers(source, model), proposals(source)
    if not records and all(p.subjects["initial-model"] != model for p in agreements.values()):
        raise UsageError(
            "model-unknown", f"No round recorded the model {model}.", next=next_for(source, "log", "--kind", "record")
        )
    seen: set[str] = set()
    for record in records:
        current: Entry | None = record
        while current is not None and current.id not in seen:
            seen.add(current.id)
            recorded = recorded_round(source, current)
            yield recorded
            current = _before(source, recorded, agreements)


def _before(source: Source, later: Recorded, agreements: Mapping[str, Entry]) -> Entry | None:
    """The record that a round's base model comes from, None for an initial model that no earlier agreement recorded.

    ``agreements`` are the proposals in the log's order. Whether an agreement says that it continues another one does not
    matter: what is in its initial model is in it.
    """
    proposal = agreements[later.agreement]
    if later.round > 1:
        result = read_all(source, Result, {"": state.result_key(later.agreement, later.round - 1)})[""]
        before = read(source, result.entry)[1] if result else None
        broken = before is None or before.subjects["model"] != later.base
    else:
        older = set(takewhile(lambda agreement: agreement != later.agreement, agreements))
        found = [entry for entry in producers(source, later.base) if entry.agreement in older]
        before = max(found, key=lambda entry: entry.body["round"], default=None)
        # An older agreement that recorded no round hands on its own initial model.
        broken = proposal.subjects["initial-model"] != later.base
    if broken:
        raise EvidenceError(
            "lineage-broken", f"Round {later.round} starts from model {later.base[:12]}, which the round before did not record.",
            next=output.command_line("audit", "verify", *([source.given] if source.given else [])),
        )  # fmt: skip
    return before


def recorded_round(source: Source, record: Entry) -> Recorded:
    """A round with what was committed in its recorded attempt."""
    body, base = record.body, ""
    outcomes = dict.fromkeys(body["included"], INCLUDED) | {item["member"]: item["reason"] for item in body["omitted"]}
    contributions = []
    for logged in source.find(agreement=record.agreement, round=body["round"]):
        _, entry = read(source, logged.index)
        if entry.body.get("attempt") != body["attempt"]:
            continue
        if entry.kind == "open":
            base = entry.subjects["base-model"]
        elif entry.kind == "seal":
            outcomes |= {item["member"]: f"sealed out: {item['reason']}" for item in entry.body["out"]}
        elif entry.kind == "commit":
            contributions.append(entry)
    model = record.subjects["model"]
    return Recorded(
        record.agreement, body["round"], body["attempt"], record.at, record.id, base, model, body["metrics"],
        tuple(_contribution(entry, outcomes.get(entry.member, "not recorded"), model) for entry in contributions),
    )  # fmt: skip


def _contribution(entry: Entry, outcome: str, model: str) -> Contribution:
    return Contribution(
        entry.agreement, entry.body["round"], entry.body["attempt"], entry.member, entry.subjects["update"],
        entry.body["examples"], entry.at, entry.id, outcome, model if outcome == INCLUDED else "",
    )  # fmt: skip


def contribution(source: Source, commit: Entry) -> Contribution:
    """What became of a commitment."""
    a, n, t, m = commit.agreement, commit.body["round"], commit.body["attempt"], commit.member
    result = read_all(source, Result, {"": state.result_key(a, n)})[""]
    if result is None or result.attempt != t:
        head = read_all(source, Head, {"": state.head_key(a)})[""]
        current = head is not None and (head.round, head.attempt) == (n, t) and head.state in ("open", "sealed")
        return _contribution(commit, "round in progress" if current else "attempt given up", "")
    record = read(source, result.entry)[1]
    outcomes = dict.fromkeys(record.body["included"], INCLUDED)
    outcomes |= {item["member"]: item["reason"] for item in record.body["omitted"]}
    if m not in outcomes:
        seat = read_all(source, Seat, {"": state.seat_key(a, n, t, m)})[""]
        outcomes[m] = f"sealed out: {seat.reason}" if seat else "not recorded"
    return _contribution(commit, outcomes[m], record.subjects["model"])


def contributions_of(source: Source, member: str, limit: int) -> list[Contribution]:
    """What a member committed, the newest ``limit`` of it (all where it is 0), oldest first."""
    found = source.newest({"kind": "commit", "member": member}, None, limit)
    return [contribution(source, read(source, index)[1]) for index in found]


def first_included(source: Source, member: str) -> dict[str, int]:
    """For each agreement in whose models a member's data is, the first round of which that is so."""
    found = {}
    for agreement in proposals(source):
        own = source.find("commit", member=member, agreement=agreement)
        judged = (contribution(source, read(source, logged.index)[1]) for logged in own)
        first = next((c.round for c in judged if c.outcome == INCLUDED), None)
        if first is not None:
            found[agreement] = first
    return found


def commits_to(source: Source, update: str) -> list[Entry]:
    """The commitments to an update."""
    about = (read(source, index)[1] for index in source.by_subject(update))
    return [entry for entry in about if entry.kind == "commit" and entry.subjects["update"] == update]


def uses(source: Source, first: Mapping[str, int], direct: Container[tuple[str, int]], limit: int) -> list[Use]:
    """The models that have something inside which was included first in these rounds: what taking it back would touch.

    ``direct`` says in which rounds' own sums it is. The newest ``limit`` of them (all where it is 0), oldest first.
    """
    start = dict(first)
    for agreement, proposal in proposals(source).items():  # in order: what goes on from an agreement follows it
        before = producers(source, proposal.subjects["initial-model"])
        touched = any(entry.body["round"] >= start[entry.agreement] for entry in before if entry.agreement in start)
        if touched or proposal.body["continues"] in start:
            start[agreement] = 1
    found = list(islice(_uses_backwards(source, start, direct), limit or None))
    return found[::-1]


def _uses_backwards(source: Source, start: Mapping[str, int], direct: Container[tuple[str, int]]) -> Iterator[Use]:
    for a in [a for a in reversed(proposals(source)) if a in start]:
        head = read_all(source, Head, {"": state.head_key(a)})[""]
        for last in range(head.round if head else 0, start[a] - 1, -_PAGE):
            rounds = range(last, max(last - _PAGE, start[a] - 1), -1)
            results = read_all(source, Result, {str(n): state.result_key(a, n) for n in rounds})
            releases = read_all(source, Release, {str(n): state.release_key(a, n) for n in rounds})
            for n in rounds:
                if (result := results[str(n)]) is not None:
                    yield Use(a, n, result.model, (a, n) in direct, releases[str(n)] is not None)
