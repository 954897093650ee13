# SPDX-License-Identifier: Apache-2.0
"""What travels as columns, and as JSON over a line, arrives as what was sent; no bytes of a worker's do anything else."""

import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaincode.evidence import Commitment
from chaincode.header import Header
from chaincode.place import Place
from coordinator.answers import held
from coordinator.pool import Call
from coordinator.ports import Delivery, FinishOrder, Outcome
from coordinator.wire import pack, read_answer, read_call, unpack, write_answer, write_call
from identity.errors import CredentialError, Error, EvidenceError, OutcomeUnknown, Rejected, Unavailable, UsageError
from participant.ports import TrainFailure, TrainOrder, TrainResult

HEADER = Header("f" * 64, "a" * 64, 1, 2, "b" * 64, "did:key:x", "int32", 7, "5" * 64)
ORDER = TrainOrder("site-01", 3, HEADER, "/outbox")
FINISH = FinishOrder({"parties": ["a", "b"], "model": {"é": [1, {"x": None}]}}, 7, "b" * 64, "", 40)
COMMITMENT = Commitment("f" * 64, "a" * 64, 1, 2, "b" * 64, "did:key:x", "d" * 64, 100, 5, "int32", 7)


@pytest.mark.parametrize(
    "argument",
    [
        [ORDER, ORDER], [Delivery(COMMITMENT, Place("/file")), Delivery(COMMITMENT, Place("/pack", 3, 4))],
        FINISH, [], None, (0, 8), "train", {"site": [b"hash"]}, [b"leaf"], 5, ("orders", 1),
    ],
    ids=repr,
)  # fmt: skip
def test_everything_arrives_as_it_was(argument: Any) -> None:
    arrived = unpack(pickle.loads(pickle.dumps(pack(argument))))
    assert arrived == argument
    assert type(arrived) is type(argument)


def test_what_all_orders_say_travels_once() -> None:
    many = [replace(ORDER, site=f"site-{i}", header=replace(HEADER, member=f"did:key:{i}")) for i in range(9)]
    assert unpack(pack(many)) == many
    assert str(pack(many)).count("f" * 64) == 1


def test_columns_hold_no_objects() -> None:
    """Else Ray's serialiser asks Python about each of them, which is what columns are for."""

    def plain(value: Any) -> bool:
        parts = value.values() if type(value) is dict else value
        return all(map(plain, parts)) if type(value) in (list, tuple, dict) else type(value) in (str, int, type(None))

    for argument in ([ORDER], [Delivery(COMMITMENT, Place("/file"))], FINISH):
        assert plain(pack(argument))


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("train", [None, [ORDER, ORDER]]),
        ("aggregate", [[Delivery(COMMITMENT, Place("/file")), Delivery(COMMITMENT, Place("/pack", 3, 4))], FINISH]),
    ],
)
def test_a_light_call_arrives_as_it_was(method: str, arguments: list[Any]) -> None:
    assert read_call(write_call(7, method, arguments)) == (7, method, arguments)


ORDERS = [ORDER, replace(ORDER, site="site-02", header=replace(HEADER, member="did:key:y"))]
DELIVERIES = [Delivery(replace(COMMITMENT, member=member), Place("/file")) for member in ("did:key:x", "did:key:y")]
TRAIN, AGGREGATE = ("train", [None, ORDERS]), ("aggregate", [DELIVERIES, FINISH])
RESULT = TrainResult("site-01", "did:key:x", "d" * 64, 100, 5, {"loss": "0.25"})
FAILURE = TrainFailure("site-02", "did:key:y", "training-failed", 'ValueError: 😀 "quoted"\n')
GOOD = {"did:key:x": "", "did:key:y": ""}
OUTCOME = Outcome("1" * 64, "2" * 64, "", {"loss": "0.5"}, "3" * 64)
ANSWERS: list[tuple[tuple[str, list[Any]], Any]] = [
    (TRAIN, [RESULT, FAILURE]), (TRAIN, [RESULT]), (AGGREGATE, (GOOD, OUTCOME)), (AGGREGATE, (GOOD, None)),
    (AGGREGATE, (GOOD | {"did:key:y": "update-digest"}, None)),
]  # fmt: skip


def called(method: str, arguments: list[Any]) -> Call:
    return Call("a call", method, arguments)


