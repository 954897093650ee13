# SPDX-License-Identifier: Apache-2.0
"""Who gets what, and what happens when workers are lost: on a pool that does what a test says."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaincode.blobs import Header
from chaincode.evidence import Commitment
from coordinator.dispatch import Dispatch
from coordinator.jobs import Baselines
from coordinator.pool import DIED, LATE, Call, balanced
from coordinator.ports import Delivery, FinishOrder, Outcome
from identity.errors import Error, EvidenceError, Unavailable, UsageError
from participant.ports import TrainFailure, TrainOrder, TrainResult

SITES = tuple(f"site-{number:02}" for number in range(1, 8))


def order(site: str, base: str = "b" * 64) -> TrainOrder:
    header = Header("f" * 64, "a" * 64, 3, 2, base, f"did:key:{site}", "int32", 4, "5" * 64)
    return TrainOrder(site, 1, header, "/nowhere")


def result(site: str, examples: int = 10) -> TrainResult:
    return TrainResult(site, f"did:key:{site}", "d" * 64, 100, examples, {})


def delivery(site: str, weight: int = 10, size: int = 100) -> Delivery:
    commitment = Commitment(
        "f" * 64, "a" * 64, 3, 2, "b" * 64, f"did:key:{site}", "d" * 64, size, weight, "int32", 4
    )  # fmt: skip
    return Delivery(commitment, f"/nowhere/{site}")


class Scripted:
    """A pool whose answers come from ``answer``: the first result, an ``Error``, or (first, *kept)."""

    def __init__(self, answer: Callable[[Call], Any], workers: int = 2) -> None:
        self.workers, self._answer = workers, answer
        self.calls: list[Call] = []
        self.limits: list[float] = []

    def run(self, calls: deque[Call], limit: Callable[[Call], float]) -> Iterator[tuple[Call, Any]]:
        while calls:
            call = calls.popleft()
            self.calls.append(call)
            self.limits.append(limit(call))
            answer = self._answer(call)
            if call.returns > 1 and not isinstance(answer, Error):
                answer, *call.kept = answer
            yield call, answer


def dispatch(pool: Scripted, tries: int = 3) -> Dispatch:
    return Dispatch(lambda: pool, SITES, tries)


def names(call: Call) -> list[str]:
    return [o.site for o in call.arguments[1]]


def trained(pool: Scripted, **options: Any) -> dict[str, TrainResult | TrainFailure]:
    """Every order's one answer."""
    answers = [a for batch in dispatch(pool).train([order(s) for s in SITES], **options) for a in batch]
    assert sorted(a.site for a in answers) == list(SITES)
    return {a.site: a for a in answers}


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
