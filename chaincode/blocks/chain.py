# SPDX-License-Identifier: Apache-2.0
"""A whole channel, verified: its blocks are one chain from the pinned first one, ordered and endorsed by the organisations'
keys, and their validity follows from them.

Where the chain itself breaks (a block that is missing, altered, not signed by the orderers; a change of the configuration
that nobody was entitled to), nothing after it is judged. What is wrong with one transaction leaves the rest to be judged.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from fabric_protos.common import common_pb2

from chaincode.blocks.config import ChannelConfig, config_envelope, read_config
from chaincode.blocks.contract import Contract
from chaincode.blocks.orderers import check_signatures, last_config, read_signatures
from chaincode.blocks.reading import COMMIT_HASH, FLAGS, LAST_CONFIG, SIGNATURES, Block, Fault
from chaincode.blocks.transactions import CODES, VALID, Transaction
from chaincode.blocks.updates import Change, Unauthorised, apply_update
from chaincode.blocks.validity import State
from chaincode.blocks.wire import Malformed
from chaincode.entries import Entry
from identity.errors import EvidenceError
from identity.wording import counted

_HASH: Final = 34
"""Bytes of the metadata in which a peer notes its state's hash: a tag, a length, and 32 bytes that nobody signs."""


class Broken(Exception):  # noqa: N818 - a finding that ends the chain, not a fault of ours
    """The chain breaks here."""

    def __init__(self, code: str, block: int, what: str) -> None:
        super().__init__(what)
        self.fault = Fault(code, block, what)


@dataclass(frozen=True, slots=True)
class Trust:
    """What an auditor takes on trust: the hash of the channel's first block, and which chaincode the federation's is.

    ``roots`` are the SHA-256 digests of each organisation's root certificates (DER) as the auditor knows them, None to
    rest on the first block for them.
    """

    channel: str
    chaincode: str
    genesis: bytes
    roots: dict[str, frozenset[str]] | None = None


