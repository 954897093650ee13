# SPDX-License-Identifier: Apache-2.0
"""From an order to a blob: the numbers, the refusals, and what training may depend on."""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from participant.ports import TrainFailure, TrainResult
from participant.task import Data, tensor_specs
from participant.train import LocalTrainer
from tests.participant.training import SITES, Small, body, carry, order, trainer


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
        (lambda m: {f"m{i}": 1.0 for i in range(17)}, "training-failed", "at most 16 names"),
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


def test_memory_of_data_is_bounded(tmp_path: Path) -> None:
    task = Small()
    of = LocalTrainer(task, SITES, 5, kept=1)
    task.asked.clear()
    for site in ("site-01", "site-01", "site-02", "site-02", "site-01"):
        carry(of, of.initial(), order(of, tmp_path, site))
    assert task.asked == [0, 1, 0]


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
