# SPDX-License-Identifier: Apache-2.0
"""A chunk root: of the whole, in pieces, and by several threads."""

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chaincode.chunks import CHUNK, ChunkHasher, chunk_hashes, chunk_root, root_of
from tests.chaincode.test_update_oracle import plain_root

SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5, 7 * CHUNK + 1]
DATA = random.Random(1).randbytes(SIZES[-1])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("threads", [1, 2, 3, 20])
def test_the_digest_is_the_rfc_6962_root_over_the_chunks(size: int, threads: int) -> None:
    data = memoryview(DATA)[:size]
    assert chunk_root(data, threads=threads) == plain_root(bytes(data))
    assert len(chunk_hashes(data, threads=threads)) == -(-size // CHUNK)


def test_known_digests() -> None:
    assert chunk_root(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert chunk_root(b"abc") == "609f6e36d2405585188d5cfd761f407c7cc46a7d3f314c88270469dde315fcd1"
    assert chunk_root(bytes(CHUNK)) != chunk_root(bytes(CHUNK + 1))


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, len(SIZES) - 1),
    st.lists(
        st.one_of(
            st.integers(0, SIZES[-1]),
            st.builds(lambda chunk, near: max(chunk * CHUNK + near, 0), st.integers(0, 7), st.integers(-2, 2)),
        ),
        max_size=12,
    ),
)
@example(4, [CHUNK - 1])
def test_hashing_in_pieces_of_any_size_gives_the_same_digest(which: int, cuts: list[int]) -> None:
    data, hasher = memoryview(DATA)[: SIZES[which]], ChunkHasher()
    edges = [0, *sorted(c for c in cuts if c <= len(data)), len(data)]
    for low, high in pairwise(edges):
        hasher.update(data[low:high])
    assert hasher.size == len(data)
    assert hasher.chunk_hashes() == chunk_hashes(data)
    assert hasher.digest() == root_of(chunk_hashes(data)) == chunk_root(data)


def test_every_buffer_is_bytes() -> None:
    array = np.arange(CHUNK // 4 + 3, dtype="<i4")
    assert chunk_root(array.data) == chunk_root(array.tobytes()) == chunk_root(bytearray(array.tobytes()))
    hasher = ChunkHasher()
    hasher.update(array.data)
    assert hasher.digest() == chunk_root(array.tobytes())
