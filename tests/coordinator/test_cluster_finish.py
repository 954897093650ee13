# SPDX-License-Identifier: Apache-2.0
"""Finishing a round: sums that stay where they were made, and what happens when they are lost."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from coordinator.pool import DIED, LATE, Call
from coordinator.ports import FinishOrder, Outcome
from identity.errors import EvidenceError, Unavailable
from tests.coordinator.scripted_pool import Scripted, delivery, dispatch, order

AGREEMENT: Mapping[str, Any] = {"title": "t"}


def _finishing(finish: Callable[[Call], Any]) -> Scripted:
    def answer(call: Call) -> Any:
        if call.method == "sum":
            return {d.commitment.member: "" for d in call.arguments[0]}, f"partial {len(pool.calls)}"
        return finish(call)

    pool = Scripted(answer)
    return pool


def test_an_update_that_was_refused_first_is_not_summed_twice_after_a_worker_died() -> None:
    outcome = Outcome("1" * 64, "2" * 64, "", {}, "")
    summed: list[list[str]] = []
    deaths = iter([True, False])

    def answer(call: Call) -> Any:
        if call.method == "finish":
            return Unavailable(DIED, "killed") if next(deaths) else (outcome, "arrays")
        sites = [d.commitment.member for d in call.arguments[0]]
        refused = not summed  # in the first call of all
        summed.append(sites)
        return {m: "update-digest" if refused and m.endswith("02") else "" for m in sites}, "partial"

    of = dispatch(Scripted(answer, workers=1))
    sums = [of.sum([delivery("site-01"), delivery("site-02")]), of.sum([delivery("site-02")])]
    assert of.finish(FinishOrder(AGREEMENT, 3, "b" * 64, "", 20), sums) is outcome
    assert summed[2:] == [["did:key:site-01"], ["did:key:site-02"]]


def test_an_update_that_fails_when_it_is_summed_again_ends_the_attempt() -> None:
    calls: list[str] = []

    def answer(call: Call) -> Any:
        calls.append(call.method)
        if call.method == "finish":
            return Unavailable(DIED, "killed")
        return {d.commitment.member: "update-digest" if len(calls) > 2 else "" for d in call.arguments[0]}, "partial"

    of = dispatch(Scripted(answer, workers=1))
    sums = [of.sum([delivery("site-01")])]
    with pytest.raises(EvidenceError) as caught:
        of.finish(FinishOrder(AGREEMENT, 3, "b" * 64, "", 10), sums)
    assert caught.value.code == "weight-mismatch"


def test_finish_adds_what_was_kept_and_keeps_the_new_model() -> None:
    outcome = Outcome("1" * 64, "2" * 64, "", {}, "")
    pool = _finishing(lambda call: (outcome, "arrays"))
    of = dispatch(pool)
    sums = [of.sum([delivery("site-01"), delivery("site-02")]), of.sum([delivery("site-03")])]
    assert of.finish(FinishOrder(AGREEMENT, 3, "b" * 64, "", 30), sums) is outcome
    assert pool.calls[-1].arguments[2:] == ("partial 1", "partial 2", "partial 3")
    list(of.train([order("site-01", outcome.model)]))
    assert pool.calls[-1].arguments[0] == "arrays"


@pytest.mark.parametrize("weight", [29, 31, 0])
def test_finish_refuses_another_weight_than_that_of_the_sums(weight: int) -> None:
    pool = _finishing(lambda call: pytest.fail("finished"))
    of = dispatch(pool)
    sums = [of.sum([delivery("site-01"), delivery("site-02"), delivery("site-03")])]
    with pytest.raises(EvidenceError) as caught:
        of.finish(FinishOrder(AGREEMENT, 3, "b" * 64, "", weight), sums)
    assert caught.value.code == "weight-mismatch"


def test_finish_sums_again_when_a_worker_is_lost() -> None:
    outcome = Outcome("1" * 64, "2" * 64, "", {}, "")
    answers = iter([Unavailable(DIED, "killed"), (outcome, "arrays")])
    pool = _finishing(lambda call: next(answers))
    of = dispatch(pool)
    assert of.finish(FinishOrder(AGREEMENT, 3, "b" * 64, "", 10), [of.sum([delivery("site-01")])]) is outcome
    assert [call.method for call in pool.calls] == ["sum", "finish", "sum", "finish"]
    assert pool.calls[-1].arguments[1:] == (None, "partial 3")


def test_finish_gives_up_and_passes_on_what_is_refused() -> None:
    for error, calls in ((Unavailable(DIED, "killed"), 6), (EvidenceError("sum-length", "no"), 2)):
        pool = _finishing(lambda call, error=error: error)
        of = dispatch(pool)
        with pytest.raises(type(error)) as caught:
            of.finish(FinishOrder(AGREEMENT, 3, "b" * 64, "", 10), [of.sum([delivery("site-01")])])
        assert caught.value.code == error.code
        assert len(pool.calls) == calls


@pytest.mark.parametrize("order", [None, FinishOrder(AGREEMENT, 3, "b" * 64, "", 10)], ids=["sum", "aggregate"])
def test_a_worker_that_never_answers_is_not_waited_for(order: FinishOrder | None) -> None:
    pool = Scripted(lambda _: Unavailable(LATE, "The worker did not answer in time."))
    with pytest.raises(Unavailable, match="did not answer in 7 s") as late:
        dispatch(pool).sum([delivery("site-01")], order, seconds=7)
    assert late.value.code == "aggregation-timeout"
    assert pool.limits == [7]


def test_a_model_that_is_never_evaluated_is_not_waited_for() -> None:
    def answer(call: Call) -> Any:
        return ({"did:key:site-01": ""}, "kept") if call.method == "sum" else Unavailable(LATE, "late")

    pool = Scripted(answer)
    of = dispatch(pool)
    with pytest.raises(Unavailable) as late:
        of.finish(FinishOrder(AGREEMENT, 3, "b" * 64, "", 10), [of.sum([delivery("site-01")], seconds=5)], seconds=6)
    assert late.value.code == "aggregation-timeout"
    assert pool.limits == [5, 6]
