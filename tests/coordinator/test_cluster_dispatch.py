# SPDX-License-Identifier: Apache-2.0
"""Who gets what, and what happens when workers are lost: on a pool that does what a test says."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.dispatch import Dispatch
from coordinator.jobs import Baselines
from coordinator.pool import DIED, LATE, Call, balanced
from identity.errors import EvidenceError, Unavailable, UsageError
from participant.ports import TrainFailure, TrainResult
from tests.coordinator.scripted_pool import SITES, Scripted, delivery, dispatch, names, order, result, trained


@given(st.lists(st.integers(0, 1000), max_size=40), st.integers(1, 6))
def test_balancing_gives_each_item_to_one_and_bounds_the_heaviest(weights: list[int], parts: int) -> None:
    items = list(range(len(weights)))
    lists = balanced(items, weights, parts)
    assert Counter(i for part in lists for i in part) == Counter(items)
    assert len(lists) == min(parts, len(items))
    loads = [sum(max(1, weights[i]) for i in part) for part in lists]
    if items:
        # Graham's bound: the heaviest list exceeds the mean by at most one item.
        assert max(loads) <= sum(loads) / parts + max(1, *weights)


def test_one_call_per_worker_for_training_and_for_sums() -> None:
    pool = Scripted(lambda call: [result(s) for s in names(call)])
    assert all(isinstance(a, TrainResult) for a in trained(pool).values())
    assert [call.method for call in pool.calls] == ["train", "train"]
    assert [call.slot for call in pool.calls] == [0, 1]
    pool = Scripted(lambda call: ({d.commitment.member: "" for d in call.arguments[0]}, "partial"))
    held = dispatch(pool).sum([delivery(s) for s in SITES])
    assert len(pool.calls) == 2
    assert held.weight == 70


def test_calls_are_named_by_federation_agreement_round_and_attempt() -> None:
    pool = Scripted(lambda call: [result(s) for s in names(call)])
    trained(pool)
    assert {call.name for call in pool.calls} == {"train ffffffffffff/aaaaaaaaaaaa round 3 attempt 2"}


def test_the_next_round_is_balanced_by_what_the_last_one_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.dispatch.WORTH_A_CALL", 1e-9)
    sizes = dict(zip(SITES, (100, 10, 10, 10, 10, 10, 10), strict=True))
    pool = Scripted(lambda call: [result(s, sizes[s]) for s in names(call)])
    of = dispatch(pool)
    for _ in range(2):
        list(of.train([order(s) for s in SITES]))
    assert sorted(map(len, map(names, pool.calls[:2]))) == [3, 4]
    assert names(pool.calls[2]) == ["site-01"]


def test_a_round_that_is_soon_trained_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.dispatch.WORTH_A_CALL", 1e9)
    pool = Scripted(lambda call: [result(s) for s in names(call)])
    of = dispatch(pool)
    for _ in range(2):
        list(of.train([order(s) for s in SITES]))
    assert [len(names(call)) for call in pool.calls] == [4, 3, 7], "the first time nobody knows how long it takes"


def test_a_worker_that_answers_in_part_gets_the_rest() -> None:
    pool = Scripted(lambda call: [result(names(call)[0])])
    assert all(isinstance(a, TrainResult) for a in trained(pool).values())
    assert len(pool.calls) == len(SITES)


def test_the_rest_begins_before_what_was_answered_is_dealt_with() -> None:
    pool = Scripted(lambda call: [result(names(call)[0])])
    answered = next(dispatch(pool).train([order(s) for s in SITES]))
    assert [a.site for a in answered] == [SITES[0]]
    assert sorted(pool.begun[0]) == list(SITES[1:])


def test_waiting_for_the_workers_is_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("coordinator.dispatch.time.monotonic", lambda: now[0])
    pool = Scripted(lambda call: [result(s) for s in names(call)])

    def starts() -> Scripted:
        now[0] += 6.0
        return pool

    list(Dispatch(starts, SITES, 3).train([order(s) for s in SITES], seconds=10.0))
    assert pool.limits == [2.0, 2.0], "half of what is left"


def answered(pool: Scripted) -> list[list[str]]:
    """The sites of each batch of answers."""
    return [[a.site for a in batch] for batch in dispatch(pool).train([order(s) for s in SITES])]


def test_few_answers_wait_for_the_last_others(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Scripted(lambda call: [result(s) for s in names(call)], at_once=2)
    assert sorted(*answered(pool)) == list(SITES)
    assert len(pool.calls) == 2
    monkeypatch.setattr("coordinator.dispatch.LINGER_MOST", 3)
    assert len(answered(pool)) == 2, "many do not wait"
    monkeypatch.setattr("coordinator.dispatch.AT_A_TIME", 1)
    monkeypatch.setattr("coordinator.dispatch.AT_FIRST", 1)
    assert len(answered(pool)[0]) == 1, "nor where there is more to be trained"


def test_answers_are_not_lost_where_no_other_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Scripted(lambda call: [result(s) for s in names(call)])
    monkeypatch.setattr(pool, "poll", lambda seconds: True)
    assert sorted(site for batch in answered(pool) for site in batch) == list(SITES)


def test_answers_wait_once_whatever_comes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    pool = Scripted(lambda call: [result(s) for s in names(call)], workers=len(SITES), at_once=len(SITES))
    poll = pool.poll
    monkeypatch.setattr(pool, "poll", lambda seconds: (waited.append(seconds), poll(seconds))[1])
    monkeypatch.setattr("coordinator.dispatch.LINGER_SECONDS", 1000.0)
    assert len(answered(pool)) == 1
    assert len(waited) == len(SITES)
    assert sorted(waited, reverse=True) == waited
    assert waited[0] > waited[-1], "from the first one on"


def test_answers_that_waited_come_before_what_ends_the_run() -> None:
    def answer(call: Call) -> Any:
        if "site-02" in names(call):
            raise Unavailable("worker-start", "There is no worker.")
        return [result(s) for s in names(call)]

    batches = dispatch(Scripted(answer, at_once=2)).train([order(s) for s in SITES])
    assert "site-01" in [a.site for a in next(batches)]
    with pytest.raises(Unavailable, match="no worker"):
        next(batches)


def test_answers_that_waited_are_not_lost_where_the_others_worker_is() -> None:
    lost = {"site-02"}

    def answer(call: Call) -> Any:
        died = Unavailable(DIED, "It died.")
        return died if lost & set(names(call)) else [result(s) for s in names(call)]

    batches = answered(Scripted(answer, at_once=2))
    assert sorted(site for batch in batches for site in batch) == list(SITES)


def test_the_order_that_kills_its_worker_fails_alone() -> None:
    def answer(call: Call) -> Any:
        if "site-03" in names(call):
            return Unavailable(DIED, "killed")
        return [result(s) for s in names(call)]

    pool = Scripted(answer)
    answers = trained(pool)
    assert {s for s, a in answers.items() if isinstance(a, TrainFailure)} == {"site-03"}
    failure = answers["site-03"]
    assert isinstance(failure, TrainFailure)
    assert (failure.code, failure.member, failure.message) == (DIED, "did:key:site-03", "site-03: killed")
    deaths = [call for call in pool.calls if "site-03" in names(call)]
    assert [len(names(call)) for call in deaths] == [4, 1, 1]  # bounded: three tries in all
    assert all(call.arguments[0] is None for call in deaths[1:])  # the base may have been lost with the worker


def test_the_order_that_hangs_fails_alone_and_late() -> None:
    def answer(call: Call) -> Any:
        if "site-03" in names(call):
            return Unavailable(LATE, "no answer")
        return [result(s) for s in names(call)]

    pool = Scripted(answer)
    answers = trained(pool, seconds=100.0)
    assert {s: a.code for s, a in answers.items() if isinstance(a, TrainFailure)} == {"site-03": LATE}
    # Half of what is left, while others wait for the worker or share it; the last of all may use it up.
    assert all(limit <= 50.0 for limit in pool.limits[:-1])
    assert 50.0 < pool.limits[-1] <= 100.0


def test_without_a_deadline_nothing_is_bounded() -> None:
    pool = Scripted(lambda call: [result(s) for s in names(call)])
    trained(pool)
    assert set(pool.limits) == {float("inf")}


def test_what_a_whole_call_refuses_is_a_failure_of_each_order() -> None:
    pool = Scripted(lambda call: EvidenceError("model-missing", "There is no model."))
    answers = trained(pool)
    assert {a.code for a in answers.values() if isinstance(a, TrainFailure)} == {"model-missing"}
    assert len(pool.calls) == 2


def test_no_orders_no_calls() -> None:
    pool = Scripted(lambda call: [])
    assert list(dispatch(pool).train([])) == []
    assert not pool.calls


def test_orders_of_two_rounds_are_a_programming_error() -> None:
    with pytest.raises(ValueError, match="one base model"):
        list(dispatch(Scripted(lambda call: [])).train([order("site-01"), order("site-02", "c" * 64)]))


def test_a_sum_is_tried_again_and_then_given_up() -> None:
    deaths = iter([True, False, False, True, True, True])

    def answer(call: Call) -> Any:
        if next(deaths):
            return Unavailable(DIED, "killed")
        return {d.commitment.member: "" for d in call.arguments[0]}, "partial"

    pool = Scripted(answer)
    assert len(dispatch(pool).sum([delivery(s) for s in SITES]).parts) == 2
    with pytest.raises(Unavailable) as caught:
        dispatch(pool).sum([delivery("site-01")])
    assert caught.value.code == DIED
    assert len(pool.calls) == 6


def test_refused_updates_have_no_weight_and_no_part() -> None:
    verdicts = {"did:key:site-01": "update-digest", "did:key:site-02": ""}
    pool = Scripted(
        lambda call: ({d.commitment.member: verdicts[d.commitment.member] for d in call.arguments[0]}, "partial")
    )
    held = dispatch(pool).sum([delivery("site-01", 7), delivery("site-02", 5)])
    assert (dict(held.verdicts), held.weight, len(held.parts)) == (verdicts, 5, 1)


def test_the_first_error_of_several_calls_is_raised_after_the_running_ones() -> None:
    def answer(call: Call) -> Any:
        return UsageError("task-training", call.name) if call.arguments[0] else {"accuracy": "0.5"}

    with pytest.raises(UsageError, match="site-01"):
        dispatch(Scripted(answer)).baselines(3)


def test_baselines_by_site() -> None:
    values = dict(zip(("", *SITES), ("0.9", "0.5", "0.6", "0.7", "0.5", "0.6", "0.7", "0.6"), strict=True))
    pool = Scripted(lambda call: {"accuracy": values[call.arguments[0]], "loss": values[call.arguments[0]]})
    found = dispatch(pool).baselines(4)
    assert found.pooled["accuracy"] == "0.9"
    assert {call.arguments[1] for call in pool.calls} == {4}
    assert found.mean("accuracy") == pytest.approx(0.6)
    assert (found.worst("accuracy"), found.worst("loss")) == (0.5, 0.7)
    assert isinstance(found, Baselines)
