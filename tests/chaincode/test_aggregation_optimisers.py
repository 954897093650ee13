# SPDX-License-Identifier: Apache-2.0
"""Server optimisers: every element equals the written order of operations, done one number at a time."""

import ctypes
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode.aggregation import state_digest
from chaincode.agreement import OPTIMISERS as AGREED
from chaincode.chunks import chunk_root
from chaincode.optimisers import OPTIMISERS, Optimiser, initial_state, parse_optimiser
from chaincode.update import SLICE
from identity.errors import EvidenceError, Unavailable
from tests.chaincode.test_update_oracle import float32, spec
from tests.chaincode.whole_models import mean_model

PARAMETERS = {
    "avg": {"learning_rate": "0.7"},
    "avgm": {"learning_rate": "1", "momentum": "0.9"},
    "adam": {"learning_rate": "1e-2", "beta1": "0.9", "beta2": "0.99", "tau": "0.001"},
    "yogi": {"learning_rate": "0.01", "beta1": "0.9", "beta2": "0.99", "tau": "1e-3"},
}
SPECS = [spec("a", 3, bits=20), spec("keep", 2, rule="keep"), spec("b", 2, clip=2, bits=7)]
BITS = [20, 20, 20, 7, 7]


def plain(name: str, base: float, total: int, scale: tuple[int, int], state: list[float]) -> tuple[float, list[float]]:
    """One element, by the module's text, in Python's binary64."""
    weight, bits = scale
    p = {key: float(text) for key, text in PARAMETERS[name].items()}
    d = float(total) / float(weight)
    d = d * 2.0**-bits
    if name == "avg":
        return float32(base + p["learning_rate"] * d), []
    if name == "avgm":
        v = (p["momentum"] * state[0]) + d
        return float32(base + p["learning_rate"] * v), [v]
    m, v = state
    m = (p["beta1"] * m) + ((1.0 - p["beta1"]) * d)
    s = d * d
    if name == "adam":
        v = (p["beta2"] * v) + ((1.0 - p["beta2"]) * s)
    else:
        sign = (v - s > 0) - (v - s < 0)
        v = v - (((1.0 - p["beta2"]) * s) * sign)
    return float32(base + (p["learning_rate"] * m) / (math.sqrt(v) + p["tau"])), [m, v]


def bits_of(values: Any) -> bytes:
    return np.ascontiguousarray(values).tobytes()


@pytest.mark.parametrize("name", PARAMETERS)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_three_rounds_equal_the_plain_version_to_the_bit(name: str, data: st.DataObject) -> None:
    optimiser = parse_optimiser(name, PARAMETERS[name])
    base = data.draw(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=5, max_size=5))
    state, expected_state = None, initial_state(optimiser, 5).T.tolist()
    vector = np.array(base, np.float32)
    for _ in range(3):
        weight = data.draw(st.one_of(st.integers(1, 2**20), st.just(2**53)))
        total = data.draw(st.lists(st.one_of(st.integers(-(2**62), 2**62), st.integers(-9, 9)), min_size=5, max_size=5))
        rows = [plain(name, float(vector[i]), total[i], (weight, BITS[i]), expected_state[i]) for i in range(5)]
        vector, state = mean_model(vector, np.array(total, np.int64), weight, SPECS, optimiser, state=state)
        expected_state = [row[1] for row in rows]
        assert bits_of(vector) == bits_of(np.array([row[0] for row in rows], np.float32))
        if state is None:
            assert name == "avg"
        else:
            assert bits_of(state) == bits_of(np.array(expected_state).T)


def test_the_first_state_is_the_one_written_down() -> None:
    for name, parameters in PARAMETERS.items():
        state = initial_state(parse_optimiser(name, parameters), 2)
        assert state.tolist() == {"avg": [], "avgm": [[0, 0]]}.get(name, [[0, 0], [0.001 * 0.001] * 2])


