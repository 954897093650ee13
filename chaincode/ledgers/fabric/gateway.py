# SPDX-License-Identifier: Apache-2.0
"""One peer as a client sees it: its Gateway service and its block events, and what its errors say; and one orderer.

Every failure names the step, the node that was asked, and what each node behind it answered.
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2, gateway_pb2_grpc
from fabric_protos.orderer import ab_pb2_grpc
from fabric_protos.peer import events_pb2_grpc, transaction_pb2
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError

from chaincode.ledgers.fabric.interrupts import uninterrupted
from chaincode.ledgers.fabric.messages import Pending, Proposal
from chaincode.ledgers.fabric.profile import Node
from identity.errors import CredentialError, UsageError

MESSAGE_LIMIT = 64 << 20
WAITED_ENOUGH = ("DEADLINE_EXCEEDED", "CANCELLED")
"""Codes of a call whose time is up; a peer that hangs up at that moment makes it the second one."""
_REFUSED = {
    "NOT_FOUND": "it has no such block, or has not joined the channel that the profile names",
    "FORBIDDEN": "it does not let the client of the profile read the channel",
}
OUT_OF_ORDER = "OUT_OF_ORDER"
"""A code of ours: the peer shows another block than was asked for."""
_DETAILS = "grpc-status-details-bin"
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    # A refusal travels in a header: the outcomes of a whole batch must fit.
    ("grpc.max_metadata_size", 1 << 20),
    ("grpc.absolute_max_metadata_size", 1 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_retries", 0),  # what is sent again, and where, is decided by whoever asks
)


@dataclass(frozen=True, slots=True)
class Detail:
    """What a peer or an orderer behind the gateway answered."""

    address: str
    msp: str
    message: str


class CallFailed(Exception):  # noqa: N818 - a state of the network
    """A call failed: `step` (endorse, submit, status, evaluate, blocks; order at an orderer), the gRPC code's name, and why."""

    def __init__(self, step: str, node: Node, code: str, message: str, details: Sequence[Detail] = ()) -> None:
        super().__init__(step, node, code, message, details)
        self.step, self.node, self.code, self.message, self.details = step, node, code, message, tuple(details)

    def __str__(self) -> str:
        if self.step == "status" and self.code in WAITED_ENOUGH:
            return f"status at {self.node.msp}'s peer {self.node.address}: no block has it yet"
        if self.step == "blocks" and self.code in WAITED_ENOUGH:
            return f"{self.node.msp}'s peer {self.node.address} has not got them yet"
        said = "; ".join(f"{d.msp or 'orderer'} at {d.address}: {d.message[:300]}" for d in self.details)
        kind = "orderer" if self.step == "order" else "peer"
        return f"{self.step} at {self.node.msp}'s {kind} {self.node.address}: {self.code}, {said or self.message[:300]}"


@dataclass(frozen=True, slots=True)
class Status:
    """What a peer says of a transaction: the validation code's name, and its block's number."""

    code: str
    block: int


class Remote:
    """A connection to one node. Thread-safe; made anew in a process that was forked."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._process, self._channel = 0, None

    def close(self) -> None:
        """Hang up."""
        if self._channel is not None and self._process == os.getpid():
            uninterrupted(self._channel.close)
        self._channel, self._process = None, 0

    def _call(self, step: str, call: Callable[[], Any]) -> Any:
        if self._process != os.getpid():
            self._connect()
        try:
            return uninterrupted(call)
        except grpc.RpcError as error:
            raise CallFailed(step, self.node, error.code().name, error.details() or "", _details_of(error)) from error

    @cached_property
    def credentials(self) -> Any:
        """What TLS needs, None where there is none. Raises CredentialError(fabric-tls-ca), UsageError(fabric-tls-needed)."""
        return _credentials(self.node)

    def _connect(self) -> None:
        """Open the channel; gRPC connects at the first call."""
        if self.credentials is None:
            self._channel = grpc.insecure_channel(self.node.address, options=_OPTIONS)
        else:
            self._channel = grpc.secure_channel(self.node.address, self.credentials, options=_OPTIONS)
        self._serve(self._channel)
        self._process = os.getpid()

    def _serve(self, channel: Any) -> None:
        """Make what calls the node's services over a channel."""
        raise NotImplementedError


class Orderer(Remote):
    """A connection to one orderer, for when no peer's gateway reaches it: the last resort, so all it needs is read then."""

    def _serve(self, channel: Any) -> None:
        self._broadcast = ab_pb2_grpc.AtomicBroadcastStub(channel)

    def order(self, pending: Pending, timeout: float) -> None:
        """Hand a signed transaction to the orderer. Raises CallFailed; as `credentials`."""
        envelope = common_pb2.Envelope.FromString(pending.envelope)
        stream = self._call("order", lambda: self._broadcast.Broadcast(iter([envelope]), timeout=timeout))
        try:
            answer = self._call("order", lambda: next(stream, None))
        finally:
            uninterrupted(stream.cancel)
        if answer is None or answer.status != common_pb2.SUCCESS:
            said = "nothing" if answer is None else f"{_name(common_pb2.Status, answer.status)} {answer.info}"
            raise CallFailed("order", self.node, "UNAVAILABLE", f"the orderer answers {said}")


def hand_over(orderers: Sequence[Orderer], pending: Pending, timeout: float) -> bool:
    """Hand a signed transaction to the first orderer that takes it, in any order; whether one did.

    For where no gateway can: one that lost an orderer for some minutes dials it again only after pauses of up to two minutes,
    which no setting of a peer changes, and says meanwhile that nobody is there.
    """
    for orderer in random.sample(orderers, len(orderers)):
        with suppress(CallFailed, CredentialError, UsageError):
            orderer.order(pending, timeout)
            return True
    return False


