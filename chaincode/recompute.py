# SPDX-License-Identifier: Apache-2.0
"""A round's result, computed again from the agreement, the base model and the committed updates (R4).

The coordinator, every participant and the auditor run these same functions; what they give must be what the ledger
records, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from chaincode.aggregation import RULES, own_state, state_digest, step_model
from chaincode.agreement import agreement_digest, tensor_specs
from chaincode.blobs import chunk_hashes, root_of
from chaincode.evidence import UNIT
from chaincode.models import Tensor, model_digest
from chaincode.optimisers import initial_state, parse_optimiser
from chaincode.shards import shard_cuts
from chaincode.threads import in_threads
from chaincode.vector import vector_length
from identity.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from chaincode.aggregation import Floats, Sums
    from chaincode.agreement import TensorSpec
    from chaincode.evidence import VerifiedUpdate
    from chaincode.optimisers import Doubles, Optimiser

    Recorded = tuple[str, Mapping[str, Tensor]]

_PIECE: Final = 2 * UNIT  # elements of a model that are made at a time: whole chunks of the sum


@dataclass(frozen=True, slots=True)
class Result:
    """What a round gives: the digests are those that the ledger records.

    `sum` is the integer sum's digest, `model_digest` the new model's, `optimiser` the digest of the optimiser's
    state, empty where it has none. `state` has the shape (rows, elements of the vector).
    """

    weight: int
    sum: str
    model: Mapping[str, Tensor]
    model_digest: str
    state: Doubles | None
    optimiser: str


def recompute_result(
    agreement: Mapping[str, Any],
    base: Mapping[str, Tensor],
    updates: Sequence[VerifiedUpdate],
    state: Doubles | None = None,
    *,
    threads: int = 1,
) -> Result:
    """The result of a round from the agreement's JSON value, the base model's tensors and the included updates.

    `state` is the optimiser's state after the round before (None in the first). `threads` does not change a bit
    of the result.

    Raises EvidenceError: agreement-digest or base-digest where the updates were committed for another agreement
    or base model, and what `sum_updates` and `finish` raise.
    """
    specs = tensor_specs(agreement)
    total = sum_updates(updates, specs, agreement["aggregation"]["rule"], threads=threads)
    committed = updates[0].commitment  # the sum has checked that there is one, and that all agree with it
    if (digest := agreement_digest(agreement)) != committed.agreement:
        message = f"{committed.named()} was committed under agreement {committed.agreement}, not {digest}."
        raise EvidenceError("agreement-digest", message)
    if (digest := model_digest(base, threads=threads)) != committed.base:
        message = f"{committed.named()} was committed against base model {committed.base}, not {digest}."
        raise EvidenceError("base-digest", message)
    return finish(agreement, base, total, sum(u.commitment.weight for u in updates), state, threads=threads)


def sum_updates(
    updates: Sequence[VerifiedUpdate], specs: Sequence[TensorSpec], rule: str = "mean", *, threads: int = 1
) -> Sums:
    """The aggregate of the whole vector under a rule, its coordinates split over `threads`.

    Raises EvidenceError(rule-unknown), and what the rule raises (`aggregation.weighted_sum`).
    """
    if rule not in RULES:
        raise EvidenceError("rule-unknown", f"There is no aggregation rule {rule}; there is {', '.join(RULES)}.")
    total = np.empty(vector_length(specs), np.int64)
    cuts = [len(total) * i // max(1, threads) for i in range(max(1, threads) + 1)]

    def shard(cut: tuple[int, int]) -> None:
        RULES[rule](updates, specs, *cut, out=total[slice(*cut)])

    in_threads(shard, pairwise(cuts), threads)
    return total


def finish(
    agreement: Mapping[str, Any], base: Mapping[str, Tensor], total: Sums, weight: int, state: Doubles | None = None, *,
    threads: int = 1, recorded: Recorded | None = None,
) -> Result:  # fmt: skip
    """The result of a round from its integer sum, for a caller that had the sum computed in parts.

    `recorded` is a model whose digest the caller has verified: where the result has the same bytes it is that model. To
    compare takes a quarter of the time of hashing, piece by piece as the result is made, which then needs no memory.

    Raises EvidenceError: model-schema, optimiser-parameters, optimiser-state (a state of another shape, or one
    for an optimiser that has none), sum-length, and what `aggregation.step_model` raises.
    """
    specs, terms = tensor_specs(agreement), agreement["aggregation"]
    optimiser = parse_optimiser(terms["optimiser"], terms["parameters"])
    if total.shape != (vector_length(specs),):
        raise EvidenceError("sum-length", f"The sum has {total.size} elements; the model has {vector_length(specs)}.")
    if state is not None and (not optimiser.rows or state.shape != (optimiser.rows, len(total))):
        raise EvidenceError("optimiser-state", f"The state is not one of {optimiser.name} for {len(total)} elements.")
    _check_schema(base, specs)
    if recorded is not None and not _fits(recorded[1], base, specs):
        recorded = None
    following = own_state(optimiser, state, len(total))
    model, vector = recorded[1] if recorded else {}, np.empty(0 if recorded else len(total), np.float32)
    step = _Step(base, specs, total, weight, optimiser, following, None if recorded else vector, model)
    leaves = list[bytes]()
    for part in in_threads(step.make, pairwise(shard_cuts(len(total), threads)), threads):
        if part is None:
            return finish(agreement, base, total, weight, state, threads=threads)
        leaves += part
    model = model or to_model(vector, base, specs)
    return Result(
        weight=weight,
        sum=root_of(leaves),
        model=model,
        model_digest=recorded[0] if recorded else model_digest(model, threads=threads),
        state=following if optimiser.rows else None,
        optimiser=state_digest(following, threads=threads) if optimiser.rows else "",
    )


@dataclass(frozen=True, slots=True)
class _Step:
    """From a round's sum to its model, which goes to `vector`, or is compared with the recorded one where that is None."""

    base: Mapping[str, Tensor]
    specs: Sequence[TensorSpec]
    total: Sums
    weight: int
    optimiser: Optimiser
    state: Doubles
    vector: Floats | None
    recorded: Mapping[str, Tensor]

    def make(self, cut: tuple[int, int]) -> list[bytes] | None:
        """Make a part of the model, and of the state in place; the leaf hashes of that part of the sum, None where the
        recorded model has other bytes."""
        leaves = list[bytes]()
        spare = np.empty(min(_PIECE, cut[1] - cut[0]), np.float32)
        for start in range(*cut, _PIECE):
            part = slice(start, min(start + _PIECE, cut[1]))
            new = spare[: part.stop - start] if self.vector is None else self.vector[part]
            _fill(new, self.base, self.specs, start)
            step_model(
                new, self.total[part], self.weight, self.specs,
                optimiser=self.optimiser, state=self.state[:, part], start=start,
            )  # fmt: skip
            if self.vector is None and not _is_there(new, self.recorded, self.specs, start):
                return None
            leaves += chunk_hashes(np.ascontiguousarray(self.total[part], "<i8").view(np.uint8).data)
        return leaves


