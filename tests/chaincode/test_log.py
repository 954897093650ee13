# SPDX-License-Identifier: Apache-2.0
"""The Merkle tree's roots, stored nodes and inclusion proofs, against the oracle and published vectors."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from chaincode import log
from identity.errors import EvidenceError
from tests.chaincode.log_oracle import MOST, VECTORS, data, mth, nodes, path, refused, roots, stored


@st.composite
def leaf_of(draw: st.DrawFn) -> tuple[int, int]:
    size = draw(st.integers(1, MOST))
    return draw(st.integers(0, size - 1)), size


# Roots


def test_roots_equal_the_published_vectors() -> None:
    leaves = [log.leaf_hash(text.encode()) for text in VECTORS["leaves"]]
    frontier = log.Frontier()
    for size, expected in enumerate(VECTORS["roots_by_size"]):
        assert log.root(leaves[:size]).hex() == expected
        assert frontier.root().hex() == expected
        if size < len(leaves):
            frontier.append(leaves[size])
    assert frontier.size == len(leaves)


def test_roots_equal_the_definition_and_another_implementation() -> None:
    other = InmemoryTree(algorithm="sha256")
    for size in range(1, MOST + 1):
        other.append_entry(data(size)[-1])
        expected = mth(data(size))
        assert log.root([log.leaf_hash(d) for d in data(size)]) == expected == other.get_root()


@settings(deadline=None)
@given(st.lists(st.binary(max_size=8), max_size=MOST))
def test_any_leaves_give_the_defined_root(leaves: list[bytes]) -> None:
    hashes = [log.leaf_hash(leaf) for leaf in leaves]
    frontier = log.Frontier()
    for value in hashes:
        frontier.append(value)
    assert frontier.root() == log.root(hashes) == mth(leaves)


# Stored nodes


def test_nodes_are_completed_in_the_order_of_their_positions() -> None:
    assert [log.node_position(*name) for name in nodes()] == list(range(len(nodes())))


@settings(deadline=None)
@given(st.integers(0, MOST))
def test_a_frontier_read_from_stored_nodes_goes_on_like_the_first(size: int) -> None:
    frontier = log.Frontier.from_nodes(size, stored(size))
    assert (frontier.size, frontier.root()) == (size, roots()[size])
    for leaf in data(MOST)[size:]:
        frontier.append(log.leaf_hash(leaf))
    assert frontier.root() == roots()[MOST]


def test_a_copied_frontier_is_independent() -> None:
    frontier = log.Frontier.from_nodes(3, stored(3))
    frontier.copy().append(log.leaf_hash(b"x"))
    assert (frontier.size, frontier.root()) == (3, roots()[3])


def test_a_frontier_is_not_read_from_nonsense() -> None:
    refused("frontier-size", log.Frontier.from_nodes, -1, stored(0))
    refused("frontier-size", log.Frontier.from_nodes, 2**63, stored(0))
    refused("frontier-hash-length", log.Frontier.from_nodes, 3, lambda level, index: b"short")


def test_a_huge_tree_needs_few_nodes() -> None:
    """Any node accessor will do: here each node's hash is its name."""
    asked: list[tuple[int, int]] = []

    def node(level: int, index: int) -> bytes:
        asked.append((level, index))
        return sha256(b"%d %d" % (level, index)).digest()

    size = 2**62 + 12345
    proof = log.inclusion_proof(2**62 + 99, size, node)
    assert len(proof) <= 63
    assert len(asked) <= 130
    assert all((index + 1) << level <= size for level, index in asked)


# Inclusion


def test_inclusion_proofs_equal_the_published_vectors() -> None:
    assert len(VECTORS["inclusion"]) == 153
    for case in VECTORS["inclusion"]:
        index, size, expected = case["index"], case["size"], case["path"]
        assert [h.hex() for h in log.inclusion_proof(index, size, stored(size))] == expected
        leaf = log.leaf_hash(VECTORS["leaves"][index].encode())
        tree = bytes.fromhex(VECTORS["roots_by_size"][size])
        log.verify_inclusion(leaf, index, size, [bytes.fromhex(h) for h in expected], tree)


