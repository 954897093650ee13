# SPDX-License-Identifier: Apache-2.0
"""What the Fabric ledger reads, from whom, and what it does not believe; and further clients beside it."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chaincode.ledgers.fabric.ledger import FabricLedger
from identity.errors import EvidenceError, Rejected, Unavailable
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
from tests.fakes.fabric_world import Double, double


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Double]:
    with double(tmp_path, organisations=2) as made:
        yield made


@pytest.fixture
def ledger(network: Double) -> Iterator[FabricLedger]:
    with opened(network) as made:
        yield made


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
