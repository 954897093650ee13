# SPDX-License-Identifier: Apache-2.0
"""Nodes that answer what no honest one would, or slowly: each is passed over where another serves, and named where none does."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fabric_protos.common import common_pb2

from chaincode.ledgers.fabric import log
from chaincode.ledgers.fabric.ledger import FabricLedger
from identity.errors import EvidenceError, OutcomeUnknown, Unavailable
from tests.chaincode.ledgers.fabric.test_direct import NOBODY
from tests.chaincode.ledgers.fabric.trouble import WHOLE, always, check_holds, opened, pending
from tests.chaincode.ledgers.hosts import accepted
from tests.fakes.fabric_orderer import ordering
from tests.fakes.fabric_world import Double

NAMELESS = 12345


def later(blocks: int) -> Callable[[int], Any]:
    """Show an empty block of a later number in each one's place."""
    return lambda number: common_pb2.Block(header=common_pb2.BlockHeader(number=number + blocks))


# Numbers without a name


def test_a_validation_code_without_a_name_says_nothing_of_a_transaction(network: Double, ledger: FabricLedger) -> None:
    for gateway in network.gateways:
        gateway.code = NAMELESS
    with pytest.raises(OutcomeUnknown) as caught:
        ledger.submit(WHOLE[:1])
    assert caught.value.code == "fabric-outcome-unknown"
    assert "12345" in caught.value.message
    assert len(pending(network)) == 1
    with pytest.raises(OutcomeUnknown):
        ledger.recover()
    network.gateways[1].code = None
    assert ledger.recover() == 1
    check_holds(ledger, WHOLE[:1])


def test_an_orderers_status_without_a_name_is_a_refusal(network: Double) -> None:
    for gateway in network.gateways:
        gateway.fault = always("submit", NOBODY)
    with ordering(network) as (orderer, profile), opened(network, profile=profile) as ledger:
        orderer.status = NAMELESS
        with pytest.raises(OutcomeUnknown):
            ledger.submit(WHOLE[:1])
        orderer.status = common_pb2.SUCCESS
        assert ledger.recover() == 1


def test_a_status_without_a_name_in_the_place_of_a_block_is_a_refusal(network: Double, ledger: FabricLedger) -> None:
    network.gateways[0].show = lambda _number: NAMELESS
    accepted(ledger.submit(WHOLE[:1]))
    with pytest.raises(Unavailable) as caught:
        list(ledger.entries())
    assert caught.value.code == "fabric-blocks"
    assert "12345" in caught.value.message


# Blocks that were not asked for, or not shown


def test_a_block_in_the_place_of_another_is_refused(network: Double, ledger: FabricLedger) -> None:
    """Another peer is asked; where there is none, the one that shows it is named."""
    own = network.gateways[0]
    own.show = later(3)
    assert accepted(ledger.submit(WHOLE[:1]))[0].index == 0
    with pytest.raises(EvidenceError) as caught:
        list(ledger.entries())
    assert caught.value.code == "fabric-fork"
    assert f"Org1MSP's peer {own.address}" in caught.value.message
    assert "block 4 in the place of block 1" in caught.value.message


def test_blocks_that_are_left_out_at_the_end_are_missing(network: Double, ledger: FabricLedger) -> None:
    own = network.gateways[0]
    own.show = lambda number: network.channel.blocks[number] if number == 0 else int(common_pb2.SUCCESS)
    assert accepted(ledger.submit(WHOLE[:1]))[0].index == 0
    with pytest.raises(Unavailable) as caught:
        list(ledger.entries())
    assert f"Org1MSP's peer {own.address}" in caught.value.message


def test_blocks_beyond_those_that_are_wanted_are_refused(network: Double, ledger: FabricLedger) -> None:
    """An entry would be shown twice: with what was seen before, and with what came since."""
    accepted(ledger.submit(WHOLE[:1]))
    with opened(network, "Org2") as other:
        accepted(other.submit(WHOLE[1:2]))

    class Lavish:
        node = ledger._own[0].node

        def blocks(self, _request: object, _turn: float) -> Iterator[Any]:
            yield from network.channel.blocks[1:]

    with pytest.raises(EvidenceError) as caught:
        list(ledger._log.entries([Lavish()], 0))  # type: ignore[list-item]
    assert caught.value.code == "fabric-fork"


@pytest.mark.parametrize("others", [[], [2], [2, 1]])
def test_a_block_that_was_read_before_must_show_the_same_entries(
    network: Double, ledger: FabricLedger, others: list[int]
) -> None:
    """None, another block's alone, or more than its own."""
    accepted(ledger.submit(WHOLE[:1]))
    accepted(ledger.submit(WHOLE[1:2]))
    check_holds(ledger, WHOLE[:2])
    forged = common_pb2.Block(header=common_pb2.BlockHeader(number=1))
    forged.data.data.extend(network.channel.blocks[n].data.data[0] for n in others)
    forged.metadata.metadata.extend([b"", b"", bytes(len(others)), b"", b""])
    own = network.gateways[0]
    own.show = lambda number: forged if number == 1 else network.channel.blocks[number]
    with pytest.raises(EvidenceError) as caught:
        list(ledger.entries())
    assert caught.value.code == "fabric-fork"
    assert f"Org1MSP's peer {own.address}" in caught.value.message


# A slow line


def test_a_block_that_takes_longer_than_a_turn_arrives(
    network: Double, ledger: FabricLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever cuts it off each time after as long never has it, whatever the patience."""
    monkeypatch.setattr(log, "TURN_SECONDS", 0.05)
    never = threading.Event()

    def show(number: int) -> Any:
        never.wait(0.15)
        return network.channel.blocks[number]

    for gateway in network.gateways:
        gateway.show = show
    assert accepted(ledger.submit(WHOLE[:1]))[0].index == 0
    check_holds(ledger, WHOLE[:1])
