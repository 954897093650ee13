# SPDX-License-Identifier: Apache-2.0
"""What a task's model, its rules, its evaluation and its metrics must be, and what each comes to."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from chaincode import schema
from chaincode.models import model_digest
from identity.errors import EvidenceError, UsageError
from participant.seeding import derive_seed
from participant.task import Data
from participant.values import decimals, to_arrays, to_tensors
from tests.participant.training import Small, trainer


def test_default_rules() -> None:
    rules = {s.name: (s.dtype, s.rule, s.clip_exponent, s.fraction_bits) for s in trainer().specs}
    assert rules["0.weight"] == rules["1.weight"] == ("float32", "mean", 4, 24)
    assert rules["1.running_mean"] == rules["1.running_var"] == ("float32", "mean", 10, 20)
    assert rules["1.num_batches_tracked"] == ("int64", "keep", 0, 0)
    assert [s.name for s in trainer().specs] == list(Small().build_model().state_dict())


def test_rules_can_be_overridden_by_name() -> None:
    task = Small()
    task.rules = {"0.weight": {"clip_exponent": 6, "fraction_bits": 22}, "1.running_var": {"rule": "keep"}}
    specs = {s.name: s for s in trainer(task).specs}
    assert (specs["0.weight"].clip_exponent, specs["0.weight"].fraction_bits) == (6, 22)
    assert specs["1.running_var"].rule == "keep"
    assert specs["0.bias"].clip_exponent == 4


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"0.wait": {}}, "names 0.wait"),
        ({"0.weight": {"clip": 4}}, "a field other than"),
        ({"0.weight": {"rule": "local"}}, "one of mean, keep"),
        ({"0.weight": {"clip_exponent": 31}}, "from -30 to 30"),
        ({"0.weight": {"clip_exponent": 4.0}}, "must be an integer"),
        ({"0.weight": {"fraction_bits": True}}, "must be an integer"),
        ({"1.num_batches_tracked": {"rule": "mean"}}, "only a float32 tensor"),
    ],
)
def test_bad_overrides_are_the_users_error(rules: Mapping[str, Mapping[str, Any]], words: str) -> None:
    task = Small()
    task.rules = rules
    with pytest.raises(UsageError, match=words) as caught:
        trainer(task)
    assert caught.value.code == "task-rules"


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.Linear(2, 2).double(), "weight is float64"),
        (lambda: nn.Linear(2, 2).half(), "model.float"),
        (lambda: "a model", "returns a str"),
        (lambda: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_models_that_cannot_be_agreed_on(build: Callable[[], Any], words: str) -> None:
    odd = Small()
    odd.build_model = build  # type: ignore[method-assign]
    with pytest.raises(UsageError, match=words) as caught:
        trainer(odd)
    assert caught.value.code == "task-model"


def test_the_initial_model_is_the_seeds() -> None:
    digests = [model_digest(to_tensors(trainer(seed=seed).initial())) for seed in (5, 5, 6)]
    assert digests[0] == digests[1] != digests[2]


def test_arrays_and_tensors_are_each_others_reverse() -> None:
    arrays = trainer().initial()
    back = to_arrays(to_tensors(arrays))
    assert all(np.array_equal(arrays[n], back[n]) and arrays[n].shape == back[n].shape for n in arrays)
    assert arrays["1.num_batches_tracked"].shape == ()


def test_evaluation_and_its_digest() -> None:
    of = trainer()
    metrics = of.evaluate(of.initial())
    assert set(metrics) == {"accuracy", "loss"}
    features, labels = Small().evaluation_data()
    named = {"features": features.numpy(), "labels": labels.numpy()}
    assert of.evaluation_digest() == model_digest(to_tensors(named))


def test_an_evaluation_that_raises_is_the_users_error() -> None:
    class Broken(Small):
        def evaluate(self, model: nn.Module, data: Data) -> Mapping[str, float]:
            raise RuntimeError("no labels")

    with pytest.raises(UsageError, match="RuntimeError: no labels") as caught:
        trainer(Broken()).evaluate(trainer().initial())
    assert caught.value.code == "task-evaluation"


def test_an_evaluation_with_more_metrics_than_an_entry_takes_is_the_users_error() -> None:
    class Many(Small):
        def evaluate(self, model: nn.Module, data: Data) -> Mapping[str, float]:
            return {f"m{i}": 1.0 for i in range(17)}

    with pytest.raises(UsageError, match="at most 16 names") as caught:
        trainer(Many()).evaluate(trainer().initial())
    assert caught.value.code == "task-evaluation"


def test_baselines_train_from_the_initial_model() -> None:
    of = trainer()
    assert of.train_alone("site-01", 0) == of.train_alone("site-03", 4) == of.evaluate(of.initial())
    assert of.train_alone("site-01", 3) == of.train_alone("site-01", 3) != of.train_alone("site-01", 1)
    assert of.train_alone("", 3) not in (of.train_alone("site-01", 3), of.train_alone("site-02", 3))


def test_a_baseline_that_raises_is_the_users_error() -> None:
    with pytest.raises(UsageError, match="site-01: ZeroDivisionError"):
        trainer(Small(lambda m: 1 / 0)).train_alone("site-01", 1)


@given(st.floats())
def test_metrics_are_decimals_that_the_ledger_takes(value: float) -> None:
    written = decimals({"loss": value})
    if not math.isfinite(value):
        assert written == {}
    else:
        schema.decimal(written["loss"], "loss")
        assert float(written["loss"]) == value


@pytest.mark.parametrize("name", ["", "Loss", "a b", "x" * 65])
def test_metric_names_that_the_ledger_refuses(name: str) -> None:
    with pytest.raises(EvidenceError):
        decimals({name: 1.0})


@given(st.lists(st.one_of(st.integers(0, 2**53 - 1), st.text(max_size=20)), max_size=4))
def test_seeds_fit_torch_and_differ(parts: list[int | str]) -> None:
    seed = derive_seed(*parts)
    assert 0 <= seed < 2**63
    assert seed != derive_seed(*parts, "more")
