# SPDX-License-Identifier: Apache-2.0
"""A Fabric network in this process: Gateway and Deliver services over real gRPC and real messages, before the real chaincode.

It serves what a real network cannot: entries of any time (a real peer refuses times far from its own clock), a fresh ledger
in no time (each chaincode name is one), and faults at a chosen moment. The streams and the representative cases run on the
real network as well. What it keeps to: simulation on committed state, version checks, one transaction a block, signatures.
"""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2, gateway_pb2_grpc
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import (
    chaincode_pb2,
    events_pb2,
    events_pb2_grpc,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from google.protobuf.any_pb2 import Any as AnyMessage

from chaincode.ledgers.fabric.blocks import data_hash, header_hash
from chaincode.ledgers.fabric.identity import P256_ORDER
from chaincode.ledgers.fabric.messages import chaincode_action
from tests.fakes.fabric_stream import PeerEnd, Simulation, Version

CHANNEL = "double"
CODE = transaction_pb2.TxValidationCode


@dataclass
class Channel:
    """A channel: its blocks, and the state by chaincode and key."""

    peer: PeerEnd
    blocks: list[Any] = field(default_factory=list)
    state: dict[str, dict[str, tuple[bytes, Version]]] = field(default_factory=dict)
    statuses: dict[str, tuple[int, int]] = field(default_factory=dict)
    grown: threading.Condition = field(default_factory=threading.Condition)
    refused: list[int] = field(default_factory=list)
    """Validation codes of the next transactions, which are invalid whatever they are."""

    def __post_init__(self) -> None:
        self.append([])

    def simulate(self, proposal: Any, signed: Any) -> tuple[Any, Simulation, str]:
        header = common_pb2.Header.FromString(proposal.header)
        channel = common_pb2.ChannelHeader.FromString(header.channel_header)
        payload = proposal_pb2.ChaincodeProposalPayload.FromString(proposal.payload)
        spec = chaincode_pb2.ChaincodeInvocationSpec.FromString(payload.input).chaincode_spec
        with self.grown:
            values = dict(self.state.get(spec.chaincode_id.name, {}))
        arguments = list(spec.input.args)
        return (
            header,
            self.peer.run(channel.channel_id, channel.tx_id, arguments, signed, values),
            spec.chaincode_id.name,
        )

    def append(self, envelopes: list[Any]) -> None:
        """Validate envelopes in order and append a block of them."""
        with self.grown:
            number = len(self.blocks)
            block = common_pb2.Block(data=common_pb2.BlockData(data=[e.SerializeToString() for e in envelopes]))
            flags = bytes(self._validate(envelope, (number, i)) for i, envelope in enumerate(envelopes))
            before = header_hash(self.blocks[-1].header) if self.blocks else bytes(32)
            block.header.CopyFrom(
                common_pb2.BlockHeader(number=number, previous_hash=before, data_hash=data_hash(block))
            )
            block.metadata.metadata.extend([b"", b"", flags, b"", b""])
            self.blocks.append(block)
            self.grown.notify_all()

    def _validate(self, envelope: Any, version: Version) -> int:
        payload = common_pb2.Payload.FromString(envelope.payload)
        txid = common_pb2.ChannelHeader.FromString(payload.header.channel_header).tx_id
        if txid in self.statuses:
            return int(CODE.DUPLICATE_TXID)
        if self.refused:
            self.statuses[txid] = (self.refused.pop(0), version[0])
            return self.statuses[txid][0]
        space = rwset_pb2.TxReadWriteSet.FromString(chaincode_action(payload.data).results).ns_rwset[0]
        sets, values = kv_rwset_pb2.KVRWSet.FromString(space.rwset), self.state.setdefault(space.namespace, {})
        stale = any(
            (values[r.key][1] if r.key in values else None)
            != ((r.version.block_num, r.version.tx_num) if r.HasField("version") else None)
            for r in sets.reads
        )
        self.statuses[txid] = (int(CODE.MVCC_READ_CONFLICT if stale else CODE.VALID), version[0])
        if not stale:
            values.update({w.key: (w.value, version) for w in sets.writes})
        return self.statuses[txid][0]


class Gateway:
    """One organisation's peer. `fault(step, txid)` is called before each step and may raise `Fault`."""

    def __init__(self, msp: str, channel: Channel) -> None:
        self.msp, self.channel = msp, channel
        self.fault: Callable[[str, str], None] = lambda _step, _txid: None
        self.order: Callable[[Any], None] = lambda envelope: channel.append([envelope])
        self.calls: list[str] = []
        self.lag = 0  # blocks that it does not have yet
        self.code: int | None = None  # what it says of every transaction
        self.show: Callable[[int], Any] = lambda number: channel.blocks[number]  # a block, or a status in its place
        self._server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", 32 << 20),
                                                                    ("grpc.max_metadata_size", 1 << 20)])  # fmt: skip
        gateway_pb2_grpc.add_GatewayServicer_to_server(self, self._server)
        events_pb2_grpc.add_DeliverServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0).wait()

    def Evaluate(self, request: Any, context: Any) -> Any:  # noqa: N802 - as the service says
        self._before("evaluate", request.transaction_id, context)
        assert list(request.target_organizations) == [self.msp]
        proposal = _checked(request.proposed_transaction, context)
        _, simulation, _ = self.channel.simulate(proposal, request.proposed_transaction)
        self._check(simulation, context, grpc.StatusCode.UNKNOWN, "evaluate call to endorser returned error")
        return gateway_pb2.EvaluateResponse(result=simulation.response)

    def Endorse(self, request: Any, context: Any) -> Any:  # noqa: N802 - as the service says
        self._before("endorse", request.transaction_id, context)
        proposal = _checked(request.proposed_transaction, context)
        header, simulation, chaincode = self.channel.simulate(proposal, request.proposed_transaction)
        self._check(simulation, context, grpc.StatusCode.ABORTED, "failed to endorse transaction, see attached details")
        action = proposal_pb2.ChaincodeAction(results=_results(simulation, chaincode), response=simulation.response)
        answer = proposal_response_pb2.ProposalResponsePayload(extension=action.SerializeToString())
        endorsed = transaction_pb2.ChaincodeEndorsedAction(proposal_response_payload=answer.SerializeToString())
        body = transaction_pb2.ChaincodeActionPayload(chaincode_proposal_payload=proposal.payload, action=endorsed)
        one = transaction_pb2.TransactionAction(header=header.signature_header, payload=body.SerializeToString())
        data = transaction_pb2.Transaction(actions=[one]).SerializeToString()
        payload = common_pb2.Payload(header=header, data=data).SerializeToString()
        return gateway_pb2.EndorseResponse(prepared_transaction=common_pb2.Envelope(payload=payload))

    def Submit(self, request: Any, context: Any) -> Any:  # noqa: N802 - as the service says
        self._before("submit", request.transaction_id, context)
        envelope = request.prepared_transaction
        header = common_pb2.Payload.FromString(envelope.payload).header
        creator = common_pb2.SignatureHeader.FromString(header.signature_header).creator
        _verify(creator, envelope.payload, envelope.signature, context)
        self.order(envelope)
        return gateway_pb2.SubmitResponse()

    def CommitStatus(self, request: Any, context: Any) -> Any:  # noqa: N802 - as the service says
        asked = gateway_pb2.CommitStatusRequest.FromString(request.request)
        self._before("status", asked.transaction_id, context)
        _verify(asked.identity, request.request, request.signature, context)
        with self.channel.grown:
            remaining = context.time_remaining() or 0
            if not self.channel.grown.wait_for(lambda: asked.transaction_id in self.channel.statuses, remaining):
                context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no status yet")
            code, block = self.channel.statuses[asked.transaction_id]
            code = code if self.code is None else self.code
        return gateway_pb2.CommitStatusResponse(result=code, block_number=block)

    def Deliver(self, requests: Any, context: Any) -> Any:  # noqa: N802 - as the service says
        envelope = next(requests)
        self._before("blocks", "", context)
        payload = common_pb2.Payload.FromString(envelope.payload)
        creator = common_pb2.SignatureHeader.FromString(payload.header.signature_header).creator
        _verify(creator, envelope.payload, envelope.signature, context)
        seek = ab_pb2.SeekInfo.FromString(payload.data)
        number, specified = seek.start.specified.number, seek.stop.HasField("specified")
        last = seek.stop.specified.number if specified else self.height - 1
        if specified and number > last:
            yield events_pb2.DeliverResponse(status=common_pb2.BAD_REQUEST)
            return
        if seek.behavior != ab_pb2.SeekInfo.BLOCK_UNTIL_READY and number >= self.height:
            yield events_pb2.DeliverResponse(status=common_pb2.NOT_FOUND)
            return
        for one in range(number, last + 1):
            with self.channel.grown:
                while self.height <= one and context.is_active():
                    self.channel.grown.wait(0.05)
            if not context.is_active():
                return
            shown = self.show(one)
            if isinstance(shown, int):
                yield events_pb2.DeliverResponse(status=shown)
                return
            yield events_pb2.DeliverResponse(block=shown)
        self._before("blocks-end", "", context)
        yield events_pb2.DeliverResponse(status=common_pb2.SUCCESS)

    def DeliverFiltered(self, requests: Any, context: Any) -> Any:  # noqa: N802 - as the service says
        next(requests)
        self._before("newest", "", context)
        yield events_pb2.DeliverResponse(filtered_block=events_pb2.FilteredBlock(number=self.height - 1))

    @property
    def height(self) -> int:
        """How many blocks it has."""
        return len(self.channel.blocks) - self.lag

    # What the services have beside
    DeliverWithPrivateData = ChaincodeEvents = None

    def _before(self, step: str, txid: str, context: Any) -> None:
        self.calls.append(step)
        try:
            self.fault(step, txid)
        except Fault as fault:
            self._abort(context, fault.code, fault.message, fault.details)

    def _check(self, simulation: Simulation, context: Any, code: Any, message: str) -> None:
        response = simulation.response
        if response.status >= 400:
            said = f"chaincode response {response.status}, {response.message}"
            self._abort(context, code, message, [(self.address, self.msp, said)])

    def _abort(self, context: Any, code: Any, message: str, details: list[tuple[str, str, str]]) -> None:
        context.set_trailing_metadata((("grpc-status-details-bin", status_details(code.value[0], message, details)),))
        context.abort(code, message)


