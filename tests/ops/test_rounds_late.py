# SPDX-License-Identifier: Apache-2.0
"""Rounds that do not go through at once: a coordinator that was away, a delivery that is right the second time."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from chaincode.place import Place
from coordinator.dispatch import HeldSum
from coordinator.ports import Delivery, FinishOrder
from coordinator.rounds import PATIENCE
from identity.errors import EvidenceError
from ops.simulate import Honest, Tampering
from participant.agent import RoundView
from tests.fakes.local_cluster import LocalCluster
from tests.ops.federated import Killed, Make, dying, with_fault


@pytest.mark.parametrize("moment", ["open", "site-committed", "seal", "delivered", "before-record"])
def test_a_coordinator_that_comes_back_late_reaches_the_same_model(make: Make, moment: str) -> None:
    expected = make().drive()[-1].subjects["model"]
    federated = make()
    with pytest.raises(Killed):
        federated.driver(watch=dying(moment, 2)).drive()
    federated.restart()
    federated.moved += 3600  # every deadline has passed while nobody was there
    records = federated.drive()
    assert records[-1].subjects["model"] == expected
    assert [r.body["round"] for r in records] == [1, 2]
    assert all(not r.body["omitted"] for r in records)
    # What was committed to is in the outbox or the store, and the attempt goes on; only who was never asked is asked anew.
    assert records[-1].body["attempt"] == (2 if moment == "open" else 1)


class Mending(Tampering):
    """Delivers other bytes first, and the committed ones when it is asked once more."""

    asked: ClassVar[list[str]] = []

    def deliver(self, view: RoundView) -> Place | None:
        if view.head.round == self.round:
            self.asked.append(self.site)
        return Honest.deliver(self, view) if len(self.asked) > 1 else super().deliver(view)


def test_a_delivery_that_is_mended_is_included(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mending, "asked", [])
    federated = make()
    federated.agents["site-02"] = with_fault(federated.agents["site-02"], Mending, 1)
    first, _ = federated.drive()
    assert Mending.asked == ["site-02"] * 2
    assert (first.body["attempt"], first.body["omitted"]) == (1, [])
    told = [e.facts["verdict"] for e in federated.events
            if (e.kind, e.round) == ("delivered", 1) and e.facts["member"] == federated.member("site-02")]  # fmt: skip
    assert told == ["update-digest", ""]


def test_the_outbox_is_empty_when_the_rounds_are_recorded(make: Make) -> None:
    federated = make()
    federated.agents["site-02"] = with_fault(federated.agents["site-02"], Tampering, 1)
    federated.drive()
    assert list(Path(federated.outbox.folder).iterdir()) == []


class Lying:
    """An aggregator whose worker names a model that it has not stored; honest after that."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster, self.lies, self.patience = cluster, 1, set[float]()

    def sum(self, deliveries: Sequence[Delivery], order: FinishOrder | None = None, *, seconds: float) -> HeldSum:
        self.patience.add(seconds)
        held = self._cluster.sum(deliveries, order, seconds=seconds)
        if held.outcome is None or not self.lies:
            return held
        self.lies -= 1
        return replace(held, outcome=replace(held.outcome, model="c" * 64))


def test_a_model_that_is_not_there_is_not_recorded(make: Make) -> None:
    federated = make()
    aggregator = Lying(federated.cluster)
    with pytest.raises(EvidenceError, match="there is none") as refused:
        federated.driver(aggregator=aggregator).drive()
    assert refused.value.code == "model-missing"
    assert federated.entries("record") == []
    federated.restart()
    federated.driver(aggregator=aggregator).drive()
    assert [(r.body["round"], r.body["attempt"]) for r in federated.entries("record")] == [(1, 1), (2, 1)]
    assert aggregator.patience == {PATIENCE}, "no worker is waited for without end"


def test_a_model_that_is_another_than_its_name_says_is_not_recorded(make: Make) -> None:
    federated = make()
    with pytest.raises(EvidenceError, match=f"there is {'e' * 64}"):
        federated.driver(stored=lambda _: "e" * 64).drive()
    assert federated.entries("record") == []
