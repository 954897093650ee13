# SPDX-License-Identifier: Apache-2.0
"""The Merkle tree of the log: RFC 6962 section 2.1 (RFC 9162 section 2.1), SHA-256.

Hashes are 32 raw bytes. A node is named (level, index): it covers the leaves index * 2**level up to (index +
1) * 2**level. Only complete subtrees are ever stored, so a stored node never changes; what is incomplete at
the right edge is computed when it is asked for. Nothing here does I/O: stored nodes come from a function
handed in.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256

from identity.errors import EvidenceError
from identity.wording import counted

HASH_BYTES = 32
MAX_SIZE = 2**63 - 1
EMPTY_ROOT = sha256(b"").digest()

NodeAt = Callable[[int, int], bytes]
"""node(level, index) -> the stored hash of a complete subtree; raises when there is none."""


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of one leaf: SHA-256(00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node: SHA-256(01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return the root over leaf hashes (not over leaf data), computed from nothing else. O(n)."""
    if not leaf_hashes:
        return EMPTY_ROOT
    row = list(leaf_hashes)
    while len(row) > 1:
        paired = [node_hash(row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)]
        # An odd node out moves up unchanged: the same tree as a split at the largest power of two.
        row = paired + row[len(row) & ~1 :]
    return row[0]


def node_position(level: int, index: int) -> int:
    """Return where a complete node stands when nodes are written in the order in which they become complete.

    Each append writes its leaf, then the inner nodes that the leaf completes, from the bottom up; so a store
    by position only ever grows at its end. Leaf n is preceded by n leaves and n - popcount(n) inner nodes.
    """
    last_leaf = ((index + 1) << level) - 1
    return 2 * last_leaf - last_leaf.bit_count() + level


