# SPDX-License-Identifier: Apache-2.0
"""The state: values that are read as they were written and nothing else, and keys that cannot be taken for each other."""

from itertools import product
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode import state
from chaincode.views import View, encode_all
from identity import canonical
from identity.errors import EvidenceError
from tests.chaincode.contract.agreements import digest
from tests.chaincode.contract.world import World, key

CLASSES = [
    state.Present, state.Federation, state.Member, state.DidOwner, state.Terms, state.Party, state.Head, state.Seat,
    state.Result, state.Release, state.Attestation,
]  # fmt: skip
EXAMPLES: dict[Any, Any] = {str: "text", int: 7, bool: True, tuple[str, ...]: ("a", "b")}


def example(cls: Any) -> Any:
    return cls(**{name: EXAMPLES[hint] for name, hint in get_type_hints(cls).items()})


@pytest.mark.parametrize("cls", CLASSES)
def test_a_value_reads_as_it_was_written(cls: Any) -> None:
    value = example(cls)
    assert state.decode(cls, state.encode(value)) == value
    assert canonical.loads(state.encode(value)).keys() == get_type_hints(cls).keys()


@pytest.mark.parametrize("cls", CLASSES)
def test_bytes_of_another_value_are_refused(cls: Any) -> None:
    plain = canonical.loads(state.encode(example(cls)))
    others: list[Any] = [
        [],
        None,
        {},
        {**plain, "more": 1},
        *({n: v for n, v in plain.items() if n != name} for name in plain),
    ]
    wrongs: list[Any] = [None, {}, 1, "x", False, []]
    others += [{**plain, name: wrong} for name, wrong in product(plain, wrongs) if type(wrong) is not type(plain[name])]
    for other in others:
        with pytest.raises(EvidenceError, match="state-malformed"):
            state.decode(cls, canonical.dumps(other))


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_refused_as_evidence(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        state.decode(state.Head, data)


# Keys


AGREEMENTS, MEMBERS, NUMBERS = [digest("a"), digest("b")], [key("a").did, key("b").did], [1, 11, 111]


def test_no_two_facts_share_a_key() -> None:
    keys = [state.FEDERATION]
    keys += [make(d) for make in (state.entry_key, state.terms_key, state.head_key) for d in AGREEMENTS]
    keys += [make(m) for make in (state.member_key, state.did_key) for m in MEMBERS]
    keys += [state.party_key(*at) for at in product(AGREEMENTS, MEMBERS)]
    keys += [state.seat_key(*at) for at in product(AGREEMENTS, NUMBERS, NUMBERS, MEMBERS)]
    keys += [make(*at) for make in (state.result_key, state.release_key) for at in product(AGREEMENTS, NUMBERS)]
    keys += [state.attest_key(*at) for at in product(AGREEMENTS, NUMBERS, MEMBERS)]
    assert len(set(keys)) == len(keys)
    # Every part is hex, a DID or a number: none can hold the separator, so a key has one reading.
    assert all(part and ("/" not in part) for k in keys for part in k.split("/"))
    assert {k.split("/")[0] for k in keys} == KINDS_OF_FACTS


KINDS_OF_FACTS = {
    "federation",
    "entry",
    "member",
    "did",
    "terms",
    "party",
    "head",
    "seat",
    "result",
    "release",
    "attest",
}


def test_a_world_holds_nothing_else() -> None:
    world = World().recorded().attest(1).release()
    assert {k.split("/")[0] for k in world.values} == KINDS_OF_FACTS


# The view of one entry


def test_a_view_gives_no_key_that_was_not_declared() -> None:
    view = View({"a": None})
    assert view.get(state.Party, "a") is None
    with pytest.raises(KeyError):
        view.get(state.Party, "b")
    with pytest.raises(KeyError):
        view.put("b", state.Party("signed"))
    view.put("a", state.Party("signed"))
    assert encode_all(view.writes) == {"a": b'{"state":"signed"}'}