@settings(deadline=None)
@given(leaf_of())
def test_inclusion_proofs_equal_the_definition_and_verify(case: tuple[int, int]) -> None:
    index, size = case
    proof = log.inclusion_proof(index, size, stored(size))
    assert proof == path(index, data(size))
    log.verify_inclusion(log.leaf_hash(data(size)[index]), index, size, proof, roots()[size])


@settings(deadline=None)
@given(leaf_of(), st.data())
def test_a_changed_inclusion_proof_is_refused(case: tuple[int, int], draw: st.DataObject) -> None:
    index, size = case
    proof = path(index, data(size))
    leaf, tree = log.leaf_hash(data(size)[index]), roots()[size]
    refused("inclusion-root", log.verify_inclusion, log.leaf_hash(b"other"), index, size, proof, tree)
    refused("inclusion-root", log.verify_inclusion, leaf, index, size, proof, sha256(tree).digest())
    refused("inclusion-path-length", log.verify_inclusion, leaf, index, size, [*proof, tree], tree)
    refused("inclusion-path-length", log.verify_inclusion, leaf, index, size, [leaf, *proof], tree)
    refused("inclusion-hash-length", log.verify_inclusion, leaf, index, size, [*proof, b""], tree)
    refused("inclusion-hash-length", log.verify_inclusion, leaf[:31], index, size, proof, tree)
    refused("inclusion-hash-length", log.verify_inclusion, leaf, index, size, proof, tree + b"\0")
    if not proof:
        return
    at = draw.draw(st.integers(0, len(proof) - 1))
    bit = draw.draw(st.integers(0, 255))
    flipped = (int.from_bytes(proof[at], "big") ^ 1 << bit).to_bytes(32, "big")
    changed = [*proof[:at], flipped, *proof[at + 1 :]]
    refused("inclusion-root", log.verify_inclusion, leaf, index, size, changed, tree)
    refused("inclusion-path-length", log.verify_inclusion, leaf, index, size, proof[1:], tree)
    refused("inclusion-path-length", log.verify_inclusion, leaf, index, size, proof[:-1], tree)
    refused("inclusion-path-length", log.verify_inclusion, leaf, index, size, [], tree)
    if len(proof) > 1:
        refused("inclusion-root", log.verify_inclusion, leaf, index, size, proof[::-1], tree)


@settings(deadline=None)
@given(leaf_of(), st.integers(0, MOST))
def test_an_inclusion_proof_serves_one_index_only(case: tuple[int, int], other: int) -> None:
    index, size = case
    if other == index:
        return
    leaf = log.leaf_hash(data(size)[index])
    with pytest.raises(EvidenceError):
        log.verify_inclusion(leaf, other, size, path(index, data(size)), roots()[size])


def test_the_root_is_not_a_leaf() -> None:
    """OriginTrail audit F01: with the path's length unbound, an empty path makes the root a leaf."""
    tree = roots()[5]
    refused("inclusion-path-length", log.verify_inclusion, tree, 0, 5, [], tree)
    refused("inclusion-path-length", log.verify_inclusion, tree, 4, 5, [], tree)


@pytest.mark.parametrize("size", range(2, 18))
def test_no_inner_node_passes_for_a_leaf(size: int) -> None:
    """Every stored inner node with its true path to the root, at every index: the lengths never fit."""
    for (level, index), value in nodes().items():
        if level == 0 or (index + 1) << level > size:
            continue
        upper = path(index << level, data(size))[level:]
        for claimed in range(size):
            with pytest.raises(EvidenceError):
                log.verify_inclusion(value, claimed, size, upper, roots()[size])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (7, 7), (8, 7), (-1, 7), (0, 2**63), (0, -1)])
def test_there_is_no_leaf_outside_the_tree(index: int, size: int) -> None:
    refused("inclusion-index", log.verify_inclusion, roots()[1], index, size, [], roots()[1])
    refused("inclusion-index", log.inclusion_proof, index, size, stored(7))


@settings(deadline=None)
@given(st.integers(-(2**65), 2**65), st.integers(-(2**65), 2**65), st.lists(st.binary(max_size=33), max_size=70))
def test_only_evidence_errors_escape(first: int, second: int, proof: list[bytes]) -> None:
    for check in (
        lambda: log.verify_inclusion(roots()[1], first, second, proof, roots()[2]),
        lambda: log.verify_consistency(first, second, roots()[1], roots()[2], proof),
    ):
        with pytest.raises(EvidenceError):
            check()
