# SPDX-License-Identifier: Apache-2.0
"""What trains and aggregates, as calls on a pool of workers: who gets what, and what happens when a worker is lost.

Knows neither Ray nor torch: a pool carries out calls, and results that are large stay where the pool keeps them.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from coordinator.aggregate import Aggregation, HeldSum, ModelAtHand
from coordinator.jobs import Baselines, TaskInfo
from coordinator.pool import DIED, LATE, Call, Pool, Reference, balanced, call_name, run_all
from coordinator.ports import Delivery, FinishOrder, Outcome, PartialSum
from identity.errors import Error
from participant.ports import Answer, TrainFailure, TrainOrder, TrainResult

AT_A_TIME = 256
"""So many orders at most in a call: while the first sites commit, the next ones train."""
AT_FIRST = 64
"""So many are in the first call of a round that has several for each worker: whoever commits has something to do sooner."""
WORTH_A_CALL = 0.005
"""Seconds of training for each call from which a second one pays: its worker must be told, and heard."""
LINGER_SECONDS = 0.003
"""So long answers wait at most for the last others: to commit to those apart costs about as long, a wait for the disk and
threads that are woken twice."""
LINGER_MOST = 64
"""Of more answers than these each part is worth a submission of its own."""


class Dispatch:
    """The ``Trainer`` and the ``Aggregator`` on a pool."""

    def __init__(self, pool: Callable[[], Pool], sites: Sequence[str], tries: int) -> None:
        """``pool`` gives the pool, waiting for it if need be; a call is tried ``tries`` times."""
        self._pool, self._sites, self._tries = pool, sites, tries
        self._model = ModelAtHand()
        self._aggregation = Aggregation(pool, self._model, tries)
        self._examples: dict[str, int] = {}  # by site, as far as known
        self._seconds_each = math.inf  # what training took for each order of the last call that was answered

    def describe(self) -> TaskInfo:
        """What an agreement says of the task; its initial model is in the model store. Raises UsageError ``task-*``."""
        call = Call("describe task", "describe", (), returns=2)
        info: TaskInfo = run_all(self._pool(), [call], self._tries)[0]
        self._model.keep(info.initial, call.kept[0])
        return info

    def train(self, orders: Sequence[TrainOrder], *, seconds: float | None = None) -> Iterator[Sequence[Answer]]:
        """Carry out orders of one round; yields answers as they come, in ``seconds`` at most where that is given. A few wait a
        moment for the last others.

        An order whose worker dies is tried again alone, and so are orders whose worker has used half of the time
        that is left without an answer. Failures: those of ``LocalTrainer.carry_out``, ``worker-died``,
        ``training-timeout``, and where the base model cannot be had, the codes of ``Worker.load``.

        Raises:
            Error: no worker is left, and none can be started: the run cannot go on.
        """
        if len({order.header.base for order in orders}) > 1:
            raise ValueError("the orders of one call have one base model")
        until = math.inf if seconds is None else time.monotonic() + seconds
        pool = self._pool()
        calls = self._deal(orders, pool.workers)
        held, linger = list[Answer](), math.inf
        try:
            for answers in self._answered(pool, calls, until):
                linger = linger if held else time.monotonic() + LINGER_SECONDS
                held += answers
                if held and (calls or len(held) > LINGER_MOST or not pool.poll(max(0.0, linger - time.monotonic()))):
                    yield held
                    held = []
        except Exception:
            if held:  # what has been answered is not lost with the workers
                yield held
            raise
        if held:
            yield held

    def _answered(self, pool: Pool, calls: deque[Call], until: float) -> Iterator[list[Answer]]:
        """Carry out the calls of a round's training, to which those are added that are tried again; yields what each call
        answers, which may be nothing yet. ``until`` is of the monotonic clock. Raises as ``train``."""

        def limit(call: Call) -> float:
            left = until - time.monotonic()
            return left / 2 if calls or len(call.arguments[1]) > 1 else left

        began, first = time.monotonic(), True
        for call, result in pool.run(calls, limit):
            batch, answers = call.arguments[1], list[Answer]()
            if not isinstance(result, Error):
                if first:  # those that come later have waited for whoever deals with the answers
                    self._seconds_each, first = (time.monotonic() - began) / max(1, len(result)), False
                self._examples |= {a.site: a.examples for a in result if isinstance(a, TrainResult)}
                rest = balanced(batch[len(result) :], [1] * (len(batch) - len(result)), pool.workers)
                calls.extend(_training(part, call.arguments[0], -1) for part in rest)
                pool.begin(calls, limit)
                answers = result
            elif result.code in (DIED, LATE) and len(batch) > 1:
                calls.extend(_training([order], None, -1, 2) for order in batch)
            elif result.code == DIED and call.tries < self._tries:
                calls.append(_training(batch, None, -1, call.tries + 1))
            else:
                answers = [_failure(order, result) for order in batch]
            yield answers

    def _deal(self, orders: Sequence[TrainOrder], workers: int) -> deque[Call]:
        """The calls of a round's training: as many as pay, of equal weight as far as known."""
        worth = self._seconds_each * len(orders) / WORTH_A_CALL if orders else 0.0
        first = orders[:AT_FIRST] if len(orders) > AT_A_TIME * workers else []
        rest = orders[len(first) :]
        parts = max(1, int(min(worth, workers)), math.ceil(len(rest) / AT_A_TIME))
        batches = balanced(rest, [self._examples.get(order.site, 1) for order in rest], parts)
        return deque(
            _training(batch, self._model.get(batch[0].header.base), number % workers)
            for number, batch in enumerate([first, *batches] if first else batches)
        )

    def sum(
        self, deliveries: Sequence[Delivery], order: FinishOrder | None = None, *, seconds: float = math.inf
    ) -> HeldSum:
        """See ``Aggregation.sum``."""
        return self._aggregation.sum(deliveries, order, seconds=seconds)

    def finish(self, order: FinishOrder, sums: Sequence[PartialSum], *, seconds: float = math.inf) -> Outcome:
        """See ``Aggregation.finish``."""
        return self._aggregation.finish(order, sums, seconds=seconds)

    def baselines(self, rounds: int, *, seconds: float = math.inf) -> Baselines:
        """What each site alone, and one model on the data of all, reach with the training of ``rounds`` rounds; each
        of these in ``seconds`` at most.

        Raises:
            UsageError: ``task-training``, ``task-evaluation``. Unavailable: ``worker-died``, ``training-timeout``.
        """
        jobs = ("", *self._sites)  # the longest first
        calls = [Call(f"baseline {site or 'pooled'}", "train_alone", (site, rounds)) for site in jobs]
        pooled, *alone = run_all(self._pool(), calls, self._tries, seconds)
        return Baselines(dict(zip(self._sites, alone, strict=True)), pooled)


def _training(orders: Sequence[TrainOrder], base: Reference, slot: int, tries: int = 1) -> Call:
    name = call_name("train", orders[0].header)
    return Call(name, "train", (base, orders), slot=slot, tries=tries, light=base is None)


def _failure(order: TrainOrder, error: Error) -> TrainFailure:
    return TrainFailure(order.site, order.header.member, error.code, f"{order.site}: {error.message}")
