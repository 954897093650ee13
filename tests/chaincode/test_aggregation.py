# SPDX-License-Identifier: Apache-2.0
"""Sums: exact in any order and sharding, over verified updates that belong together, never beyond 64 bits."""

import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode.aggregation import MAX_WEIGHT, RULES, add, weighted_sum
from chaincode.chunks import chunk_root
from chaincode.evidence import VerifiedUpdate
from chaincode.update import SLICE
from identity.errors import EvidenceError
from tests.chaincode.test_update_oracle import forged, spec, verified
from tests.chaincode.whole_models import sum_digest

SPECS = [spec("a", 2, bits=3), spec("not in the vector", 9, rule="local"), spec("none", 0), spec("b", 2, 2, bits=52)]


def refusal(*args: Any, **options: Any) -> EvidenceError:
    with pytest.raises(EvidenceError) as caught:
        weighted_sum(*args, **options)
    return caught.value


@settings(deadline=None)
@given(st.data(), st.sampled_from([("int32", 30), ("int64", 52)]))
def test_sums_equal_unbounded_integers_in_every_order_and_sharding(data: st.DataObject, kind: tuple[str, int]) -> None:
    encoding, bits = kind
    specs = [spec("a", 2, bits=3), spec("no", 9, rule="keep"), spec("b", 2, 2, bits=bits)]
    bounds = [8, 8, 2**bits, 2**bits, 2**bits, 2**bits]
    sites = data.draw(st.lists(st.tuples(*(st.integers(-b, b) for b in bounds)), min_size=1, max_size=5))
    weights = [data.draw(st.integers(0, 2**63 // 2**bits // len(sites) - 1)) for _ in sites]
    updates = [forged(str(i), v, w, encoding=encoding) for i, (v, w) in enumerate(zip(sites, weights, strict=True))]
    expected = [sum(w * v[i] for v, w in zip(sites, weights, strict=True)) for i in range(6)]
    shuffled = data.draw(st.permutations(updates))
    assert weighted_sum(shuffled, specs).tolist() == expected
    cut, half = data.draw(st.integers(0, 6)), data.draw(st.integers(1, len(updates)))
    shards = [weighted_sum(shuffled, specs, 0, cut), weighted_sum(shuffled, specs, cut)]
    assert np.concatenate(shards).tolist() == expected
    parts = [weighted_sum(part, specs) for part in (shuffled[:half], shuffled[half:]) if part]
    assert add(parts).tolist() == expected


def test_long_vectors_in_any_sharding_have_one_digest() -> None:
    specs = [spec("a", SLICE + 5), spec("b", 2 * SLICE, clip=-2, bits=24)]
    length, rng = 3 * SLICE + 5, np.random.default_rng(3)
    updates = [verified(str(i), rng.normal(0, 0.4, length), specs, 10 + i) for i in range(4)]
    total = weighted_sum(updates, specs)
    expected = sum(np.frombuffer(u.body, "<i4").astype(object) * u.commitment.weight for u in updates)
    assert total.tolist() == list(expected)
    digest = chunk_root(total.astype("<i8").tobytes())
    assert sum_digest(total) == sum_digest(total, threads=2) == digest
    for seed in range(3):
        chance = random.Random(seed)
        edges = sorted({0, length, *(chance.randrange(length) for _ in range(5))})
        shuffled, whole = chance.sample(updates, len(updates)), np.full(length, -1)
        for low, high in pairwise(edges):
            part = weighted_sum(shuffled, specs, low, high, out=whole[low:high])
            assert np.shares_memory(part, whole)
        assert sum_digest(whole) == digest
    assert sum_digest(add([weighted_sum([u], specs) for u in updates])) == digest


def test_a_flipped_weight_changes_the_digest() -> None:
    delta = [0.5, 0.25, 1, 1, 1, 1]
    one, two = (weighted_sum([verified("a", delta, SPECS, w, encoding="int64")], SPECS) for w in (7, 8))
    assert sum_digest(one) != sum_digest(two)


def test_only_verified_updates_are_summed() -> None:
    update = verified("a", np.zeros(6), SPECS, encoding="int64")
    for impostor in (
        update.body,
        bytes(update.body),
        np.zeros(6, np.int32),
        update.commitment,
        None,
        object.__new__(_Duck),
    ):
        with pytest.raises(TypeError, match="VerifiedUpdate"):
            weighted_sum([update, impostor], SPECS)  # type: ignore[list-item]


class _Duck:
    commitment, body = None, b""


@pytest.mark.parametrize(
    "other",
    [
        {"federation": "0" * 64},
        {"agreement": "0" * 64},
        {"round": 2},
        {"attempt": 2},
        {"base": "0" * 64},
        {"encoding": "int32"},
    ],
)
def test_updates_of_two_places_are_not_summed(other: dict[str, Any]) -> None:
    specs = [spec("w", 2)]
    place = {"encoding": "int64"}
    updates = [verified("a", [1, 1], specs, **place), verified("b", [1, 1], specs, **{**place, **other})]
    error = refusal(updates, specs)
    assert (error.code, "zb" in error.message) == ("sum-mixed", True)


def test_a_member_counts_once() -> None:
    specs = [spec("w", 2)]
    first, again = verified("a", [1, 1], specs), verified("a", [1, 0], specs, salt="6" * 64)
    assert refusal([first, again], specs).code == "sum-duplicate-member"
    assert refusal([first, first], specs).code == "sum-duplicate-member"


@pytest.mark.parametrize("weight", [-1, MAX_WEIGHT + 1, True, 1.0, "1", None])
def test_impossible_weights_are_refused(weight: Any) -> None:
    specs = [spec("w", 2)]
    assert refusal([verified("a", [1, 1], specs, weight)], specs).code == "sum-weight"


def test_nothing_has_no_sum() -> None:
    assert refusal([], SPECS).code == "sum-empty"
    with pytest.raises(EvidenceError) as caught:
        add([])
    assert caught.value.code == "sum-empty"


def test_the_last_weight_that_fits_gives_the_exact_sum_and_the_next_is_refused() -> None:
    specs = [spec("w", 2, bits=30)]
    most = (2**63 - 1) // 2**30
    updates = [forged("a", [2**30, -(2**30)], most - 5), forged("b", [2**30, -(2**30)], 5)]
    assert weighted_sum(updates, specs).tolist() == [most * 2**30, -most * 2**30]
    updates[1] = forged("b", [0, 0], 6)  # not these values could overflow, but some could: refused before adding
    assert refusal(updates, specs).code == "sum-overflow"


@pytest.mark.parametrize("weights", [(1, 1), (1, 2), (3, 1), (2, 1), (1, 2**31), (2**31, 0), (2**22 + 1, 2**22)])
def test_sums_are_exact_on_both_sides_of_what_32_bits_hold(weights: tuple[int, int]) -> None:
    specs = [spec("w", 4, bits=30)]
    values = [[2**30, -(2**30), 2**30 - 1, 1 - 2**30], [2**30 - 1, 1 - 2**30, 2**30 - 3, -(2**30)]]
    updates = [forged(str(i), v, w) for i, (v, w) in enumerate(zip(values, weights, strict=True))]
    expected = [sum(w * v for w, v in zip(weights, column, strict=True)) for column in zip(*values, strict=True)]
    assert weighted_sum(updates, specs).tolist() == expected
    assert weighted_sum(updates[::-1], specs).tolist() == expected


@pytest.mark.parametrize(("index", "value"), [(0, 9), (1, -9), (2, 2**52 + 1), (5, -(2**52) - 1), (3, -(2**63))])
def test_a_value_beyond_its_clip_names_member_and_tensor(index: int, value: int) -> None:
    values = [8, -8, 2**52, -(2**52), 0, 1]
    values[index] = value
    updates = [forged("good", [0] * 6, encoding="int64"), forged("bad", values, encoding="int64")]
    error = refusal(updates, SPECS)
    assert error.code == "update-beyond-clip"
    assert "did:key:zbad " in error.message
    assert f"{value} in tensor {'a' if index < 2 else 'b'}, " in error.message
    other = (0, index) if index > 2 else (index + 1, 6)
    weighted_sum(updates, SPECS, *other)  # a shard sees its own coordinates


def test_an_update_for_another_model_is_refused() -> None:
    assert refusal([verified("a", np.zeros(6), SPECS, encoding="int64")], [spec("w", 5)]).code == "update-length"


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 7), (7, 7)])
def test_impossible_shards_are_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="no shard"):
        weighted_sum([verified("a", np.zeros(6), SPECS, encoding="int64")], SPECS, start, stop)


