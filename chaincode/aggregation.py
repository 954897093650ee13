# SPDX-License-Identifier: Apache-2.0
"""Aggregation: exact integer sums of verified updates, and the server optimisers that make the next model (R4).

A sum is integer arithmetic that cannot overflow, so no order and no sharding changes a bit of it. What follows is
elementwise IEEE 754 binary64, each operation rounded once (to nearest, ties to even) and never fused, in exactly
this order. For each element, with total = the integer sum, W = the sum of the weights, f = the tensor's fraction
bits:

    1. d = float64(total) / float64(W)    float64(total) is rounded where |total| > 2**53; W is at most 2**53
    2. d = d * 2**-f                      exact
    3. u = the server optimiser's move for d; see `chaincode.optimisers`
    4. x = float32(float64(base) + u)

The digest of a sum, and of an optimiser's state, is the chunk root over its raw little-endian bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from chaincode.accumulator import Accumulator
from chaincode.chunks import chunk_root
from chaincode.evidence import VerifiedUpdate
from chaincode.optimisers import OPTIMISERS, initial_state
from chaincode.vector import (
    SLICE,
    BodyReader,
    largest,
    refuse_range,
    runs,
    slice_buffer,
    slices,
    tensor_at,
    vector_length,
)
from identity.errors import EvidenceError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from chaincode.agreement import TensorSpec
    from chaincode.evidence import Commitment
    from chaincode.optimisers import Doubles, Optimiser

    Floats = NDArray[np.float32]
    Sums = NDArray[np.int64]

MAX_SUM: Final = 2**63 - 1
MAX_WEIGHT: Final = 2**53 - 1


class Rule(Protocol):
    """An aggregation rule: elements `start` to `stop` of the aggregate over all updates, as integers.

    A sum may be split by site too; a rule that looks at all sites' values of one coordinate (median, trimmed
    mean) only by coordinate, which is why `start` and `stop` belong to every rule.
    """

    def __call__(
        self,
        updates: Sequence[VerifiedUpdate],
        specs: Sequence[TensorSpec],
        start: int = 0,
        stop: int | None = None,
        *,
        out: Sums | None = None,
    ) -> Sums: ...


def weighted_sum(
    updates: Sequence[VerifiedUpdate],
    specs: Sequence[TensorSpec],
    start: int = 0,
    stop: int | None = None,
    *,
    out: Sums | None = None,
) -> Sums:
    """Elements `start` to `stop` of the sum of weight * update, exact; `out` receives it where given.

    Range check, widening multiplication and addition are done slice by slice while the integers are in the
    cache. Several shards, or sums over parts of the sites joined with `add`, give the same integers.

    Raises TypeError for anything but VerifiedUpdate, ValueError for an impossible shard, and EvidenceError:
    sum-empty, sum-duplicate-member, sum-mixed (two federations, agreements, rounds, attempts, bases or
    encodings), sum-weight, sum-overflow (checked in unbounded integers before anything is added), update-length,
    update-scale, update-beyond-clip naming the member and the tensor.
    """
    encoding, length = check_together([_verified(update) for update in updates]), vector_length(specs)
    stop = length if stop is None else stop
    if not 0 <= start <= stop <= length:
        raise ValueError(f"no shard {start}..{stop} of {length} elements")
    parts = runs(specs, encoding)
    check_overflow(sum(u.commitment.weight for u in updates), max((p.bound for p in parts), default=0))
    buffer = slice_buffer(encoding, length)
    readers = [(BodyReader(u.body, encoding, length, buffer), u.commitment) for u in updates]
    total = receiver(out, stop - start)
    accumulator = Accumulator(min(SLICE, stop - start))
    for piece in slices(parts, start, stop):
        sums = total[piece.start - start : piece.stop - start]
        sums.fill(0)
        for reader, commitment in readers:
            values = reader.read(piece.start, piece.stop)
            if (most := largest(values)) > piece.bound:
                refuse_range(commitment.named(), values, piece, specs)
            accumulator.add(values, most, commitment.weight, sums)
        accumulator.finish(sums)
    return total


RULES: Final[Mapping[str, Rule]] = {"mean": weighted_sum}


def receiver(out: Sums | None, count: int) -> Sums:
    """`out`, or new memory for `count` sums. Raises ValueError where `out` cannot receive them."""
    total = out if out is not None else np.empty(count, np.int64)
    if total.shape != (count,) or total.dtype != np.int64:
        raise ValueError(f"out must be a flat int64 array of {count} elements")
    return total


def _verified(update: VerifiedUpdate) -> Commitment:
    if type(update) is not VerifiedUpdate:
        raise TypeError(f"Only a VerifiedUpdate is aggregated, not a {type(update).__name__}.")
    return update.commitment


def check_together(commitments: Sequence[Commitment]) -> str:
    """Check that updates belong into one sum; return their encoding.

    Raises EvidenceError: sum-empty, sum-duplicate-member, sum-mixed, sum-weight.
    """
    if not commitments:
        raise EvidenceError("sum-empty", "There is no update to sum.")
    first, members = commitments[0], set[str]()
    for commitment in commitments:
        if _place(commitment) != _place(first):
            message = (
                f"{commitment.named()} does not belong to the attempt of {first.member}'s, or is encoded otherwise."
            )
            raise EvidenceError("sum-mixed", message)
        if commitment.member in members:
            raise EvidenceError("sum-duplicate-member", f"{commitment.named()} is in the sum twice.")
        members.add(commitment.member)
        if type(commitment.weight) is not int or not 0 <= commitment.weight <= MAX_WEIGHT:
            raise EvidenceError("sum-weight", f"{commitment.named()} has the weight {commitment.weight}.")
    return first.encoding


def _place(c: Commitment) -> tuple[str, str, int, int, str, str]:
    return c.federation, c.agreement, c.round, c.attempt, c.base, c.encoding


def check_overflow(weight: int, largest: int) -> None:
    """Check in unbounded integers that no sum can leave 64 bits. Raises EvidenceError(sum-overflow)."""
    if weight * largest > MAX_SUM:
        raise EvidenceError("sum-overflow", f"Weights of {weight} x values of {largest} could exceed 2^63 - 1.")


def add(partials: Sequence[Sums]) -> Sums:
    """The sum of partial sums over disjoint sets of sites, elementwise and exact, in a new array.

    That the sets are disjoint is the caller's to know. Raises EvidenceError: sum-empty, sum-overflow (their
    largest absolute values together exceed 2**63 - 1); ValueError for arrays of different length or type.
    """
    if not partials:
        raise EvidenceError("sum-empty", "There is no partial sum to add.")
    if any(p.shape != partials[0].shape or p.dtype != np.int64 or p.ndim != 1 for p in partials):
        raise ValueError("partial sums must be flat int64 arrays of one length")
    if len(partials[0]):
        check_overflow(1, sum(max(-int(p.min()), int(p.max())) for p in partials))
    total = partials[0].copy()
    for partial in partials[1:]:
        np.add(total, partial, out=total)
    return total


def step_model(
    vector: Floats,
    total: Sums,
    weight: int,
    specs: Sequence[TensorSpec],
    *,
    optimiser: Optimiser,
    state: Doubles,
    start: int = 0,
) -> None:
    """Make the base model's `vector` the new one's, and `state` the optimiser's next one, from the weighted sum; see the module.

    `vector` and `total` cover elements `start` to `start + len(total)` of the model's vector: a shard alone gets the same
    bits as in the whole. `weight` is the sum of all updates' weights. `state` has shape (optimiser.rows, len(total)) and is
    one of `own_state`.

    Raises EvidenceError: sum-weight (not from 1 to 2**53), model-not-finite naming the tensor; ValueError for
    arrays that do not fit each other; Unavailable(float-environment) where this thread does not round as IEEE
    754 asks. `vector` and `state` are then of no use.
    """
    count = len(total)
    _check_shapes(vector, total, start, vector_length(specs))
    _check_state(optimiser, state, count)
    if type(weight) is not int or not 1 <= weight <= MAX_WEIGHT + 1:
        raise EvidenceError("sum-weight", f"A sum of weight {weight} has no mean: the weights must sum to 1 .. 2^53.")
    require_ieee()
    step, scratch = np.empty(min(SLICE, count)), np.empty((2, min(SLICE, count)))
    kernel = OPTIMISERS[optimiser.name].kernel
    with np.errstate(all="ignore"):
        for piece in slices(runs(specs, "int64"), start, start + count):
            low, high = piece.start - start, piece.stop - start
            move, new = step[: high - low], vector[low:high]
            np.divide(total[low:high], np.float64(weight), out=move)  # (1)
            np.multiply(move, np.float64(2.0**-piece.fraction_bits), out=move)  # (2)
            kernel(optimiser, move, state[:, low:high], scratch[:, : high - low])  # (3)
            np.add(new, move, out=move)  # (4) base is widened, exactly, by the addition
            np.copyto(new, move, casting="same_kind")
            _check_finite(new, piece.start, specs)


def own_state(optimiser: Optimiser, state: Doubles | None, count: int) -> Doubles:
    """A state that may be changed: a copy, or a fresh one. Raises ValueError for another optimiser's."""
    following = initial_state(optimiser, count) if state is None else state.copy()
    _check_state(optimiser, following, count)
    return following


