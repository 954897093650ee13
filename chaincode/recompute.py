# SPDX-License-Identifier: Apache-2.0
"""A round's result, computed again from the agreement, the base model and the committed updates (R4).

The coordinator, every participant and the auditor run these same functions; what they give must be what the ledger
records, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from chaincode.aggregation import RULES, own_state, state_digest, step_model
from chaincode.agreement import agreement_digest, tensor_specs
from chaincode.blobs import chunk_hashes, root_of
from chaincode.models import Tensor, model_digest
from chaincode.optimisers import initial_state, parse_optimiser
from chaincode.shards import shard_cuts
from chaincode.threads import in_threads
from chaincode.vector import SLICE, vector_length
from identity.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Buffer

    from chaincode.aggregation import Floats, Sums
    from chaincode.agreement import TensorSpec
    from chaincode.evidence import VerifiedUpdate
    from chaincode.optimisers import Doubles

    Recorded = tuple[str, Mapping[str, Tensor]]


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

    `recorded` is a model whose digest the caller has verified: where the result has the same bytes it has that digest, and
    to compare takes a quarter of the time of hashing.

    Raises EvidenceError: model-schema, optimiser-parameters, optimiser-state (a state of another shape, or one
    for an optimiser that has none), sum-length, and what `aggregation.step_model` raises.
    """
    specs, terms = tensor_specs(agreement), agreement["aggregation"]
    optimiser = parse_optimiser(terms["optimiser"], terms["parameters"])
    if total.shape != (vector_length(specs),):
        raise EvidenceError("sum-length", f"The sum has {total.size} elements; the model has {vector_length(specs)}.")
    if state is not None and (not optimiser.rows or state.shape != (optimiser.rows, len(total))):
        raise EvidenceError("optimiser-state", f"The state is not one of {optimiser.name} for {len(total)} elements.")
    vector, following = to_vector(base, specs), own_state(optimiser, state, len(total))
    cuts = shard_cuts(len(total), threads)

    def shard(cut: tuple[int, int]) -> list[bytes]:
        """Make a part of the model and of the state, in place; the leaf hashes of that part of the sum."""
        part, start = slice(*cut), cut[0]
        step_model(
            vector[part], total[part], weight, specs, optimiser=optimiser, state=following[:, part], start=start
        )  # fmt: skip
        return chunk_hashes(np.ascontiguousarray(total[part], "<i8").view(np.uint8).data)

    leaves = [leaf for part in in_threads(shard, pairwise(cuts), threads) for leaf in part]
    model = to_model(vector, base, specs)
    return Result(
        weight=weight,
        sum=root_of(leaves),
        model=model,
        model_digest=recorded[0] if recorded and _same(model, recorded[1]) else model_digest(model, threads=threads),
        state=following if optimiser.rows else None,
        optimiser=state_digest(following, threads=threads) if optimiser.rows else "",
    )


def _same(model: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two models have the same tensors, byte for byte."""
    return model.keys() == other.keys() and all(
        (mine.dtype, mine.shape) == (other[name].dtype, other[name].shape) and _same_bytes(mine.data, other[name].data)
        for name, mine in model.items()
    )


def _same_bytes(one: Buffer, other: Buffer) -> bool:
    """Compared in pieces that stay in the cache, and without the interpreter's lock."""
    mine, theirs = np.frombuffer(memoryview(one), np.uint8), np.frombuffer(memoryview(other), np.uint8)
    return len(mine) == len(theirs) and all(
        np.array_equal(mine[start : start + SLICE], theirs[start : start + SLICE])
        for start in range(0, len(mine), SLICE)
    )


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
    raw, position = vector.view(np.uint8).data, -4 * start
    for spec in specs:
        if spec.rule == "mean":
            low, position = position, position + len(model[spec.name].data)
            if position > 0 and low < len(raw):
                data = model[spec.name].data[max(0, -low) : len(raw) - low]
                raw[max(0, low) : max(0, low) + len(data)] = data
    return vector


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
