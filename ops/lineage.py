# SPDX-License-Identifier: Apache-2.0
"""Where a model comes from: from a recorded round back to its base model, to the round which recorded that, and so on.

The walk goes to the initial model, across agreements that go on from one another. Only the log's entries are believed,
each of them opened and verified; many of them are read and opened together. ``ops.uses`` walks the other way.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from chaincode.entries import Entry
from chaincode.ledgers.search import Place
from identity.errors import EvidenceError, UsageError
from ops import output
from ops.source import Source, next_for, read, read_many

INCLUDED = "included"
_OF_A_ROUND = ("open", "seal", "commit", "record")


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


def agreements(source: Source) -> list[str]:
    """The digests of the agreements that were proposed, in order, without reading what they say."""
    return [place.agreement for place in source.places({"kind": "propose"})][::-1]


def proposals(source: Source) -> dict[str, Entry]:
    """The entries that proposed agreements, by the agreement's digest, in order."""
    entries = (entry for _, entry in read_many(source, source.newest({"kind": "propose"}, None, 0)))
    return {entry.agreement: entry for entry in entries}


def proposal(source: Source, agreement: str) -> tuple[int, Entry]:
    """The entry that proposed an agreement, and where it stands.

    Raises:
        EvidenceError: ``lineage-broken`` where there is none.
    """
    for logged in source.find("propose", agreement=agreement, limit=1):
        return logged.index, read(source, logged.index)[1]
    raise _broken(source, f"No entry proposes agreement {agreement[:12]}.")


def producers(source: Source, model: str) -> list[Entry]:
    """The records of rounds that made a model."""
    about = (entry for _, entry in read_many(source, source.by_subject(model)))
    return [entry for entry in about if entry.kind == "record" and entry.subjects["model"] == model]


def starters(source: Source, model: str) -> dict[str, tuple[int, Entry]]:
    """The proposals of agreements that begin with a model, by the agreement's digest, and where they stand."""
    about = read_many(source, source.by_subject(model))
    return {
        entry.agreement: (logged.index, entry)
        for logged, entry in about
        if entry.kind == "propose" and entry.subjects["initial-model"] == model
    }


def ancestry(source: Source, model: str, limit: int = 0) -> Iterator[Recorded]:
    """The rounds behind a model, the latest first, down to the one that began with an initial model; at most ``limit``
    of them (all where it is 0).

    Raises:
        UsageError: ``model-unknown``. EvidenceError: ``lineage-broken`` where a round's base is not what is recorded.
    """
    seen: set[str] = set()
    for record in _ends(source, model):
        for recorded in _line(source, record, limit - len(seen) if limit else None):
            if recorded.entry in seen:  # another round made the same model, and what is behind both was shown
                break
            seen.add(recorded.entry)
            yield recorded
        if limit and len(seen) == limit:
            return


def length(source: Source, model: str) -> int:
    """How many rounds ``ancestry`` has in all, without reading them. Raises as it does."""
    furthest: dict[str, int] = {}
    waiting = _ends(source, model)
    while waiting:
        record = waiting.pop()
        if record.body["round"] > furthest.get(record.agreement, 0):
            furthest[record.agreement] = record.body["round"]
            _, began = proposal(source, record.agreement)
            before = _handed_on(source, record.agreement, began.subjects["initial-model"])
            waiting += [before] if before else []
    return sum(furthest.values())


def _ends(source: Source, model: str) -> list[Entry]:
    """The records of rounds that made a model, none for one that agreements only began with."""
    records = producers(source, model)
    if not records and not starters(source, model):
        raise UsageError(
            "model-unknown", f"No round recorded the model {model}.", next=next_for(source, "log", "--kind", "record")
        )
    return records


def _line(source: Source, record: Entry, most: int | None) -> Iterator[Recorded]:
    """The rounds from a recorded one down to an initial model that no earlier agreement recorded; at most so many."""
    current: Entry | None = record
    while current is not None and most != 0:
        later, last = None, current.body["round"]
        count = last if most is None else min(last, most)
        for recorded in _rounds_down(source, current.agreement, last, count):
            if later is not None:
                _check_base(source, later, recorded)
            yield recorded
            later = recorded
        if later is None or later.round != last - count + 1:
            raise _broken(source, f"Agreement {current.agreement[:12]} has no record of each round before {last}.")
        most = None if most is None else most - count
        current = _handed_on(source, later.agreement, later.base) if later.round == 1 else None


