# SPDX-License-Identifier: Apache-2.0
"""Recorded channels are verified, and each tampering is found and named with its block's number."""

from typing import Any

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer.transaction_pb2 import TxValidationCode as Code

from chaincode.blocks.chain import Trust
from chaincode.blocks.transactions import CODES
from chaincode.log import leaf_hash, root
from tests.chaincode.blocks.recordings import (
    Parts,
    Recording,
    block_of,
    numbers,
    recording,
    replaced,
    sealed,
)  # fmt: skip

ORDERER = "orderer-1.orderers"


@pytest.fixture(params=["raft", "bft"])
def channel(request: pytest.FixtureRequest) -> Recording:
    return recording(request.param)


@pytest.fixture
def raft() -> Recording:
    return recording("raft")


def first_submit(channel: Recording) -> int:
    """The number of the block that founds the federation."""
    chain, _ = channel.verify()
    for number, data in enumerate(channel.blocks):
        if any(b"submit" in one for one in block_of(data).data.data):
            return number
    raise AssertionError(chain)


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


def resubmitted(channel: Recording, number: int, change: Any, orderer: str = ORDERER) -> list[tuple[str, int]]:
    """What is found where the orderer itself puts another transaction into a block, and seals the chain from there on."""

    def put(block: Any) -> None:
        block.data.data[0] = change(Parts.of(block.data.data[0]))

    altered = replaced(channel.blocks, number, put)[: number + 1]
    return channel.faults(sealed(altered, number, channel.member(orderer)))


def test_an_orderer_alone_can_seal_what_it_did_not_change(raft: Recording) -> None:
    number = first_submit(raft)
    assert resubmitted(raft, number, lambda parts: parts.whole()) == []


def test_stripped_and_too_few_endorsements_are_named_even_if_the_orderer_lies(raft: Recording) -> None:
    number, client = first_submit(raft), raft.member("User1@coordinator")
    one, two = raft.member("peer.hospitals-1"), raft.member("peer.hospitals-2")
    for endorsers in ([], [one], [one, one], [one, raft.member("User1@hospitals-2")], [one, raft.member(ORDERER)]):
        found = resubmitted(raft, number, lambda parts, e=endorsers: parts.whole(client, e))
        assert found == [("validity-differs", number)], endorsers
    assert resubmitted(raft, number, lambda parts: parts.whole(client, [one, two])) == []


def test_a_signature_that_does_not_fit_counts_for_nobody(raft: Recording) -> None:
    number, client = first_submit(raft), raft.member("User1@coordinator")

    def endorse(parts: Parts) -> bytes:
        parts.inner.action.endorsements[0].signature = client.sign(b"something else")
        return parts.whole(client)

    assert resubmitted(raft, number, endorse) == [("validity-differs", number)]
    stranger = raft.member("User1@hospitals-1")
    assert resubmitted(raft, number, lambda parts: parts.whole(stranger)) == [("validity-differs", number)]


def test_what_the_contract_does_not_make_is_named_even_if_all_endorse_it(raft: Recording) -> None:
    number, client = first_submit(raft), raft.member("User1@coordinator")
    everybody = [raft.member(f"peer.{name}") for name in ("coordinator", "hospitals-1", "hospitals-2")]

    def value(writes: Any) -> None:
        writes.writes[0].value += b" "

    def key(writes: Any) -> None:
        writes.writes.add(key="member/nobody", value=b"{}")

    def fewer(writes: Any) -> None:
        del writes.writes[0]

    def deleted(writes: Any) -> None:
        writes.writes[0].is_delete = True

    def unread(writes: Any) -> None:
        del writes.reads[0]

    for change in (value, key, fewer, deleted, unread):

        def forge(parts: Parts, change: Any = change) -> bytes:
            with parts.writes() as writes:
                change(writes)
            return parts.whole(client, everybody)

        assert resubmitted(raft, number, forge) == [("write-set-differs", number)], change

    def answer(parts: Parts) -> bytes:
        parts.action.response.payload = b'[{"rejected":"not-founded","message":""}]'
        return parts.whole(client, everybody)

    assert resubmitted(raft, number, answer) == [("write-set-differs", number)]


