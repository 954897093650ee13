# SPDX-License-Identifier: Apache-2.0
"""From an order to a blob: the numbers, the refusals, and what training may depend on."""

import math
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from chaincode import schema
from chaincode.blobs import Header
from chaincode.evidence import Commitment, verify_update
from chaincode.models import model_digest
from identity.errors import EvidenceError, UsageError
from participant.ports import TrainFailure, TrainOrder, TrainResult
from participant.seeding import derive_seed
from participant.task import Data, Task, tensor_specs
from participant.train import LocalTrainer
from participant.values import Arrays, decimals, to_arrays, to_tensors

SITES = ("site-01", "site-02", "site-03")


class Small(Task):
    """A model with every kind of tensor; ``act`` is called in each training, in the place of learning if it says so."""

    name = "small"
    rules: Mapping[str, Mapping[str, Any]] = {}

    def __init__(self, act: Callable[[nn.Module], Any] | None = None) -> None:
        self.act, self.asked = act, list[int]()

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))

    def site_data(self, site: int, sites: int, seed: int) -> Data:
        self.asked.append(site)
        rows = 0 if site == 2 else 12 + site
        generator = torch.Generator().manual_seed(seed * sites + site)
        return torch.randn(rows, 4, generator=generator), torch.randint(0, 2, (rows,), generator=generator)

    def evaluation_data(self) -> Data:
        return self.site_data(1, 50, 7)

    def train(self, model: nn.Module, data: Data, seed: int) -> Mapping[str, float] | None:
        if self.act is not None and (answer := self.act(model)) is not None:
            return answer
        return super().train(model, data, seed)

    def tensor_rules(self) -> Mapping[str, Mapping[str, Any]]:
        return self.rules


def trainer(task: Task | None = None, seed: int = 5) -> LocalTrainer:
    return LocalTrainer(task or Small(), SITES, seed)


def order(of: LocalTrainer, outbox: Path, site: str = "site-01", **changes: Any) -> TrainOrder:
    length = sum(s.elements for s in of.specs if s.rule == "mean")
    header = Header(
        federation="f" * 64, agreement="a" * 64, round=1, attempt=1, base=model_digest(to_tensors(of.initial())),
        member=f"did:key:{site}", encoding="int32", length=length, salt="5" * 64,
    )  # fmt: skip
    seed = changes.pop("seed", 5)
    return TrainOrder(site, seed, replace(header, **changes), str(outbox))


def carry(of: LocalTrainer, base: Arrays, one: TrainOrder) -> TrainResult | TrainFailure:
    """The answer to an order that is alone in its call."""
    (answer,) = of.carry_out(base, [one])
    return answer


def body(result: TrainResult | TrainFailure, of: TrainOrder) -> np.ndarray[Any, np.dtype[np.int32]]:
    """The integers of a written blob, through the one door."""
    assert isinstance(result, TrainResult), result
    h = of.header
    commitment = Commitment(
        h.federation, h.agreement, h.round, h.attempt, h.base, result.member, result.digest, result.size,
        result.examples, h.encoding, h.length,
    )  # fmt: skip
    data = (Path(of.outbox) / result.digest).read_bytes()
    return np.frombuffer(verify_update(commitment, data).body, "<i4")


