# SPDX-License-Identifier: Apache-2.0
"""What one transaction's bytes say, and what follows from them alone: the first half of what a peer validates.

A reading is plain tuples of bytes, text and numbers, so that it passes between processes. The order of the checks, and the
code of each, are those of Fabric (core/common/validation, txvalidator/v20): a transaction is invalid for the first reason.
"""

from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, NamedTuple

from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import (
    chaincode_event_pb2,
    chaincode_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)
from fabric_protos.peer.transaction_pb2 import TxValidationCode

from chaincode.blocks.signatures import verifies
from chaincode.blocks.wire import Malformed, exact, parse
from chaincode.entries import Fields, open_fields
from identity.errors import EvidenceError

VALID: Final = int(TxValidationCode.VALID)
CODES: Final[dict[int, str]] = {number: name for name, number in TxValidationCode.items()}
ENDORSEMENTS: Final = 256
SUBMIT: Final = b"submit"
RESULTS_LIMIT: Final = 64 << 20
_SMALL: Final = 128
_TYPES: Final = (common_pb2.ENDORSER_TRANSACTION, common_pb2.CONFIG_UPDATE, common_pb2.CONFIG)
Version = tuple[int, int] | None


class Space(NamedTuple):
    """What a transaction read and wrote in one namespace. A version is (block, transaction), None for an absent key.

    ``reads``: (key, version); ``writes``: (key, deleted, value); ``collections``: (name, reads, writes) with the hashes of
    keys. ``other`` names what else it did: range queries, metadata.
    """

    name: str
    reads: tuple[tuple[str, Version], ...]
    writes: tuple[tuple[str, bool, bytes], ...]
    collections: tuple[tuple[str, tuple[tuple[bytes, Version], ...], tuple[tuple[bytes, bool, bytes], ...]], ...]
    other: str


class Call(NamedTuple):
    """What an endorser transaction did: chaincode, its version, endorsements (who, whether the signature verifies),
    response and namespaces. ``code`` is what follows from the chaincode's action alone. ``envelopes`` are the arguments where
    they are entries submitted to the federation's chaincode, ``entries`` these opened: fields, or code and message."""

    code: int
    chaincode: str
    version: str
    envelopes: tuple[bytes, ...]
    endorsements: tuple[tuple[bytes, bool], ...]
    status: int
    response: bytes
    spaces: tuple[Space, ...]
    entries: tuple[Fields | tuple[str, str], ...] = ()


class Transaction(NamedTuple):
    """A transaction. ``before`` is the code of what is wrong before its creator is asked for, ``after`` of what is wrong
    then; ``plain`` whether its envelope has its one spelling; ``seconds`` is the time that its creator states. ``call`` is None
    for one that is no sound endorser transaction, ``data`` the payload of a configuration."""

    plain: bool
    before: int
    after: int
    txid: str
    kind: int
    channel: str
    creator: bytes
    signed: bool
    seconds: int
    call: Call | None
    data: bytes


_NOTHING: Final = Transaction(False, VALID, VALID, "", -1, "", b"", False, 0, None, b"")


def read_transaction(data: bytes, chaincode: str = "") -> Transaction:
    """Read one of a block's transactions, and open the entries in it that are for ``chaincode``. Never raises."""
    try:
        envelope = parse(common_pb2.Envelope, data)
    except Malformed:
        return _NOTHING._replace(before=TxValidationCode.INVALID_OTHER_REASON)
    # A hash over transactions put together says nothing of where one ends, so orderers and peers refuse another spelling.
    found = _NOTHING._replace(plain=envelope.SerializeToString() == data)
    try:
        payload = parse(common_pb2.Payload, envelope.payload)
    except Malformed:
        return found._replace(before=TxValidationCode.BAD_PAYLOAD)
    try:
        header = parse(common_pb2.ChannelHeader, payload.header.channel_header)
    except Malformed:
        return found._replace(before=TxValidationCode.BAD_COMMON_HEADER)
    kind = header.type
    found = found._replace(
        txid=header.tx_id, kind=kind, channel=header.channel_id, seconds=header.timestamp.seconds,
        data=payload.data if kind == common_pb2.CONFIG else b"",
    )  # fmt: skip
    try:
        signer = parse(common_pb2.SignatureHeader, payload.header.signature_header)
    except Malformed:
        return found._replace(before=TxValidationCode.BAD_COMMON_HEADER)
    nonce, creator = signer.nonce, signer.creator
    computed = sha256(nonce + creator).hexdigest()
    found = found._replace(
        txid=header.tx_id or computed, creator=creator, signed=verifies(creator, envelope.payload, envelope.signature)
    )
    if kind not in _TYPES or header.epoch or not nonce or not creator:
        return found._replace(before=TxValidationCode.BAD_COMMON_HEADER)
    if kind == common_pb2.CONFIG:
        return found
    if kind != common_pb2.ENDORSER_TRANSACTION:
        return found._replace(after=TxValidationCode.UNSUPPORTED_TX_PAYLOAD)
    if header.tx_id != computed:
        return found._replace(after=TxValidationCode.BAD_PROPOSAL_TXID)
    return _with_call(found, payload, header, chaincode)


def _with_call(found: Transaction, payload: Any, header: Any, chaincode: str) -> Transaction:
    """The reading of an endorser transaction with what it did."""
    try:
        call, proposal = _read_call(payload, header)
    except Malformed:
        return found._replace(after=TxValidationCode.INVALID_ENDORSER_TRANSACTION)
    if call.chaincode == chaincode:
        function, *envelopes = _arguments(proposal) or (b"",)
        if function == SUBMIT:
            call = call._replace(envelopes=tuple(envelopes), entries=tuple(_open(one) for one in envelopes))
    return found._replace(call=call)


