# SPDX-License-Identifier: Apache-2.0
"""What travels as rows, and as JSON over a line, arrives as what was sent; no bytes of a worker's do anything else."""

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaincode.blobs import Header
from chaincode.evidence import Commitment
from chaincode.place import Place
from coordinator.ports import Delivery, FinishOrder, Outcome
from coordinator.wire import pack, read_answer, read_call, unpack, write_answer, write_call
from identity.errors import CredentialError, Error, EvidenceError, OutcomeUnknown, Rejected, Unavailable, UsageError
from participant.ports import TrainFailure, TrainOrder, TrainResult

HEADER = Header("f" * 64, "a" * 64, 1, 2, "b" * 64, "did:key:x", "int32", 7, "5" * 64)
ORDER = TrainOrder("site-01", 3, HEADER, "/outbox")
COMMITMENT = Commitment("f" * 64, "a" * 64, 1, 2, "b" * 64, "did:key:x", "d" * 64, 100, 5, "int32", 7)


@pytest.mark.parametrize(
    "argument",
    [
        [ORDER, ORDER], [Delivery(COMMITMENT, Place("/file")), Delivery(COMMITMENT, Place("/pack", 3, 4))],
        [], None, (0, 8), "train", {"site": [b"hash"]}, [b"leaf"], 5, ("orders", 1),
    ],
    ids=repr,
)  # fmt: skip
def test_everything_arrives_as_it_was(argument: Any) -> None:
    arrived = unpack(pickle.loads(pickle.dumps(pack(argument))))
    assert arrived == argument
    assert type(arrived) is type(argument)


def test_rows_hold_no_objects() -> None:
    """Else Ray's serialiser asks Python about each of them, which is what rows are for."""

    def plain(value: Any) -> bool:
        return all(map(plain, value)) if type(value) in (list, tuple) else type(value) in (str, int)

    for argument in ([ORDER], [Delivery(COMMITMENT, Place("/file"))]):
        assert plain(pack(argument))


FINISH = FinishOrder({"parties": ["a", "b"], "model": {"é": [1, {"x": None}]}}, 7, "b" * 64, "", 40)
OUTCOME = Outcome("1" * 64, "2" * 64, "", {"loss": "0.5"}, "3" * 64)
RESULT = TrainResult("site-01", "did:key:x", "d" * 64, 100, 5, {"loss": "0.25"})
FAILURE = TrainFailure("site-02", "did:key:y", "training-failed", 'ValueError: 😀 "quoted"\n')


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("train", [None, [ORDER, ORDER]]),
        ("aggregate", [[Delivery(COMMITMENT, Place("/file")), Delivery(COMMITMENT, Place("/pack", 3, 4))], FINISH]),
    ],
)
def test_a_light_call_arrives_as_it_was(method: str, arguments: list[Any]) -> None:
    assert read_call(write_call(method, arguments)) == (method, arguments)


ERRORS = [family("some-code", "It failed.", next="fedledger doctor")
          for family in (Error, Rejected, EvidenceError, CredentialError, Unavailable, UsageError)]  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [[], [RESULT, FAILURE], ({}, None), ({"did:key:x": "", "did:key:y": "update-digest"}, None), ({"m": ""}, OUTCOME)],
    ids=repr,
)
def test_an_answer_arrives_as_it_was(answer: Any) -> None:
    arrived = read_answer(write_answer(answer))
    assert arrived == answer
    assert type(arrived) is type(answer)


@pytest.mark.parametrize("error", [*ERRORS, UsageError("task-model", "No next.")], ids=repr)
def test_an_error_keeps_its_family(error: Error) -> None:
    arrived = read_answer(write_answer(error))
    assert (type(arrived), arrived.code, arrived.message, arrived.next) == (
        type(error), error.code, error.message, error.next,
    )  # fmt: skip


def test_a_family_that_is_not_known_is_an_error_all_the_same() -> None:
    assert type(read_answer(write_answer(OutcomeUnknown("some-code")))) is Error


def test_what_is_no_answer_to_a_light_call_is_not_written() -> None:
    with pytest.raises(TypeError, match="float"):
        write_answer(1.5)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["trained", "aggregated", "error"]),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=12,
)


@given(st.binary(max_size=60) | _JSON.map(lambda value: json.dumps(value).encode()))
def test_a_hostile_answer_is_an_error_or_plain_values(data: bytes) -> None:
    answer = read_answer(data)
    assert isinstance(answer, (Error, list, tuple))
    if not isinstance(answer, Error):
        assert answer == read_answer(write_answer(answer))


@pytest.mark.parametrize(
    "row",
    [
        ["trained", [["s", "m", "d", "100", 5, {}]]], ["trained", [["s", "m", "d", 100, 5, {"loss": 0.5}]]],
        ["trained", [["s", "m", 5, "text"]]], ["trained", [[]]], ["trained", {}], ["trained"], ["trained", [], 1],
        ["aggregated", {"m": None}, None], ["aggregated", {}, ["1", "2", "3", {}]],
        ["aggregated", {}, ["1", "2", "3", {"loss": 1}, "5"]], ["aggregated", [], None],
        ["error", "Error", "code", 5, None], ["error", "Error", "code", "text", 5], {}, [], None, "trained",
    ],
    ids=repr,
)  # fmt: skip
def test_an_answer_of_another_form_is_refused(row: Any) -> None:
    assert read_answer(json.dumps(row).encode()).code == "worker-answer"


def test_an_answer_that_is_nested_without_end_is_refused() -> None:
    assert read_answer(b"[" * 1_000_000).code == "worker-answer"