class Frontier:
    """The right edge of a tree: one hash for each complete subtree that no larger one covers.

    O(log n) to hold.
    """

    __slots__ = ("_edge", "_size")

    def __init__(self) -> None:
        """Start an empty tree."""
        self._size = 0
        self._edge: list[bytes] = []  # largest subtree first: one for each set bit of the size

    @classmethod
    def from_nodes(cls, size: int, node: NodeAt) -> "Frontier":
        """Read the right edge of a stored tree of `size` leaves: at most 63 look-ups.

        Raises EvidenceError(frontier-size, frontier-hash-length).
        """
        if not 0 <= size <= MAX_SIZE:
            raise EvidenceError("frontier-size", f"A tree cannot have {size} leaves.")
        frontier = cls()
        frontier._edge = _complete_subtrees(0, size, node)
        frontier._size = size
        if any(len(h) != HASH_BYTES for h in frontier._edge):
            raise EvidenceError("frontier-hash-length", f"A stored tree hash is not {HASH_BYTES} bytes long.")
        return frontier

    @property
    def size(self) -> int:
        """The number of leaves."""
        return self._size

    def copy(self) -> "Frontier":
        """Return an independent copy, so that an append can be prepared and dropped."""
        other = Frontier()
        other._size, other._edge = self._size, list(self._edge)
        return other

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Add a leaf hash; return the nodes that it completes, itself first, as (level, index, hash).

        They are in the order of node_position.
        """
        completed = [(0, self._size, leaf)]
        level, index, current = 0, self._size, leaf
        while index & 1:
            level, index, current = level + 1, index >> 1, node_hash(self._edge.pop(), current)
            completed.append((level, index, current))
        self._edge.append(current)
        self._size += 1
        return completed

    def root(self) -> bytes:
        """Return the root of the tree as it stands."""
        return _fold(self._edge) if self._edge else EMPTY_ROOT


def inclusion_proof(index: int, size: int, node: NodeAt) -> list[bytes]:
    """Return the path of leaf `index` in the tree of `size` leaves, the leaf's sibling first (RFC 9162
    2.1.3.1).

    Raises EvidenceError(inclusion-index) where there is no such leaf.
    """
    _check_leaf_index(index, size)
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_subtree(middle, high, node))
            high = middle
        else:
            path.append(_subtree(low, middle, node))
            low = middle
    path.reverse()
    return path


def consistency_proof(old: int, new: int, node: NodeAt) -> list[bytes]:
    """Return the proof that the tree of `new` leaves extends the one of `old` leaves (RFC 9162 2.1.4.1).

    Empty where the sizes are equal. Raises EvidenceError(consistency-size): nothing can be consistent with an
    empty tree.
    """
    _check_sizes(old, new)
    path: list[bytes] = []
    low, high = 0, new
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_subtree(middle, high, node))
            high = middle
        else:
            path.append(_subtree(low, middle, node))
            low = middle
    if low:  # where nothing was split off on the left, this subtree is the old root, which the verifier holds
        path.append(_subtree(low, high, node))
    path.reverse()
    return path


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Check that leaf hash `leaf` is number `index` of the tree with `size` leaves and this root.

    Raises EvidenceError: inclusion-index, inclusion-hash-length, inclusion-path-length, inclusion-root. The
    path's length is bound to (index, size): without that, an inner node, or the root itself, passes for a
    leaf.
    """
    _check_leaf_index(index, size)
    _check_hashes("inclusion-hash-length", leaf, root, *path)
    inner = (index ^ (size - 1)).bit_length()
    expected = inner + (index >> inner).bit_count()
    if len(path) != expected:
        message = f"The proof for leaf {index} of {size} has {counted(len(path), 'hash')}, not {expected}."
        raise EvidenceError("inclusion-path-length", message)
    current = leaf
    for level, sibling in enumerate(path[:inner]):
        current = node_hash(sibling, current) if index >> level & 1 else node_hash(current, sibling)
    for sibling in path[inner:]:
        current = node_hash(sibling, current)
    if current != root:
        raise EvidenceError("inclusion-root", f"The proof for leaf {index} of {size} leads to another root.")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, path: Sequence[bytes]) -> None:
    """Check that the tree (new, new_root) extends the tree (old, old_root): nothing was removed or changed.

    Raises EvidenceError: consistency-size, consistency-hash-length, consistency-path-length,
    consistency-old-root, consistency-new-root, and consistency-equal-sizes for two roots of one size.
    """
    _check_sizes(old, new)
    _check_hashes("consistency-hash-length", old_root, new_root, *path)
    if old == new:
        if path:
            raise EvidenceError("consistency-path-length", f"A proof from size {old} to itself is empty.")
        if old_root != new_root:
            raise EvidenceError(
                "consistency-equal-sizes", f"Two trees of {counted(old, 'leaf', 'leaves')} have different roots."
            )
        return
    shift = (old & -old).bit_length() - 1  # the level of the old tree's last complete subtree
    seeded = old != 1 << shift  # an old tree that is one subtree is its own seed, and not in the proof
    inner = ((old - 1) ^ (new - 1)).bit_length() - shift
    expected = int(seeded) + inner + ((old - 1) >> (shift + inner)).bit_count()
    if len(path) != expected:
        message = f"The proof from size {old} to {new} has {counted(len(path), 'hash')}, not {expected}."
        raise EvidenceError("consistency-path-length", message)
    seed, rest = (path[0], path[1:]) if seeded else (old_root, path)
    from_old = from_new = seed
    for level, sibling in enumerate(rest[:inner]):
        if (old - 1) >> (shift + level) & 1:
            from_old, from_new = node_hash(sibling, from_old), node_hash(sibling, from_new)
        else:
            from_new = node_hash(from_new, sibling)
    for sibling in rest[inner:]:
        from_old, from_new = node_hash(sibling, from_old), node_hash(sibling, from_new)
    if from_old != old_root:
        raise EvidenceError("consistency-old-root", f"The proof does not lead to the old root (size {old}).")
    if from_new != new_root:
        raise EvidenceError("consistency-new-root", f"The proof does not lead to the new root (size {new}).")


def _check_leaf_index(index: int, size: int) -> None:
    if not (0 <= index < size <= MAX_SIZE):
        raise EvidenceError("inclusion-index", f"A tree of {counted(size, 'leaf', 'leaves')} has no leaf {index}.")


def _check_sizes(old: int, new: int) -> None:
    if not (0 < old <= new <= MAX_SIZE):
        raise EvidenceError("consistency-size", f"No consistency proof leads from size {old} to size {new}.")


def _check_hashes(code: str, *hashes: bytes) -> None:
    if any(len(h) != HASH_BYTES for h in hashes):
        raise EvidenceError(code, f"A hash of the proof is not {HASH_BYTES} bytes long.")


def _split(count: int) -> int:
    """Return the largest power of two below `count` (count > 1)."""
    return 1 << ((count - 1).bit_length() - 1)


def _subtree(low: int, high: int, node: NodeAt) -> bytes:
    """Return the hash over the leaves low..high, where low is a multiple of a power of two >= high - low."""
    return _fold(_complete_subtrees(low, high, node))


def _complete_subtrees(low: int, high: int, node: NodeAt) -> list[bytes]:
    """Return the hashes of the complete subtrees that make up the leaves low..high, largest first."""
    hashes = []
    while low < high:
        level = (high - low).bit_length() - 1
        hashes.append(node(level, low >> level))
        low += 1 << level
    return hashes


def _fold(hashes: list[bytes]) -> bytes:
    """Join complete subtrees, largest first, into one root: the smallest two meet first."""
    current = hashes[-1]
    for left in reversed(hashes[:-1]):
        current = node_hash(left, current)
    return current
