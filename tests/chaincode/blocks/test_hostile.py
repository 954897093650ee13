# SPDX-License-Identifier: Apache-2.0
"""Hostile bytes: whatever is done to a recorded channel, it is a finding, and never a pass or a crash.

Bytes that mean nothing: the 32 bytes of each block in which a peer notes its own state's hash (COMMIT_HASH), which nobody
signs and from which nothing is concluded. Everything else is held by a hash, a signature, or one spelling.
"""

import base64
import random
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from fabric_protos.common import common_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode.blocks.chain import Chain
from chaincode.blocks.pinning import make_channel_key
from chaincode.blocks.reading import COMMIT_HASH, read_block, read_or_fault
from chaincode.blocks.signatures import certificate_of
from chaincode.blocks.transactions import read_transaction
from chaincode.blocks.wire import Malformed, exact
from chaincode.channel_key import ChannelKey, format_channel_key, is_channel_key, parse_any_key, parse_channel_key
from identity.errors import EvidenceError
from tests.chaincode.blocks.evidence import key_of
from tests.chaincode.blocks.recordings import CHAINCODE, block_of, recording

NAMES = st.sampled_from(["raft", "bft"])


def meaningless(data: bytes) -> range:
    """Where in a block's bytes the peer's own note lies."""
    note = block_of(data).metadata.metadata[COMMIT_HASH]
    if not note:
        return range(0)
    start = data.rindex(note) + 2
    return range(start, start + 32)


def check_flip(name: str, number: int, place: int, bit: int) -> None:
    channel = recording(name)
    blocks = list(channel.blocks)
    data = bytearray(blocks[number])
    data[place] ^= 1 << bit
    chain = Chain(channel.trust)
    # The blocks before it are as they were: what they lead to is not judged anew for each flip.
    blocks[number] = bytes(data)
    read = (read_or_fault(one, i, CHAINCODE) for i, one in enumerate(blocks))
    entries = list(chain.entries(read))
    if place in meaningless(channel.blocks[number]):
        assert chain.faults == []
        assert len(entries) == 27
    else:
        assert chain.faults, (name, number, place, bit)
        assert chain.faults[0].block <= number + 1
        assert chain.faults[0].block >= number


@settings(max_examples=60, deadline=None)
@given(NAMES, st.data())
def test_a_flipped_bit_never_passes(name: str, data: st.DataObject) -> None:
    blocks = recording(name).blocks
    number = data.draw(st.integers(0, len(blocks) - 1))
    check_flip(name, number, data.draw(st.integers(0, len(blocks[number]) - 1)), data.draw(st.integers(0, 7)))


def test_flips_in_every_part_of_the_metadata_are_found() -> None:
    """What lies after a block's transactions is the least of its bytes, and the least held by hashes."""
    pick = random.Random(5)
    for name in ("raft", "bft"):
        for number, data in enumerate(recording(name).blocks):
            tail = len(data) - len(block_of(data).metadata.SerializeToString()) - 4
            for place in pick.sample(range(tail, len(data)), 6):
                check_flip(name, number, place, pick.randrange(8))


@settings(max_examples=40, deadline=None)
@given(NAMES, st.integers(0, 20), st.integers(0, 1 << 30), st.binary(max_size=40))
def test_cut_and_padded_blocks_are_refused(name: str, number: int, cut: int, more: bytes) -> None:
    channel = recording(name)
    data = channel.blocks[number]
    for altered in (data[: cut % len(data)], data + more, data[: cut % len(data)] + more):
        if altered != data:
            blocks = [*channel.blocks[:number], altered, *channel.blocks[number + 1 :]]
            assert channel.faults(blocks)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_crash_the_readers(data: bytes) -> None:
    transaction = read_transaction(data, CHAINCODE)
    assert transaction.before or transaction.after or transaction.call is None
    with pytest.raises(Malformed):
        read_block(data)
    with pytest.raises(EvidenceError):
        parse_channel_key(data)


def test_a_certificate_of_another_version_is_nobodys() -> None:
    """Found by flipping bits: the library says so with an exception of its own kind."""
    check_flip("bft", 3, 2386, 4)
    pem = recording("raft").keys["peer.hospitals-1.crt"]
    der = bytearray(load_pem_x509_certificate(pem).public_bytes(Encoding.DER))
    der[der.index(b"\xa0\x03\x02\x01\x02") + 4] = 0x42
    body = base64.encodebytes(bytes(der))
    with pytest.raises(Malformed):
        certificate_of(b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_altered_transaction_crashes_its_reader(data: st.DataObject) -> None:
    channel = recording("raft")
    block = block_of(channel.blocks[data.draw(st.integers(1, len(channel.blocks) - 1))])
    altered = bytearray(block.data.data[0])
    for _ in range(data.draw(st.integers(1, 4))):
        altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    read_transaction(bytes(altered), CHAINCODE)


def test_unknown_fields_and_other_spellings_are_refused_where_they_could_mean_something() -> None:
    metadata = common_pb2.Metadata(value=b"x").SerializeToString()
    assert exact(common_pb2.Metadata, metadata, limit=100).value == b"x"
    for other in (metadata + b"\x78\x01", b"\x0a\x81\x00x", metadata + metadata):
        with pytest.raises(Malformed):
            exact(common_pb2.Metadata, other, limit=100)
    with pytest.raises(Malformed):
        exact(common_pb2.Metadata, metadata, limit=1)


def test_deeply_nested_bytes_are_refused() -> None:
    data = b""
    for _ in range(5000):
        data = b"\x0a" + _varint(len(data)) + data
    for kind in (common_pb2.Block, common_pb2.Envelope):
        with pytest.raises(Malformed):
            exact(kind, data * 3, limit=1 << 30)


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def test_a_channels_key_is_read_as_it_is_written() -> None:
    key = key_of("raft")
    text = format_channel_key(key).encode()
    assert parse_channel_key(text) == parse_any_key(text) == key
    assert is_channel_key(text)
    assert (key.channel, key.chaincode) == ("fedledger", "fedledger")
    assert key.roots_of().keys() == {"CoordinatorMSP", "Hospitals1MSP", "Hospitals2MSP", "OrdererMSP"}
    lines = text.decode().splitlines()
    for altered in (lines[:-4], [*lines, ""], lines[::-1], [*lines[:4], *lines[:3:-1]], [lines[0], "a/b", *lines[2:]],
                    [lines[0], "a//b", *lines[2:]], [*lines[:2], lines[2].upper(), *lines[3:]], [*lines, lines[-1]]):  # fmt: skip
        with pytest.raises(EvidenceError, match="key file"):
            parse_channel_key(("\n".join(altered) + "\n").encode())


@settings(max_examples=80)
@given(st.data())
def test_a_flipped_bit_of_a_key_is_refused_or_another_key(data: st.DataObject) -> None:
    text = bytearray(format_channel_key(key_of("bft")).encode())
    text[data.draw(st.integers(0, len(text) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with suppress(EvidenceError):  # and nothing else
        assert parse_any_key(bytes(text)) != key_of("bft")


def test_a_key_is_made_of_a_first_block_only() -> None:
    channel = recording("raft")
    made: Any = make_channel_key(channel.blocks[0], "x/fedledger/fedledger", "0" * 64)
    assert isinstance(made, ChannelKey)
    for data, code in ((b"nothing", "block-malformed"), (channel.blocks[3], "block-missing")):
        with pytest.raises(EvidenceError) as refused:
            make_channel_key(data, "x/fedledger/fedledger", "0" * 64)
        assert refused.value.code == code