def test_a_blob_holds_the_rounded_clipped_delta(tmp_path: Path) -> None:
    def moved(model: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            model[0].weight += 0.3
            model[0].bias += 20.0  # beyond the clip of 2^4
            model[1].running_mean += 20.0  # within that of 2^10
            model[3].bias -= 1e-9  # below a step
        return {"note": 1.5}

    of = trainer(Small(moved))
    base = of.initial()
    asked = order(of, tmp_path)
    result = carry(of, base, asked)
    integers = body(result, asked)
    expected = []
    for spec in of.specs:
        if spec.rule == "mean":
            change = {"0.weight": 0.3, "0.bias": 20.0, "1.running_mean": 20.0, "3.bias": -1e-9}.get(spec.name, 0.0)
            old = base[spec.name].reshape(-1)
            delta = ((old + np.float32(change)).astype(np.float32) - old).astype(np.float64)
            bound = 2.0**spec.clip_exponent
            expected.append(np.rint(np.clip(delta, -bound, bound) * 2.0**spec.fraction_bits))
    assert np.array_equal(integers, np.concatenate(expected))
    assert isinstance(result, TrainResult)
    assert result.metrics == {"note": "1.5"}
    assert (result.site, result.member, result.examples) == ("site-01", "did:key:site-01", 12)
    assert [p.name for p in tmp_path.iterdir()] == [result.digest]
    assert (tmp_path / result.digest).stat().st_mode & 0o777 == 0o600


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


def test_training_depends_on_seed_round_and_site_only(tmp_path: Path) -> None:
    of = trainer()
    base = of.initial()

    def trained(**changes: Any) -> bytes:
        asked = order(of, tmp_path, **changes)
        return body(carry(of, base, asked), asked).tobytes()

    first = trained()
    assert trained(round=2) != first
    assert trained(seed=6) != first
    assert trained(site="site-02") != first
    same = (
        trained(),
        trained(attempt=3),
        trained(member="did:key:another"),
        trained(salt="6" * 64),
        trained(agreement="b" * 64),
    )
    assert set(same) == {first}
    assert body(carry(trainer(), base, order(of, tmp_path)), order(of, tmp_path)).tobytes() == first  # another process


def test_random_numbers_drawn_in_training_are_reproducible(tmp_path: Path) -> None:
    drawn: list[tuple[float, float, float]] = []

    def draw(_: nn.Module) -> dict[str, float]:
        drawn.append((torch.rand(1).item(), float(np.random.random()), random.random()))
        return {}

    of = trainer(Small(draw))
    for site in ("site-01", "site-02", "site-01"):
        carry(of, of.initial(), order(of, tmp_path, site))
    assert drawn[0] == drawn[2]
    assert not set(drawn[0]) & set(drawn[1])


def test_one_site_leaves_no_trace_in_the_next(tmp_path: Path) -> None:
    """BatchNorm statistics and counters above all."""
    alone, after = trainer(), trainer()
    carry(after, after.initial(), order(after, tmp_path, "site-01"))
    asked = order(alone, tmp_path, "site-02")
    assert np.array_equal(
        body(carry(alone, alone.initial(), asked), asked), body(carry(after, after.initial(), asked), asked)
    )


def test_a_site_without_data_says_so(tmp_path: Path) -> None:
    of = trainer()
    failure = carry(of, of.initial(), order(of, tmp_path, "site-03"))
    assert failure == TrainFailure("site-03", "did:key:site-03", "no-data", "site-03 has no training data.")
    assert not list(tmp_path.iterdir())


def _set_nan(model: nn.Module) -> dict[str, float]:
    with torch.no_grad():
        model[3].bias[1] = float("nan")
    return {}


def _add_tensor(model: nn.Module) -> dict[str, float]:
    model[0].weight.data = torch.zeros(2, 2)
    return {}


@pytest.mark.parametrize(
    ("act", "code", "words"),
    [
        (lambda m: 1 / 0, "training-failed", "ZeroDivisionError: division by zero (test_train.py, line"),
        (lambda m: sys.exit(3), "training-failed", "SystemExit: 3"),
        (lambda m: {"loss": "much"}, "training-failed", "could not convert"),
        (lambda m: {"Bad Name": 1.0}, "training-failed", "metric 'Bad Name'"),
        (lambda m: m.double() and {}, "training-failed", "float64"),
        (_set_nan, "update-not-finite", "3.bias"),
        (_add_tensor, "training-failed", "training made 0.weight"),
    ],
)
def test_what_goes_wrong_in_training_is_a_failure(
    act: Callable[[nn.Module], Any], code: str, words: str, tmp_path: Path
) -> None:
    of = trainer(Small(act))
    failure = carry(of, of.initial(), order(of, tmp_path))
    assert isinstance(failure, TrainFailure)
    assert failure.code == code
    assert failure.message.startswith("site-01: ")
    assert words in failure.message
    assert not any(len(p.name) == 64 for p in tmp_path.iterdir())


def test_a_failure_does_not_spoil_the_next_order(tmp_path: Path) -> None:
    acts = iter([_set_nan])

    def once(model: nn.Module) -> dict[str, float] | None:
        act = next(acts, None)
        return act(model) if act is not None else None

    of, clean = trainer(Small(once)), trainer()
    assert isinstance(carry(of, of.initial(), order(of, tmp_path)), TrainFailure)
    asked = order(of, tmp_path)
    assert np.array_equal(
        body(carry(of, of.initial(), asked), asked), body(carry(clean, clean.initial(), asked), asked)
    )


def test_a_failures_text_is_bounded(tmp_path: Path) -> None:
    def shout(_: nn.Module) -> None:
        raise ValueError("x" * 10_000)

    of = trainer(Small(shout))
    failure = carry(of, of.initial(), order(of, tmp_path))
    assert isinstance(failure, TrainFailure)
    assert len(failure.message) < 700


def test_an_outbox_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    of = trainer()
    failure = carry(of, of.initial(), order(of, tmp_path / "file"))
    assert isinstance(failure, TrainFailure)
    assert failure.code == "outbox"


def test_a_large_blob_is_the_same_as_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = trainer()
    small, large = order(of, tmp_path / "small"), order(of, tmp_path / "large")
    first = carry(of, of.initial(), small)
    monkeypatch.setattr("participant.train.SMALL", 0)
    assert carry(of, of.initial(), large) == first
    assert np.array_equal(body(first, small), body(first, large))
    assert [p.stat().st_mode & 0o777 for folder in ("small", "large") for p in (tmp_path / folder).iterdir()] == [
        0o600
    ] * 2


def test_a_header_for_another_model_is_refused(tmp_path: Path) -> None:
    of = trainer()
    failure = carry(of, of.initial(), order(of, tmp_path, length=3))
    assert isinstance(failure, TrainFailure)
    assert failure.code == "update-length"


def test_data_that_does_not_fit_together(tmp_path: Path) -> None:
    class Uneven(Small):
        def site_data(self, site: int, sites: int, seed: int) -> Data:
            return torch.zeros(4, 4), torch.zeros(3, dtype=torch.int64)

        def evaluation_data(self) -> None:  # type: ignore[override]
            return None

    of = trainer(Uneven())
    failure = carry(of, of.initial(), order(of, tmp_path))
    assert isinstance(failure, TrainFailure)
    assert "4 features but 3 labels" in failure.message
    assert (of.evaluation_digest(), of.evaluate(of.initial())) == ("", {})


def test_warming_up_touches_no_sites_data() -> None:
    task = Small()
    of = trainer(task)
    task.asked.clear()
    of.warm_up()
    assert not task.asked


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


def test_baselines_train_from_the_initial_model() -> None:
    of = trainer()
    assert of.train_alone("site-01", 0) == of.train_alone("site-03", 4) == of.evaluate(of.initial())
    assert of.train_alone("site-01", 3) == of.train_alone("site-01", 3) != of.train_alone("site-01", 1)
    assert of.train_alone("", 3) not in (of.train_alone("site-01", 3), of.train_alone("site-02", 3))


def test_a_baseline_that_raises_is_the_users_error() -> None:
    with pytest.raises(UsageError, match="site-01: ZeroDivisionError"):
        trainer(Small(lambda m: 1 / 0)).train_alone("site-01", 1)


def test_memory_of_data_is_bounded(tmp_path: Path) -> None:
    task = Small()
    of = LocalTrainer(task, SITES, 5, kept=1)
    task.asked.clear()
    for site in ("site-01", "site-01", "site-02", "site-02", "site-01"):
        carry(of, of.initial(), order(of, tmp_path, site))
    assert task.asked == [0, 1, 0]


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


def test_tied_weights_move_together(tmp_path: Path) -> None:
    class Tied(Small):
        def build_model(self) -> nn.Module:
            model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
            model[2].weight = model[0].weight
            return model

    of = trainer(Tied())
    assert tensor_specs(Tied().build_model(), {})[1].clip_exponent == 4  # a parameter under both names
    asked = order(of, tmp_path)
    integers = body(carry(of, of.initial(), asked), asked)
    assert np.array_equal(integers[:16], integers[16:])
    assert integers.any()
