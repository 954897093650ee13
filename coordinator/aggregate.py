# SPDX-License-Identifier: Apache-2.0
"""A round's aggregation as calls on a pool: whole updates by site, or all of them by shards of the vector.

A small round is verified, summed and finished by one call. A larger one is dealt out by site. Where the model is
large too, each worker takes a shard of every update: it reads that once, and no sum of the whole vector travels.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from chaincode.agreement import agreement_digest
from chaincode.evidence import UNIT, judge, shard_cuts
from coordinator.pool import DIED, LATE, Call, Pool, Reference, balanced, call_name, run_all
from coordinator.ports import Delivery, FinishOrder, Outcome, PartialSum
from identity.errors import EvidenceError, Unavailable
from identity.wording import counted

OVERHEAD, AT_ONCE = 1 << 17, 10 << 20
"""What one update costs in a sum beside its bytes, in bytes that take as long; and how many bytes one worker verifies and sums
sooner than two do and a third call finishes: fifty updates of 40 kB took 8 ms with that, and 16 ms in three calls."""
AT_A_TIME = 512
"""So many updates are summed by shards at most: each worker has all of them open at once, and a process may not open more
than some thousand files."""

Part = tuple[Sequence[Delivery], Reference]
"""Deliveries, and where the sum of those that passed is kept; None where it has been finished."""


@dataclass(frozen=True, slots=True)
class Shards:
    """Deliveries that have all been found good, by shards whose sums are where they were made.

    ``hashes`` are those of each update's chunks, by member.
    """

    deliveries: Sequence[Delivery]
    cuts: Sequence[tuple[int, int]]
    hashes: Mapping[str, Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class HeldSum:
    """A ``PartialSum``: the sums stay where the pool keeps them."""

    verdicts: Mapping[str, str]
    parts: Sequence[Part] = ()
    shards: Shards | None = None
    outcome: Outcome | None = None

    @property
    def summed(self) -> list[Delivery]:
        """The deliveries that are in the sums."""
        if self.shards is not None:
            return list(self.shards.deliveries)
        return [d for deliveries, _ in self.parts for d in deliveries if not self.verdicts[d.commitment.member]]

    @property
    def weight(self) -> int:
        """The examples of what is in the sums."""
        return sum(delivery.commitment.weight for delivery in self.summed)


@dataclass(slots=True)
class ModelAtHand:
    """The last model that a worker made, by its digest: the next round's base."""

    _models: dict[str, Reference] = field(default_factory=dict)

    def keep(self, digest: str, model: Reference) -> None:
        """This is the model now."""
        self._models = {digest: model}

    def get(self, digest: str) -> Reference | None:
        """The model, None where another one is at hand: a worker then loads it from the store."""
        return self._models.get(digest)


