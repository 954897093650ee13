# SPDX-License-Identifier: Apache-2.0
"""Transactions that an orderer itself put into a block: each that does not hold is named with the block's number."""

from typing import Any

import pytest
from fabric_protos.common import common_pb2
from fabric_protos.peer.transaction_pb2 import TxValidationCode as Code

from chaincode.blocks.chain import Trust
from tests.chaincode.blocks.founding import ORDERER, first_submit
from tests.chaincode.blocks.recordings import (
    Parts,
    Recording,
    block_of,
    recording,
    replaced,
    sealed,
)  # fmt: skip


@pytest.fixture
def raft() -> Recording:
    return recording("raft")


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
