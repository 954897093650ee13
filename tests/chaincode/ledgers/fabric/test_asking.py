# SPDX-License-Identifier: Apache-2.0
"""The loop that asks peers for blocks: where one ends the next goes on, and what a caller does not believe another may show."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fabric_protos.common import common_pb2

from chaincode.ledgers.fabric.asking import Asking, UnfoundedError
from chaincode.ledgers.fabric.gateway import CallFailed, Peer
from chaincode.ledgers.fabric.identity import load_member
from identity.errors import Unavailable
from ops.ledger_blocks import first_hash, hash_of
from tests.chaincode.blocks.recordings import recording
from tests.chaincode.ledgers.fabric.trouble import AWAY, always
from tests.fakes.fabric_world import Double

HIGH = 5


@pytest.fixture
def peers(network: Double) -> Iterator[list[Peer]]:
    """Both peers show the same few blocks of a recorded channel."""
    blocks = recording("raft").blocks[: HIGH + 1]
    network.channel.blocks[:] = [common_pb2.Block.FromString(block) for block in blocks]
    made = [Peer(node) for one in network.profile.organisations for node in one.peers]
    yield made
    for peer in made:
        peer.close()


@pytest.fixture
def heard() -> list[CallFailed]:
    return []


@pytest.fixture
def asking(network: Double, peers: list[Peer], heard: list[CallFailed]) -> Asking:
    return Asking(load_member(network.profile.organisations[0]), network.profile.channel, notice=heard.append)


def number(block: Any, _peer: Peer, place: int) -> int:
    assert block.header.number == place
    return place


def test_the_next_peer_goes_on_where_one_breaks_off(
    network: Double, peers: list[Peer], asking: Asking, heard: list[CallFailed]
) -> None:
    shown: list[tuple[int, Peer]] = []

    def take(_: Any, peer: Peer, place: int) -> int:
        if place == 2 and peer is peers[0]:
            raise CallFailed("blocks", peer.node, "UNAVAILABLE", "it breaks off")
        shown.append((place, peer))
        return place

    assert list(asking.blocks(peers, 0, None, take, turn=5)) == list(range(HIGH + 1))
    assert [peer is peers[0] for _, peer in shown] == [True, True, False, False, False, False]
    assert [failure.message for failure in heard] == ["it breaks off"]


def test_what_one_caller_does_not_believe_another_peer_may_show(peers: list[Peer], asking: Asking) -> None:
    def take(_: Any, peer: Peer, place: int) -> int:
        if peer in untrue:
            raise UnfoundedError("block-altered", "it does not hold")
        return place

    untrue = peers[:1]
    assert list(asking.blocks(peers, 1, HIGH, take, turn=5)) == list(range(1, HIGH + 1))
    untrue = peers
    with pytest.raises(UnfoundedError):
        list(asking.blocks(peers, 1, HIGH, take, turn=5))


def test_without_patience_each_peer_is_asked_once(
    network: Double, peers: list[Peer], asking: Asking, heard: list[CallFailed]
) -> None:
    for gateway in network.gateways:
        gateway.fault = always("blocks", AWAY)
    with pytest.raises(Unavailable) as caught:
        list(asking.blocks(peers, 0, None, number, turn=5))
    assert caught.value.code == "fabric-blocks"
    assert [gateway.calls.count("blocks") for gateway in network.gateways] == [1, 1]
    assert [failure.code for failure in heard] == ["UNAVAILABLE", "UNAVAILABLE"]


def test_the_first_block_is_that_of_any_peer_that_answers(
    network: Double, peers: list[Peer], heard: list[CallFailed]
) -> None:
    network.gateways[0].fault = always("blocks", AWAY)
    member = load_member(network.profile.organisations[0])
    found = first_hash(peers, member, network.profile.channel, heard.append)
    assert found == hash_of(recording("raft").blocks[0])
    assert len(heard) == 1


def test_an_untrue_block_that_another_peer_shows_right_is_forgotten(peers: list[Peer], asking: Asking) -> None:
    failures = iter([True])

    def take(_: Any, peer: Peer, place: int) -> int:
        if peer is peers[0] and place == 0:
            raise UnfoundedError("block-data-hash", "It is not what was ordered.")
        if place == 3 and next(failures, False):
            raise CallFailed("blocks", peer.node, "UNAVAILABLE", "it breaks off")
        return place

    patient = replace(asking, patience=5.0)
    assert list(patient.blocks(peers, 0, HIGH, take, turn=5)) == list(range(HIGH + 1))


def test_nobody_to_ask_is_no_channel_of_no_blocks(asking: Asking) -> None:
    with pytest.raises(Unavailable) as refused:
        list(asking.blocks([], 0, HIGH, number, turn=5))
    assert refused.value.code == "fabric-blocks"