class Aggregation:
    """The ``Aggregator`` on a pool."""

    def __init__(self, pool: Callable[[], Pool], model: ModelAtHand, tries: int) -> None:
        """``pool`` gives the pool, waiting for it if need be; a call is tried ``tries`` times."""
        self._pool, self._model, self._tries = pool, model, tries

    def sum(
        self, deliveries: Sequence[Delivery], order: FinishOrder | None = None, *, seconds: float = math.inf
    ) -> HeldSum:
        """Check each delivery against its commitment and sum those that pass; a round that is soon summed is finished
        by the same call, if all of it passes. No call takes more than ``seconds``.

        Raises:
            EvidenceError: ``sum-*``: the commitments do not belong into one sum. Unavailable: ``worker-died``,
                ``aggregation-timeout``. With an order, as ``finish``.
        """
        pool, sizes = self._pool(), [delivery.commitment.size for delivery in deliveries]
        if sum(sizes) + OVERHEAD * len(sizes) <= AT_ONCE:
            if order is not None:
                return self._sum_and_finish(deliveries, order, seconds)
        elif deliveries[0].commitment.elements >= UNIT * pool.workers and _in_files(deliveries):
            return self._sum_shards(deliveries, seconds)
        parts = balanced(deliveries, sizes, pool.workers)
        calls = [Call(call_name("sum", part[0].commitment), "sum", (part,), 2, slot) for slot, part in enumerate(parts)]
        verdicts = {
            member: code for found in _run_all(pool, calls, self._tries, seconds) for member, code in found.items()
        }
        held = [(part, call.kept[0]) for part, call in zip(parts, calls, strict=True)]
        return HeldSum(verdicts, [(p, kept) for p, kept in held if any(not verdicts[d.commitment.member] for d in p)])

    def finish(self, order: FinishOrder, sums: Sequence[PartialSum], *, seconds: float = math.inf) -> Outcome:
        """Add the partial sums, apply the server optimiser, store and evaluate the new model; ``seconds`` as for ``sum``.

        Raises:
            EvidenceError: ``weight-mismatch`` where the order's weight is not that of the sums; those of
                ``Worker.finish``. UsageError: ``task-evaluation``. Unavailable: ``worker-died``,
                ``aggregation-timeout``.
        """
        held = [partial for partial in sums if isinstance(partial, HeldSum)]
        # What has been finished already is kept nowhere.
        held = [partial if partial.outcome is None else self.sum(partial.summed, seconds=seconds) for partial in held]
        if len(held) > 1 and any(partial.shards for partial in held):  # shards are of one set of updates
            held = [self.sum([delivery for partial in held for delivery in partial.summed], seconds=seconds)]
        for attempt in range(self._tries):
            if attempt:  # what was kept may have been lost with the worker, or with its machine
                self._model.keep("", None)
                held = [self.sum(partial.summed, seconds=seconds) for partial in held]
            if sum(partial.weight for partial in held) != order.weight:
                message = f"Round {order.round}: the sums are not of {counted(order.weight, 'example')}."
                raise EvidenceError("weight-mismatch", message)
            try:
                return self._finish(order, held, seconds)
            except Unavailable as error:
                if error.code != DIED or attempt + 1 == self._tries:
                    raise
        raise AssertionError("a call is tried at least once")

    def _finish(self, order: FinishOrder, held: Sequence[HeldSum], seconds: float) -> Outcome:
        name = f"{agreement_digest(order.agreement)[:12]} round {order.round}"
        base = self._model.get(order.base)
        call = Call(f"finish {name}", "finish", (order, base, *(kept for h in held for _, kept in h.parts)), returns=2)
        if len(held) == 1 and (shards := held[0].shards) is not None:
            calls = [
                Call(f"finish shard {name}", "finish_shard", (order, base, shards.deliveries, cut, shards.hashes), 2, slot)
                for slot, cut in enumerate(shards.cuts)
            ]  # fmt: skip
            leaves = [leaf for part in _run_all(self._pool(), calls, 1, seconds) for leaf in part]
            call = Call(f"assemble {name}", "assemble", (order, base, leaves, *(c.kept[0] for c in calls)), returns=2)
        outcome: Outcome = _run_all(self._pool(), [call], 1, seconds)[0]
        self._model.keep(outcome.model, call.kept[0])
        return outcome

    def _sum_and_finish(self, deliveries: Sequence[Delivery], order: FinishOrder, seconds: float) -> HeldSum:
        call = Call(call_name("aggregate", deliveries[0].commitment), "aggregate", (deliveries, order), light=True)
        verdicts, outcome = _run_all(self._pool(), [call], self._tries, seconds)[0]
        if outcome is None:  # nothing has been kept of it
            return self.sum(deliveries, seconds=seconds)
        self._model.keep(outcome.model, None)  # the worker has it, and the others find it in the store
        return HeldSum(verdicts, [(deliveries, None)], outcome=outcome)

    def _sum_shards(self, deliveries: Sequence[Delivery], seconds: float) -> HeldSum:
        """Judge updates whose shards were read by several workers; without a bad one the sums are kept, else those of the
        others are made anew."""
        pool = self._pool()
        cuts = list(pairwise(shard_cuts(deliveries[0].commitment.elements, pool.workers)))
        name = call_name("sum shard", deliveries[0].commitment)
        calls = [Call(name, "sum_shard", (deliveries, cut), slot=slot) for slot, cut in enumerate(cuts)]
        found = zip(*_run_all(pool, calls, self._tries, seconds), strict=True)
        judged = {
            d.commitment.member: judge(d.commitment, parts) for d, parts in zip(deliveries, found, strict=True)
        }  # fmt: skip
        verdicts = {member: code for member, (code, _) in judged.items()}
        good = [delivery for delivery in deliveries if not verdicts[delivery.commitment.member]]
        if len(good) == len(deliveries):
            return HeldSum(verdicts, shards=Shards(good, cuts, {m: hashes for m, (_, hashes) in judged.items()}))
        if not good:
            return HeldSum(verdicts)
        again = self.sum(good, seconds=seconds)
        return HeldSum({**verdicts, **again.verdicts}, again.parts, again.shards)


def _run_all(pool: Pool, calls: Sequence[Call], tries: int, seconds: float) -> list[Any]:
    """As ``run_all``; a worker that does not answer in time may be in the task's own ``evaluate``."""
    try:
        return run_all(pool, calls, tries, seconds)
    except Unavailable as error:
        if error.code != LATE:
            raise
        message = f"A worker that verifies, sums and evaluates did not answer in {seconds:g} s. Does the task's evaluate() come to an end?"
        raise Unavailable("aggregation-timeout", message) from error


def _in_files(deliveries: Sequence[Delivery]) -> bool:
    """Whether these can be summed by shards: not too many, and none out of a pack, which only ``sum`` keeps as evidence."""
    return len(deliveries) <= AT_A_TIME and all(delivery.place.size < 0 for delivery in deliveries)
