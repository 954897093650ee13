# SPDX-License-Identifier: Apache-2.0
"""A pool that does what a test says, and a dispatch over it."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from chaincode.evidence import Commitment
from chaincode.header import Header
from chaincode.place import Place
from coordinator.dispatch import Dispatch
from coordinator.pool import Call
from coordinator.ports import Delivery
from identity.errors import Error
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
    return Delivery(commitment, Place(f"/nowhere/{site}"))


class Scripted:
    """A pool whose answers come from ``answer``: the first result, an ``Error``, or (first, *kept)."""

    def __init__(self, answer: Callable[[Call], Any], workers: int = 2, at_once: int = 1) -> None:
        """``at_once``: so many calls are answered together."""
        self.workers, self._answer, self._at_once = workers, answer, at_once
        self._answered: deque[Call] = deque()
        self.calls: list[Call] = []
        self.limits: list[float] = []
        self.begun: list[list[str]] = []

    def run(self, calls: deque[Call], limit: Callable[[Call], float]) -> Iterator[tuple[Call, Any]]:
        while calls or self._answered:
            while calls and len(self._answered) < self._at_once:
                self._answered.append(calls.popleft())
            call = self._answered.popleft()
            self.calls.append(call)
            self.limits.append(limit(call))
            answer = self._answer(call)
            if call.returns > 1 and not isinstance(answer, Error):
                answer, *call.kept = answer
            yield call, answer

    def begin(self, calls: deque[Call], limit: Callable[[Call], float]) -> None:
        """Notes the sites of the calls that could begin."""
        self.begun.append([site for call in calls for site in names(call)])

    def poll(self, seconds: float) -> bool:
        return bool(self._answered)


def dispatch(pool: Scripted, tries: int = 3) -> Dispatch:
    return Dispatch(lambda: pool, SITES, tries)


def names(call: Call) -> list[str]:
    return [o.site for o in call.arguments[1]]


def trained(pool: Scripted, **options: Any) -> dict[str, TrainResult | TrainFailure]:
    """Every order's one answer."""
    answers = [a for batch in dispatch(pool).train([order(s) for s in SITES], **options) for a in batch]
    assert sorted(a.site for a in answers) == list(SITES)
    return {a.site: a for a in answers}
