# SPDX-License-Identifier: Apache-2.0
"""The agreement: what the parties sign, its closed schema, and what the contract keeps of it (FORMAT.md, section 4)."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

from chaincode import schema
from chaincode.state import Terms
from identity import canonical
from identity.errors import Rejected
from identity.wording import counted

WIDTH = {"int32": 4, "int64": 8}
# An int32 holds q up to 2^30 with room for the sign; float64 holds every integer up to 2^53 exactly.
MAX_VALUE_BITS = {"int32": 30, "int64": 52}
MAX_SUM = 2**63 - 1
MAX_ELEMENTS = 2**33

RULES = ("mean",)
OPTIMISERS: Mapping[str, tuple[str, ...]] = {
    "avg": ("learning_rate",),
    "avgm": ("learning_rate", "momentum"),
    "adam": ("learning_rate", "beta1", "beta2", "tau"),
    "yogi": ("learning_rate", "beta1", "beta2", "tau"),
}
STATELESS = frozenset({"avg"})
# Inclusive. Far inside the range of binary64, and below 1 by what binary64 can tell from 1.
_POSITIVE = (Fraction(1, 10**30), Fraction(10**30))
_FADING = (Fraction(0), 1 - Fraction(1, 2**53))
PARAMETER_RANGES = {
    "learning_rate": _POSITIVE,
    "tau": _POSITIVE,
    "momentum": _FADING,
    "beta1": _FADING,
    "beta2": _FADING,
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of the model and the rule for it.

    ``rule``: "mean" is averaged, "keep" stays as in the base model, "local" never leaves a site. Updates of a
    mean tensor are clipped to +-2**clip_exponent and scaled by 2**fraction_bits.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    rule: str
    clip_exponent: int
    fraction_bits: int

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar."""
        return prod(self.shape)

    @property
    def bound(self) -> int:
        """The largest absolute value of an encoded element."""
        return 1 << (self.clip_exponent + self.fraction_bits)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TensorSpec":
        """From the agreement's JSON form, which the schema has checked."""
        return cls(**{**value, "shape": tuple(value["shape"])})

    def to_json(self) -> dict[str, Any]:
        """The agreement's JSON form."""
        return {
            "clip_exponent": self.clip_exponent, "dtype": self.dtype, "fraction_bits": self.fraction_bits,
            "name": self.name, "rule": self.rule, "shape": list(self.shape),
        }  # fmt: skip


TENSOR = schema.obj(
    name=schema.pattern(r"[!-~]{1,200}", "a tensor name of printable ASCII"),
    shape=schema.array(schema.integer(0, 2**32), most=8),
    dtype=schema.one_of("float32", "int64"),
    rule=schema.one_of("mean", "keep", "local"),
    clip_exponent=schema.integer(-30, 30),
    fraction_bits=schema.integer(0, 60),
)

AGREEMENT = schema.obj(
    title=schema.text(200),
    purpose=schema.text(2000),
    data_categories=schema.array(schema.text(100), least=1, most=50),
    legal_basis=schema.text(1000),
    task=schema.obj(name=schema.slug, version=schema.text(64), code=schema.digest, seed=schema.integer(0, 2**53 - 1)),
    model=schema.obj(
        initial=schema.digest,
        encoding=schema.one_of(*WIDTH),
        tensors=schema.array(TENSOR, least=1, most=5000),
    ),
    coordinator=schema.did,
    parties=schema.distinct_dids(least=1),
    min_participants=schema.integer(1, schema.MAX_MEMBERS),
    rounds=schema.integer(1, 1_000_000),
    attempts=schema.integer(1, 1000),
    phases=schema.obj(
        commit_seconds=schema.integer(1, 31_536_000),
        deliver_seconds=schema.integer(1, 31_536_000),
        record_seconds=schema.integer(1, 31_536_000),
    ),
    max_weight=schema.integer(1, 2**40),
    aggregation=schema.obj(
        rule=schema.one_of(*RULES),
        optimiser=schema.one_of(*OPTIMISERS),
        parameters=schema.mapping(schema.decimal, most=8),
    ),
    privacy=schema.obj(mode=schema.one_of("none"), budget=schema.integer(0, 2**53 - 1)),
    secure_aggregation=schema.obj(mode=schema.one_of("none")),
    share_metrics=schema.boolean,
    attestations=schema.obj(
        next_open=schema.integer(0, schema.MAX_MEMBERS), release=schema.integer(0, schema.MAX_MEMBERS)
    ),
    not_before=schema.seconds,
    not_after=schema.seconds,
    retention_days=schema.integer(0, 36_525),
    model_users=schema.array(schema.text(200), least=1, most=100),
)


def agreement_digest(agreement: Mapping[str, Any]) -> str:
    """SHA-256 of the agreement's canonical JSON: what a party signs, and the agreement's name everywhere."""
    return hashlib.sha256(canonical.dumps(agreement)).hexdigest()