@pytest.mark.parametrize(("call", "answer"), ANSWERS, ids=repr)
def test_an_answer_arrives_as_it_was(call: tuple[str, list[Any]], answer: Any) -> None:
    arrived = held(called(*call), read_answer(write_answer(7, answer), 7))
    assert arrived == answer
    assert type(arrived) is type(answer)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (TRAIN, []), (TRAIN, [FAILURE]), (TRAIN, [FAILURE, RESULT]), (TRAIN, [RESULT, FAILURE, RESULT]),
        (TRAIN, [replace(RESULT, member="did:key:y")]), (TRAIN, (GOOD, None)), (AGGREGATE, [RESULT, FAILURE]),
        (AGGREGATE, ({"did:key:x": ""}, OUTCOME)), (AGGREGATE, (GOOD | {"did:key:z": ""}, None)),
        (AGGREGATE, (GOOD | {"did:key:y": "update-digest"}, OUTCOME)), (("describe", []), [RESULT]),
    ],
    ids=repr,
)  # fmt: skip
def test_an_answer_to_another_call_is_refused(call: tuple[str, list[Any]], answer: Any) -> None:
    assert held(called(*call), read_answer(write_answer(7, answer), 7)).code == "worker-answer"
    assert held(called(*call), answer).code == "worker-answer", "however it travels"


ERRORS = [family("some-code", "It failed.", next="fedledger doctor")
          for family in (Error, EvidenceError, Unavailable, UsageError)]  # fmt: skip


@pytest.mark.parametrize("error", [*ERRORS, UsageError("task-model", "No next.")], ids=repr)
def test_an_error_keeps_its_family(error: Error) -> None:
    arrived = read_answer(write_answer(7, error), 7)
    assert (type(arrived), arrived.code, arrived.message, arrived.next) == (
        type(error), error.code, error.message, error.next,
    )  # fmt: skip


@pytest.mark.parametrize("family", [OutcomeUnknown, Rejected, CredentialError])
def test_a_family_that_no_worker_has_is_an_error_all_the_same(family: type[Error]) -> None:
    assert type(read_answer(write_answer(7, family("some-code")), 7)) is Error


def test_what_is_no_answer_to_a_light_call_is_not_written() -> None:
    with pytest.raises(TypeError, match="float"):
        write_answer(7, 1.5)


_JUNK = st.none() | st.booleans() | st.integers(-1, 200) | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place inside a value: what holds it, and its key."""
    keys = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
    return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]


@given(st.sampled_from(ANSWERS), st.data())
def test_an_answer_with_a_changed_part_is_refused_or_of_the_right_types(one: Any, data: st.DataObject) -> None:
    call, answer = one
    row = json.loads(write_answer(7, answer))
    holder, key = data.draw(st.sampled_from(_places(row)))
    holder[key] = data.draw(_JUNK)
    found = read_answer(json.dumps(row).encode(), 7)
    if isinstance(found, Error):
        return
    for result in found if call is TRAIN else []:
        types = [type(value) for value in (vars(result).values() if isinstance(result, TrainResult) else ())]
        assert types in ([], [str, str, str, int, int, dict])
    assert found == read_answer(write_answer(7, found), 7)


@given(st.binary(max_size=60))
def test_hostile_bytes_are_an_error(data: bytes) -> None:
    assert isinstance(read_answer(data, 7), Error)


@pytest.mark.parametrize(
    "row",
    [
        ["trained", [["site-01", "did:key:x", "d", "100", 5, {}]]], ["trained", [["site-01", "did:key:x", 5, "text"]]],
        ["trained", [["site-01", "did:key:x", "d", 100, 5, {"loss": 0.5}]]], ["trained", [[]]], ["trained", {}],
        ["trained", [["site-01", "did:key:x", "d", True, 5, {}]]], ["trained", [["site-01", "did:key:x", "d", 1, -5, {}]]],
        ["trained"], ["trained", [], 1], ["error", "Error", "code", 5, None], ["error", "Error", "code", "text", 5],
        {}, [], None, "trained",
    ],
    ids=repr,
)  # fmt: skip
def test_an_answer_of_another_form_is_refused(row: Any) -> None:
    assert read_answer(json.dumps([7, row]).encode(), 7).code == "worker-answer"


@pytest.mark.parametrize(
    "row",
    [
        ["aggregated", GOOD | {"did:key:x": None}, None], ["aggregated", GOOD, ["1", "2", "3", {}]], ["aggregated", [], None],
        ["aggregated", GOOD, ["1", "2", "3", {"loss": 1}, "5"]],
    ],
    ids=repr,
)  # fmt: skip
def test_verdicts_of_another_form_are_refused(row: Any) -> None:
    assert read_answer(json.dumps([7, row]).encode(), 7).code == "worker-answer"


def test_an_answer_that_is_nested_without_end_is_refused() -> None:
    assert read_answer(b"[" * 1_000_000, 7).code == "worker-answer"


@pytest.mark.parametrize("number", [6, 8, -7])
def test_an_answer_to_the_call_before_is_refused(number: int) -> None:
    assert read_answer(write_answer(number, [RESULT]), 7).code == "worker-answer"
    assert read_answer(json.dumps(["trained", []]).encode(), 7).code == "worker-answer"