def _open(data: bytes) -> Fields | tuple[str, str]:
    try:
        return open_fields(data)
    except EvidenceError as error:
        return error.code, error.message


def _read_call(payload: Any, header: Any) -> tuple[Call, bytes]:
    """What was called, and the proposal with its arguments.

    Raises Malformed for what peers call an invalid endorser transaction.
    """
    transaction = parse(transaction_pb2.Transaction, payload.data)
    if len(transaction.actions) != 1:
        raise Malformed("not one action")
    action = transaction.actions[0]
    signer = parse(common_pb2.SignatureHeader, action.header)
    if not signer.nonce or not signer.creator:
        raise Malformed("an action without a signer")
    inner = parse(transaction_pb2.ChaincodeActionPayload, action.payload)
    endorsed = inner.action.proposal_response_payload
    answer = parse(proposal_response_pb2.ProposalResponsePayload, endorsed)
    proposal = inner.chaincode_proposal_payload
    if sha256(payload.header.channel_header + action.header + proposal).digest() != answer.proposal_hash:
        raise Malformed("the endorsement is of another proposal")
    if len(inner.action.endorsements) > ENDORSEMENTS:
        raise Malformed(f"more than {ENDORSEMENTS} endorsements")
    endorsements = tuple(
        (one.endorser, verifies(one.endorser, endorsed + one.endorser, one.signature))
        for one in inner.action.endorsements
    )
    call = Call(VALID, "", "", (), endorsements, 0, b"", ())
    return _read_action(call, answer.extension, header.extension), proposal


def _read_action(call: Call, action: bytes, extension: bytes) -> Call:
    """The chaincode's action: what a peer's dispatcher looks at, in its order."""
    try:
        named = parse(proposal_pb2.ChaincodeHeaderExtension, extension)
    except Malformed:
        return call._replace(code=TxValidationCode.BAD_HEADER_EXTENSION)
    try:
        done = parse(proposal_pb2.ChaincodeAction, action)
    except Malformed:
        return call._replace(code=TxValidationCode.BAD_RESPONSE_PAYLOAD)
    try:
        spaces = _read_results(done.results)
    except Malformed:
        return call._replace(code=TxValidationCode.BAD_RWSET)
    name, version = done.chaincode_id.name, done.chaincode_id.version
    call = call._replace(
        chaincode=named.chaincode_id.name, version=version, status=done.response.status, response=done.response.payload,
        spaces=spaces,
    )  # fmt: skip
    if not named.HasField("chaincode_id") or not done.HasField("chaincode_id"):
        return call._replace(code=TxValidationCode.INVALID_OTHER_REASON)
    if not call.chaincode or call.chaincode != name or not version:
        return call._replace(code=TxValidationCode.INVALID_CHAINCODE)
    if done.events and not _is_own_event(done.events, name):
        return call._replace(code=TxValidationCode.INVALID_OTHER_REASON)
    if len({space.name for space in spaces}) != len(spaces):
        return call._replace(code=TxValidationCode.ILLEGAL_WRITESET)
    return call


def _arguments(proposal: bytes) -> tuple[bytes, ...]:
    """The chaincode's arguments, none where they cannot be read: peers do not look at them."""
    try:
        invocation = parse(proposal_pb2.ChaincodeProposalPayload, proposal).input
        return tuple(parse(chaincode_pb2.ChaincodeInvocationSpec, invocation).chaincode_spec.input.args)
    except Malformed:
        return ()


def _is_own_event(data: bytes, chaincode: str) -> bool:
    try:
        return bool(parse(chaincode_event_pb2.ChaincodeEvent, data).chaincode_id == chaincode)
    except Malformed:
        return False


def _read_results(data: bytes) -> tuple[Space, ...]:
    """A read and write set. A field that is not known here could change the state: it is refused. Raises Malformed."""
    found = exact(rwset_pb2.TxReadWriteSet, data, limit=RESULTS_LIMIT)
    if found.data_model != rwset_pb2.TxReadWriteSet.KV:
        raise Malformed("a data model that is not keys and values")
    return tuple(
        _read_space(one)
        if one.collection_hashed_rwset or len(one.rwset) > _SMALL
        else _read_small(one.namespace, one.rwset)
        for one in found.ns_rwset
    )


@lru_cache(maxsize=256)
def _read_small(name: str, data: bytes) -> Space:
    """A namespace in which little was done: every transaction reads its chaincode's definition. Raises Malformed."""
    return _read_space(rwset_pb2.NsReadWriteSet(namespace=name, rwset=data))


def _read_space(space: Any) -> Space:
    public = exact(kv_rwset_pb2.KVRWSet, space.rwset, limit=RESULTS_LIMIT)
    collections, other = [], "ranges or metadata" if public.range_queries_info or public.metadata_writes else ""
    for one in space.collection_hashed_rwset:
        hashed = exact(kv_rwset_pb2.HashedRWSet, one.hashed_rwset, limit=RESULTS_LIMIT)
        other = "metadata of private data" if hashed.metadata_writes else other
        reads = tuple([(read.key_hash, _version(read)) for read in hashed.hashed_reads])
        writes = tuple([(w.key_hash, w.is_delete or w.is_purge, w.value_hash) for w in hashed.hashed_writes])
        collections.append((one.collection_name, reads, writes))
    return Space(
        space.namespace,
        tuple([(read.key, _version(read)) for read in public.reads]),
        tuple([(write.key, write.is_delete or not write.value, write.value) for write in public.writes]),
        tuple(collections),
        other,
    )


def _version(read: Any) -> Version:
    if not read.HasField("version"):
        return None
    version = read.version
    return version.block_num, version.tx_num
