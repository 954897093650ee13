# SPDX-License-Identifier: Apache-2.0
"""What the Fabric ledger reads, from whom, and what it does not believe; and further clients beside it."""

import os
from dataclasses import replace

import pytest

from chaincode.ledgers.fabric.ledger import FabricLedger
from identity.errors import EvidenceError, OutcomeUnknown, Rejected, Unavailable
from tests.chaincode.ledgers.fabric.hosts import FABRIC_STREAM
from tests.chaincode.ledgers.fabric.trouble import (
    AWAY,
    HASTE,
    WHOLE,
    always,
    check_holds,
    failing,
    opened,
)
from tests.chaincode.ledgers.hosts import Clock, accepted, codes
from tests.fakes.fabric_world import Double

# Reading


def test_what_was_stored_through_another_peer_is_seen_in_ones_own(network: Double, ledger: FabricLedger) -> None:
    """A read waits until one's own peer has the block; it is never answered by another organisation's."""
    network.gateways[0].fault = failing("status", AWAY)
    accepted(ledger.submit(WHOLE[:1]))
    network.gateways[0].calls.clear()
    assert ledger.get(["federation"])["federation"] is not None
    assert network.gateways[0].calls == ["status", "evaluate"]
    network.gateways[0].fault = always("evaluate", AWAY)
    with opened(network) as other, pytest.raises(Unavailable) as caught:
        replace_patience(other).get(["federation"])
    assert caught.value.code == "fabric-read"
    assert "evaluate" not in network.gateways[1].calls


def replace_patience(ledger: FabricLedger) -> FabricLedger:
    ledger._patience = replace(HASTE, call=0.3)
    return ledger


def test_entries_go_on_by_another_peer_with_the_same_history(network: Double, ledger: FabricLedger) -> None:
    accepted(ledger.submit(WHOLE[:1]))
    network.gateways[0].fault = failing("blocks", AWAY, AWAY)
    assert [r.index for r in accepted(ledger.submit(WHOLE[1:3]))] == [1, 2]
    check_holds(ledger, WHOLE[:3])


def test_no_receipt_is_missing_where_ones_own_peer_is_behind(network: Double) -> None:
    """A peer that was just started again shows fewer blocks than its organisation's client has receipts from."""
    own = network.gateways[0]
    with opened(network, patience=replace(HASTE, total=0.5)) as ledger:
        accepted(ledger.submit(WHOLE[:1]))
        own.fault, own.lag = failing("blocks", AWAY), 1
        assert accepted(ledger.submit(WHOLE[1:2]))[0].index == 1
        with pytest.raises(Unavailable) as caught:
            list(ledger.entries())
        assert caught.value.code == "fabric-blocks"
        assert f"Org1MSP's peer {own.address} has not got them yet" in caught.value.message
        own.lag = 0
        check_holds(ledger, WHOLE[:2])


def test_a_stream_that_breaks_off_behind_its_last_block_has_shown_all(network: Double, ledger: FabricLedger) -> None:
    """Whoever asks for what follows the last block that is wanted, up to that block, is refused for good."""
    for gateway in network.gateways:
        gateway.fault = always("blocks-end", AWAY)
    assert accepted(ledger.submit(WHOLE[:1]))[0].index == 0


def test_what_is_stored_and_shown_by_nobody_is_of_unknown_outcome(network: Double) -> None:
    for gateway in network.gateways:
        gateway.fault = always("blocks", AWAY)
    with opened(network, patience=replace(HASTE, total=0.5)) as ledger:
        with pytest.raises(OutcomeUnknown) as caught:
            ledger.submit(WHOLE[:1])
        assert caught.value.code == "fabric-blocks"
        assert "Submit the same entries again" in str(caught.value)
        for gateway in network.gateways:
            gateway.fault = failing("blocks")
        assert accepted(ledger.submit(WHOLE[:1]))[0].index == 0


def test_a_peer_that_shows_another_history_is_found(network: Double, ledger: FabricLedger) -> None:
    accepted(ledger.submit(WHOLE[:1]))
    network.channel.append([])
    network.channel.blocks[-1].header.previous_hash = b"another"
    with pytest.raises(EvidenceError) as caught:
        list(ledger.entries())
    assert caught.value.code == "fabric-fork"


def test_transactions_that_are_not_those_of_their_header_are_found(network: Double, ledger: FabricLedger) -> None:
    accepted(ledger.submit(WHOLE[:1]))
    network.channel.append([])
    network.channel.blocks[-1].data.data.append(b"more")
    with pytest.raises(EvidenceError) as caught:
        list(ledger.entries())
    assert caught.value.code == "fabric-fork"


def test_an_entry_that_came_twice_is_where_it_came_first(network: Double, ledger: FabricLedger) -> None:
    """Which a channel shows only where most organisations run something else than the contract."""
    accepted(ledger.submit(WHOLE[:1]))
    network.channel.state.clear()
    with opened(network, "Org2") as other:
        assert [r.index for r in accepted(other.submit(WHOLE[:2]))] == [0, 1]
        for reader in (ledger, other, ledger):
            check_holds(reader, WHOLE[:2])
            assert list(reader.entries(1)) == WHOLE[1:2]


def test_another_channel_than_the_profiles_is_refused(network: Double, ledger: FabricLedger) -> None:
    network.channel.blocks[0].header.previous_hash = b"another"
    with pytest.raises(EvidenceError) as caught:
        list(ledger.entries())
    assert caught.value.code == "fabric-genesis"


def test_entries_are_followed_as_they_come(network: Double, ledger: FabricLedger) -> None:
    accepted(ledger.submit(WHOLE[:2]))
    with opened(network, "Org2") as reader:
        following = reader.follow(1)
        assert next(following) == WHOLE[1]
        accepted(ledger.submit(WHOLE[2:3]))
        assert next(following) == WHOLE[2]
        accepted(ledger.submit(WHOLE[3:5]))
        assert [next(following), next(following)] == WHOLE[3:5]


# Other clients


def test_a_second_client_hears_of_duplicates_whatever_its_clock(network: Double, ledger: FabricLedger) -> None:
    first = accepted(ledger.submit(WHOLE))
    late = Clock(now=FABRIC_STREAM.at + 10_000)
    with FabricLedger.open(network.profile, "Org2", clock=late, patience=HASTE) as other:
        assert other.submit([WHOLE[5], WHOLE[0]]) == [first[5], first[0]]
        assert codes(other.submit([FABRIC_STREAM.open(7), WHOLE[3]])) == ["clock-skew", ""]


def test_a_process_that_was_forked_has_channels_of_its_own(ledger: FabricLedger) -> None:
    peer = ledger._own[0]
    accepted(ledger.submit(WHOLE[:1]))
    before = peer._channel
    peer._process = os.getpid() - 1  # what a fork finds
    assert ledger.get(["federation"])["federation"] is not None
    assert peer._channel is not before


def test_refusals_of_a_large_batch_fit_into_an_error(ledger: FabricLedger) -> None:
    """An error's details travel in a header, which gRPC bounds to 8 KiB where nobody says otherwise."""
    accepted(ledger.submit(WHOLE))
    refused = [FABRIC_STREAM.open(n) for n in range(10, 150)]
    outcomes = ledger.submit(refused)
    assert codes(outcomes) == ["wrong-round"] * 140
    assert all(isinstance(o, Rejected) and o.message for o in outcomes)