class Fault(Exception):  # noqa: N818 - raised by tests on purpose
    """A gRPC error at a chosen moment; `details` are (address, msp, message) of those behind the gateway."""

    def __init__(self, code: Any, message: str = "", details: list[tuple[str, str, str]] | None = None) -> None:
        super().__init__(code, message)
        self.code, self.message, self.details = code, message, details or []


def status_details(code: int, message: str, details: list[tuple[str, str, str]]) -> bytes:
    """The bytes of google.rpc.Status with gateway.ErrorDetail messages."""
    out = b"\x08" + bytes([code]) + b"\x12" + _varint(len(message.encode())) + message.encode()
    for address, msp, text in details:
        detail = gateway_pb2.ErrorDetail(address=address, msp_id=msp, message=text).SerializeToString()
        packed = AnyMessage(type_url="type.googleapis.com/gateway.ErrorDetail", value=detail).SerializeToString()
        out += b"\x1a" + _varint(len(packed)) + packed
    return out


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _results(simulation: Simulation, chaincode: str) -> bytes:
    sets = kv_rwset_pb2.KVRWSet()
    for key, version in sorted(simulation.reads.items()):
        read = sets.reads.add(key=key)
        if version:
            read.version.CopyFrom(kv_rwset_pb2.Version(block_num=version[0], tx_num=version[1]))
    for key, value in sorted(simulation.writes.items()):
        sets.writes.add(key=key, value=value)
    space = rwset_pb2.NsReadWriteSet(namespace=chaincode, rwset=sets.SerializeToString())
    data: bytes = rwset_pb2.TxReadWriteSet(ns_rwset=[space]).SerializeToString()
    return data


def _checked(signed: Any, context: Any) -> Any:
    """The proposal, where it is signed by its creator and its transaction id follows from nonce and creator."""
    proposal = proposal_pb2.Proposal.FromString(signed.proposal_bytes)
    header = common_pb2.Header.FromString(proposal.header)
    signature = common_pb2.SignatureHeader.FromString(header.signature_header)
    channel = common_pb2.ChannelHeader.FromString(header.channel_header)
    assert channel.tx_id == hashlib.sha256(signature.nonce + signature.creator).hexdigest()
    _verify(signature.creator, signed.proposal_bytes, signed.signature, context)
    return proposal


def _verify(creator: bytes, message: bytes, signature: bytes, context: Any) -> None:
    identity = identities_pb2.SerializedIdentity.FromString(creator)
    key = x509.load_pem_x509_certificate(identity.id_bytes).public_key()
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
            return
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        assert 2 * decode_dss_signature(signature)[1] <= P256_ORDER, "high S"
    except (InvalidSignature, AssertionError):
        context.abort(grpc.StatusCode.PERMISSION_DENIED, "access denied: bad signature")
