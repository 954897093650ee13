# SPDX-License-Identifier: Apache-2.0
"""Transactions that a client hands to an orderer itself, because no peer's gateway reaches one."""

from dataclasses import replace
from pathlib import Path

import pytest
from fabric_protos.common import common_pb2

from chaincode.ledgers.fabric.profile import Node
from identity.errors import OutcomeUnknown
from tests.chaincode.ledgers.fabric.trouble import CODE, WHOLE, always, check_holds, opened, pending
from tests.chaincode.ledgers.hosts import accepted
from tests.fakes.fabric_double import Fault
from tests.fakes.fabric_orderer import ordering
from tests.fakes.fabric_world import Double

NOBODY = Fault(CODE.UNAVAILABLE, "no orderers could successfully process transaction", [
    ("orderer:1", "OrdererMSP", "connection refused")
])  # fmt: skip


def test_an_orderer_is_asked_where_no_gateway_reaches_one(network: Double) -> None:
    """As gateways do for up to two minutes after an orderer is back that was away for as long."""
    for gateway in network.gateways:
        gateway.fault = always("submit", NOBODY)
    with ordering(network) as (orderer, profile), opened(network, profile=profile) as ledger:
        assert accepted(ledger.submit(WHOLE[:2]))[-1].index == 1
        assert orderer.taken == 1
        check_holds(ledger, WHOLE[:2])
        assert pending(network) == []


def test_a_gateway_that_reaches_an_orderer_is_enough(network: Double) -> None:
    network.gateways[0].fault = always("submit", NOBODY)
    with ordering(network) as (orderer, profile), opened(network, profile=profile) as ledger:
        accepted(ledger.submit(WHOLE[:1]))
        assert orderer.taken == 0


def test_an_orderer_that_does_not_take_it_changes_nothing_in_what_is_told(network: Double) -> None:
    for gateway in network.gateways:
        gateway.fault = always("submit", NOBODY)
    with ordering(network) as (orderer, profile), opened(network, profile=profile) as ledger:
        orderer.status = common_pb2.SERVICE_UNAVAILABLE
        with pytest.raises(OutcomeUnknown) as caught:
            ledger.submit(WHOLE[:1])
        assert "Those that do not answer: orderer:1." in caught.value.message
        assert len(pending(network)) == 1
        orderer.status = common_pb2.SUCCESS
        assert ledger.recover() == 1
        check_holds(ledger, WHOLE[:1])


@pytest.mark.parametrize("tls_ca", [None, Path("none.pem")])
def test_an_orderer_that_the_profile_does_not_reach_is_left_out_and_named(network: Double, tls_ca: Path | None) -> None:
    """Elsewhere than on loopback it needs an authority for its TLS; while the peers' gateways do, nobody needs it."""
    unfit = Node("orderer.example:7050", "OrdererMSP", tls_ca)
    with ordering(network) as (orderer, profile):
        with opened(network, profile=replace(profile, orderers=(unfit,))) as ledger:
            accepted(ledger.submit(WHOLE[:1]))
            for gateway in network.gateways:
                gateway.fault = always("submit", NOBODY)
            with pytest.raises(OutcomeUnknown) as caught:
                ledger.submit(WHOLE[1:2])
        code = "fabric-tls-ca" if tls_ca else "fabric-tls-needed"
        assert f"order at OrdererMSP's orderer orderer.example:7050: {code}, The" in caught.value.message
        assert "Those that do not answer: orderer:1." in caught.value.message
        with opened(network, profile=replace(profile, orderers=(unfit, *profile.orderers))) as ledger:
            accepted(ledger.submit(WHOLE[1:2]))
        assert orderer.taken == 1