class Chain:
    """The verification of one channel, block after block. ``faults`` is what was found, ``changes`` who changed the
    configuration, ``height`` the number of blocks that hold together, ``tip`` the hash of the last one, and ``broken`` whether
    there is one after them that does not follow."""

    def __init__(self, trust: Trust) -> None:
        self.trust = trust
        self.contract = Contract(trust.channel, trust.chaincode)
        self.faults: list[Fault] = []
        self.changes: list[Change] = []
        self.height, self.tip, self.broken = 0, b"", False
        self.transactions, self.invalid = 0, 0
        self.config: ChannelConfig | None = None
        self._state = State(trust.chaincode)

    @property
    def unjudged(self) -> int:
        """The number of transactions of other chaincodes whose flags were taken as they are."""
        return self._state.unjudged

    def entries(self, blocks: Iterable[Block | Fault]) -> Iterator[Entry]:
        """The entries of the channel's valid transactions, in the order of blocks, transactions and arguments.

        ``blocks`` were read with ``reading.read_block`` or ``readers.read_blocks``; it is ``Chain`` that judges them.
        """
        try:
            for block in blocks:
                if isinstance(block, Fault):
                    self._break(block)
                    return
                yield from self._take(block)
        except Broken as broken:
            self._break(broken.fault)
        except EvidenceError as error:
            self._break(Fault(error.code, self.height, f"Block {self.height}: {error.message}"))

    def _break(self, fault: Fault) -> None:
        self.faults.append(fault)
        self.broken = True

    def _take(self, block: Block) -> list[Entry]:
        """Judge the next block. Raises Broken, EvidenceError(fabric-unsupported)."""
        self._check_place(block)
        if block.number == 0:
            self._found(block)
        else:
            self._follow(block)
        config = self.config
        if config is None:
            raise AssertionError
        found = self._transact(config, block) if block.number else []
        self.config = self._change(config, block) or config
        self.height, self.tip = block.number + 1, block.hash
        return found

    def _check_place(self, block: Block) -> None:
        number = self.height
        if block.number != number:
            raise Broken("block-missing", number, f"Block {number} is missing: block {block.number} is in its place.")
        if block.fault:
            raise Broken("block-altered", number, f"Block {number}: {block.fault}.")
        if number and block.previous != self.tip:
            what = f"Block {number} does not follow from block {number - 1}: it names another hash of it."
            raise Broken("block-chain", number, what)
        for i, one in enumerate(block.transactions):
            if one.channel != self.trust.channel and (number or one.kind != common_pb2.CONFIG):
                raise Broken("block-altered", number, f"Block {number}: transaction {i} is of another channel.")
        if any(one.kind == common_pb2.CONFIG for one in block.transactions) and len(block.transactions) != 1:
            raise Broken("block-altered", number, f"Block {number}: a configuration is not alone in its block.")

    def _found(self, block: Block) -> None:
        """Take the first block, whose hash is all that is known of it."""
        if block.hash != self.trust.genesis:
            what = f"The first block has the hash {block.hash.hex()}; the key says {self.trust.genesis.hex()}."
            raise Broken("genesis-differs", 0, what)
        only = block.transactions[0]
        try:
            if only.channel != self.trust.channel:
                raise Malformed(f"it is of the channel {only.channel[:80]!r}, not {self.trust.channel!r}")
            self.config = read_config(_genesis_config(only), self.trust.channel, 0)
            signed = common_pb2.OrdererBlockMetadata(last_config=common_pb2.LastConfig(index=0)).SerializeToString()
            expected = (common_pb2.Metadata(value=signed).SerializeToString(), b"", bytes([VALID]), b"", b"")
            if block.metadata != expected:
                raise Malformed("its metadata is not that of a first block")
        except Malformed as error:
            raise Broken("block-altered", 0, f"The first block: {error}.") from error
        self._check_roots(self.config)

    def _check_roots(self, config: ChannelConfig) -> None:
        if self.trust.roots is None:
            return
        found = {name: frozenset(sha256(der).hexdigest() for der in roots) for name, roots in config.roots.items()}
        for name in sorted(found.keys() | self.trust.roots.keys()):
            if found.get(name) != self.trust.roots.get(name):
                what = f"The first block gives {name[:80]} other root certificates than the key."
                raise Broken("roots-differ", 0, what)

    def _follow(self, block: Block) -> None:
        """Hold a later block to the orderers' signatures under the configuration in force."""
        config, number = self.config, block.number
        if config is None:
            raise AssertionError
        try:
            metadata = read_signatures(block.metadata[SIGNATURES])
            check_signatures(config, metadata, block.header)
            stated = last_config(metadata.value)
        except Malformed as error:
            raise Broken("block-orderers", number, f"Block {number} is not signed by the orderers: {error}.") from error
        expected = number if _is_config(block) else config.block
        index = common_pb2.LastConfig(index=expected).SerializeToString()
        if stated != expected or block.metadata[LAST_CONFIG] != common_pb2.Metadata(value=index).SerializeToString():
            what = f"Block {number} names another block than {expected} as that of the configuration in force."
            raise Broken("block-config", number, what)
        noted = block.metadata[COMMIT_HASH]
        if noted and (len(noted) != _HASH or noted[:2] != b"\x0a\x20"):
            raise Broken("block-altered", number, f"Block {number} has metadata that no peer writes.")

    def _change(self, config: ChannelConfig, block: Block) -> ChannelConfig | None:
        """The configuration that a block brings, None for one that brings none."""
        if block.number == 0 or not _is_config(block):
            return None
        number = block.number
        try:
            changed, changes = apply_update(config, config_envelope(block.transactions[0].data), number)
        except Unauthorised as error:
            raise Broken("config-unauthorised", number, f"Block {number}: {error}.") from error
        except Malformed as error:
            raise Broken("block-config", number, f"Block {number}: {error}.") from error
        self.changes += changes
        return changed

    def _transact(self, config: ChannelConfig, block: Block) -> list[Entry]:
        """Judge a block's transactions, hold the peers' flags to that, and replay the contract on the valid ones."""
        flags = block.metadata[FLAGS]
        if len(flags) != len(block.transactions):
            what = f"Block {block.number} has {counted(len(flags), 'validity flag')} for {counted(len(block.transactions), 'transaction')}."
            raise Broken("validity-differs", block.number, what)
        codes = self._state.judge(config, block.number, block.transactions, flags)
        self.transactions += len(codes)
        self.invalid += sum(code != VALID for code in codes)
        if _is_config(block) and codes[0] != VALID:
            what = f"Block {block.number} brings a configuration in a transaction that is {CODES[codes[0]]}."
            raise Broken("block-config", block.number, what)
        found: list[Entry] = []
        for i, (one, code, flag) in enumerate(zip(block.transactions, codes, flags, strict=True)):
            if code != flag:
                self._differs(block.number, i, code, flag)
            if code == VALID and one.call is not None:
                try:
                    found += self.contract.take(one, one.call)
                except Malformed as error:
                    what = f"Block {block.number}, transaction {i}: {error}."
                    self.faults.append(Fault("write-set-differs", block.number, what))
        return found

    def _differs(self, block: int, index: int, code: int, flag: int) -> None:
        what = f"Block {block}, transaction {index} is flagged {CODES.get(flag, str(flag))}; by its bytes it is {CODES.get(code, str(code))}."
        self.faults.append(Fault("validity-differs", block, what))


def _is_config(block: Block) -> bool:
    return bool(block.transactions[0].kind == common_pb2.CONFIG)


def _genesis_config(transaction: Transaction) -> object:
    """The configuration in the first block: its one transaction has no creator and no update."""
    if transaction.kind != common_pb2.CONFIG:
        raise Malformed("it holds no configuration")
    envelope = config_envelope(transaction.data)
    if envelope.HasField("last_update") and envelope.last_update.ByteSize():
        raise Malformed("its configuration comes of an update")
    return envelope.config