def _rounds_down(source: Source, agreement: str, last: int, count: int) -> Iterator[Recorded]:
    """The recorded rounds of an agreement, from number ``last`` down, as long as there is one after the other."""
    rounds = range(last, last - count, -1)
    places = (_places(source, agreement, round_) for round_ in rounds)
    entries = (entry for _, entry in read_many(source, (place.index for some in places for place in some)))
    for _, some in groupby(entries, key=lambda entry: entry.body["round"]):
        recorded = _recorded(list(some))
        if recorded is None:
            return
        yield recorded


def _places(source: Source, agreement: str, round_: int) -> list[Place]:
    """Where those entries of a round stand that say what went into its model, in order."""
    found = source.places({"agreement": agreement, "round": round_})
    return [place for place in found if place.kind in _OF_A_ROUND][::-1]


def _check_base(source: Source, later: Recorded, earlier: Recorded) -> None:
    """Refuse a round that does not start from what the round before recorded."""
    if (earlier.round, earlier.model) != (later.round - 1, later.base):
        raise _broken(
            source, f"Round {later.round} starts from model {later.base[:12]}, which the round before did not record."
        )


def _handed_on(source: Source, agreement: str, base: str) -> Entry | None:
    """The record that the base model of an agreement's first round comes from, None where no older agreement recorded it.

    Whether an agreement says that it continues another one does not matter: what is in its initial model is in it. An
    older agreement that recorded no round hands on its own initial model.
    """
    began, entry = proposal(source, agreement)
    if entry.subjects["initial-model"] != base:
        raise _broken(source, f"Round 1 starts from model {base[:12]}, with which its agreement does not begin.")
    found = producers(source, base)
    older = {a for a in {record.agreement for record in found} if proposal(source, a)[0] < began}
    return max((e for e in found if e.agreement in older), key=lambda e: int(e.body["round"]), default=None)


def _broken(source: Source, message: str) -> EvidenceError:
    verify = output.command_line("audit", "verify", *([source.given] if source.given else []))
    return EvidenceError("lineage-broken", message, next=verify)


def _recorded(entries: Sequence[Entry]) -> Recorded | None:
    """A round from its entries, with what was committed in its recorded attempt; None where none is recorded."""
    record = next((entry for entry in reversed(entries) if entry.kind == "record"), None)
    if record is None:
        return None
    body, model = record.body, record.subjects["model"]
    outcomes = outcomes_of(record)
    attempt = [entry for entry in entries if entry.body["attempt"] == body["attempt"]]
    for sealed in (entry for entry in attempt if entry.kind == "seal"):
        outcomes |= {item["member"]: f"sealed out: {item['reason']}" for item in sealed.body["out"]}
    return Recorded(
        record.agreement, body["round"], body["attempt"], record.at, record.id,
        next((entry.subjects["base-model"] for entry in attempt if entry.kind == "open"), ""), model, body["metrics"],
        tuple(contribution(e, outcomes.get(e.member, "not recorded"), model) for e in attempt if e.kind == "commit"),
    )  # fmt: skip


def outcomes_of(record: Entry) -> dict[str, str]:
    """What became of each member of a cohort, from the record of its round."""
    return dict.fromkeys(record.body["included"], INCLUDED) | {
        item["member"]: item["reason"] for item in record.body["omitted"]
    }


def contribution(commit: Entry, outcome: str, model: str) -> Contribution:
    """A commitment whose outcome is known; ``model`` is its round's."""
    return Contribution(
        commit.agreement, commit.body["round"], commit.body["attempt"], commit.member, commit.subjects["update"],
        commit.body["examples"], commit.at, commit.id, outcome, model if outcome == INCLUDED else "",
    )  # fmt: skip
