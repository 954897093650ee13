# SPDX-License-Identifier: Apache-2.0
"""What every ledger does alike: the same suite runs over each implementation of the port."""

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaincode import contract, log, state
from chaincode.entries import open_entry
from chaincode.ledgers import Ledger, Receipt
from identity import canonical
from identity.errors import Rejected
from tests.chaincode.ledgers.fabric.hosts import FABRIC_WHOLE, HOSTS, NETWORK, Hosted, all_alike, on_network
from tests.chaincode.ledgers.hosts import accepted, codes
from tests.chaincode.ledgers.stream import digest, person

LENGTH = len(FABRIC_WHOLE)


@pytest.fixture(params=[*sorted(HOSTS), NETWORK])
def hosted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hosted]:
    """A fresh ledger of each kind, with the entries that it accepts."""
    real = (
        on_network(request.getfixturevalue("real_network"))
        if request.param == NETWORK
        else HOSTS[request.param](tmp_path)
    )
    with real as made:
        yield made


def replayed(envelopes: list[bytes]) -> dict[str, bytes | None]:
    """The state that the contract makes of the entries, with every key that it ever looked at."""
    values: dict[str, bytes | None] = {}
    for envelope in envelopes:
        entry = open_entry(envelope)
        values.update({key: values.get(key) for key in contract.keys(entry)})
        values.update(contract.apply(entry, {key: values[key] for key in contract.keys(entry)}))
    return values


def check_holds(ledger: Ledger, envelopes: list[bytes]) -> None:
    """The ledger holds exactly these entries and the state that follows from them."""
    assert list(ledger.entries()) == envelopes
    expected = replayed(envelopes)
    assert ledger.get(expected.keys()) == expected


def test_a_new_ledger_is_empty(hosted: Hosted) -> None:
    ledger, entry = hosted.ledger, hosted.ids[0]
    assert list(ledger.entries()) == []
    assert ledger.submit([]) == []
    assert ledger.get([]) == {}
    assert ledger.get(["federation", f"entry/{entry}", "entry/x", "nothing"]) == {
        "federation": None, f"entry/{entry}": None, "entry/x": None, "nothing": None,
    }  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_entries_are_numbered_from_zero_whatever_the_batches(hosted: Hosted, size: int) -> None:
    ledger, whole = hosted.ledger, hosted.whole
    outcomes = [o for i in range(0, len(whole), size) for o in ledger.submit(whole[i : i + size])]
    assert accepted(outcomes) == [Receipt(entry, index) for index, entry in enumerate(hosted.ids)]
    check_holds(ledger, whole)


@pytest.mark.parametrize("start", [0, 1, 5, LENGTH - 1, LENGTH, LENGTH + 7, -3])
def test_entries_are_read_from_a_start(hosted: Hosted, start: int) -> None:
    accepted(hosted.ledger.submit(hosted.whole))
    assert list(hosted.ledger.entries(start)) == hosted.whole[max(start, 0) :]


def test_an_entry_answers_with_its_first_receipt_before_any_clock_is_asked(hosted: Hosted) -> None:
    ledger, whole = hosted.ledger, hosted.whole
    first = accepted(ledger.submit(whole))
    hosted.clock.now = None
    assert ledger.submit(whole) == first
    assert ledger.submit(whole[::-1]) == first[::-1]
    assert ledger.submit([whole[4], whole[4]]) == [first[4], first[4]]
    hosted.clock.now = hosted.stream.at
    check_holds(ledger, whole)


def test_the_same_entry_twice_in_a_batch_gets_one_receipt(hosted: Hosted) -> None:
    ledger, whole = hosted.ledger, hosted.whole
    outcomes = ledger.submit([whole[0], whole[0], whole[1], whole[0], whole[1]])
    assert [receipt.index for receipt in accepted(outcomes)] == [0, 0, 1, 0, 1]
    check_holds(ledger, whole[:2])


def test_an_entry_is_judged_where_it_stands_in_the_batch(hosted: Hosted) -> None:
    """Refused before what it needs, accepted after it: the same bytes, in one batch."""
    ledger, whole = hosted.ledger, hosted.whole
    outcomes = ledger.submit([whole[1], whole[0], whole[1]])
    assert codes(outcomes) == ["not-founded", "", ""]
    check_holds(ledger, whole[:2])


@pytest.mark.parametrize(("offset", "code"), [(60, ""), (-60, ""), (61, "clock-skew"), (-61, "clock-skew")])
def test_an_entry_far_from_the_clock_is_refused(hosted: Hosted, offset: int, code: str) -> None:
    ledger, whole, clock, at = hosted.ledger, hosted.whole, hosted.clock, hosted.stream.at
    clock.now = at + offset
    assert codes(ledger.submit(whole[:1])) == [code]
    clock.now = at
    accepted(ledger.submit(whole[:1]))
    clock.now = at + offset
    assert codes(ledger.submit(whole[1:2])) == [code]


def test_the_federation_sets_the_skew(hosted: Hosted) -> None:
    ledger, whole, stream, clock = hosted.ledger, hosted.whole, hosted.stream, hosted.clock
    body = {"authority": [stream.authority.did], "cosigners": [], "quorum": 0, "skew": 90}
    amend = stream.entry("amend", stream.authority, {}, body)
    accepted(ledger.submit([whole[0], amend]))
    clock.now = stream.at + 90
    accepted(ledger.submit([whole[1]]))
    clock.now = stream.at - 91
    assert codes(ledger.submit([whole[2]])) == ["clock-skew"]


