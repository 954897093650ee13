# SPDX-License-Identifier: Apache-2.0
"""Transactions that a peer's end begins at a chaincode server, and does not wait for."""

from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2

from tests.chaincode.ledgers.fabric.hosts import CHAINCODE, FABRIC_STREAM
from tests.fakes.fabric_double import CHANNEL
from tests.fakes.fabric_stream import MESSAGE, PeerEnd, Simulation


def signed(chaincode: str = CHAINCODE, time: int = FABRIC_STREAM.at) -> Any:
    """A proposal's header as the peer hands it on; the chaincode trusts the peer for its signature."""
    extension = proposal_pb2.ChaincodeHeaderExtension(chaincode_id=chaincode_pb2.ChaincodeID(name=chaincode))
    header = common_pb2.ChannelHeader(channel_id=CHANNEL, extension=extension.SerializeToString())
    header.timestamp.seconds = time
    inner = common_pb2.Header(channel_header=header.SerializeToString()).SerializeToString()
    proposal = proposal_pb2.Proposal(header=inner).SerializeToString()
    return proposal_pb2.SignedProposal(proposal_bytes=proposal)


def begin(end: PeerEnd, txid: str, function: bytes = b"meet") -> Simulation:
    simulation = end._running[CHANNEL, txid] = Simulation({})
    payload = chaincode_pb2.ChaincodeInput(args=[function]).SerializeToString()
    end.send(MESSAGE(type=MESSAGE.TRANSACTION, payload=payload, txid=txid, channel_id=CHANNEL, proposal=signed()))
    return simulation
