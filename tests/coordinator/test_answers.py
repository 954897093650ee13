# SPDX-License-Identifier: Apache-2.0
"""Answers of a worker whose code lies: each is held against its call and bounded, also where Ray brought it as an object.

Small calls and their answers are in ``test_wire``.
"""

from dataclasses import replace
from typing import Any

import pytest

from chaincode.evidence import ShardEvidence
from coordinator.answers import CODE_LIMIT, TEXT_LIMIT, held
from coordinator.pool import Call
from coordinator.ports import FinishOrder, Outcome
from identity.errors import CredentialError, Error, EvidenceError, Rejected, Unavailable, UsageError
from participant.ports import TrainFailure
from tests.coordinator.scripted_pool import delivery, order, result

ONE, TWO = "did:key:site-01", "did:key:site-02"
DELIVERIES = [delivery("site-01"), delivery("site-02")]
ORDER = FinishOrder({}, 1, "b" * 64, "", 20)
OUTCOME = Outcome("1" * 64, "2" * 64, "", {"loss": "0.5"}, "")
EVIDENCE = [ShardEvidence(ONE, "", 0, (bytes(32),)), ShardEvidence(TWO, "update-header", 0, ())]

TRAIN = Call("", "train", (None, [order("site-01"), order("site-02")]))
SUM = Call("", "sum", (DELIVERIES,))
SHARD = Call("", "sum_shard", (DELIVERIES, (0, 2)))
LEAVES = Call("", "finish_shard", (ORDER, None, DELIVERIES, (0, 2), {}))
FINISH = Call("", "finish", (ORDER, None))
ALONE = Call("", "train_alone", ("site-01", 2))

GOOD: list[tuple[Call, Any]] = [
    (TRAIN, [result("site-01"), TrainFailure("site-02", TWO, "training-failed", "x")]), (TRAIN, [result("site-01")]),
    (SUM, {ONE: "", TWO: "update-digest"}), (SHARD, EVIDENCE), (LEAVES, (bytes(32), bytes(32))), (FINISH, OUTCOME),
    (ALONE, {"loss": "0.5"}),
]  # fmt: skip
FIRST = result("site-01")
BAD: list[tuple[Call, Any]] = [
    (TRAIN, [5]), (TRAIN, None), (TRAIN, [result("site-02")]), (TRAIN, [FIRST, result("site-03")]), (TRAIN, []),
    (TRAIN, [FIRST, result("site-02"), result("site-03")]),
    *((TRAIN, [replace(FIRST, **change)]) for change in (
        {"digest": "zz"}, {"digest": "../keys/keystore.json"}, {"size": 0}, {"size": 10**30}, {"size": "100"}, {"size": True},
        {"examples": -1}, {"examples": 2**53}, {"metrics": {"loss": "NaN"}}, {"metrics": {"loss": 0.5}}, {"metrics": None},
        {"metrics": {f"m{i}": "1" for i in range(17)}}, {"metrics": {"\ud800": "1"}}, {"digest": "\ud800"},
    )),
    (TRAIN, [TrainFailure("site-01", ONE, "c" * 65, "")]), (TRAIN, [TrainFailure("site-01", ONE, "code", "x" * 3_000_000)]),
    (TRAIN, [TrainFailure("site-01", ONE, 5, "")]),  # type: ignore[arg-type]
    (SUM, {ONE: ""}), (SUM, {ONE: "", TWO: "", "did:key:site-03": "update-digest"}), (SUM, {ONE: "", TWO: 5}), (SUM, []),
    (SHARD, EVIDENCE[:1]), (SHARD, EVIDENCE[::-1]), (SHARD, [EVIDENCE[0], 5]), (SHARD, None),
    (SHARD, [EVIDENCE[0], replace(EVIDENCE[1], hashes=(b"short",))]),
    (LEAVES, [bytes(32)]), (LEAVES, (bytes(31),)), (LEAVES, None),
    (FINISH, replace(OUTCOME, model="../" + "2" * 61)), (FINISH, replace(OUTCOME, sum="")), (FINISH, {"model": "2" * 64}),
    (FINISH, replace(OUTCOME, metrics={f"m{i}": "1" for i in range(17)})), (FINISH, replace(OUTCOME, optimiser="x")),
    (FINISH, replace(OUTCOME, optimiser=None)),  # type: ignore[arg-type]
    (ALONE, {"loss": 0.5}), (ALONE, None), (Call("", "describe", ()), {"name": "x"}),
]  # fmt: skip


@pytest.mark.parametrize(("call", "answer"), GOOD)
def test_an_answer_to_its_call_is_taken_as_it_is(call: Call, answer: Any) -> None:
    assert held(call, answer) is answer


@pytest.mark.parametrize(("call", "answer"), BAD)
def test_what_is_no_answer_to_its_call_is_an_error(call: Call, answer: Any) -> None:
    found = held(call, answer)
    assert (type(found), found.code) == (Error, "worker-answer")
    assert len(found.message) <= 2 * TEXT_LIMIT


@pytest.mark.parametrize("family", [EvidenceError, Unavailable, UsageError])
def test_what_a_worker_raises_is_taken_as_it_is(family: type[Error]) -> None:
    raised = family("task-evaluation", "It failed.", next="fedledger doctor")
    assert held(FINISH, raised) is raised


@pytest.mark.parametrize("family", [Rejected, CredentialError])
def test_a_worker_does_not_speak_for_the_contract(family: type[Error]) -> None:
    found = held(FINISH, family("at-precedes-head", "x"))
    assert (type(found), found.code) == (Error, "at-precedes-head")


def test_an_endless_text_is_cut() -> None:
    found = held(FINISH, UsageError("c" * 1000, "x" * 3_000_000, next="y" * 3_000_000))
    assert (type(found), len(found.code), len(found.message)) == (UsageError, CODE_LIMIT, TEXT_LIMIT)
    assert found.next is not None
    assert len(found.next) == TEXT_LIMIT
