# SPDX-License-Identifier: Apache-2.0
"""Consistency proofs of the tree, against the oracle, published vectors and the past bugs of others."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode import log
from identity.errors import EvidenceError
from tests.chaincode.log_oracle import MOST, VECTORS, data, refused, roots, stored, subproof


@st.composite
def growth(draw: st.DrawFn) -> tuple[int, int]:
    new = draw(st.integers(1, MOST))
    return draw(st.integers(1, new)), new


def test_consistency_proofs_equal_the_published_vectors() -> None:
    assert len(VECTORS["consistency"]) == 153
    for case in VECTORS["consistency"]:
        old, new, expected = case["from"], case["to"], case["path"]
        assert [h.hex() for h in log.consistency_proof(old, new, stored(new))] == expected
        old_root, new_root = (bytes.fromhex(VECTORS["roots_by_size"][n]) for n in (old, new))
        log.verify_consistency(old, new, old_root, new_root, [bytes.fromhex(h) for h in expected])


def test_every_generated_consistency_proof_verifies() -> None:
    """compact_log #13: a generator whose proofs its own verifier refused at some sizes."""
    for new in range(1, MOST + 1):
        for old in range(1, new + 1):
            proof = log.consistency_proof(old, new, stored(new))
            log.verify_consistency(old, new, roots()[old], roots()[new], proof)


@settings(deadline=None)
@given(growth())
def test_consistency_proofs_equal_the_definition(case: tuple[int, int]) -> None:
    old, new = case
    assert log.consistency_proof(old, new, stored(new)) == subproof(old, data(new), True)


@settings(deadline=None)
@given(growth(), st.data())
def test_a_changed_consistency_proof_is_refused(case: tuple[int, int], draw: st.DataObject) -> None:
    old, new = case
    proof, check = subproof(old, data(new), True), log.verify_consistency
    first, last, other = roots()[old], roots()[new], sha256(b"other").digest()
    refused("consistency-path-length", check, old, new, first, last, [*proof, last])
    refused("consistency-path-length", check, old, new, first, last, [first, *proof])
    refused("consistency-hash-length", check, old, new, first[1:], last, proof)
    refused("consistency-hash-length", check, old, new, first, last + b"\0", proof)
    refused("consistency-hash-length", check, old, new, first, last, [*proof, b"\0" * 31])
    if old == new:
        return
    # The sum of what the trees must share: neither root may be anything else (pymerkle #15, #17).
    with pytest.raises(EvidenceError):
        check(old, new, other, last, proof)
    refused("consistency-new-root", check, old, new, first, other, proof)
    refused("consistency-path-length", check, old, new, first, last, proof[:-1])
    refused("consistency-path-length", check, old, new, first, last, proof[1:])
    at = draw.draw(st.integers(0, len(proof) - 1))
    with pytest.raises(EvidenceError):
        check(old, new, first, last, [*proof[:at], other, *proof[at + 1 :]])
    if len(proof) > 1:
        with pytest.raises(EvidenceError):
            check(old, new, first, last, proof[::-1])


@settings(deadline=None)
@given(growth(), growth())
def test_a_consistency_proof_serves_one_pair_only(one: tuple[int, int], other: tuple[int, int]) -> None:
    (old, new), proof = other, subproof(one[0], data(one[1]), True)
    if proof == subproof(old, data(new), True):
        return
    with pytest.raises(EvidenceError):
        log.verify_consistency(old, new, roots()[old], roots()[new], proof)


def test_the_first_root_is_checked() -> None:
    """pymerkle #15 and #17: the first root was never compared. 6 -> 7 has a seed of its own."""
    proof = subproof(6, data(7), True)
    refused("consistency-old-root", log.verify_consistency, 6, 7, roots()[5], roots()[7], proof)


@pytest.mark.parametrize("new", [0, 1, 2, 7, 8])
def test_nothing_is_consistent_with_the_empty_tree(new: int) -> None:
    """transparency-dev/merkle #140: an empty proof from size 0 to anything verified."""
    refused("consistency-size", log.verify_consistency, 0, new, log.EMPTY_ROOT, roots()[new], [])
    refused("consistency-size", log.verify_consistency, 0, new, log.EMPTY_ROOT, roots()[new], [roots()[new]])
    refused("consistency-size", log.consistency_proof, 0, new, stored(new))


@pytest.mark.parametrize(("old", "new"), [(1, 2), (4, 8), (3, 7), (6, 8)])
def test_an_empty_proof_between_different_sizes_is_refused(old: int, new: int) -> None:
    refused("consistency-path-length", log.verify_consistency, old, new, roots()[old], roots()[new], [])
    refused("consistency-path-length", log.verify_consistency, old, new, roots()[old], roots()[old], [])


def test_equal_sizes_need_equal_roots() -> None:
    log.verify_consistency(7, 7, roots()[7], roots()[7], [])
    refused("consistency-equal-sizes", log.verify_consistency, 7, 7, roots()[7], roots()[6], [])
    refused("consistency-equal-sizes", log.verify_consistency, 8, 8, roots()[8], roots()[7], [])


@pytest.mark.parametrize(("old", "new"), [(8, 7), (-1, 7), (1, 2**63), (-2, -1)])
def test_a_log_never_shrinks(old: int, new: int) -> None:
    refused("consistency-size", log.verify_consistency, old, new, roots()[7], roots()[7], [])
    refused("consistency-size", log.consistency_proof, old, new, stored(7))
