# SPDX-License-Identifier: Apache-2.0
"""The agreement: its digest, its numbers, and what the contract keeps of it."""

from contextlib import nullcontext, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode import agreement as agreements
from chaincode.agreement import (
    AGREEMENT,
    MAX_SUM,
    OPTIMISERS,
    TensorSpec,
    agreement_digest,
    check_terms,
    optimiser_layout,
    sum_fits,
    tensor_specs,
)
from chaincode.optimisers import parse_optimiser
from chaincode.state import Terms
from identity.errors import Rejected
from tests.chaincode.contract.agreements import agreement, merged, tensor
from tests.chaincode.contract.samples import changed, places
from tests.chaincode.contract.world import NOW, key

PARTIES = [key(f"site-{n:02d}").did for n in (1, 2, 3)]
DEFAULT = agreement(key("coordinator").did, PARTIES, NOW)


def terms(**changes: Any) -> Terms:
    changed_terms = merged(DEFAULT, changes)
    AGREEMENT(changed_terms, "terms")
    return check_terms(changed_terms, tensor_specs(changed_terms))


def test_every_value_of_the_agreement_is_in_its_digest() -> None:
    digests = {agreement_digest(DEFAULT)}
    leaves = [(path, value) for path, value in places(DEFAULT) if not isinstance(value, dict | list)]
    for path, value in leaves:
        other = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value + "x"
        digests.add(agreement_digest(changed(DEFAULT, path, other)))
    assert len(digests) == len(leaves) + 1


def test_what_the_contract_keeps() -> None:
    kept = terms()
    assert (kept.parties, kept.elements, kept.width, kept.largest) == (3, 6, 4, 1 << 16)
    assert (kept.commit_seconds, kept.deliver_seconds, kept.record_seconds) == (100, 200, 400)
    assert terms(model={"encoding": "int64"}).width == 8
    bounds = [tensor("a", [2], clip_exponent=4, fraction_bits=16), tensor("b", [3], clip_exponent=-3, fraction_bits=20)]
    assert (terms(model={"tensors": bounds}).largest, terms(model={"tensors": bounds}).elements) == (1 << 20, 5)


def test_a_tensor_reads_as_it_was_written() -> None:
    for spec in (tensor("a b", [2, 3]), tensor("scalar", [], dtype="int64", rule="keep")):
        assert TensorSpec.from_json(spec).to_json() == spec
    assert (TensorSpec.from_json(tensor("a", [])).elements, TensorSpec.from_json(tensor("a", [2, 3])).elements) == (
        1,
        6,
    )


# Sums


@settings(deadline=None)
@given(st.integers(1, 10_000), st.integers(1, 2**40), st.integers(0, 52))
def test_sums_that_fit_leave_neither_64_bits_nor_the_exact_integers(parties: int, weight: int, bits: int) -> None:
    fits = sum_fits(parties, weight, 1 << bits)
    assert fits == (parties * weight * (1 << bits) < 2**63 and parties * weight < 2**53)


def test_the_largest_sum_that_fits() -> None:
    assert sum_fits(1, MAX_SUM >> 30, 1 << 30)
    assert not sum_fits(2, MAX_SUM // 2 + 1, 1)
    # Ten thousand of the largest weights: their sum would be no integer that the ledger writes.
    assert not sum_fits(10_000, 2**40, 1)


# Optimisers


DECIMALS = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?(e-?[1-9][0-9]{0,2})?", fullmatch=True)


@settings(deadline=None)
@given(st.sampled_from(sorted(OPTIMISERS)), st.data())
def test_the_optimisers_compute_with_every_parameter_that_the_contract_accepts(name: str, data: st.DataObject) -> None:
    parameters = {
        p: data.draw(DECIMALS | st.sampled_from(["1", "0.5", "0.9999999999999999999", "1e-3"]))
        for p in OPTIMISERS[name]
    }
    with suppress(Rejected):
        terms(aggregation={"optimiser": name, "parameters": parameters})
        assert parse_optimiser(name, parameters).name == name


@pytest.mark.parametrize(("parameter", "value", "good"), [
    ("learning_rate", "1", True), ("learning_rate", "1e-30", True), ("learning_rate", "1e30", True), ("learning_rate", "1.1e30", False),
    ("learning_rate", "9e-31", False), ("learning_rate", "-1", False), ("momentum", "0", True), ("momentum", "-0", True),
    ("momentum", "0.999999999999999", True), ("momentum", "0.9999999999999999999", False), ("momentum", "10e-1", False),
])  # fmt: skip
def test_the_ranges_of_parameters(parameter: str, value: str, good: bool) -> None:
    parameters = {"learning_rate": "1", "momentum": "0.5", parameter: value}
    with nullcontext() if good else pytest.raises(Rejected, match="agreement-inconsistent"):
        terms(aggregation={"optimiser": "avgm", "parameters": parameters})


def test_states_fit_by_optimiser_names_and_shapes_alone() -> None:
    def layout(optimiser: str, *tensors: dict[str, Any]) -> str:
        value = merged(DEFAULT, {"aggregation": {"optimiser": optimiser}, "model": {"tensors": list(tensors)}})
        return optimiser_layout(value, [s for s in tensor_specs(value) if s.rule == "mean"])

    one, kept = tensor("a", [2, 3]), tensor("k", [], rule="keep")
    assert layout("avg", one) == ""
    assert layout("adam", one) == layout("adam", tensor("a", [2, 3], clip_exponent=3, fraction_bits=9), kept) != ""
    different = [layout("yogi", one), layout("adam", one), layout("adam", tensor("a", [3, 2])), layout("adam", tensor("b", [2, 3])), layout("adam", one, tensor("c", [1]))]  # fmt: skip
    assert len(set(different)) == len(different)


def test_every_optimiser_has_ranges_for_its_parameters_and_a_layout_if_a_state() -> None:
    for name, parameters in OPTIMISERS.items():
        assert set(parameters) <= agreements.PARAMETER_RANGES.keys()
        assert (parse_optimiser(name, dict.fromkeys(parameters, "0.5")).rows == 0) == (name in agreements.STATELESS)
