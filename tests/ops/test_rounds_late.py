# SPDX-License-Identifier: Apache-2.0
"""Rounds that do not go through at once: a coordinator that was away, a delivery that is right the second time."""

from pathlib import Path
from typing import ClassVar

import pytest

from chaincode.place import Place
from ops.simulate import Honest, Tampering
from participant.agent import RoundView
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
