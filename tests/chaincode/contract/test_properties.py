# SPDX-License-Identifier: Apache-2.0
"""What holds for whatever entries come: the contract is a pure function of the keys that it names, and rounds never skip."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode import contract, state
from chaincode.entries import Entry, open_entry
from chaincode.state import Head
from chaincode.views import Encoded, WholeView, encode_all
from identity.errors import EvidenceError, Rejected
from tests.chaincode.contract.agreements import COMMIT, DELIVER, RECORD, digest
from tests.chaincode.contract.world import World, key

SITES = (1, 2, 3)


class Act(NamedTuple):
    """One attempt: a verb by someone some seconds later, with a twist that may make it invalid."""

    verb: str
    who: int | str
    later: int
    twist: str


ROUND_VERBS = ("open", "commit", "commit", "commit", "decline", "seal", "claim", "record", "abort")
OTHER_VERBS = (
    "admit",
    "revoke",
    "rotate",
    "lose_key",
    "sign",
    "withdraw",
    "propose",
    "continue",
    "release",
    "attest",
    "amend",
)
TWISTS: dict[str, dict[str, Any]] = {
    "none": {}, "earlier": {"at": 1_800_000_000}, "next round": {"round": 2}, "next attempt": {"attempt": 2}, "other digest": {"update": digest("x")},
    "other model": {"model": digest("x")}, "other base": {"base_model": digest("x")}, "no roster": {"roster": []}, "no cohort": {"cohort": []},
    "nobody": {"included": [], "examples": 0}, "heavy": {"examples": 1000}, "stranger": {"signer": key("stranger")},
    "site": {"by": 2}, "elsewhere": {"federation": digest("x")}, "no agreement": {"agreement": digest("x")}, "disputes": {"verdict": "disputes"},
}  # fmt: skip
ACTS = st.builds(
    Act,
    st.sampled_from(ROUND_VERBS * 3 + OTHER_VERBS),
    st.sampled_from([1, 2, 3, 4, "coordinator", "auditor"]),
    st.sampled_from([0, 0, 0, 1, 1, COMMIT + 1, DELIVER + 1, RECORD + DELIVER + COMMIT + 3]),
    st.sampled_from(["none"] * 12 + list(TWISTS)),
)
# A stage plays a phase as it should be, so that histories come far; between them anything may be tried.
STAGES = st.builds(
    Act,
    st.sampled_from(["opened", "committed", "committed", "sealed", "recorded", "recorded"]),
    st.just(1),
    st.just(0),
    st.just("none"),
)
HISTORIES = st.lists(STAGES | ACTS, min_size=8, max_size=30)


@cache
def beginning() -> World:
    """An agreed federation with room for a few attempts."""
    return World(rounds=3, attempts=4, min_participants=1).agreed()


def act(world: World, step: Act) -> None:
    """Try one step; a field that the kind does not have, or an impossible value, is no entry at all."""
    world.wait(step.later)
    twist = TWISTS[step.twist]
    match step.verb:
        case "open" | "seal" | "record" | "amend":
            getattr(world, step.verb)(**twist)
        case "propose":
            world.propose(terms={"title": f"At {world.now}"}, **twist)
        case "continue":
            world.propose(
                continues=world.digest, terms={"title": "Newer", "model": {"initial": world.head.base}}, **twist
            )
        case "release":
            world.release(1, **twist)
        case "attest":
            world.attest(step.who, 1, **twist)
        case "opened" | "committed" | "sealed" | "recorded":
            getattr(world, step.verb)()
        case verb:
            getattr(world, verb)(step.who, **twist)


def lived(history: Sequence[Act]) -> World:
    """The world after a history in which everything may be refused, and nothing may fail in another way."""
    world = beginning().fork()
    for step in history:
        with suppress(Rejected, EvidenceError):
            act(world, step)
    return world


def read(values: dict[str, bytes], entries: Sequence[Entry]) -> dict[str, bytes | None]:
    return {name: values.get(name) for name in contract.keys_of(entries)}


def on_the_whole(state_: dict[str, bytes], entry: Entry) -> dict[str, bytes] | str:
    """The writes, or the refusal, where no key is declared."""
    try:
        return encode_all(contract.judge(entry, WholeView(state_)))
    except Rejected as refused:
        return str(refused)


@settings(deadline=None)
@given(HISTORIES)
def test_replay_from_nothing_gives_the_same_bytes(history: list[Act]) -> None:
    world = lived(history)
    again: dict[str, bytes] = {}
    held: dict[str, Any] = {}  # as an auditor does it: nothing is written as bytes before the end
    for entry in map(open_entry, world.envelopes):
        again.update(contract.apply(entry, read(again, [entry])))
        held.update(contract.judge(entry, WholeView(held)))
    assert again == Encoded(held) == encode_all(held) == world.values


@settings(deadline=None)
@given(HISTORIES, st.data())
def test_a_batch_is_its_entries_one_by_one(history: list[Act], data: st.DataObject) -> None:
    """Batches cut anywhere, with refused entries among them, mean the same as single entries."""
    world = lived(history)
    entries = data.draw(st.permutations(world.entries[7:])) + world.entries[:3]
    one_by_one, outcomes = dict(beginning().values), []
    for entry in entries:
        refused, writes = contract.apply_all([entry], read(one_by_one, [entry]))
        assert on_the_whole(one_by_one, entry) == (writes if refused == [None] else str(refused[0]))
        one_by_one.update(writes)
        outcomes += refused
    values, held, written = dict(beginning().values), dict[str, Any](beginning().values), dict[str, bytes]()
    cut, together, on_whole = data.draw(st.integers(0, len(entries))), list[Rejected | None](), list[Rejected | None]()
    for batch in (entries[:cut], entries[cut:]):
        refused, writes = contract.apply_all(batch, read(values, batch))
        values.update(writes)
        together += refused
        refused, writes = contract.apply_whole(batch, held)
        written.update(writes)
        on_whole += refused
    assert values == one_by_one
    assert Encoded(held) == beginning().values | written == one_by_one
    assert [str(r) for r in together] == [str(r) for r in on_whole] == [str(r) for r in outcomes]


@settings(deadline=None)
@given(HISTORIES)
def test_an_entry_reads_and_writes_its_own_keys_alone(history: list[Act]) -> None:
    world = lived(history)
    values: dict[str, bytes] = {}
    for entry in world.entries:
        # A key that is not given cannot be read: it would raise KeyError. And keys are those of the entry alone.
        given_values = read(values, [entry])
        before = dict(given_values)
        writes = contract.apply(entry, given_values)
        assert given_values == before
        assert writes.keys() <= contract.keys(entry) == contract.keys(open_entry(entry.envelope))
        assert writes == contract.apply(entry, given_values)
        assert state.entry_key(entry.id) in writes
        values.update(writes)


@settings(deadline=None)
@given(HISTORIES, ACTS)
def test_what_is_refused_changes_nothing(history: list[Act], step: Act) -> None:
    world = lived(history)
    before = dict(world.values), len(world.entries)
    with suppress(EvidenceError):
        try:
            act(world, step)
        except Rejected:
            assert (world.values, len(world.entries)) == before
        else:
            assert len(world.entries) == before[1] + 1


@settings(deadline=None)
@given(HISTORIES)
def test_an_accepted_entry_is_refused_as_a_duplicate_ever_after(history: list[Act]) -> None:
    world = lived(history)
    refused, writes = contract.apply_all(world.entries, read(world.values, world.entries))
    assert writes == {}
    assert {r.code for r in refused if r} == {"duplicate-entry"}
    assert None not in refused


# Sites side by side


@settings(deadline=None)
@given(st.permutations(SITES), st.permutations(SITES), st.permutations(SITES), st.data())
def test_what_sites_do_in_one_phase_commutes(
    signing: list[int], committing: list[int], claiming: list[int], data: st.DataObject
) -> None:
    declines = data.draw(st.sets(st.sampled_from(SITES), max_size=1))

    def play(signs: Sequence[int], commits: Sequence[int], claims: Sequence[int]) -> dict[str, bytes]:
        world = World().proposed()
        for who in signs:
            world.sign(who)
        world.wait(1).open()
        for who in commits:
            world.decline(who) if who in declines else world.commit(who)
        world.wait(1).seal()
        for who in claims:
            if who not in declines:
                world.claim(who)
        world.record()
        for who in signs:
            world.attest(who)
        return world.values

    assert play(signing, committing, claiming) == play(SITES, SITES, SITES)


def test_two_commitments_share_no_key_that_either_writes() -> None:
    world = World().opened().commit(1).commit(2)
    first, second = world.entries[-2:]
    writes = [contract.apply(e, read(World().opened().values, [e])).keys() for e in (first, second)]
    assert not writes[0] & contract.keys(second)
    assert not writes[1] & contract.keys(first)


# The head


FOLLOWS = {
    "proposed": {"open", "closed"}, "open": {"sealed", "aborted"}, "sealed": {"recorded", "aborted"},
    "recorded": {"open", "closed"}, "aborted": {"open", "closed"}, "closed": set[str](),
}  # fmt: skip


def check_step(old: Head, new: Head) -> None:
    """A model of the head, told anew: each step is a next one, time does not run back, and budget does not return."""
    assert new.state in FOLLOWS[old.state], (old, new)
    place, before = (new.round, new.attempt), (old.round, old.attempt)
    if new.state == "open":
        assert place == ((old.round, old.attempt + 1) if old.state == "aborted" else (old.round + 1, 1))
        assert new.commit_by == new.at + COMMIT
    else:
        assert place == before
    if new.state == "sealed":
        assert 1 <= new.cohort <= old.roster
        assert new.deliver_by == new.at + DELIVER
    assert (new.base == old.base) or new.state == "recorded"
    assert new.at >= old.at
    assert new.spent >= old.spent


@settings(deadline=None, max_examples=200)
@given(HISTORIES)
def test_rounds_never_skip(history: list[Act]) -> None:
    world = lived(history)
    values: dict[str, bytes] = {}
    for entry in world.entries:
        writes = contract.apply(entry, read(values, [entry]))
        for name in (k for k in writes if k.startswith("head/") and k in values):
            check_step(state.decode(Head, values[name]), state.decode(Head, writes[name]))
        values.update(writes)


@settings(deadline=None, max_examples=200)
@given(HISTORIES)
def test_every_result_stands_on_a_sealed_cohort_of_committed_seats(history: list[Act]) -> None:
    """R2, from the outside: what was recorded is the cohort, the cohort was committed, and each weight is in the sum."""
    world = lived(history)
    for entry in (e for e in world.entries if e.kind == "record"):
        place = (entry.agreement, entry.body["round"], entry.body["attempt"])
        same = [e for e in world.entries if (e.agreement, e.body.get("round"), e.body.get("attempt")) == place]
        by_kind = {
            kind: [e for e in same if e.kind == kind]
            for kind in ("open", "commit", "decline", "seal", "record", "abort")
        }
        assert [len(by_kind[k]) for k in ("open", "seal", "record", "abort")] == [1, 1, 1, 0]
        weights = {e.member: e.body["examples"] for e in by_kind["commit"]}
        cohort = set(by_kind["seal"][0].body["cohort"])
        assert set(entry.body["included"]) | {o["member"] for o in entry.body["omitted"]} == cohort <= weights.keys()
        assert entry.body["examples"] == sum(weights[m] for m in entry.body["included"])
        assert weights.keys() | {e.member for e in by_kind["decline"]} <= set(by_kind["open"][0].body["roster"])


def test_histories_reach_far_enough_to_mean_something() -> None:
    """The plainest history records rounds; so the random ones are of the right kind."""
    plain = [
        Act("open", 1, 1, "none"),
        *(Act("commit", who, 0, "none") for who in SITES),
        Act("seal", 1, 1, "none"),
        Act("record", 1, 1, "none"),
    ]
    assert lived(plain * 3).head.round == 3