class Peer(Remote):
    """A connection to one peer."""

    def __init__(self, node: Node) -> None:
        """Raises CredentialError(fabric-tls-ca), UsageError(fabric-tls-needed)."""
        super().__init__(node)
        _ = self.credentials  # a profile that does not serve is refused at once

    def _serve(self, channel: Any) -> None:
        self._gateway: Any = gateway_pb2_grpc.GatewayStub(channel)
        self._deliver: Any = events_pb2_grpc.DeliverStub(channel)

    def endorse(self, proposal: Proposal, channel: str, timeout: float, organisations: Sequence[str] = ()) -> Any:
        """Return the transaction that the gateway made of the endorsements, unsigned. Raises CallFailed.

        `organisations` are the MSPs that must endorse; without them the gateway chooses enough for the policy.
        """
        request = gateway_pb2.EndorseRequest(
            transaction_id=proposal.txid, channel_id=channel, proposed_transaction=proposal.signed,
            endorsing_organizations=organisations,
        )  # fmt: skip
        answer = self._call("endorse", lambda: self._gateway.Endorse(request, timeout=timeout))
        return answer.prepared_transaction

    def submit(self, pending: Pending, channel: str, timeout: float) -> None:
        """Hand a signed transaction to the orderers. Raises CallFailed."""
        envelope = common_pb2.Envelope.FromString(pending.envelope)
        request = gateway_pb2.SubmitRequest(
            transaction_id=pending.txid, channel_id=channel, prepared_transaction=envelope
        )
        self._call("submit", lambda: self._gateway.Submit(request, timeout=timeout))

    def status(self, request: Any, timeout: float) -> Status:
        """Wait until the transaction is in a block, and return what became of it. Raises CallFailed."""
        answer = self._call("status", lambda: self._gateway.CommitStatus(request, timeout=timeout))
        code = _name(transaction_pb2.TxValidationCode, answer.result)
        if code == str(answer.result):
            raise CallFailed("status", self.node, "UNKNOWN", f"it says {code}, no validation code that is known here")
        return Status(code, answer.block_number)

    def evaluate(self, proposal: Proposal, channel: str, organisation: str, timeout: float) -> bytes:
        """Return what the chaincode answers on the peers of one organisation. Raises CallFailed."""
        request = gateway_pb2.EvaluateRequest(
            transaction_id=proposal.txid, channel_id=channel, proposed_transaction=proposal.signed,
            target_organizations=[organisation],
        )  # fmt: skip
        answer = self._call("evaluate", lambda: self._gateway.Evaluate(request, timeout=timeout))
        payload: bytes = answer.result.payload
        return payload

    def blocks(self, request: Any, timeout: float | None) -> Iterator[Any]:
        """Iterate over the blocks that a seek asks for, as they come; it ends with the last one. Raises CallFailed."""
        stream = self._call("blocks", lambda: self._deliver.Deliver(iter([request]), timeout=timeout))
        try:
            while (answer := self._call("blocks", lambda: next(stream, None))) is not None:
                if answer.WhichOneof("Type") != "block":
                    if answer.status == common_pb2.SUCCESS:
                        return
                    name = _name(common_pb2.Status, answer.status)
                    raise CallFailed("blocks", self.node, name, _REFUSED.get(name, "the peer refuses"))
                yield answer.block
        finally:
            uninterrupted(stream.cancel)

    def newest(self, request: Any, timeout: float) -> int:
        """Return the number of the newest block that the peer has. Raises CallFailed."""
        stream = self._call("blocks", lambda: self._deliver.DeliverFiltered(iter([request]), timeout=timeout))
        try:
            answer = self._call("blocks", lambda: next(stream, None))
        finally:
            uninterrupted(stream.cancel)
        if answer is None or answer.WhichOneof("Type") != "filtered_block":
            raise CallFailed("blocks", self.node, "NOT_FOUND", "the peer shows no newest block")
        number: int = answer.filtered_block.number
        return number


def _credentials(node: Node) -> Any:
    if node.tls_ca is None:
        if node.address.rpartition(":")[0] not in ("127.0.0.1", "localhost", "[::1]"):
            message = f"The profile names no TLS certificate authority for {node.address}."
            raise UsageError("fabric-tls-needed", message, next="Only nodes on loopback may go without.")
        return None
    try:
        return grpc.ssl_channel_credentials(node.tls_ca.read_bytes())
    except OSError as error:
        message = f"The TLS certificate of {node.msp}'s authority cannot be read: {error}."
        raise CredentialError("fabric-tls-ca", message) from error


def _name(kind: Any, number: int) -> str:
    """The name of a number of an enumeration; its digits where it has none: whoever answers may be newer, or lie."""
    return str(kind.Name(number)) if number in kind.values() else str(number)


def _details_of(error: Any) -> list[Detail]:
    """Return what the peers behind the gateway answered: google.rpc.Status in a trailer, with an ErrorDetail for each."""
    found: list[Detail] = []
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS:
            with suppress(DecodeError, ValueError):
                for data in _messages(value, 3):
                    detail = gateway_pb2.ErrorDetail.FromString(AnyMessage.FromString(data).value)
                    found.append(Detail(detail.address, detail.msp_id, detail.message))
    return found


def _messages(data: bytes, wanted: int) -> Iterator[bytes]:
    """The length-delimited fields of one number in a message of protocol buffers. Raises ValueError."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            _, at = _varint(data, at)
        elif tag & 7 == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise ValueError("a field goes beyond its message")
            if tag >> 3 == wanted:
                yield data[at : at + length]
            at += length
        else:
            raise ValueError("a field of a kind that google.rpc.Status has not")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise ValueError("a number that does not end")