def tensor_specs(agreement: Mapping[str, Any]) -> tuple[TensorSpec, ...]:
    """The model's tensors in the agreement's order."""
    return tuple(TensorSpec.from_json(t) for t in agreement["model"]["tensors"])


def sum_fits(parties: int, max_weight: int, largest: int) -> bool:
    """Whether no weighted sum of ``parties`` updates can leave a signed 64-bit integer, nor the sum of their weights
    the integers that the ledger and a binary64 hold."""
    return parties * max_weight * largest <= MAX_SUM and parties * max_weight <= canonical.INTEGER_LIMIT


def check_terms(agreement: Mapping[str, Any], specs: Sequence[TensorSpec]) -> Terms:
    """What the contract keeps of an agreement whose shape is right.

    Raises:
        Rejected: ``agreement-inconsistent`` where the numbers contradict each other, ``not-supported`` for what
            this version does not carry out, ``sum-could-overflow`` where the integers could.
    """
    mean = [s for s in specs if s.rule == "mean"]
    if wrong := [why for why, bad in (*_model_faults(agreement, specs, mean), *_term_faults(agreement)) if bad]:
        raise Rejected("agreement-inconsistent", f"The agreement contradicts itself: {wrong[0]}.")
    if any(s.rule == "local" for s in specs):
        raise Rejected(
            "not-supported", "The agreement keeps tensors local to the sites, which this version does not carry out."
        )
    parties, largest = len(agreement["parties"]), max(s.bound for s in mean)
    if not sum_fits(parties, agreement["max_weight"], largest):
        raise Rejected(
            "sum-could-overflow",
            f"{counted(parties, 'party')} x weight {agreement['max_weight']} x {largest} exceeds 2^63-1.",
        )
    return _terms(agreement, mean, largest)


Faults = tuple[tuple[str, bool], ...]


def _model_faults(agreement: Mapping[str, Any], specs: Sequence[TensorSpec], mean: Sequence[TensorSpec]) -> Faults:
    limit = MAX_VALUE_BITS[agreement["model"]["encoding"]]
    return (
        ("two tensors have one name", len({s.name for s in specs}) != len(specs)),
        ("no tensor has the rule mean", sum(s.elements for s in mean) == 0),
        ("the model has too many elements", sum(s.elements for s in specs) > MAX_ELEMENTS),
        ("a mean tensor is not float32", any(s.dtype != "float32" for s in mean)),
        ("clip and fraction bits do not fit", not all(0 <= s.clip_exponent + s.fraction_bits <= limit for s in specs)),
    )


def _term_faults(agreement: Mapping[str, Any]) -> Faults:
    aggregation, parties = agreement["aggregation"], len(agreement["parties"])
    return (
        ("min_participants is more than the parties", agreement["min_participants"] > parties),
        ("the validity ends before it begins", agreement["not_after"] <= agreement["not_before"]),
        ("the optimiser's parameters are not its own", set(aggregation["parameters"]) != set(OPTIMISERS[aggregation["optimiser"]])),
        ("a parameter of the optimiser is out of range", not all(_in_range(*item) for item in aggregation["parameters"].items())),
        ("privacy mode none has no budget", agreement["privacy"] != {"mode": "none", "budget": 0}),
        ("more attestations are asked for than there are parties", max(agreement["attestations"].values()) > parties),
    )  # fmt: skip


def _in_range(parameter: str, value: str) -> bool:
    """Whether the optimisers can compute with a parameter: exact rational arithmetic on the decimal text, no float."""
    least, most = PARAMETER_RANGES.get(parameter, (Fraction(0), Fraction(0)))
    return least <= Fraction(value) <= most


def optimiser_layout(agreement: Mapping[str, Any], mean: Sequence[TensorSpec]) -> str:
    """A digest of the optimiser's name and of the averaged tensors' names and shapes; empty for one without a state.

    States of one layout fit each other, whatever the parameters, clips and scales: they are in the model's own unit.
    """
    optimiser = agreement["aggregation"]["optimiser"]
    if optimiser in STATELESS:
        return ""
    layout = {"optimiser": optimiser, "tensors": [[s.name, list(s.shape)] for s in mean]}
    return hashlib.sha256(canonical.dumps(layout)).hexdigest()


def _terms(agreement: Mapping[str, Any], mean: Sequence[TensorSpec], largest: int) -> Terms:
    return Terms(
        coordinator=agreement["coordinator"],
        parties=len(agreement["parties"]),
        min_participants=agreement["min_participants"],
        rounds=agreement["rounds"],
        attempts=agreement["attempts"],
        **agreement["phases"],
        max_weight=agreement["max_weight"],
        largest=largest,
        elements=sum(s.elements for s in mean),
        width=WIDTH[agreement["model"]["encoding"]],
        share_metrics=agreement["share_metrics"],
        attest_next_open=agreement["attestations"]["next_open"],
        attest_release=agreement["attestations"]["release"],
        budget=agreement["privacy"]["budget"],
        not_before=agreement["not_before"],
        not_after=agreement["not_after"],
        optimiser_layout=optimiser_layout(agreement, mean),
    )
