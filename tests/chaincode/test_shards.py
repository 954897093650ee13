# SPDX-License-Identifier: Apache-2.0
"""Sums by coordinates: the bits and the verdicts of verifying whole updates, and nothing before they are verified."""

import pickle
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode.aggregation import weighted_sum
from chaincode.agreement import TensorSpec
from chaincode.chunks import CHUNK, chunk_hashes, root_of
from chaincode.evidence import UNIT, Commitment, ShardEvidence, judge, shard_cuts, verify_update
from chaincode.header import format_header
from chaincode.shards import Tentative, sum_shard
from chaincode.update import DTYPES, check_range, vector_length
from identity.errors import EvidenceError
from tests.chaincode.test_update_oracle import commit, header, site_blob, spec
from tests.chaincode.whole_models import sum_digest

LENGTH = 3 * UNIT + 1234
SPECS = [spec("a", UNIT + 5), spec("gap", 3, rule="keep"), spec("b", 2 * UNIT + 1229, clip=-2, bits=24)]
Updates = list[tuple[Commitment, bytes]]


def make(encoding: str = "int32", count: int = 3, specs: Sequence[TensorSpec] = SPECS) -> Updates:
    rng, updates = np.random.default_rng(7), []
    for i in range(count):
        head = header(f"did:key:zSite{i}", length=vector_length(specs), encoding=encoding)
        blob = site_blob(head, rng.normal(0, 0.4, vector_length(specs)), specs)
        updates.append((commit(head, blob, 10 + i), blob))
    return updates


UPDATES = make()


def in_shards(updates: Updates, shards: int) -> tuple[list[Tentative], dict[str, tuple[str, list[bytes]]]]:
    cuts = shard_cuts(LENGTH, shards)
    parts = [sum_shard(updates, SPECS, low, high) for low, high in pairwise(cuts)]
    found = [pickle.loads(pickle.dumps(part.evidence)) for part in parts]
    return parts, {c.member: judge(c, [e[i] for e in found]) for i, (c, _) in enumerate(updates)}


def expected_verdict(commitment: Commitment, blob: bytes) -> str:
    try:
        check_range(verify_update(commitment, blob).body, SPECS, commitment.encoding)
    except EvidenceError as error:
        return error.code
    return ""


@given(st.integers(0, 40 * UNIT), st.integers(1, 9))
def test_cuts_cover_the_vector_in_whole_chunks_of_the_sum(elements: int, shards: int) -> None:
    cuts = shard_cuts(elements, shards)
    assert (cuts[0], cuts[-1]) == (0, elements)
    assert cuts == sorted(set(cuts))
    assert len(cuts) <= shards + 1
    assert all(cut % UNIT == 0 for cut in cuts[:-1])
    if elements:
        sizes = [high - low for low, high in pairwise(cuts)]
        assert max(sizes) <= -(-elements // shards) + UNIT


@pytest.mark.parametrize("encoding", ["int32", "int64"])
@pytest.mark.parametrize("shards", [1, 2, 3, 4])
def test_shards_give_the_bits_of_the_whole(shards: int, encoding: str) -> None:
    updates = UPDATES if encoding == "int32" else make(encoding)
    whole = weighted_sum([verify_update(c, blob) for c, blob in updates], SPECS)
    parts, verdicts = in_shards(updates, shards)
    assert {code for code, _ in verdicts.values()} == {""}
    assert all(hashes == chunk_hashes(blob) for (_, hashes), (_, blob) in zip(verdicts.values(), updates, strict=True))
    confirmed = [part.confirm({m: hashes for m, (_, hashes) in verdicts.items()}) for part in parts]
    assert np.concatenate([sums for sums, _ in confirmed]).tolist() == whole.tolist()
    assert root_of([leaf for _, leaves in confirmed for leaf in leaves]) == sum_digest(whole)


TINY = [spec("a", 3, clip=4, bits=24), spec("b", 2, clip=2, bits=24), spec("c", 2, clip=4, bits=24)]
BOUNDS = [2**28] * 3 + [2**26] * 2 + [2**28] * 2
SIZES = st.sampled_from([0, 1, 2**15, 2**26 - 1, 2**26, 2**28])
WEIGHTS = st.sampled_from([0, 1, 3, 7, 8, 2**16, 2**31 - 1, 2**31])
ROWS = st.lists(st.tuples(WEIGHTS, st.tuples(*[SIZES] * 7), st.sampled_from([-1, 1])), min_size=1, max_size=15)


@settings(max_examples=300, deadline=None)
@given(ROWS, st.sampled_from(["int32", "int64"]))
def test_sums_are_those_of_unbounded_integers(rows: list[tuple[int, tuple[int, ...], int]], encoding: str) -> None:
    updates: Updates = []
    expected = [0] * len(BOUNDS)
    for number, (weight, sizes, sign) in enumerate(rows):
        values = [sign * min(size, bound) for size, bound in zip(sizes, BOUNDS, strict=True)]
        head = header(f"did:key:zSite{number}", length=len(values), encoding=encoding)
        blob = format_header(head) + np.array(values, DTYPES[encoding]).tobytes()
        updates.append((commit(head, blob, weight), blob))
        expected = [total + weight * value for total, value in zip(expected, values, strict=True)]
    tentative = sum_shard(updates, TINY, 0, len(BOUNDS))
    sums, _ = tentative.confirm({c.member: chunk_hashes(blob) for c, blob in updates})
    assert sums.tolist() == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(UPDATES[1][1]) - 1), st.sampled_from([1, 2, 3]), st.booleans())
