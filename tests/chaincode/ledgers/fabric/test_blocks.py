# SPDX-License-Identifier: Apache-2.0
"""What a block adds to the log, whatever it holds."""

from contextlib import suppress
from typing import Any

import pytest
from fabric_protos.common import common_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode.ledgers.fabric.blocks import entries_of
from chaincode.ledgers.fabric.messages import response_of
from identity.errors import EvidenceError
from tests.chaincode.ledgers.fabric.hosts import CHAINCODE, FABRIC_WHOLE, fabric
from tests.chaincode.ledgers.hosts import Clock, accepted
from tests.fakes.fabric_world import Double


@pytest.fixture
def block(network: Double) -> Any:
    with fabric(network.profile, Clock()) as ledger:
        accepted(ledger.submit(FABRIC_WHOLE[:3]))
    return network.channel.blocks[-1]


def test_a_block_adds_what_its_valid_transactions_accepted(block: Any) -> None:
    assert [one.envelope for one in entries_of(block, CHAINCODE)] == FABRIC_WHOLE[:3]
    block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER] = b"\x0b"
    assert list(entries_of(block, CHAINCODE)) == []
    block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER] = b""
    assert list(entries_of(block, CHAINCODE)) == []


def test_a_transaction_of_another_chaincode_adds_nothing(block: Any) -> None:
    assert list(entries_of(block, "other")) == []


def test_entries_that_another_chaincode_wrote_are_refused(block: Any) -> None:
    """It called ours, with arguments that the transaction does not show."""
    envelope = common_pb2.Envelope.FromString(block.data.data[0])
    payload = common_pb2.Payload.FromString(envelope.payload)
    header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    header.extension = header.extension.replace(CHAINCODE.encode(), b"another!!")
    payload.header.channel_header = header.SerializeToString()
    block.data.data[0] = common_pb2.Envelope(payload=payload.SerializeToString()).SerializeToString()
    with pytest.raises(EvidenceError) as caught:
        list(entries_of(block, CHAINCODE))
    assert "another!!" in caught.value.message


@pytest.mark.parametrize(
    ("old", "new"), [(b'{"accepted":', b'{"duplicate":'), (b"entry/", b"entrx/"), (b"submit", b"submiT")]
)
def test_a_response_that_does_not_fit_the_writes_is_refused(block: Any, old: bytes, new: bytes) -> None:
    """What the peers endorsed cannot be so; whoever shows it has changed it."""
    data = block.data.data[0]
    assert old in data
    block.data.data[0] = data.replace(old, new)
    if old == b"submit":  # a transaction of another function: nothing of it is in the log
        assert list(entries_of(block, CHAINCODE)) == []
        return
    with pytest.raises(EvidenceError) as caught:
        list(entries_of(block, CHAINCODE))
    assert caught.value.code == "fabric-block"


@settings(max_examples=100)
@given(st.binary(max_size=60))
def test_hostile_transactions_are_refused_or_add_nothing(data: bytes) -> None:
    block = common_pb2.Block(data=common_pb2.BlockData(data=[data]))
    block.metadata.metadata.extend([b"", b"", b"\0"])
    with suppress(EvidenceError):
        assert list(entries_of(block, CHAINCODE)) == []
    with pytest.raises(EvidenceError):
        response_of(data)
