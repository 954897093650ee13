# SPDX-License-Identifier: Apache-2.0
"""What trains and aggregates, as calls on a pool of workers: who gets what, and what happens when a worker is lost.

Knows neither Ray nor torch: a pool carries out calls, and results that are large stay where the pool keeps them.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from chaincode.agreement import agreement_digest
from coordinator.jobs import Baselines, TaskInfo
from coordinator.ports import Delivery, FinishOrder, Outcome, PartialSum
from identity.errors import Error, EvidenceError
from participant.ports import TrainFailure, TrainOrder, TrainResult

Answer = TrainResult | TrainFailure
Reference = Any
T = TypeVar("T")

DIED, LATE = "worker-died", "training-timeout"


@dataclass(slots=True)
class Call:
    """A method of ``coordinator.worker.Worker``, to be called with ``arguments``, references among them.

    ``slot`` is the worker that is best, -1 for any. ``kept`` holds references to the results after the first.
    """

    name: str
    method: str
    arguments: Sequence[Any]
    returns: int = 1
    slot: int = -1
    tries: int = 1
    kept: Sequence[Reference] = ()


@dataclass(slots=True)
class Slot:
    """A place for a worker process: ``opening`` until it has said hello, ``call`` and ``answer`` while it works, in
    both cases at the latest ``until`` on the monotonic clock."""

    number: int
    generation: int = 0
    deaths: int = 0
    handle: Any = None
    opening: Reference = None
    call: Call | None = None
    answer: Reference = None
    until: float = math.inf


class Pool(Protocol):
    """Workers, each in a process of its own, that are replaced when they die."""

    @property
    def workers(self) -> int:
        """How many there are."""
        ...

    def run(self, calls: deque[Call], limit: Callable[[Call], float]) -> Iterator[tuple[Call, Any]]:
        """Carry out calls, also those that are added while this runs; ``limit`` bounds each by seconds when it starts.

        Yields each with its first result, or with an ``Error`` in its place: the one that the method raised, or
        Unavailable with the code ``worker-died`` or ``training-timeout``; the worker has been replaced then.

        Raises:
            Error: no worker is left, and none can be started.
        """
        ...


@dataclass(frozen=True, slots=True)
class HeldSum:
    """A ``PartialSum``: the sums stay where the pool keeps them, each with the deliveries that it is of."""

    verdicts: Mapping[str, str]
    parts: Sequence[tuple[Sequence[Delivery], Reference]]

    @property
    def summed(self) -> list[Delivery]:
        """The deliveries that are in the sums."""
        return [d for deliveries, _ in self.parts for d in deliveries if not self.verdicts[d.commitment.member]]

    @property
    def weight(self) -> int:
        """The examples of what is in the sums."""
        return sum(delivery.commitment.weight for delivery in self.summed)


def balanced(items: Sequence[T], weights: Sequence[int], parts: int) -> list[list[T]]:
    """At most ``parts`` lists of nearly equal weight: the heaviest first, each to the lightest list so far."""
    loads, dealt = [0] * parts, [list[int]() for _ in range(parts)]
    for position in sorted(range(len(items)), key=lambda i: -weights[i]):
        lightest = min(range(parts), key=loads.__getitem__)
        loads[lightest] += max(1, weights[position])
        dealt[lightest].append(position)
    return [[items[i] for i in sorted(positions)] for positions in dealt if positions]


class Dispatch:
    """The ``Trainer`` and the ``Aggregator`` on a pool."""

    def __init__(self, pool: Callable[[], Pool], sites: Sequence[str], tries: int) -> None:
        """``pool`` gives the pool, waiting for it if need be; a call is tried ``tries`` times."""
        self._pool, self._sites, self._tries = pool, sites, tries
        self._models: dict[str, Reference] = {}  # the model at hand, by its digest
        self._examples: dict[str, int] = {}  # by site, as far as known

    def describe(self) -> TaskInfo:
        """What an agreement says of the task; its initial model is in the model store. Raises UsageError ``task-*``."""
        call = Call("describe task", "describe", (), returns=2)
        info: TaskInfo = self._all([call])[0]
        self._models = {info.initial: call.kept[0]}
        return info

    def train(self, orders: Sequence[TrainOrder], *, seconds: float | None = None) -> Iterator[Sequence[Answer]]:
        """Carry out orders of one round; yields answers as they come, in ``seconds`` at most where that is given.

        An order whose worker dies is tried again alone, and so are orders whose worker has used half of the time
        that is left without an answer. Failures: those of ``LocalTrainer.carry_out``, ``worker-died``,
        ``training-timeout``, and where the base model cannot be had, the codes of ``Worker.load``.

        Raises:
            Error: no worker is left, and none can be started: the run cannot go on.
        """
        if len({order.header.base for order in orders}) > 1:
            raise ValueError("the orders of one call have one base model")
        until = math.inf if seconds is None else time.monotonic() + seconds
        calls: deque[Call] = deque()
        pool = self._pool()

        def limit(call: Call) -> float:
            left = until - time.monotonic()
            return left / 2 if calls or len(call.arguments[1]) > 1 else left

        weights = [self._examples.get(order.site, 1) for order in orders]
        for slot, batch in enumerate(balanced(orders, weights, pool.workers)):
            calls.append(_training(batch, self._models.get(batch[0].header.base), slot))
        for call, result in pool.run(calls, limit):
            batch = call.arguments[1]
            if not isinstance(result, Error):
                rest = batch[len(result) :]
                calls.extend(
                    _training(part, call.arguments[0], -1) for part in balanced(rest, [1] * len(rest), pool.workers)
                )
                self._examples.update(
                    {answer.site: answer.examples for answer in result if isinstance(answer, TrainResult)}
                )
                yield result
            elif result.code in (DIED, LATE) and len(batch) > 1:
                calls.extend(_training([order], None, -1, 2) for order in batch)
            elif result.code == DIED and call.tries < self._tries:
                calls.append(_training(batch, None, -1, call.tries + 1))
            else:
                yield [_failure(order, result) for order in batch]

    def sum(self, deliveries: Sequence[Delivery]) -> HeldSum:
        """Check each delivery against its commitment and sum those that pass.

        Raises:
            EvidenceError: ``sum-*``: the commitments do not belong into one sum. Unavailable: ``worker-died``.
        """
        parts = balanced(deliveries, [delivery.commitment.size for delivery in deliveries], self._pool().workers)
        calls = [Call(_place("sum", part[0].commitment), "sum", (part,), 2, slot) for slot, part in enumerate(parts)]
        verdicts = {member: code for found in self._all(calls) for member, code in found.items()}
        held = [(part, call.kept[0]) for part, call in zip(parts, calls, strict=True)]
        return HeldSum(
            verdicts, [(part, kept) for part, kept in held if any(not verdicts[d.commitment.member] for d in part)]
        )

    def finish(self, order: FinishOrder, sums: Sequence[PartialSum]) -> Outcome:
        """Add the partial sums, apply the server optimiser, store and evaluate the new model.

        Raises:
            EvidenceError: ``weight-mismatch`` where the order's weight is not that of the sums; those of
                ``Worker.finish``. UsageError: ``task-evaluation``. Unavailable: ``worker-died``.
        """
        held = [partial for partial in sums if isinstance(partial, HeldSum)]
        name = f"finish {agreement_digest(order.agreement)[:12]} round {order.round}"
        base = self._models.get(order.base)
        for attempt in range(self._tries):
            if attempt:  # what was kept may have been lost with the worker, or with its machine
                base, held = None, [self.sum(partial.summed) for partial in held]
            if sum(partial.weight for partial in held) != order.weight:
                raise EvidenceError(
                    "weight-mismatch", f"Round {order.round}: the sums are not of {order.weight} examples."
                )
            kept = [reference for partial in held for _, reference in partial.parts]
            call = Call(name, "finish", (order, base, *kept), returns=2)
            ((_, result),) = self._pool().run(deque([call]), _unlimited)
            if not isinstance(result, Error):
                self._models = {result.model: call.kept[0]}
                outcome: Outcome = result
                return outcome
            if result.code != DIED:
                raise result
        raise result

    def baselines(self, rounds: int, *, seconds: float = math.inf) -> Baselines:
        """What each site alone, and one model on the data of all, reach with the training of ``rounds`` rounds; each
        of these in ``seconds`` at most.

        Raises:
            UsageError: ``task-training``, ``task-evaluation``. Unavailable: ``worker-died``, ``training-timeout``.
        """
        jobs = ("", *self._sites)  # the longest first
        calls = [Call(f"baseline {site or 'pooled'}", "train_alone", (site, rounds)) for site in jobs]
        pooled, *alone = self._all(calls, seconds)
        return Baselines(dict(zip(self._sites, alone, strict=True)), pooled)

    def _all(self, calls: Sequence[Call], seconds: float = math.inf) -> list[Any]:
        """The first results of calls, in their order, each tried again when its worker dies.

        Raises:
            Error: the first that a method raised. Unavailable: ``worker-died``, ``training-timeout``.
        """
        results: dict[int, Any] = {}
        failed: Error | None = None
        queue = deque(calls)
        for call, result in self._pool().run(queue, lambda _: seconds):
            if not isinstance(result, Error):
                results[id(call)] = result
            elif result.code == DIED and call.tries < self._tries and failed is None:
                call.tries += 1
                queue.append(call)
            else:
                failed = failed or result
                queue.clear()
        if failed is not None:
            raise failed
        return [results[id(call)] for call in calls]


def _training(orders: Sequence[TrainOrder], base: Reference, slot: int, tries: int = 1) -> Call:
    return Call(_place("train", orders[0].header), "train", (base, orders), slot=slot, tries=tries)


def _place(what: str, of: Any) -> str:
    """A call's name, as Ray shows it: what it does for which federation, agreement and round."""
    return f"{what} {of.federation[:12]}/{of.agreement[:12]} round {of.round} attempt {of.attempt}"


def _unlimited(_: Call) -> float:
    return math.inf


def _failure(order: TrainOrder, error: Error) -> TrainFailure:
    return TrainFailure(order.site, order.header.member, error.code, f"{order.site}: {error.message}")


def error_line(error: BaseException, which: int) -> str:
    """One line of what Ray says: the first of what it adds to a cause, or the last of a cause that it quotes."""
    return (str(error).strip().splitlines() or [type(error).__name__])[which][:300]