def test_whatever_is_altered_gets_the_verdict_of_the_whole(position: int, shards: int, commits_to_it: bool) -> None:
    # Flipped in delivery, or by the author before the commitment: then it is the form that may be wrong.
    updates = list(UPDATES)
    commitment, blob = updates[1]
    altered = bytearray(blob)
    altered[position] ^= 0x40
    if commits_to_it:
        commitment = replace(commitment, digest=root_of(chunk_hashes(altered)))
    updates[1] = commitment, bytes(altered)
    parts, verdicts = in_shards(updates, shards)
    expected = expected_verdict(*updates[1])
    assert [code for code, _ in verdicts.values()] == ["", expected, ""]
    committed = {c.member: chunk_hashes(b) for c, b in UPDATES}
    committed[commitment.member] = chunk_hashes(altered if commits_to_it else blob)
    for given_hashes in (committed, {m: hashes for m, (_, hashes) in verdicts.items()}):
        outcomes = [confirmed(part, given_hashes) for part in parts]
        assert any(outcomes) == bool(expected)  # whoever read what is wrong never gives out its sum


def confirmed(part: Tentative, hashes: dict[str, list[bytes]]) -> str:
    try:
        part.confirm(hashes)
    except EvidenceError as error:
        return error.code
    return ""


def test_the_integers_of_another_update_are_not_confirmed_in_any_shard() -> None:
    # Every process verifies what it summed, whatever hashes it is told.
    parts, verdicts = in_shards(UPDATES, 3)
    hashes = {m: found for m, (_, found) in verdicts.items()}
    first, second = (c.member for c, _ in UPDATES[:2])
    for wrong in (
        {**hashes, first: hashes[second]},
        {**hashes, first: [*hashes[first], bytes(32)]},
        {**hashes, first: hashes[first][:-1]},
        {**hashes, first: [bytes(32), *hashes[first][1:]]},
        {**hashes, first: [*hashes[first][:-1], bytes(32)]},
        {m: found for m, found in hashes.items() if m != first},
    ):
        assert [confirmed(part, wrong) for part in parts] == ["update-digest"] * 3
    assert [confirmed(part, hashes) for part in parts] == [""] * 3


def test_an_update_of_another_size_is_not_read() -> None:
    (commitment, blob), *others = UPDATES
    for data in (blob[:-1], blob + b"x", b""):
        parts, verdicts = in_shards([(commitment, data), *others], 2)
        assert [code for code, _ in verdicts.values()] == ["update-size", "", ""]
        assert [confirmed(p, {c.member: chunk_hashes(b) for c, b in UPDATES}) for p in parts] == ["update-size"] * 2
    for size in (4 * LENGTH, 4 * LENGTH + CHUNK):
        strange = replace(commitment, size=size)
        _, verdicts = in_shards([(strange, bytes(size)), *others], 2)
        assert verdicts[commitment.member] == ("update-length", [])


def test_readers_of_one_chunk_must_have_had_the_same_bytes() -> None:
    commitment, blob = UPDATES[0]
    leaves = chunk_hashes(blob)
    good = [ShardEvidence("m", "", 0, tuple(leaves[:2])), ShardEvidence("m", "", 1, tuple(leaves[1:]))]
    assert judge(commitment, good) == ("", leaves)
    other = ShardEvidence("m", "", 0, (leaves[0], bytes(32)))
    assert judge(commitment, [other, good[1]]) == ("update-digest", [])
    with pytest.raises(ValueError, match="cover"):
        judge(commitment, good[1:])


def test_what_belongs_into_no_sum_is_refused_as_ever() -> None:
    cuts = shard_cuts(LENGTH, 1)
    for updates, code in (([], "sum-empty"), ([UPDATES[0], UPDATES[0]], "sum-duplicate-member")):
        with pytest.raises(EvidenceError) as caught:
            sum_shard(updates, SPECS, *cuts)
        assert caught.value.code == code
    for low, high in ((1, LENGTH), (0, UNIT + 1), (UNIT, 0), (0, LENGTH + 1)):
        with pytest.raises(ValueError, match="no shard"):
            sum_shard(UPDATES, SPECS, low, high)
    with pytest.raises(ValueError, match="out"):
        sum_shard(UPDATES, SPECS, 0, LENGTH, out=np.zeros(LENGTH, np.int32))