@pytest.mark.parametrize("name", PARAMETERS)
def test_any_sharding_gives_the_same_bits(name: str) -> None:
    specs = [spec("a", SLICE + 3), spec("b", SLICE, clip=1, bits=9)]
    length, rng, optimiser = 2 * SLICE + 3, np.random.default_rng(4), parse_optimiser(name, PARAMETERS[name])
    base, total = rng.normal(0, 1, length).astype(np.float32), rng.integers(-(2**40), 2**40, length)
    first = mean_model(base, total, 977, specs, optimiser)
    whole, state = mean_model(first[0], total, 31, specs, optimiser, state=first[1])
    for edges in ([0, 1, SLICE, SLICE + 4, length], [0, length // 2, length // 2, length]):
        pieces, rows = [], []
        for low, high in pairwise(edges):
            cut = None if first[1] is None else first[1][:, low:high]
            vector, following = mean_model(
                first[0][low:high], total[low:high], 31, specs, optimiser, state=cut, start=low
            )
            pieces.append(vector)
            rows.append(following)
        assert bits_of(np.concatenate(pieces)) == bits_of(whole)
        if state is not None:
            assert bits_of(np.concatenate(rows, axis=1)) == bits_of(state)


def test_plain_averaging_by_rate_one_is_the_weighted_mean() -> None:
    base, total = np.array([1, -2, 0.5, 0, 8], np.float32), np.array([2**20, -(2**21), 3, 2**8, -(2**7)]) * 6
    vector, state = mean_model(base, total, 6, SPECS, parse_optimiser("avg", {"learning_rate": "1"}))
    assert vector.tolist() == [2, -4, 0.5 + 3 * 2**-20, 2, 7]
    assert state is None


def test_what_is_handed_in_is_left_alone() -> None:
    optimiser = parse_optimiser("adam", PARAMETERS["adam"])
    base, total, state = np.ones(5, np.float32), np.ones(5, np.int64), initial_state(optimiser, 5)
    before = bits_of(base), bits_of(total), bits_of(state)
    mean_model(base, total, 1, SPECS, optimiser, state=state)
    assert (bits_of(base), bits_of(total), bits_of(state)) == before


def test_a_states_digest_is_over_its_rows() -> None:
    state = np.arange(6, dtype=np.float64).reshape(2, 3)
    assert state_digest(state) == state_digest(np.asfortranarray(state)) == chunk_root(state.astype("<f8").tobytes())
    assert state_digest(state) != state_digest(state.T)


@pytest.mark.parametrize("weight", [0, -1, 2**53 + 1, True, 1.0])
def test_a_weight_without_a_mean_is_refused(weight: Any) -> None:
    with pytest.raises(EvidenceError) as caught:
        mean_model(
            np.zeros(5, np.float32), np.zeros(5, np.int64), weight, SPECS, parse_optimiser("avg", PARAMETERS["avg"])
        )
    assert caught.value.code == "sum-weight"


def test_a_model_that_leaves_float32_is_refused_by_name() -> None:
    base = np.array([0, 0, 0, 3.4028235e38, np.inf], np.float32)
    for start, name in ((3, "b"), (4, "b")):
        total = np.full(5 - start, 2**62)
        with pytest.raises(EvidenceError, match=f"tensor {name} ") as caught:
            mean_model(base[start:], total, 1, SPECS, Optimiser("avg", 1e30), start=start)
        assert caught.value.code == "model-not-finite"


def test_arrays_that_do_not_fit_are_refused() -> None:
    avg, adam = (parse_optimiser(name, PARAMETERS[name]) for name in ("avg", "adam"))
    base, total = np.zeros(5, np.float32), np.zeros(5, np.int64)
    cases: list[tuple[Any, Any, Any, Any, int]] = [
        (base[:4], total, avg, None, 0),
        (base.astype(np.float64), total, avg, None, 0),
        (base, total.astype(np.int32), avg, None, 0),
        (base.reshape(1, 5), total.reshape(1, 5), avg, None, 0),
        (base, total, avg, None, 1),
        (base, total, avg, None, -1),
        (base, total, adam, np.zeros((1, 5)), 0),
        (base, total, adam, np.zeros((2, 5), np.float32), 0),
        (base, total, avg, np.zeros((1, 5)), 0),
    ]
    for new, sums, optimiser, state, start in cases:
        with pytest.raises(ValueError, match=r"must be|no shard"):
            mean_model(new, sums, 1, SPECS, optimiser, state=state, start=start)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("sgd", {}),
        ("avg", {}),
        ("avg", {"learning_rate": "1", "momentum": "0"}),
        *(("avg", {"learning_rate": v}) for v in ("0", "-1", "1e999", "nan", "inf", "one", "", None, "1e-999")),
        *(("avgm", {"learning_rate": "1", "momentum": v}) for v in ("1", "-0.1", "1.5", "nan")),
        *(("adam", {**PARAMETERS["adam"], k: v}) for k, v in (("tau", "0"), ("beta1", "1"), ("beta2", "-1"))),
    ],
)
def test_other_parameters_are_refused(name: str, parameters: Any) -> None:
    with pytest.raises(EvidenceError) as caught:
        parse_optimiser(name, parameters)
    assert caught.value.code == "optimiser-parameters"


def test_every_agreed_optimiser_is_carried_out() -> None:
    assert set(OPTIMISERS) == set(AGREED) == set(PARAMETERS)
    assert parse_optimiser("adam", PARAMETERS["adam"]) == Optimiser("adam", 0.01, beta1=0.9, beta2=0.99, tau=0.001)


@pytest.mark.parametrize("mode", [0x400, 0x800, 0xC00])
def test_a_thread_that_rounds_otherwise_is_refused(mode: int) -> None:
    library = ctypes.CDLL(None)
    if not hasattr(library, "fesetround"):
        library = ctypes.CDLL("libm.so.6")
    library.fesetround(mode)
    try:
        with pytest.raises(Unavailable) as caught:
            mean_model(
                np.zeros(5, np.float32), np.zeros(5, np.int64), 1, SPECS, parse_optimiser("avg", PARAMETERS["avg"])
            )
    finally:
        library.fesetround(0)
    assert caught.value.code == "float-environment"
