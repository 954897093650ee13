# SPDX-License-Identifier: Apache-2.0
"""A round finished by shards in threads has the bits of the round finished in one piece."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from chaincode.aggregation import state_digest, step_model
from chaincode.agreement import tensor_specs
from chaincode.evidence import UNIT, shard_cuts
from chaincode.model_vector import to_model, to_vector
from chaincode.models import Tensor, model_digest
from chaincode.optimisers import initial_state, parse_optimiser
from chaincode.recompute import finish
from chaincode.vector import vector_length
from identity.errors import EvidenceError
from tests.chaincode.whole_models import mean_model, sum_digest

SHAPES = {"a": (UNIT + 3,), "b": (2, UNIT), "c": (77,)}
CHOICES: dict[str, dict[str, str]] = {
    "avg": {"learning_rate": "0.7"},
    "avgm": {"learning_rate": "0.7", "momentum": "0.9"},
    "adam": {"learning_rate": "0.01", "beta1": "0.9", "beta2": "0.99", "tau": "0.001"},
    "yogi": {"learning_rate": "0.01", "beta1": "0.9", "beta2": "0.99", "tau": "0.001"},
}


def agreement(name: str) -> dict[str, Any]:
    tensors = [
        {"name": n, "shape": list(s), "dtype": "float32", "rule": "mean", "clip_exponent": i - 2, "fraction_bits": 20}
        for i, (n, s) in enumerate(SHAPES.items())
    ]
    aggregation = {"rule": "mean", "optimiser": name, "parameters": CHOICES[name]}
    return {"model": {"tensors": tensors, "encoding": "int32"}, "aggregation": aggregation}


def given() -> tuple[dict[str, Tensor], np.ndarray[Any, np.dtype[np.int64]]]:
    rng = np.random.default_rng(11)
    arrays = {n: rng.normal(0, 0.2, s).astype("<f4") for n, s in SHAPES.items()}
    base = {n: Tensor("float32", a.shape, memoryview(a.tobytes())) for n, a in arrays.items()}
    return base, rng.integers(-(2**40), 2**40, sum(a.size for a in arrays.values()))


@pytest.mark.parametrize("name", CHOICES)
def test_any_number_of_threads_gives_the_bits_of_one_piece(name: str) -> None:
    agreed, (base, total) = agreement(name), given()
    specs, optimiser = tensor_specs(agreed), parse_optimiser(name, CHOICES[name])
    state = initial_state(optimiser, len(total)) + 0.25 if optimiser.rows else None
    vector, following = mean_model(to_vector(base, specs), total, 977, specs, optimiser, state=state)
    expected = model_digest(to_model(vector, base, specs))
    for threads in (1, 2, 3, 8):
        result = finish(agreed, base, total, 977, state, threads=threads)
        assert (result.sum, result.model_digest) == (sum_digest(total), expected)
        assert (result.state is None) == (not optimiser.rows)
        if result.state is not None and following is not None:
            assert result.state.tobytes() == following.tobytes()
            assert result.optimiser == state_digest(following)


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_recorded_model_is_the_result_only_where_each_piece_has_its_bits(name: str, threads: int) -> None:
    agreed, (base, total) = agreement(name), given()
    found = finish(agreed, base, total, 977)
    same = {n: Tensor(t.dtype, t.shape, memoryview(bytes(t.data))) for n, t in found.model.items()}
    result = finish(agreed, base, total, 977, threads=threads, recorded=("as recorded", same))
    assert (result.model_digest, result.sum, result.optimiser) == ("as recorded", found.sum, found.optimiser)
    assert result.model is same
    for tensor, position in (("a", 0), ("a", 4 * UNIT), ("b", 0), ("b", 8 * UNIT - 1), ("c", 4 * 76 + 3)):
        raw = bytearray(same[tensor].data)
        raw[position] ^= 128  # the sign of a zero counts too
        other = {**same, tensor: Tensor("float32", SHAPES[tensor], memoryview(bytes(raw)))}
        result = finish(agreed, base, total, 977, threads=threads, recorded=("as recorded", other))
        assert (result.model_digest, result.sum, result.optimiser) == (
            found.model_digest,
            found.sum,
            found.optimiser,
        ), (tensor, position)
        assert result.model == found.model


@pytest.mark.parametrize("name", CHOICES)
def test_processes_can_make_the_model_in_place_shard_by_shard(name: str) -> None:
    agreed, (base, total) = agreement(name), given()
    specs, optimiser = tensor_specs(agreed), parse_optimiser(name, CHOICES[name])
    vector, state = to_vector(base, specs), initial_state(optimiser, len(total))
    expected, following = mean_model(vector.copy(), total, 5, specs, optimiser)
    cuts = shard_cuts(vector_length(specs), 3)
    assert len(cuts) == 4
    for low, high in pairwise(cuts):
        part = vector[low:high]
        step_model(part, total[low:high], 5, specs, optimiser=optimiser, state=state[:, low:high], start=low)
    assert vector.tobytes() == expected.tobytes()
    assert following is None or state.tobytes() == following.tobytes()


def test_what_has_no_mean_is_refused_in_every_thread() -> None:
    agreed, (base, total) = agreement("avg"), given()
    for threads in (1, 3):
        with pytest.raises(EvidenceError) as caught:
            finish(agreed, base, total, 0, threads=threads)
        assert caught.value.code == "sum-weight"
    huge = {
        n: Tensor("float32", t.shape, memoryview(np.full(t.shape, np.inf, "<f4").tobytes())) for n, t in base.items()
    }
    with pytest.raises(EvidenceError, match="tensor a") as caught:
        finish(agreed, huge, np.full(len(total), 2**62), 1, threads=3)
    assert caught.value.code == "model-not-finite"
