# SPDX-License-Identifier: Apache-2.0
"""How a run reads its channel's blocks where streams break off or are slow: a recorded channel, shown by the double's peers."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.common import common_pb2

from chaincode.ledgers import Receipt
from chaincode.ledgers.fabric.gateway import CallFailed, Peer
from chaincode.ledgers.fabric.identity import load_member
from chaincode.ledgers.fabric.ledger import FabricLedger
from chaincode.ledgers.replica import Replica
from identity.errors import EvidenceError
from ops import ledger_blocks
from ops.ledger_blocks import Feed
from ops.ledger_network import UNTRUE
from tests.chaincode.blocks.recordings import Recording, recording
from tests.chaincode.ledgers.fabric.trouble import AWAY, always
from tests.fakes.fabric_world import Double

SECONDS = 2.0


@pytest.fixture
def channel(network: Double) -> Recording:
    """The recorded channel, up to a block with entries, on the double network."""
    whole = recording("raft")
    last = max(number for number in range(1, len(whole.blocks)) if size(whole, number + 1) > size(whole, number))
    network.channel.blocks[:] = [common_pb2.Block.FromString(block) for block in whole.blocks[: last + 1]]
    return whole


def size(whole: Recording, blocks: int) -> int:
    return len(whole.verify(whole.blocks[:blocks])[1])


@pytest.fixture
def heard() -> list[CallFailed]:
    return []


@pytest.fixture
def feed(network: Double, channel: Recording, heard: list[CallFailed], tmp_path: Path) -> Iterator[Feed]:
    """Both peers show the newest block only once they are asked to wait for it."""
    peers = [Peer(node) for one in network.profile.organisations for node in one.peers]
    member = load_member(network.profile.organisations[0])
    with Replica.open(tmp_path / "replica.sqlite", origin="fedledger/x/channel/code") as replica:
        made = Feed(tmp_path, channel.trust, replica, peers, member, notice=heard.append, seconds=SECONDS)
        made.resume()
        for gateway in network.gateways:
            gateway.lag = 1
        made.catch_up()
        for gateway in network.gateways:
            gateway.calls.clear()
        yield made
        for peer in peers:
            peer.close()


def test_a_stream_that_breaks_off_behind_its_last_block_has_shown_all(
    network: Double, channel: Recording, feed: Feed, heard: list[CallFailed]
) -> None:
    """Whoever asks for what follows the last block that is wanted, up to that block, is refused for good."""
    own, other = network.gateways

    def fault(step: str, _txid: str) -> None:
        """The block comes while it is waited for, and the stream breaks off behind it."""
        if step == "blocks" and own.calls.count("blocks") == 2:
            own.lag = 0
        if step == "blocks-end":
            raise AWAY

    own.fault = fault
    feed.catch_up(size(channel, len(network.channel.blocks)))
    assert [failure.code for failure in heard] == ["UNAVAILABLE"]
    assert "blocks" not in other.calls


def test_a_block_that_takes_longer_than_a_turn_arrives(
    network: Double, channel: Recording, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for longer each time, both where it is the newest and where it is still to come."""
    monkeypatch.setattr(ledger_blocks, "_NEXT_SECONDS", 0.05)
    never = threading.Event()

    def show(number: int) -> Any:
        never.wait(0.15)
        return network.channel.blocks[number]

    def fault(step: str, _txid: str) -> None:
        if step == "blocks" and network.gateways[0].calls.count("blocks") == 2:
            for gateway in network.gateways:
                gateway.lag = 0

    network.gateways[0].fault = fault
    for gateway in network.gateways:
        gateway.show = show
    feed.catch_up(size(channel, len(network.channel.blocks)))


def test_a_newest_block_that_takes_longer_than_a_call_arrives(
    network: Double, channel: Recording, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_blocks, "_CALL_SECONDS", 0.05)
    never = threading.Event()

    def show(number: int) -> Any:
        never.wait(0.15)
        return network.channel.blocks[number]

    network.gateways[1].fault = always("blocks", AWAY)
    network.gateways[0].show = show
    for gateway in network.gateways:
        gateway.lag = 0
    feed.catch_up()
    assert feed._chain.height == len(network.channel.blocks)


def test_a_client_asks_it_where_entries_are_and_reads_no_block_itself(
    network: Double, channel: Recording, feed: Feed
) -> None:
    for gateway in network.gateways:
        gateway.lag = 0
    newest, entries = len(network.channel.blocks) - 1, channel.verify([*map(plain, network.channel.blocks)])[1]
    assert feed.index_of(entries[-1].id) is None
    feed.read_to([], newest)
    assert [feed.index_of(entry.id) for entry in entries] == list(range(len(entries)))
    asked = [len(gateway.calls) for gateway in network.gateways]
    feed.read_to([], newest)
    with FabricLedger.open(network.profile, "Org1", numbers=feed) as client:
        receipts = client.submit([entry.envelope for entry in entries])
    assert receipts == [Receipt(entry.id, index) for index, entry in enumerate(entries)]
    assert [len(gateway.calls) for gateway in network.gateways] == asked


def plain(block: Any) -> bytes:
    return bytes(block.SerializeToString())


def flipped(network: Double, number: int) -> Any:
    """A block whose last transaction's validity code is another one."""
    block = common_pb2.Block.FromString(network.channel.blocks[number].SerializeToString())
    codes = bytearray(block.metadata.metadata[2])
    codes[-1] ^= 11
    block.metadata.metadata[2] = bytes(codes)
    return block


def test_one_peer_that_shows_what_does_not_hold_stops_nobody(
    network: Double, channel: Recording, feed: Feed, heard: list[CallFailed]
) -> None:
    own, other = network.gateways
    own.lag = other.lag = 0
    own.show = lambda number: flipped(network, number)
    feed.catch_up(size(channel, len(network.channel.blocks)))
    assert feed._chain.height == len(network.channel.blocks)
    assert [(failure.node.address, failure.code) for failure in heard] == [(feed._peers[-1].node.address, UNTRUE)]
    assert "is flagged" in heard[0].message
    asked = own.calls.count("blocks")
    feed.catch_up()
    assert own.calls.count("blocks") == asked, "it is asked last from then on"


def test_where_every_peer_shows_what_does_not_hold_the_run_ends(network: Double, feed: Feed) -> None:
    height = feed._chain.height
    for gateway in network.gateways:
        gateway.lag = 0
        gateway.show = lambda number: flipped(network, number)
    with pytest.raises(EvidenceError) as error:
        feed.catch_up()
    assert error.value.code == "validity-differs"
    assert feed._chain.height == height, "what was kept still holds"
