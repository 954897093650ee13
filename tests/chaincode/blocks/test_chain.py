# SPDX-License-Identifier: Apache-2.0
"""Recorded channels are verified, and each tampering is found and named with its block's number."""

from typing import Any

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer.transaction_pb2 import TxValidationCode as Code

from chaincode.blocks.chain import Trust
from chaincode.blocks.transactions import CODES
from chaincode.log import leaf_hash, root
from tests.chaincode.blocks.founding import first_submit
from tests.chaincode.blocks.recordings import (
    Recording,
    block_of,
    numbers,
    recording,
    replaced,
    sealed,
)  # fmt: skip


@pytest.fixture(params=["raft", "bft"])
def channel(request: pytest.FixtureRequest) -> Recording:
    return recording(request.param)


@pytest.fixture
def raft() -> Recording:
    return recording("raft")


def test_a_channel_as_it_was_is_verified(channel: Recording) -> None:
    chain, entries = channel.verify()
    assert chain.faults == []
    assert chain.height == len(channel.blocks)
    assert [entry.kind for entry in entries][:2] == ["found", "admit"]
    assert len(entries) == 27
    assert entries[-1].kind == "attest"
    assert len({entry.id for entry in entries}) == len(entries)
    assert set(chain.contract.state) >= {f"entry/{entry.id}" for entry in entries}
    assert root([leaf_hash(entry.envelope) for entry in entries])


def test_invalid_transactions_are_found_without_the_peers_flags(raft: Recording) -> None:
    found = {CODES[code]: [n for n, _ in numbers(raft.blocks, code)] for code in (9, 10, 11)}
    assert all(found.values())
    assert raft.verify()[0].invalid == sum(map(len, found.values()))
    assert len(found["DUPLICATE_TXID"]) == 2
    assert len(found["MVCC_READ_CONFLICT"]) == 1


def test_who_changed_the_configuration_is_told(raft: Recording) -> None:
    chain, _ = raft.verify()
    timeout, application, added = chain.changes
    assert timeout.what.endswith("/Channel/Orderer/BatchTimeout")
    assert timeout.policy == "/Channel/Orderer/Admins"
    assert [one.split(" of ")[1] for one in timeout.signed] == ["OrdererMSP"]
    assert application.policy == "/Channel/Application/Admins"
    assert len(application.signed) == 3
    assert added.what.endswith("/Channel/Application/hospitals-3")
    assert "Hospitals3MSP" in chain.config.msps


def test_which_version_of_the_contract_judged_which_entry_is_told(raft: Recording) -> None:
    chain, entries = raft.verify()
    (old, many), (new, few) = chain.contract.versions
    assert old != new
    assert many + few == len(entries)
    assert few == 1


def test_altered_transactions_are_named_by_their_block(channel: Recording) -> None:
    number = first_submit(channel)

    def flip(block: Any) -> None:
        data = bytearray(block.data.data[0])
        data[len(data) // 2] ^= 1
        block.data.data[0] = bytes(data)

    altered = replaced(channel.blocks, number, flip)
    assert channel.faults(altered) == [("block-altered", number)]
    resealed = sealed(altered, number)[: number + 1] + altered[number + 1 :]  # its own hash made to fit
    assert channel.faults(resealed) == [("block-orderers", number)]
    assert channel.faults(sealed(altered, number)) == [("block-orderers", number)]


def test_missing_and_swapped_blocks_are_named(channel: Recording) -> None:
    blocks, number = channel.blocks, 7
    assert channel.faults([*blocks[:number], *blocks[number + 1 :]]) == [("block-missing", number)]
    swapped = [*blocks[:number], blocks[number + 1], blocks[number], *blocks[number + 2 :]]
    assert channel.faults(swapped) == [("block-missing", number)]

    def renumber(block: Any) -> None:
        block.header.number -= 1

    without = [*blocks[:number], *(replaced([one], 0, renumber)[0] for one in blocks[number + 1 :])]
    assert channel.faults(without) == [("block-chain", number)]
    assert channel.faults(sealed(without, number)) == [("block-orderers", number)]
    assert channel.faults(blocks[1:]) == [("block-missing", 0)]
    assert channel.faults([b"nothing"]) == [("block-malformed", 0)]


def test_every_flipped_flag_is_named(raft: Recording) -> None:
    for number, data in enumerate(raft.blocks[1:], 1):
        flags = block_of(data).metadata.metadata[2]
        for i, flag in enumerate(flags):
            for other in {int(Code.VALID), int(Code.MVCC_READ_CONFLICT), int(Code.ENDORSEMENT_POLICY_FAILURE)} - {flag}:

                def flip(block: Any, i: int = i, other: int = other, flags: bytes = flags) -> None:
                    block.metadata.metadata[2] = bytes([*flags[:i], other, *flags[i + 1 :]])

                chain, entries = raft.verify(replaced(raft.blocks, number, flip))
                assert [(one.code, one.block) for one in chain.faults] == [("validity-differs", number)]
                assert CODES[other] in chain.faults[0].what
                assert len(entries) == 27


def test_another_first_block_or_other_roots_are_refused(raft: Recording) -> None:
    trust, other = raft.trust, recording("bft")
    assert [f.code for f in raft.verify(other.blocks)[0].faults] == ["genesis-differs"]
    chain, _ = raft.verify(trust=Trust(trust.channel, trust.chaincode, trust.genesis, {"OrdererMSP": frozenset()}))
    assert {fault.code for fault in chain.faults} == {"roots-differ"}
    chain, _ = raft.verify(trust=Trust("elsewhere", trust.chaincode, trust.genesis))
    assert [fault.code for fault in chain.faults] == ["block-altered"]
    chain, entries = raft.verify(trust=Trust(trust.channel, "another", trust.genesis))
    assert entries == []
    assert chain.contract.state == {}


def test_a_bft_block_needs_a_quorum(channel: Recording) -> None:
    bft, number = recording("bft"), 9
    for keep in (0, 1, 2):

        def fewer(block: Any, keep: int = keep) -> None:
            metadata = common_pb2.Metadata.FromString(block.metadata.metadata[0])
            del metadata.signatures[keep:]
            block.metadata.metadata[0] = metadata.SerializeToString()

        assert bft.faults(replaced(bft.blocks, number, fewer)) == [("block-orderers", number)]

    def twice(block: Any) -> None:
        metadata = common_pb2.Metadata.FromString(block.metadata.metadata[0])
        metadata.signatures[2].CopyFrom(metadata.signatures[0])
        block.metadata.metadata[0] = metadata.SerializeToString()

    assert bft.faults(replaced(bft.blocks, number, twice)) == [("block-orderers", number)]
    lone = sealed(bft.blocks, number, *(bft.member(f"orderer-{n}.orderers") for n in (1, 2, 3)))
    assert bft.faults(lone) == [("block-orderers", number)]  # in the other form, which names no orderer
