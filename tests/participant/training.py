# SPDX-License-Identifier: Apache-2.0
"""A small task that trains in an instant, and the orders to train it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from chaincode.evidence import Commitment, verify_update
from chaincode.header import Header
from chaincode.models import model_digest
from participant.ports import TrainFailure, TrainOrder, TrainResult
from participant.task import Data, Task
from participant.train import LocalTrainer
from participant.values import Arrays, to_tensors

SITES = ("site-01", "site-02", "site-03")


class Small(Task):
    """A model with every kind of tensor; ``act`` is called in each training, in the place of learning if it says so."""

    name = "small"
    batch_size = 5  # several batches a site: their order shows in the update, on every processor
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