def test_the_target_must_fit() -> None:
    update = verified("a", np.zeros(6), SPECS, encoding="int64")
    for out in (np.zeros(5, np.int64), np.zeros(6, np.int32)):
        with pytest.raises(ValueError, match="out must"):
            weighted_sum([update], SPECS, out=out)  # type: ignore[arg-type]


def test_partial_sums_add_exactly_or_are_refused() -> None:
    top, low = 2**63 - 1, -(2**63)
    assert add([np.array([top - 3, low + 4]), np.array([3, -3])]).tolist() == [top, low + 1]
    assert add([np.zeros(0, np.int64)] * 2).tolist() == []
    for parts in ([[top], [1]], [[low]], [[2**62], [2**62]], [[-(2**62)], [-(2**62)], [1]]):
        with pytest.raises(EvidenceError) as caught:
            add([np.array(p, np.int64) for p in parts])
        assert caught.value.code == "sum-overflow"
    for bad in (np.zeros(2, np.int64), np.zeros(1), np.zeros((1, 1), np.int64)):
        with pytest.raises(ValueError, match="partial sums"):
            add([np.zeros(1, np.int64), bad])


def test_adding_leaves_the_partial_sums_alone() -> None:
    parts = [np.array([1]), np.array([2])]
    assert add(parts).tolist() == [3]
    assert [p.tolist() for p in parts] == [[1], [2]]


def test_the_rule_is_found_by_its_agreed_name() -> None:
    assert list(RULES) == ["mean"]
    assert RULES["mean"] is weighted_sum
    assert type(verified("a", np.zeros(6), SPECS, encoding="int64")) is VerifiedUpdate
