# SPDX-License-Identifier: Apache-2.0
"""Blobs in the run's store that are not what their names say: no site is named for them."""

import pytest

from chaincode.chunks import chunk_root
from identity.envelope import Unsigned
from ops.simulate import Honest
from participant.agent import RoundView
from participant.ports import TrainFailure, TrainResult
from tests.ops.federated import Federated, Killed, Make, dying


class Poisoning(Honest):
    """While it commits, other bytes come into the store under the digest of its update."""

    federated: Federated
    packed = False

    def answer(self, view: RoundView, result: TrainResult | TrainFailure) -> Unsigned | None:
        assert isinstance(result, TrainResult)
        if view.head.round == 1:
            blobs, other = Poisoning.federated.blobs, bytes(result.size)
            if Poisoning.packed:
                blobs.put_small([(result.digest, other)])
            else:
                path = blobs.path(result.digest)
                path.parent.mkdir(parents=True)
                path.write_bytes(other)
        return self.agent.answer(view, result)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("killed", [False, True])
def test_other_bytes_in_the_store_are_replaced_by_what_the_site_delivers(
    make: Make, monkeypatch: pytest.MonkeyPatch, packed: bool, killed: bool
) -> None:
    """Also by a coordinator that comes back, which looks into the store before it asks the sites."""
    federated = make()
    monkeypatch.setattr(Poisoning, "federated", federated, raising=False)
    monkeypatch.setattr(Poisoning, "packed", packed)
    federated.agents["site-02"] = Poisoning(federated.agents["site-02"], 0)
    if killed:
        with pytest.raises(Killed):
            federated.driver(watch=dying("seal", 1)).drive()
        federated.restart()
    first, _ = federated.drive()
    assert first.body["attempt"] == 1
    assert not first.body["omitted"]
    assert federated.member("site-02") in first.body["included"]
    for commit in federated.entries("commit"):
        with federated.blobs.open(commit.subjects["update"]) as data:
            assert chunk_root(data) == commit.subjects["update"]
