# SPDX-License-Identifier: Apache-2.0
"""Verifying and summing by coordinates: each process reads its part of every update, once, and verifies what it read.

A shard is a range of the vector. While its integers are in the cache they are hashed, checked and added. The sum is
tentative: it can be had when the hashes of all shards have been joined and are those of the committed updates. So no
sum over all coordinates travels between processes, and none is put together from what a process did not verify.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chaincode.accumulator import Accumulator
from chaincode.aggregation import check_overflow, check_together, receiver
from chaincode.chunks import chunk_hashes
from chaincode.evidence import UNIT, ShardEvidence, ShardReader, check_shard
from chaincode.vector import largest, runs, slice_buffer, slices, vector_length
from identity.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Buffer

    from chaincode.aggregation import Sums
    from chaincode.agreement import TensorSpec
    from chaincode.evidence import Commitment
    from chaincode.vector import Integers, Run


@dataclass(slots=True)
class Tentative:
    """A shard's sum over updates whose verification is not complete: `confirm` gives it, or nothing does.

    `evidence` is what this process found of each update that was handed in; it goes to `evidence.judge`.
    """

    evidence: tuple[ShardEvidence, ...]
    _commitments: tuple[Commitment, ...]
    _sums: Sums
    _hashes: tuple[bytes, ...]

    def confirm(self, hashes: Mapping[str, Sequence[bytes]]) -> tuple[Sums, tuple[bytes, ...]]:
        """The sum, int64, and the leaf hashes of its chunks, given all chunk hashes of each update by member.

        Raises EvidenceError: update-digest where an update's hashes are not the committed ones or not of what
        was read here, and the code of any other thing that was found wrong with an update.
        """
        for commitment, own in zip(self._commitments, self.evidence, strict=True):
            check_shard(commitment, own, hashes.get(commitment.member, ()))
        return self._sums, self._hashes


def sum_shard(
    updates: Sequence[tuple[Commitment, Buffer]],
    specs: Sequence[TensorSpec],
    start: int,
    stop: int,
    *,
    out: Sums | None = None,
) -> Tentative:
    """Elements `start` to `stop` of the sum of weight * update, from whole blobs that nobody has verified.

    `start` and `stop` are neighbours in `shard_cuts`; `out` receives the sums where given. An update that is not
    what it should be gets its code in the evidence, and then this sum is never confirmed: the others' must be
    asked for again.

    Raises ValueError for an impossible shard, and EvidenceError: sum-empty, sum-duplicate-member, sum-mixed,
    sum-weight, sum-overflow, update-scale.
    """
    commitments = [commitment for commitment, _ in updates]
    encoding, length = check_together(commitments), vector_length(specs)
    if not 0 <= start <= stop <= length or start % UNIT or (stop % UNIT and stop != length):
        raise ValueError(f"no shard {start}..{stop} of {length} elements")
    parts = runs(specs, encoding)
    check_overflow(sum(c.weight for c in commitments), max((p.bound for p in parts), default=0))
    total = receiver(out, stop - start)
    readers, found = _readers(updates, length, start, stop)
    adder = _Adder(encoding, stop - start)
    leaves: list[bytes] = []
    for low in range(start, stop, UNIT):  # one chunk of sums, which stays in the cache
        sums = total[low - start : min(low + UNIT, stop) - start]
        sums.fill(0)
        pieces = [(p, p.start - low, sums[p.start - low : p.stop - low]) for p in slices(parts, low, low + len(sums))]
        for reader in readers:
            for piece, at, part in pieces:
                adder.add(reader, piece, part, at)
        adder.finish([(at, part) for _, at, part in pieces])
        leaves += chunk_hashes(np.ascontiguousarray(sums, "<i8").view(np.uint8).data)
    found.update({reader.commitment.member: reader.evidence() for reader in readers})
    evidence = tuple(found[commitment.member] for commitment in commitments)
    return Tentative(evidence, tuple(commitments), total, tuple(leaves))


def _readers(
    updates: Sequence[tuple[Commitment, Buffer]], length: int, start: int, stop: int
) -> tuple[list[ShardReader], dict[str, ShardEvidence]]:
    """The readers of what can be read, and the evidence on what cannot."""
    readers, found = list[ShardReader](), dict[str, ShardEvidence]()
    for commitment, data in updates:
        if commitment.elements != length:
            raise ValueError(f"{commitment.named()} has {commitment.elements} elements; the model has {length}")
        try:
            readers.append(ShardReader(commitment, data, start, stop))
        except EvidenceError as error:
            found[commitment.member] = ShardEvidence(commitment.member, error.code, 0, ())
    return readers, found


class _Adder:
    """Reads slices of updates for one chunk of sums after the other, in a reused buffer, and adds them up."""

    def __init__(self, encoding: str, size: int) -> None:
        self._values: Integers = slice_buffer(encoding, size)
        self._raw = self._values.view(np.uint8)
        self._accumulator = Accumulator(min(UNIT, size))

    def add(self, reader: ShardReader, piece: Run, sums: Sums, at: int) -> None:
        """Read a slice, which hashes it, check its range and add it to its sums, `at` which the chunk has them.

        Sums that a bad slice spoils are never given out. They are complete after `finish`.
        """
        raw = np.frombuffer(reader.read(piece.start, piece.stop), np.uint8)
        np.copyto(self._raw[: len(raw)], raw)  # to an even address: arithmetic at odd ones is slower than this copy
        values = self._values[: len(sums)]
        if (most := largest(values)) > piece.bound:
            reader.refuse("update-beyond-clip")
        else:
            self._accumulator.add(values, most, reader.commitment.weight, sums, at)

    def finish(self, pieces: Sequence[tuple[int, Sums]]) -> None:
        """Complete a chunk's sums, given by where the chunk has them."""
        for at, sums in pieces:
            self._accumulator.finish(sums, at)
