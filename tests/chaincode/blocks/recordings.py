# SPDX-License-Identifier: Apache-2.0
"""Recorded channels (``tests/fabric_recording.py`` makes them), and what a forger could do to them with and without keys."""

import hashlib
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.ledger.rwset import rwset_pb2
from fabric_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.peer import chaincode_pb2, proposal_pb2, proposal_response_pb2, transaction_pb2

from chaincode.blocks.chain import Chain, Trust
from chaincode.blocks.header import header_bytes
from chaincode.blocks.readers import read_blocks
from chaincode.blocks.reading import read_block
from chaincode.entries import Entry
from chaincode.ledgers.fabric.identity import Member, make_member

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
CHAINCODE = "fedledger"
MSPS = {"coordinator": "CoordinatorMSP", "hospitals-1": "Hospitals1MSP", "hospitals-2": "Hospitals2MSP",
        "hospitals-3": "Hospitals3MSP", "orderers": "OrdererMSP"}  # fmt: skip
Blocks = list[bytes]


@dataclass(frozen=True)
class Recording:
    """A channel as a peer showed it, the keys of everybody on it, and the artefacts of the federation's run by their names."""

    blocks: Blocks
    keys: dict[str, bytes]
    run: dict[str, bytes]

    @property
    def trust(self) -> Trust:
        first = read_block(self.blocks[0])
        return Trust(first.transactions[0].channel, CHAINCODE, first.hash)

    def member(self, name: str) -> Member:
        """A holder of a key: ``peer.hospitals-1``, ``Admin@orderers``, ``User1@coordinator``, ``orderer-1.orderers``."""
        organisation = name.replace("@", ".").rpartition(".")[2]
        return make_member(MSPS[organisation], self.keys[f"{name}.crt"], self.keys[f"{name}.key"])

    def verify(self, blocks: Iterable[bytes] | None = None, trust: Trust | None = None) -> tuple[Chain, list[Entry]]:
        chain = Chain(trust or self.trust)
        return chain, list(chain.entries(read_blocks(self.blocks if blocks is None else blocks, CHAINCODE)))

    def faults(self, blocks: Iterable[bytes]) -> list[tuple[str, int]]:
        """The codes and the blocks of what is found."""
        return [(fault.code, fault.block) for fault in self.verify(blocks)[0].faults]


@cache
def recording(name: str) -> Recording:
    """``raft`` or ``bft``."""
    with tarfile.open(VECTORS / f"channel-{name}.tar.xz") as archive:
        files = {one.name: archive.extractfile(one).read() for one in archive.getmembers()}  # type: ignore[union-attr]
    parts: dict[str, dict[str, bytes]] = {"blocks": {}, "keys": {}, "run": {}}
    for path, data in files.items():
        part, _, rest = path.partition("/")
        parts[part][rest] = data
    run = {f"blobs/{k[-64:]}" if k.startswith("blobs/") else k: v for k, v in parts["run"].items()}
    run.pop("federation.vkey", None)
    return Recording([parts["blocks"][k] for k in sorted(parts["blocks"])], parts["keys"], run)


def block_of(data: bytes) -> Any:
    return common_pb2.Block.FromString(data)


def changed(data: bytes, change: Callable[[Any], object]) -> bytes:
    """A block with something done to it."""
    block = block_of(data)
    change(block)
    return bytes(block.SerializeToString())


def replaced(blocks: Blocks, number: int, change: Callable[[Any], object]) -> Blocks:
    """The chain with one block changed, and nothing else."""
    return [changed(data, change) if i == number else data for i, data in enumerate(blocks)]


def sealed(blocks: Blocks, start: int, *orderers: Member) -> Blocks:
    """The chain made to fit again from a block on: hashes, and the signatures of these orderers (none: those it had)."""
    made = list(blocks)
    for number in range(start, len(made)):
        block = block_of(made[number])
        block.header.data_hash = hashlib.sha256(b"".join(block.data.data)).digest()
        if number:
            before = block_of(made[number - 1]).header
            head = header_bytes(before.number, before.previous_hash, before.data_hash)
            block.header.previous_hash = hashlib.sha256(head).digest()
        if orderers:
            block.metadata.metadata[0] = _signed(block, orderers).SerializeToString()
        made[number] = block.SerializeToString()
    return made