def test_only_the_ledgers_own_founding_is_accepted(hosted: Hosted) -> None:
    stream = hosted.stream
    body = {"authority": [stream.authority.did], "cosigners": [], "quorum": 0, "skew": 60}
    for origin, key in hosted.strangers:
        stated = {**body, "origin": origin, "log_key": key}
        found = stream.entry("found", stream.authority, {"nonce": digest(origin, key)}, stated)
        assert codes(hosted.ledger.submit([found])) == ["log-key-mismatch"]
    check_holds(hosted.ledger, [])


def test_a_refused_entry_leaves_nothing(hosted: Hosted) -> None:
    ledger, whole, stream = hosted.ledger, hosted.whole, hosted.stream
    accepted(ledger.submit(whole))
    late = stream.commit(stream.members[0], 2, update=digest("other"))
    stranger = stream.admit(person("nobody"), at=stream.at + 3600)
    outcomes = ledger.submit([late, stranger, b"no entry"])
    assert codes(outcomes) == ["round-recorded", "clock-skew", "json-syntax"]
    check_holds(ledger, whole)
    keys = [state.entry_key(open_entry(envelope).id) for envelope in (late, stranger)]
    assert ledger.get(keys) == dict.fromkeys(keys)


def test_refused_entries_in_a_batch_do_not_harm_the_others(hosted: Hosted) -> None:
    """Every second one is refused: for its bytes, its signature, its time, by the contract."""
    whole, stream = hosted.whole, hosted.stream
    bad = [b"", b"{}", forged(whole[0]), stream.admit(person("late"), at=stream.at + 61), stream.open(7)]
    batch = [e for i, good in enumerate(whole) for e in (bad[i % len(bad)], good)]
    outcomes = hosted.ledger.submit(batch)
    assert [receipt.entry for receipt in accepted(outcomes[1::2])] == hosted.ids
    assert "" not in codes(outcomes[::2])
    check_holds(hosted.ledger, whole)


def forged(envelope: bytes) -> bytes:
    """The envelope with a signature of nothing."""
    value = canonical.loads(envelope, limit=1 << 21)
    value["signatures"][0]["sig"] = canonical.b64encode(bytes(64))
    return canonical.dumps(value)


def test_outcomes_cross_process_borders(hosted: Hosted) -> None:
    outcomes = hosted.ledger.submit([hosted.whole[0], b"no entry"])
    first, second = pickle.loads(pickle.dumps(outcomes))
    assert first == outcomes[0]
    assert isinstance(second, Rejected)
    assert (second.code, second.message) == (outcomes[1].code, outcomes[1].message)  # type: ignore[union-attr]


HOSTILE: list[Callable[[bytes], bytes]] = [
    *(lambda _, b=b: b for b in (  # type: ignore[misc]
        b"", b"\0", b"\xff" * 100, b"null", b"[]", b"{}", b"[" * 100_000, b'{"payload":' * 10_000, b"9" * 5000,
        b'{"payload":"","payload":""}', b"x" * (1 << 21),
    )),
    lambda e: e + b"\n", lambda e: b" " + e, lambda e: e[:-1], lambda e: e.replace(b":", b": ", 1),
    lambda e: e.replace(b"in-toto", b"in-tot0"), forged,
]  # fmt: skip


@pytest.mark.parametrize("made_of", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bytes_are_refused_with_a_code(hosted: Hosted, made_of: Callable[[bytes], bytes]) -> None:
    outcomes = hosted.ledger.submit([made_of(hosted.whole[0]), hosted.whole[0]])
    assert isinstance(outcomes[0], Rejected)
    assert outcomes[0].code
    assert outcomes[0].message
    assert codes(outcomes)[1] == ""
    check_holds(hosted.ledger, hosted.whole[:1])


def test_the_same_entries_give_the_same_state_and_the_same_root_on_every_ledger(tmp_path: Path) -> None:
    with all_alike(tmp_path) as ledgers:
        for ledger in ledgers:
            accepted(ledger.submit(FABRIC_WHOLE))
        keys = replayed(FABRIC_WHOLE).keys()
        roots = [log.root([log.leaf_hash(envelope) for envelope in ledger.entries()]) for ledger in ledgers]
        assert roots == [log.root([log.leaf_hash(envelope) for envelope in FABRIC_WHOLE])] * len(ledgers)
        assert all(ledger.get(keys) == ledgers[0].get(keys) for ledger in ledgers)


def damaged(envelope: bytes) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda at, cut, piece: envelope[:at] + piece + envelope[at + cut :],
        st.integers(0, len(envelope)), st.integers(0, 20), st.binary(max_size=8),
    )  # fmt: skip


noise = st.one_of(st.binary(max_size=60), *(damaged(e) for e in FABRIC_WHOLE[:4]), st.sampled_from(FABRIC_WHOLE))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.lists(noise, max_size=3)), max_size=6), st.randoms())
def test_any_batches_give_every_ledger_the_same_outcomes_and_state(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[int, list[bytes]]], random: object
) -> None:
    """Pieces of the stream of any length, with noise and repetitions in between."""
    with all_alike(tmp_path_factory.mktemp("alike")) as made:
        done = 0
        for length, disturbance in [*plan, (LENGTH, [])]:
            batch = [*FABRIC_WHOLE[done : done + length], *disturbance]
            random.shuffle(batch)  # type: ignore[attr-defined]
            outcomes = [ledger.submit(batch) for ledger in made]
            assert all(codes(o) == codes(outcomes[0]) for o in outcomes)
            assert all(
                [r for r in o if isinstance(r, Receipt)] == accepted([r for r in outcomes[0] if isinstance(r, Receipt)])
                for o in outcomes
            )
            done += length
        held = list(made[0].entries())
        for ledger in made:
            check_holds(ledger, held)
