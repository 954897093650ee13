# SPDX-License-Identifier: Apache-2.0
"""However a round is aggregated, by one call, by site or by shards, the model and the verdicts are the same."""

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from chaincode.blobs import BlobStore
from chaincode.evidence import UNIT, ShardEvidence, judge
from chaincode.place import Place
from coordinator import aggregate
from coordinator.aggregate import Aggregation, HeldSum, ModelAtHand
from coordinator.pool import DIED, Call, Pool
from coordinator.ports import Delivery, FinishOrder, Outcome
from coordinator.summing import Summing, Sums
from identity.errors import EvidenceError, Unavailable
from tests.coordinator.cluster_rounds import agreement, deliveries, orders, settings, train, write_task
from tests.fakes.local_cluster import LocalCluster

SITES, WIDTH = 8, 30_000
"""330,000 elements: enough for two shards; eight updates are more than one call sums at once."""


class Recording:
    """A pool that records the names of the calls; ``lose`` says which of them lose their worker."""

    def __init__(self, pool: Pool, lose: Callable[[Call], bool]) -> None:
        self._pool, self._lose, self.methods = pool, lose, list[str]()

    @property
    def workers(self) -> int:
        return self._pool.workers

    def run(self, calls: deque[Call], limit: Callable[[Call], float]) -> Iterator[tuple[Call, Any]]:
        for call, result in self._pool.run(calls, limit):
            self.methods.append(call.method)
            yield call, Unavailable(DIED, "It died.") if self._lose(call) else result

    def begin(self, calls: deque[Call], limit: Callable[[Call], float]) -> None:
        self._pool.begin(calls, limit)

    def poll(self, seconds: float) -> bool:
        return self._pool.poll(seconds)


class World:
    """Eight delivered updates, and their aggregation in several ways."""

    def __init__(self, folder: Path) -> None:
        self.settings = settings(folder, write_task(folder, width=WIDTH), SITES, workers=2)
        self.cluster = LocalCluster(self.settings)
        self.info = self.cluster.describe()
        self.terms = agreement(self.info)
        self.asked = orders(self.settings, self.info, self.terms, self.info.initial, 1)
        self.delivered = deliveries(self.asked, train(self.cluster, self.asked))

    def order(self, of: list[Delivery]) -> FinishOrder:
        return FinishOrder(self.terms, 1, self.info.initial, "", sum(d.commitment.weight for d in of))

    def aggregate(
        self, of: list[Delivery], given: bool = False, lose: Callable[[Call], bool] = lambda _: False
    ) -> tuple[HeldSum, Outcome, list[str]]:
        pool = Recording(self.cluster._pool(), lose)
        aggregation = Aggregation(lambda: pool, ModelAtHand(), 3)
        held = aggregation.sum(of, self.order(of) if given else None)
        good = self.order([d for d in of if not held.verdicts[d.commitment.member]])
        return held, held.outcome or aggregation.finish(good, [held]), pool.methods


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("aggregate"))
    with made.cluster:
        yield made