def test_after_a_forged_write_the_rest_is_still_read(raft: Recording) -> None:
    number, client = first_submit(raft), raft.member("User1@coordinator")
    everybody = [raft.member(f"peer.{name}") for name in ("coordinator", "hospitals-1", "hospitals-2")]

    def garbage(block: Any) -> None:
        parts = Parts.of(block.data.data[0])
        with parts.writes() as writes:
            for one in writes.writes:
                one.value = b"\xff garbage"
        block.data.data[0] = parts.whole(client, everybody)

    blocks = sealed(replaced(raft.blocks, number, garbage), number, raft.member(ORDERER))
    chain, entries = raft.verify(blocks)
    assert [(fault.code, fault.block) for fault in chain.faults] == [("write-set-differs", number)]
    assert len(entries) == 26  # all but the one that was not written as it should be


def test_a_read_of_another_version_is_a_conflict_whatever_the_flag(raft: Recording) -> None:
    number, client = first_submit(raft) + 1, raft.member("User1@coordinator")
    everybody = [raft.member(f"peer.{name}") for name in ("coordinator", "hospitals-1", "hospitals-2")]

    def forge(parts: Parts) -> bytes:
        with parts.writes() as writes:
            next(one for one in writes.reads if one.HasField("version")).version.block_num += 1
        return parts.whole(client, everybody)

    assert resubmitted(raft, number, forge) == [("validity-differs", number)]


def test_a_transaction_that_comes_again_is_a_duplicate_whatever_the_flag(raft: Recording) -> None:
    number = first_submit(raft)
    known = block_of(raft.blocks[number]).data.data[0]
    assert resubmitted(raft, number + 2, lambda _: known) == [("validity-differs", number + 2)]


def test_other_functions_may_be_called_and_write_nothing(raft: Recording) -> None:
    """Anybody on the channel can have a `get` ordered: it must not spoil the evidence for ever."""
    number, client = first_submit(raft) + 1, raft.member("User1@coordinator")
    everybody = [raft.member(f"peer.{name}") for name in ("coordinator", "hospitals-1", "hospitals-2")]

    def get(parts: Parts, *, write: bool) -> bytes:
        parts.call(b"get", b"federation")
        with parts.writes() as writes:
            del writes.writes[0 if not write else 1 :]
        return parts.whole(client, everybody)

    assert resubmitted(raft, number, lambda parts: get(parts, write=False)) == []
    assert resubmitted(raft, number, lambda parts: get(parts, write=True)) == [("write-set-differs", number)]


def test_an_endorsed_proposal_must_be_the_one_that_was_sent(raft: Recording) -> None:
    number, client = first_submit(raft), raft.member("User1@coordinator")

    def swap(parts: Parts) -> bytes:
        hashed = parts.answer.proposal_hash
        parts.call(b"submit", b"another envelope")
        parts.answer.proposal_hash = hashed
        return parts.whole(client)

    assert resubmitted(raft, number, swap) == [("validity-differs", number)]


def test_what_is_not_modelled_is_refused_where_the_federation_depends_on_it(raft: Recording) -> None:
    number, client = first_submit(raft) + 1, raft.member("User1@coordinator")
    everybody = [raft.member(f"peer.{name}") for name in ("coordinator", "hospitals-1", "hospitals-2")]

    def ranged(parts: Parts) -> bytes:
        with parts.writes() as writes:
            writes.range_queries_info.add(start_key="a", end_key="b")
        return parts.whole(client, everybody)

    assert resubmitted(raft, number, ranged) == [("fabric-unsupported", number)]

    def put(block: Any) -> None:
        block.data.data[0] = ranged(Parts.of(block.data.data[0]))

    blocks = sealed(replaced(raft.blocks, number, put), number, raft.member(ORDERER))
    trust = Trust(raft.trust.channel, "another", raft.trust.genesis)
    until = next(n for n, data in enumerate(blocks) if n > number and block_of(data).metadata.metadata[2] != b"\0")
    chain, _ = raft.verify(blocks[:until], trust)  # of another federation's chaincode it is none of our concern
    assert chain.faults == []
    assert chain.unjudged > 1


def test_a_configuration_in_an_invalid_transaction_is_none(raft: Recording) -> None:
    number = raft.verify()[0].changes[0].block

    def unsign(block: Any) -> None:
        envelope = common_pb2.Envelope.FromString(block.data.data[0])
        envelope.signature = raft.member("Admin@orderers").sign(b"another")
        block.data.data[0] = envelope.SerializeToString()
        block.metadata.metadata[2] = bytes([Code.BAD_CREATOR_SIGNATURE])

    blocks = sealed(replaced(raft.blocks, number, unsign)[: number + 1], number, raft.member(ORDERER))
    assert raft.faults(blocks) == [("block-config", number)]


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
