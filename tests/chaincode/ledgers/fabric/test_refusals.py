# SPDX-License-Identifier: Apache-2.0
"""What a profile's mistakes look like: they are named, and nobody waits for a network that will not change."""

from dataclasses import replace

import pytest

from identity.errors import Unavailable
from tests.chaincode.ledgers.fabric.trouble import AWAY, CODE, HASTE, WHOLE, always, failing, opened
from tests.fakes.fabric_double import Fault
from tests.fakes.fabric_world import Double


def test_a_chaincode_that_no_peer_knows_is_named_at_once(network: Double) -> None:
    said = Fault(CODE.FAILED_PRECONDITION, "no combination: No metadata was found for chaincode fedledger in channel x")
    network.gateways[1].fault = always("endorse", said)
    with opened(network, patience=replace(HASTE, total=600.0)) as ledger:
        network.gateways[0].fault = failing("endorse", AWAY, said)  # one peer that is away may know it
        with pytest.raises(Unavailable) as caught:
            ledger.submit(WHOLE[:1])
    assert network.gateways[0].calls.count("endorse") == 2
    assert caught.value.code == "fabric-no-chaincode"
    assert "fedledger fabric package" in str(caught.value.next)