def test_three_ways_give_one_model(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    held, sharded, methods = world.aggregate(world.delivered, given=True)
    assert methods == ["sum_shard"] * 2 + ["finish_shard"] * 2 + ["assemble"]
    assert not any(held.verdicts.values())
    with monkeypatch.context() as patch:
        patch.setattr(aggregate, "UNIT", 1 << 30)
        assert world.aggregate(world.delivered)[1:] == (sharded, ["sum", "sum", "finish"])
    monkeypatch.setattr(aggregate, "AT_ONCE", 1 << 30)
    assert world.aggregate(world.delivered, given=True)[1:] == (sharded, ["aggregate"])


@pytest.mark.parametrize("way", ["shards", "sites", "one"])
def test_changed_bytes_are_left_out_by_name(world: World, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    path = Path(world.delivered[3].place.path)
    honest = path.read_bytes()
    others = [d for d in world.delivered if d is not world.delivered[3]]
    expected = world.aggregate(others)[1]
    if way != "shards":
        monkeypatch.setattr(aggregate, *(("UNIT", 1 << 30) if way == "sites" else ("AT_ONCE", 1 << 30)))
    path.write_bytes(honest[:-1] + bytes([honest[-1] ^ 1]))
    try:
        held, outcome, _ = world.aggregate(world.delivered, given=True)
    finally:
        path.write_bytes(honest)
    assert {m: code for m, code in held.verdicts.items() if code} == {
        world.delivered[3].commitment.member: "update-digest"
    }
    assert held.outcome is None
    assert {d.commitment.member for d in held.summed} == {d.commitment.member for d in others}
    assert outcome == expected


def test_bytes_that_change_before_they_are_read_again_are_refused(world: World) -> None:
    """The one process behind this pool keeps the last shard only, so it reads the others again when it finishes them."""
    aggregation = Aggregation(world.cluster._pool, ModelAtHand(), 3)
    held = aggregation.sum(world.delivered)
    path = Path(world.delivered[0].place.path)
    honest = path.read_bytes()
    path.write_bytes(bytes(len(honest)))
    try:
        with pytest.raises(EvidenceError) as refused:
            aggregation.finish(world.order(world.delivered), [held])
    finally:
        path.write_bytes(honest)
    assert refused.value.code == "update-digest"


@pytest.mark.parametrize("method", ["sum_shard", "finish_shard", "assemble"])
def test_a_lost_worker_changes_nothing(world: World, method: str) -> None:
    expected = world.aggregate(world.delivered)[1]
    lost: list[Call] = []

    def lose(call: Call) -> bool:
        if call.method == method and not lost:
            lost.append(call)
            return True
        return False

    assert world.aggregate(world.delivered, lose=lose)[1] == expected
    assert len(lost) == 1


def test_two_sums_are_joined(world: World) -> None:
    """A site that delivers late: its update is summed after the others'."""
    expected = world.aggregate(world.delivered)[1]
    aggregation = Aggregation(world.cluster._pool, ModelAtHand(), 3)
    sums = [aggregation.sum(world.delivered[:7]), aggregation.sum(world.delivered[7:])]
    assert aggregation.finish(world.order(world.delivered), sums) == expected


def test_more_updates_than_a_process_may_open_are_summed_by_site(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = world.aggregate(world.delivered)[1]
    monkeypatch.setattr(aggregate, "AT_A_TIME", SITES - 1)
    assert world.aggregate(world.delivered)[1:] == (expected, ["sum", "sum", "finish"])


def test_a_large_update_out_of_a_pack_is_kept_as_evidence(world: World) -> None:
    first, *others = world.delivered
    packed = replace(first, place=Place(first.place.path, 0, first.commitment.size))
    assert world.aggregate([packed, *others])[1] == world.aggregate(world.delivered)[1]
    with BlobStore(world.settings.blobs).open(first.commitment.digest) as data:
        assert data == Path(first.place.path).read_bytes()


def test_a_round_whose_worker_is_lost_is_aggregated_by_another(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = world.aggregate(world.delivered)[1]
    monkeypatch.setattr(aggregate, "AT_ONCE", 1 << 30)
    lost: list[Call] = []
    found = world.aggregate(world.delivered, True, lambda call: not lost and not lost.append(call))
    assert found[1:] == (expected, ["aggregate"] * 2)


def test_what_was_finished_at_once_can_be_summed_with_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = world.aggregate(world.delivered)[1]
    monkeypatch.setattr(aggregate, "AT_ONCE", 1 << 30)
    pool = Recording(world.cluster._pool(), lambda _: False)
    aggregation = Aggregation(lambda: pool, ModelAtHand(), 3)
    first = aggregation.sum(world.delivered[:7], world.order(world.delivered[:7]))
    assert first.outcome not in (None, expected)
    assert first.weight == world.order(world.delivered[:7]).weight
    sums = [first, aggregation.sum(world.delivered[7:])]
    assert aggregation.finish(world.order(world.delivered), sums) == expected


@pytest.mark.parametrize("method", ["sum", "sum_shard"])
def test_no_site_is_named_for_what_a_worker_is_short_of(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    summing = Summing(world.info.specs, BlobStore(world.settings.blobs))
    monkeypatch.setattr("chaincode.place.mapped", full)
    monkeypatch.setattr("coordinator.summing.mapped", full)
    with pytest.raises(Unavailable) as refused:
        getattr(summing, method)(world.delivered, *([(0, UNIT)] if method == "sum_shard" else []))
    assert refused.value.code == "worker-resources"


def test_sums_that_were_overwritten_are_not_confirmed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    summing, cut = Summing(world.info.specs, BlobStore(world.settings.blobs)), (0, UNIT)
    found = summing.sum_shard(world.delivered[:1], cut)
    (code, hashes) = judge(world.delivered[0].commitment, [found[0], *_rest(world)])
    assert not code
    given = {world.delivered[0].commitment.member: hashes}
    expected = summing.confirm(world.delivered[:1], cut, given)[0].copy()

    def fails(*_: object, out: Sums, **__: object) -> NoReturn:
        out.fill(0)
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("coordinator.summing.sum_shard", fails)
        with pytest.raises(MemoryError):
            summing.sum_shard(world.delivered[1:], cut)
    assert np.array_equal(summing.confirm(world.delivered[:1], cut, given)[0], expected)


def _rest(world: World) -> list[ShardEvidence]:
    """What a second worker finds of the first update."""
    delivered = world.delivered[:1]
    other = Summing(world.info.specs, BlobStore(world.settings.blobs))
    return other.sum_shard(delivered, (UNIT, delivered[0].commitment.elements))
