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
from chaincode.chunks import chunk_hashes, root_of
from chaincode.evidence import UNIT, shard_cuts
from chaincode.model_vector import check_schema, fill, raw_bytes, to_model
from chaincode.models import model_digest
from chaincode.optimisers import initial_state, parse_optimiser
from chaincode.threads import in_threads
from chaincode.vector import vector_length
from identity.errors import EvidenceError
from identity.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from chaincode.aggregation import Floats, Rule, Sums
    from chaincode.agreement import TensorSpec
    from chaincode.evidence import VerifiedUpdate
    from chaincode.models import Tensor
    from chaincode.optimisers import Doubles, Optimiser

    Recorded = tuple[str, Mapping[str, Tensor]]

_TENSORS: Final = 64  # so many are looked through in little of the time that a chunk's arithmetic takes


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
    aggregate = _rule(rule)
    total = np.empty(vector_length(specs), np.int64)
    cuts = [len(total) * i // max(1, threads) for i in range(max(1, threads) + 1)]

    def shard(cut: tuple[int, int]) -> None:
        aggregate(updates, specs, *cut, out=total[slice(*cut)])

    in_threads(shard, pairwise(cuts), threads)
    return total


def _rule(name: str) -> Rule:
    if name not in RULES:
        raise EvidenceError("rule-unknown", f"There is no aggregation rule {name}; there is {', '.join(RULES)}.")
    return RULES[name]


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
    length = vector_length(tensor_specs(agreement))
    if total.shape != (length,):
        raise EvidenceError("sum-length", f"The sum has {counted(total.size, 'element')}; the model has {length}.")
    return _finish(agreement, base, lambda *cut: total[slice(*cut)], weight, state, threads=threads, recorded=recorded)


def sum_and_finish(
    agreement: Mapping[str, Any], base: Mapping[str, Tensor], updates: Sequence[VerifiedUpdate], weight: int, *,
    threads: int = 1, recorded: Recorded | None = None,
) -> Result:  # fmt: skip
    """What `finish` gives for the sum of updates and no state, without the sum ever lying in memory: a piece of it is made,
    used and forgotten.

    Raises EvidenceError as `sum_updates` and `finish` do, but not of the same of several faults.
    """
    specs, rule = tensor_specs(agreement), _rule(agreement["aggregation"]["rule"])
    return _finish(
        agreement, base, lambda *cut: rule(updates, specs, *cut), weight, None, threads=threads, recorded=recorded
    )


def _finish(
    agreement: Mapping[str, Any], base: Mapping[str, Tensor], sums: Callable[[int, int], Sums], weight: int,
    state: Doubles | None, *, threads: int, recorded: Recorded | None,
) -> Result:  # fmt: skip
    """The result from what gives any part of the sum."""
    specs, terms = tensor_specs(agreement), agreement["aggregation"]
    optimiser, length = parse_optimiser(terms["optimiser"], terms["parameters"]), vector_length(specs)
    if state is not None and (not optimiser.rows or state.shape != (optimiser.rows, length)):
        raise EvidenceError(
            "optimiser-state", f"The state is not one of {optimiser.name} for {counted(length, 'element')}."
        )
    check_schema(base, specs)
    if recorded is not None and not _fits(recorded[1], base, specs):
        recorded = None
    following = own_state(optimiser, state, length)
    model, vector = recorded[1] if recorded else {}, np.empty(0 if recorded else length, np.float32)
    step = _Step(base, specs, sums, weight, optimiser, following, None if recorded else vector, model)
    leaves = list[bytes]()
    for part in in_threads(step.make, pairwise(shard_cuts(length, threads)), threads):
        if part is None:
            return _finish(agreement, base, sums, weight, state, threads=threads, recorded=None)
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
    sums: Callable[[int, int], Sums]
    weight: int
    optimiser: Optimiser
    state: Doubles
    vector: Floats | None
    recorded: Mapping[str, Tensor]

    def make(self, cut: tuple[int, int]) -> list[bytes] | None:
        """Make a part of the model, and of the state in place; the leaf hashes of that part of the sum, None where the
        recorded model has other bytes."""
        leaves = list[bytes]()
        size = UNIT * (1 + len(self.specs) // _TENSORS) if self.vector is None else cut[1] - cut[0]
        spare = np.empty(min(size, cut[1] - cut[0]), np.float32)
        for start in range(*cut, size):
            part = slice(start, min(start + size, cut[1]))
            new = spare[: part.stop - start] if self.vector is None else self.vector[part]
            total = self.sums(part.start, part.stop)
            fill(new, self.base, self.specs, start)
            step_model(
                new, total, self.weight, self.specs, optimiser=self.optimiser, state=self.state[:, part], start=start
            )
            if self.vector is None and not _is_there(new, self.recorded, self.specs, start):
                return None
            leaves += chunk_hashes(np.ascontiguousarray(total, "<i8").view(np.uint8).data)
        return leaves


def _fits(recorded: Mapping[str, Tensor], base: Mapping[str, Tensor], specs: Sequence[TensorSpec]) -> bool:
    """Whether a model has the base model's tensors, and its bytes where those are kept."""
    return recorded.keys() == base.keys() and all(
        (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        and (spec.rule == "mean" or np.array_equal(raw_bytes(mine), raw_bytes(theirs)))
        for spec in specs
        for mine, theirs in [(base[spec.name], recorded[spec.name])]
    )


def _is_there(piece: Floats, model: Mapping[str, Tensor], specs: Sequence[TensorSpec], start: int) -> bool:
    """Whether the elements from `start` on of a model's vector are these, to the bit."""
    theirs = np.empty_like(piece)
    fill(theirs, model, specs, start)
    return np.array_equal(piece.view(np.int32), theirs.view(np.int32))


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
            "optimiser-state", f"The optimiser's state has {counted(len(data), 'byte')}, not those of {optimiser.name}."
        )
    state = initial_state(optimiser, length)
    state.data.cast("B")[:] = data  # little-endian float64 as they lie; the contract wants elements, so not empty
    return state