def _signed(block: Any, orderers: Iterable[Member]) -> Any:
    metadata = common_pb2.Metadata.FromString(block.metadata.metadata[0])
    head = header_bytes(block.header.number, block.header.previous_hash, block.header.data_hash)
    del metadata.signatures[:]
    for one in orderers:
        signer = common_pb2.SignatureHeader(creator=one.creator, nonce=b"nonce").SerializeToString()
        metadata.signatures.add(signature_header=signer, signature=one.sign(metadata.value + signer + head))
    return metadata


@dataclass
class Parts:
    """An endorser transaction taken apart; ``whole`` puts it together, signed anew by those whose keys are given."""

    payload: Any
    transaction: Any
    inner: Any
    answer: Any
    action: Any
    signature: bytes

    @classmethod
    def of(cls, data: bytes) -> "Parts":
        envelope = common_pb2.Envelope.FromString(data)
        payload = common_pb2.Payload.FromString(envelope.payload)
        transaction = transaction_pb2.Transaction.FromString(payload.data)
        inner = transaction_pb2.ChaincodeActionPayload.FromString(transaction.actions[0].payload)
        answer = proposal_response_pb2.ProposalResponsePayload.FromString(inner.action.proposal_response_payload)
        action = proposal_pb2.ChaincodeAction.FromString(answer.extension)
        return cls(payload, transaction, inner, answer, action, envelope.signature)

    def whole(self, creator: Member | None = None, endorsers: Iterable[Member] | None = None) -> bytes:
        self.answer.extension = self.action.SerializeToString()
        endorsed = self.answer.SerializeToString()
        self.inner.action.proposal_response_payload = endorsed
        if endorsers is not None:
            del self.inner.action.endorsements[:]
            for one in endorsers:
                self.inner.action.endorsements.add(endorser=one.creator, signature=one.sign(endorsed + one.creator))
        self.transaction.actions[0].payload = self.inner.SerializeToString()
        self.payload.data = self.transaction.SerializeToString()
        payload = self.payload.SerializeToString()
        signature = creator.sign(payload) if creator else self.signature
        return bytes(common_pb2.Envelope(payload=payload, signature=signature).SerializeToString())

    def call(self, *arguments: bytes) -> None:
        """Have the transaction call the chaincode with other arguments."""
        proposal = proposal_pb2.ChaincodeProposalPayload.FromString(self.inner.chaincode_proposal_payload)
        invocation = chaincode_pb2.ChaincodeInvocationSpec.FromString(proposal.input)
        invocation.chaincode_spec.input.args[:] = arguments
        proposal.input = invocation.SerializeToString()
        self.inner.chaincode_proposal_payload = proposal.SerializeToString()
        parts = self.payload.header.channel_header, self.transaction.actions[0].header
        hashed = b"".join((*parts, self.inner.chaincode_proposal_payload))
        self.answer.proposal_hash = hashlib.sha256(hashed).digest()

    def writes(self) -> "Writes":
        return Writes(self)


class Writes:
    """The write set of the federation's namespace in a transaction, to be changed within a ``with``."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def __enter__(self) -> Any:
        self._results = rwset_pb2.TxReadWriteSet.FromString(self._parts.action.results)
        self._space = next(one for one in self._results.ns_rwset if one.namespace == CHAINCODE)
        self._set = kv_rwset_pb2.KVRWSet.FromString(self._space.rwset)
        return self._set

    def __exit__(self, *_: object) -> None:
        self._space.rwset = self._set.SerializeToString()
        self._parts.action.results = self._results.SerializeToString()


def identity(msp: str, pem: bytes) -> bytes:
    return bytes(identities_pb2.SerializedIdentity(mspid=msp, id_bytes=pem).SerializeToString())


def numbers(blocks: Blocks, code: int) -> Iterator[tuple[int, int]]:
    """The (block, transaction) of those that a peer flagged so."""
    for number, data in enumerate(blocks):
        for i, flag in enumerate(block_of(data).metadata.metadata[2]):
            if flag == code:
                yield number, i
