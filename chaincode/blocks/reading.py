# SPDX-License-Identifier: Apache-2.0
"""What one block says: a pure function of its bytes, with every signature of its transactions verified on the way."""

from hashlib import sha256
from typing import Final, NamedTuple

from fabric_protos.common import common_pb2

from chaincode.artefacts import BLOCK_LIMIT
from chaincode.blocks.header import header_bytes
from chaincode.blocks.transactions import Transaction, read_transaction
from chaincode.blocks.wire import Malformed, exact
from identity.wording import counted

SIGNATURES, LAST_CONFIG, FLAGS, ORDERER, COMMIT_HASH = range(5)
METADATA: Final = 5
"""Parts of a block's metadata, by their indexes. The last one is a peer's own note (a hash of its state), signed by nobody."""
TRANSACTIONS: Final = 1 << 16


class Fault(NamedTuple):
    """What is wrong: a stable code, the block's number, and the whole in words."""

    code: str
    block: int
    what: str


class Block(NamedTuple):
    """A block. ``header`` are the bytes that are signed, ``hash`` their SHA-256, ``fault`` what is wrong within the block."""

    number: int
    previous: bytes
    header: bytes
    hash: bytes
    metadata: tuple[bytes, ...]
    transactions: tuple[Transaction, ...]
    fault: str


def read_block(data: bytes, chaincode: str = "") -> Block:
    """Read a block, and open the entries in it that are for ``chaincode``. Raises Malformed for bytes that are none; what is wrong with one is in its ``fault``."""
    block = exact(common_pb2.Block, data, limit=BLOCK_LIMIT)
    stated, metadata, envelopes = block.header, tuple(block.metadata.metadata), list(block.data.data)
    if not block.HasField("header") or not 0 < len(envelopes) <= TRANSACTIONS:
        raise Malformed(f"a block with {len(envelopes)} transactions, or without a header")
    head = header_bytes(stated.number, stated.previous_hash, stated.data_hash)
    transactions = tuple(read_transaction(one, chaincode) for one in envelopes)
    fault = ""
    if sha256(b"".join(envelopes)).digest() != stated.data_hash:
        fault = "its transactions are not those whose hash its header states"
    elif len(metadata) != METADATA:
        fault = f"its metadata has {counted(len(metadata), 'part')}, not {METADATA}"
    elif metadata[ORDERER]:
        fault = "its metadata has a part that no orderer writes"
    elif not all(one.plain for one in transactions):
        fault = "it holds a transaction that is not spelt as orderers accept it"
    return Block(stated.number, stated.previous_hash, head, sha256(head).digest(), metadata, transactions, fault)


def read_or_fault(data: bytes, number: int, chaincode: str) -> Block | Fault:
    """A block read, or that its bytes are none."""
    try:
        return read_block(data, chaincode)
    except Malformed as error:
        return Fault("block-malformed", number, f"Block {number} cannot be read: {error}.")
