# SPDX-License-Identifier: Apache-2.0
"""Models that a stack would train as something else than they are: refused, and trained one by one."""

from pathlib import Path

import pytest
import torch
from torch import nn

from identity.errors import UsageError
from participant.ports import TrainResult
from participant.stack import Stack
from participant.train import LocalTrainer
from tests.participant.test_stack import Stacked, carry


class Altered(Stacked):
    """A model of layers that can be stacked, with something about them that says more than their types."""

    def __init__(self, rows: list[int], alter: str = "") -> None:
        super().__init__(rows)
        self.alter = alter

    def build_model(self) -> nn.Module:
        model = super().build_model()
        for statement in filter(None, [self.alter]):
            exec(statement, {"model": model, "nn": nn, "torch": torch})  # noqa: S102 (the statements below)
        return model


ALTERATIONS = [
    "model[0] = nn.Flatten(0, 1)",
    "model[0] = nn.Flatten(1, 1)",
    "model.insert(2, nn.Flatten(2))",
    "model.register_forward_hook(lambda module, given, made: made * 2)",
    "model[1].register_forward_hook(lambda module, given, made: made - made.mean(0))",
    "model[2].register_forward_pre_hook(lambda module, given: (given[0] - given[0].mean(0),))",
    "model[2].register_full_backward_hook(lambda module, given, made: (given[0] * 2,))",
    "model[1].register_full_backward_pre_hook(lambda module, made: (made[0] * 2,))",
    "model[1].weight.register_hook(lambda gradient: gradient.clamp(-1e-3, 1e-3))",
    "model[2].forward = lambda x: x - x.mean(0)",
    "model.register_buffer('seen', torch.zeros(1))",
    "model.register_parameter('more', nn.Parameter(torch.zeros(7, 5)))",
]


@pytest.mark.parametrize("alter", ALTERATIONS)
def test_what_says_more_than_its_layers_is_not_stacked(alter: str) -> None:
    """A hook would see the rows of all sites at once, or of each site's turn; a stack takes every example as one row."""
    with pytest.raises(UsageError) as caught:
        LocalTrainer(Altered([4, 4], alter), ["a", "b"], 0)
    assert caught.value.code == "task-stacked"
    Stack(Altered([4, 4]), Altered([4, 4]).build_model())


@pytest.mark.parametrize("alter", [text for text in ALTERATIONS if "(0, 1)" not in text and "(2)" not in text])
def test_one_by_one_it_trains_as_it_says(tmp_path: Path, alter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Altered, "stacked", False)
    together = carry(Altered([5, 6], alter), tmp_path / "all", ["a", "b"], ["a", "b"])
    assert all(isinstance(answer, TrainResult) for answer in together.values())
    for site in together:
        assert carry(Altered([5, 6], alter), tmp_path / site, [site], ["a", "b"]) == {site: together[site]}
