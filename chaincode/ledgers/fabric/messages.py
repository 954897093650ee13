# SPDX-License-Identifier: Apache-2.0
"""The signed messages that a client sends to a Fabric network, and the response inside an endorsed transaction."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.gateway import gateway_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.orderer import ab_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2
from google.protobuf.message import DecodeError

from chaincode.ledgers.fabric.identity import Member
from identity.errors import EvidenceError

NONCE_LENGTH = 24
FOR_EVER = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Proposal:
    """A signed proposal and its transaction's id."""

    txid: str
    signed: Any


@dataclass(frozen=True, slots=True)
class Pending:
    """A signed transaction that may be sent again and again: `envelope` are the bytes of a common.Envelope."""

    txid: str
    envelope: bytes


def propose(member: Member, channel: str, chaincode: str, arguments: Sequence[bytes], time: int) -> Proposal:
    """Make and sign a proposal to run a chaincode at `time` (UTC seconds)."""
    nonce = secrets.token_bytes(NONCE_LENGTH)
    txid = hashlib.sha256(nonce + member.creator).hexdigest()
    name = chaincode_pb2.ChaincodeID(name=chaincode)
    header = common_pb2.ChannelHeader(
        type=common_pb2.ENDORSER_TRANSACTION, channel_id=channel, tx_id=txid,
        extension=proposal_pb2.ChaincodeHeaderExtension(chaincode_id=name).SerializeToString(),
    )  # fmt: skip
    header.timestamp.seconds = time
    spec = chaincode_pb2.ChaincodeSpec(chaincode_id=name, input=chaincode_pb2.ChaincodeInput(args=arguments))
    invocation = chaincode_pb2.ChaincodeInvocationSpec(chaincode_spec=spec).SerializeToString()
    proposal = proposal_pb2.Proposal(
        header=_header(header, member.creator, nonce).SerializeToString(),
        payload=proposal_pb2.ChaincodeProposalPayload(input=invocation).SerializeToString(),
    ).SerializeToString()
    return Proposal(txid, proposal_pb2.SignedProposal(proposal_bytes=proposal, signature=member.sign(proposal)))


def sign_transaction(member: Member, txid: str, prepared: Any) -> Pending:
    """Sign what the gateway made of a proposal and its endorsements."""
    signed = common_pb2.Envelope(payload=prepared.payload, signature=member.sign(prepared.payload))
    return Pending(txid, signed.SerializeToString())


def status_request(member: Member, channel: str, txid: str) -> Any:
    """Make and sign the question what became of a transaction."""
    request = gateway_pb2.CommitStatusRequest(transaction_id=txid, channel_id=channel, identity=member.creator)
    data = request.SerializeToString()
    return gateway_pb2.SignedCommitStatusRequest(request=data, signature=member.sign(data))


def seek(member: Member, channel: str, first: int, last: int | None, time: int) -> Any:
    """Make and sign the request for blocks from number `first` to `last`; None is the newest there is now.

    `FOR_EVER` as `last` asks for each block as it comes.
    """
    start = ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=first))
    newest = ab_pb2.SeekPosition(newest=ab_pb2.SeekNewest())
    stop = newest if last is None else ab_pb2.SeekPosition(specified=ab_pb2.SeekSpecified(number=last))
    # A peer that is asked from beyond its newest block to the newest would wait; told not to, it says NOT_FOUND.
    behavior = ab_pb2.SeekInfo.FAIL_IF_NOT_READY if last is None else ab_pb2.SeekInfo.BLOCK_UNTIL_READY
    return _seek(member, channel, ab_pb2.SeekInfo(start=start, stop=stop, behavior=behavior), time)


def seek_newest(member: Member, channel: str, time: int) -> Any:
    """Make and sign the request for the newest block alone."""
    newest = ab_pb2.SeekPosition(newest=ab_pb2.SeekNewest())
    return _seek(member, channel, ab_pb2.SeekInfo(start=newest, stop=newest), time)


def _seek(member: Member, channel: str, info: Any, time: int) -> Any:
    header = common_pb2.ChannelHeader(type=common_pb2.DELIVER_SEEK_INFO, channel_id=channel)
    header.timestamp.seconds = time
    signed = _header(header, member.creator, secrets.token_bytes(NONCE_LENGTH))
    payload = common_pb2.Payload(header=signed, data=info.SerializeToString()).SerializeToString()
    return common_pb2.Envelope(payload=payload, signature=member.sign(payload))


def response_of(envelope: bytes) -> bytes:
    """Return the payload of the chaincode's response that a transaction carries. Raises EvidenceError(fabric-transaction)."""
    try:
        payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
        answered: bytes = chaincode_action(payload.data).response.payload
    except (DecodeError, IndexError) as error:
        raise EvidenceError("fabric-transaction", "The bytes are not those of an endorsed transaction.") from error
    return answered


def endorsed_action(data: bytes) -> Any:
    """Return the `ChaincodeEndorsedAction` of an endorser transaction's bytes. Raises DecodeError, IndexError."""
    action = transaction_pb2.Transaction.FromString(data).actions[0]
    return transaction_pb2.ChaincodeActionPayload.FromString(action.payload).action


def chaincode_action(data: bytes) -> Any:
    """Return the `ChaincodeAction` of an endorser transaction's bytes. Raises DecodeError, IndexError."""
    answer = proposal_response_pb2.ProposalResponsePayload.FromString(endorsed_action(data).proposal_response_payload)
    return proposal_pb2.ChaincodeAction.FromString(answer.extension)


def endorsers_of(envelope: bytes) -> list[str]:
    """Return the MSPs whose endorsements a transaction carries, sorted; none where the bytes cannot be read."""
    try:
        payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(envelope).payload)
        signed = [one.endorser for one in endorsed_action(payload.data).endorsements]
        return sorted({identities_pb2.SerializedIdentity.FromString(one).mspid for one in signed})
    except (DecodeError, IndexError):
        return []


def arguments_of(data: bytes) -> list[bytes]:
    """Return the chaincode's arguments in an endorser transaction's bytes. Raises DecodeError, IndexError."""
    action = transaction_pb2.Transaction.FromString(data).actions[0]
    proposed = transaction_pb2.ChaincodeActionPayload.FromString(action.payload).chaincode_proposal_payload
    invocation = proposal_pb2.ChaincodeProposalPayload.FromString(proposed).input
    return list(chaincode_pb2.ChaincodeInvocationSpec.FromString(invocation).chaincode_spec.input.args)


def _header(channel_header: Any, creator: bytes, nonce: bytes) -> Any:
    signature = common_pb2.SignatureHeader(creator=creator, nonce=nonce)
    return common_pb2.Header(
        channel_header=channel_header.SerializeToString(), signature_header=signature.SerializeToString()
    )
