# SPDX-License-Identifier: Apache-2.0
"""What every ledger does alike: the same suite runs over each implementation of the port."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaincode import contract, state
from chaincode.entries import open_entry
from chaincode.ledgers import Ledger, Receipt
from chaincode.notes import format_vkey
from identity import canonical
from identity.errors import Rejected
from tests.chaincode.ledgers.hosts import FACTORIES, Clock, accepted, codes
from tests.chaincode.ledgers.stream import LOG_KEY, ORIGIN, START, Stream, digest, person

STREAM = Stream()
WHOLE = STREAM.whole(rounds=2)
IDS = [open_entry(envelope).id for envelope in WHOLE]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=sorted(FACTORIES))
def ledger(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    made = FACTORIES[request.param](tmp_path, clock)
    yield made
    getattr(made, "close", lambda: None)()


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


def test_a_new_ledger_is_empty(ledger: Ledger) -> None:
    assert list(ledger.entries()) == []
    assert ledger.submit([]) == []
    assert ledger.get([]) == {}
    assert ledger.get(["federation", f"entry/{IDS[0]}", "entry/x", "nothing"]) == {
        "federation": None, f"entry/{IDS[0]}": None, "entry/x": None, "nothing": None,
    }  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_entries_are_numbered_from_zero_whatever_the_batches(ledger: Ledger, size: int) -> None:
    outcomes = [o for i in range(0, len(WHOLE), size) for o in ledger.submit(WHOLE[i : i + size])]
    assert accepted(outcomes) == [Receipt(entry, index) for index, entry in enumerate(IDS)]
    check_holds(ledger, WHOLE)


@pytest.mark.parametrize("start", [0, 1, 5, len(WHOLE) - 1, len(WHOLE), len(WHOLE) + 7, -3])
def test_entries_are_read_from_a_start(ledger: Ledger, start: int) -> None:
    accepted(ledger.submit(WHOLE))
    assert list(ledger.entries(start)) == WHOLE[max(start, 0) :]


def test_an_entry_answers_with_its_first_receipt_before_any_clock_is_asked(ledger: Ledger, clock: Clock) -> None:
    first = accepted(ledger.submit(WHOLE))
    clock.now = None
    assert ledger.submit(WHOLE) == first
    assert ledger.submit(WHOLE[::-1]) == first[::-1]
    assert ledger.submit([WHOLE[4], WHOLE[4]]) == [first[4], first[4]]
    check_holds(ledger, WHOLE)


def test_the_same_entry_twice_in_a_batch_gets_one_receipt(ledger: Ledger) -> None:
    outcomes = ledger.submit([WHOLE[0], WHOLE[0], WHOLE[1], WHOLE[0], WHOLE[1]])
    assert [receipt.index for receipt in accepted(outcomes)] == [0, 0, 1, 0, 1]
    check_holds(ledger, WHOLE[:2])


def test_an_entry_is_judged_where_it_stands_in_the_batch(ledger: Ledger) -> None:
    """Refused before what it needs, accepted after it: the same bytes, in one batch."""
    outcomes = ledger.submit([WHOLE[1], WHOLE[0], WHOLE[1]])
    assert codes(outcomes) == ["not-founded", "", ""]
    check_holds(ledger, WHOLE[:2])


@pytest.mark.parametrize(("offset", "code"), [(60, ""), (-60, ""), (61, "clock-skew"), (-61, "clock-skew")])
def test_an_entry_far_from_the_clock_is_refused(ledger: Ledger, clock: Clock, offset: int, code: str) -> None:
    clock.now = START + offset
    assert codes(ledger.submit(WHOLE[:1])) == [code]
    clock.now = START
    accepted(ledger.submit(WHOLE[:1]))
    clock.now = START + offset
    assert codes(ledger.submit(WHOLE[1:2])) == [code]


def test_the_federation_sets_the_skew(ledger: Ledger, clock: Clock) -> None:
    body = {"authority": [STREAM.authority.did], "cosigners": [], "quorum": 0, "skew": 1000}
    amend = STREAM.entry("amend", STREAM.authority, {}, body)
    accepted(ledger.submit([WHOLE[0], amend]))
    clock.now = START + 1000
    accepted(ledger.submit([WHOLE[1]]))
    clock.now = START - 1001
    assert codes(ledger.submit([WHOLE[2]])) == ["clock-skew"]


def test_only_the_ledgers_own_founding_is_accepted(ledger: Ledger) -> None:
    body = {"authority": [STREAM.authority.did], "cosigners": [], "quorum": 0, "skew": 60}
    stranger = format_vkey(ORIGIN, bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"))
    for origin, key in [(ORIGIN, stranger), ("elsewhere.example", format_vkey(ORIGIN, LOG_KEY)), (ORIGIN, None)]:
        found = STREAM.entry(
            "found", STREAM.authority, {"nonce": digest(origin, key)}, {**body, "origin": origin, "log_key": key}
        )
        assert codes(ledger.submit([found])) == ["log-key-mismatch"]
    check_holds(ledger, [])


def test_a_refused_entry_leaves_nothing(ledger: Ledger) -> None:
    accepted(ledger.submit(WHOLE))
    late = STREAM.commit(STREAM.members[0], 2, update=digest("other"))
    stranger = STREAM.admit(person("nobody"), at=START + 3600)
    outcomes = ledger.submit([late, stranger, b"no entry"])
    assert codes(outcomes) == ["round-recorded", "clock-skew", "json-syntax"]
    check_holds(ledger, WHOLE)
    keys = [state.entry_key(open_entry(envelope).id) for envelope in (late, stranger)]
    assert ledger.get(keys) == dict.fromkeys(keys)


def test_refused_entries_in_a_batch_do_not_harm_the_others(ledger: Ledger) -> None:
    """Every second one is refused: for its bytes, its signature, its time, by the contract."""
    bad = [b"", b"{}", forged(WHOLE[0]), STREAM.admit(person("late"), at=START + 61), STREAM.open(7)]
    batch = [e for i, good in enumerate(WHOLE) for e in (bad[i % len(bad)], good)]
    outcomes = ledger.submit(batch)
    assert [receipt.entry for receipt in accepted(outcomes[1::2])] == IDS
    assert "" not in codes(outcomes[::2])
    check_holds(ledger, WHOLE)


def forged(envelope: bytes) -> bytes:
    """The envelope with a signature of nothing."""
    value = canonical.loads(envelope, limit=1 << 21)
    value["signatures"][0]["sig"] = canonical.b64encode(bytes(64))
    return canonical.dumps(value)


def test_outcomes_cross_process_borders(ledger: Ledger) -> None:
    outcomes = ledger.submit([WHOLE[0], b"no entry"])
    first, second = pickle.loads(pickle.dumps(outcomes))
    assert first == outcomes[0]
    assert isinstance(second, Rejected)
    assert (second.code, second.message) == (outcomes[1].code, outcomes[1].message)  # type: ignore[union-attr]


HOSTILE = [
    b"", b"\0", b"\xff" * 100, b"null", b"[]", b"{}", b"[" * 100_000, b'{"payload":' * 10_000, b"9" * 5000,
    b'{"payload":"","payload":""}', WHOLE[0] + b"\n", b" " + WHOLE[0], WHOLE[0][:-1], WHOLE[0].replace(b":", b": ", 1),
    WHOLE[0].replace(b"in-toto", b"in-tot0"), forged(WHOLE[0]), b"x" * (1 << 21),
]  # fmt: skip


@pytest.mark.parametrize("envelope", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bytes_are_refused_with_a_code(ledger: Ledger, envelope: bytes) -> None:
    outcomes = ledger.submit([envelope, WHOLE[0]])
    assert isinstance(outcomes[0], Rejected)
    assert outcomes[0].code
    assert outcomes[0].message
    assert codes(outcomes)[1] == ""
    check_holds(ledger, WHOLE[:1])


def damaged(envelope: bytes) -> st.SearchStrategy[bytes]:
    return st.builds(
        lambda at, cut, piece: envelope[:at] + piece + envelope[at + cut :],
        st.integers(0, len(envelope)), st.integers(0, 20), st.binary(max_size=8),
    )  # fmt: skip


noise = st.one_of(st.binary(max_size=60), *(damaged(e) for e in WHOLE[:4]), st.sampled_from(WHOLE))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.lists(noise, max_size=3)), max_size=6), st.randoms())
def test_any_batches_give_every_ledger_the_same_outcomes_and_state(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[int, list[bytes]]], random: object
) -> None:
    """Pieces of the stream of any length, with noise and repetitions in between."""
    made = [make(tmp_path_factory.mktemp(name), Clock()) for name, make in sorted(FACTORIES.items())]
    done = 0
    for length, disturbance in [*plan, (len(WHOLE), [])]:
        batch = [*WHOLE[done : done + length], *disturbance]
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
        getattr(ledger, "close", lambda: None)()