def _check_state(optimiser: Optimiser, state: Doubles, count: int) -> None:
    if state.shape != (optimiser.rows, count) or state.dtype != np.float64:
        raise ValueError(f"the state of {optimiser.name} must be float64 of shape {(optimiser.rows, count)}")


def _check_finite(new: Floats, start: int, specs: Sequence[TensorSpec]) -> None:
    finite = np.isfinite(new)
    if not finite.all():
        name = tensor_at(specs, start + int(np.argmin(finite))).name
        raise EvidenceError("model-not-finite", f"The new model's tensor {name} holds NaN or infinity.")


def _check_shapes(base: Floats, total: Sums, start: int, length: int) -> None:
    if base.shape != total.shape or total.ndim != 1 or base.dtype != np.float32 or total.dtype != np.int64:
        raise ValueError("base (float32) and total (int64) must be flat and of one length")
    if not 0 <= start <= start + len(total) <= length:
        raise ValueError(f"no shard {start}..{start + len(total)} of {length} elements")


def require_ieee() -> None:
    """Check that this thread keeps subnormal numbers and rounds to nearest: a library may have switched either.

    Raises Unavailable(float-environment).
    """
    tiny, one = np.array([2.0**-1040]), np.array([1.0])
    kept = (tiny * 0.5)[0] != 0.0 and np.array([2.0**-140]).astype(np.float32)[0] != 0.0
    nearest = (one + 2.0**-53)[0] == 1.0 and (one + 3 * 2.0**-54)[0] > 1.0
    if not (kept and nearest):
        message = "This thread flushes subnormal numbers to zero or does not round to nearest: results would differ."
        raise Unavailable("float-environment", message, next="run the aggregation in a process of its own")


def state_digest(state: Doubles, *, threads: int = 1) -> str:
    """The digest of an optimiser's state: the chunk root over its little-endian float64 bytes, row by row."""
    return chunk_root(np.ascontiguousarray(state, "<f8").reshape(-1).view(np.uint8).data, threads=threads)