def _fits(recorded: Mapping[str, Tensor], base: Mapping[str, Tensor], specs: Sequence[TensorSpec]) -> bool:
    """Whether a model has the base model's tensors, and its bytes where those are kept."""
    return recorded.keys() == base.keys() and all(
        (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        and (spec.rule == "mean" or np.array_equal(_bytes(mine), _bytes(theirs)))
        for spec in specs
        for mine, theirs in [(base[spec.name], recorded[spec.name])]
    )


def _is_there(piece: Floats, model: Mapping[str, Tensor], specs: Sequence[TensorSpec], start: int) -> bool:
    """Whether the elements from `start` on of a model's vector are these, to the bit."""
    theirs = np.empty_like(piece)
    _fill(theirs, model, specs, start)
    return np.array_equal(piece.view(np.int32), theirs.view(np.int32))


def _bytes(tensor: Tensor) -> NDArray[np.uint8]:
    return np.frombuffer(memoryview(tensor.data), np.uint8)


def load_state(agreement: Mapping[str, Any], data: memoryview) -> Doubles | None:
    """The optimiser's state that verified bytes hold, None where the agreement's optimiser has none.

    Raises EvidenceError(optimiser-state) for bytes of another length.
    """
    terms = agreement["aggregation"]
    optimiser = parse_optimiser(terms["optimiser"], terms["parameters"])
    if not optimiser.rows:
        return None
    length = vector_length(tensor_specs(agreement))
    if len(data) != optimiser.rows * length * 8:
        raise EvidenceError(
            "optimiser-state", f"The optimiser's state has {len(data)} bytes, not those of {optimiser.name}."
        )
    state = initial_state(optimiser, length)
    state.data.cast("B")[:] = data  # little-endian float64 as they lie; the contract wants elements, so not empty
    return state


def to_vector(
    model: Mapping[str, Tensor], specs: Sequence[TensorSpec], start: int = 0, stop: int | None = None
) -> Floats:
    """Elements `start` to `stop` of a model's vector: its tensors of rule "mean" in the agreement's order, flat, in new
    memory.

    Raises EvidenceError(model-schema) where the model is not of the agreement's schema.
    """
    _check_schema(model, specs)
    vector = np.empty((vector_length(specs) if stop is None else stop) - start, np.float32)
    _fill(vector, model, specs, start)
    return vector


def _fill(vector: Floats, model: Mapping[str, Tensor], specs: Sequence[TensorSpec], start: int) -> None:
    """Make `vector` the elements from `start` on of the vector of a model, which has the agreement's schema."""
    raw, position = vector.view(np.uint8), -4 * start
    for spec in specs:
        if spec.rule == "mean":
            low, position = position, position + len(model[spec.name].data)
            if position > 0 and low < len(raw):
                data = _bytes(model[spec.name])[max(0, -low) : len(raw) - low]
                raw[max(0, low) : max(0, low) + len(data)] = data


def to_model(vector: Floats, base: Mapping[str, Tensor], specs: Sequence[TensorSpec]) -> dict[str, Tensor]:
    """The model with this vector: the other tensors ("keep", and "local" to the sites) are the base model's.

    The tensors are views of `vector` and of the base model's. Raises EvidenceError(model-schema).
    """
    _check_schema(base, specs)
    raw, position = vector.view(np.uint8).data.toreadonly(), 0
    model = {}
    for spec in specs:
        tensor = base[spec.name]
        if spec.rule == "mean":
            size = len(tensor.data)
            tensor = Tensor(tensor.dtype, tensor.shape, raw[position : position + size])
            position += size
        model[spec.name] = tensor
    if position != len(raw):
        raise EvidenceError("model-schema", f"The vector has {vector.size} elements, another number than the model.")
    return model


def _check_schema(model: Mapping[str, Tensor], specs: Sequence[TensorSpec]) -> None:
    if model.keys() != {spec.name for spec in specs}:
        differing = sorted(model.keys() ^ {spec.name for spec in specs})[:5]
        raise EvidenceError(
            "model-schema", f"Model and agreement do not name the same tensors: {', '.join(differing)}."
        )
    for spec in specs:
        tensor = model[spec.name]
        if (tensor.dtype, tensor.shape) != (spec.dtype, spec.shape):
            found, agreed = f"{tensor.dtype} {list(tensor.shape)}", f"{spec.dtype} {list(spec.shape)}"
            raise EvidenceError("model-schema", f"Tensor {spec.name} is {found}; the agreement says {agreed}.")
        if spec.rule == "mean" and spec.dtype != "float32":
            raise EvidenceError("model-schema", f"Tensor {spec.name} is to be averaged, but is not float32.")
