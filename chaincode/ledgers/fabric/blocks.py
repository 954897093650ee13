# SPDX-License-Identifier: Apache-2.0
"""What a block of a channel adds to the log: the entries that its valid transactions accepted, in order.

An entry is in the log where the endorsed response of a valid transaction of the chaincode says that it was accepted; the
transaction must write that entry's key and no other's. The order is that of blocks, transactions and arguments.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.peer import proposal_pb2, transaction_pb2
from google.protobuf.message import DecodeError

from chaincode import state
from chaincode.blocks import header as header_form
from chaincode.fabric_outcomes import Accepted, parse_outcomes
from chaincode.ledgers.fabric.messages import arguments_of, chaincode_action
from identity.errors import EvidenceError
from identity.wording import counted

SUBMIT = b"submit"
_ENTRY = state.entry_key("")


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry that a block adds: its id (hex), its envelope, and the version of the contract that judged it.

    The version is the digest of the contract's source, as the lifecycle's definition had it when it was endorsed.
    """

    entry: str
    envelope: bytes
    version: str


def entries_of(block: Any, chaincode: str) -> Iterator[Logged]:
    """Iterate over the entries that a block adds to a chaincode's log.

    Trusts the peer's validity flags, which nobody signs: an audit derives them again.
    Raises EvidenceError(fabric-block) where the block cannot be read, or where a response and a write set disagree.
    """
    flags = block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER] if block.metadata.metadata else b""
    for i, data in enumerate(block.data.data):
        if i < len(flags) and flags[i] == transaction_pb2.VALID:
            try:
                yield from _entries(data, chaincode)
            except (DecodeError, EvidenceError, IndexError) as error:
                message = (
                    f"Transaction {i} of block {block.header.number} cannot be read as one of {chaincode}: {error}."
                )
                raise EvidenceError("fabric-block", message, next="fedledger audit verify") from error


def header_hash(header: Any) -> bytes:
    """The hash of a block, from the header as a message."""
    return header_form.header_hash(header.number, header.previous_hash, header.data_hash)


def data_hash(block: Any) -> bytes:
    """The hash of a block's transactions, as its header must state it."""
    return hashlib.sha256(b"".join(block.data.data)).digest()


def _entries(data: bytes, chaincode: str) -> Iterator[Logged]:
    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(data).payload)
    header = common_pb2.ChannelHeader.FromString(payload.header.channel_header)
    if header.type != common_pb2.ENDORSER_TRANSACTION:
        return
    action = chaincode_action(payload.data)
    written = _written(action.results, chaincode)
    called = proposal_pb2.ChaincodeHeaderExtension.FromString(header.extension).chaincode_id.name
    if called != chaincode:
        if written:
            raise EvidenceError("fabric-block", f"a transaction of {called} writes entries")
        return
    function, *envelopes = arguments_of(payload.data)
    if function != SUBMIT:
        return
    verdicts = parse_outcomes(action.response.payload)
    if len(verdicts) != len(envelopes):
        raise EvidenceError(
            "fabric-block", f"{counted(len(verdicts), 'outcome')} for {counted(len(envelopes), 'envelope')}"
        )
    version = action.chaincode_id.version
    logged = [Logged(v.entry, e, version) for v, e in zip(verdicts, envelopes, strict=True) if isinstance(v, Accepted)]
    if sorted(one.entry for one in logged) != sorted(written):
        raise EvidenceError("fabric-block", "the response and the write set name different entries")
    yield from logged


def _written(results: bytes, chaincode: str) -> list[str]:
    """The ids of the entries whose keys a write set writes in the chaincode's namespace."""
    for space in rwset_pb2.TxReadWriteSet.FromString(results).ns_rwset:
        if space.namespace == chaincode:
            writes = kv_rwset_pb2.KVRWSet.FromString(space.rwset).writes
            return [write.key.removeprefix(_ENTRY) for write in writes if write.key.startswith(_ENTRY)]
    return []
