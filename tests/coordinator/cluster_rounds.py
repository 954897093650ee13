# SPDX-License-Identifier: Apache-2.0
"""Rounds without a ledger, for tests of clusters: the same calls that the agents and the round driver make."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from chaincode.agreement import agreement_digest
from chaincode.evidence import Commitment
from chaincode.header import Header
from coordinator.aggregate import HeldSum
from coordinator.dispatch import Dispatch
from coordinator.jobs import ClusterSettings, TaskInfo
from coordinator.ports import Delivery, FinishOrder, Outcome
from participant.outbox import Outbox
from participant.ports import TrainFailure, TrainOrder, TrainResult
from participant.tasks import locate_task

FEDERATION = "f" * 64
SEED = 5
Answers = Mapping[str, TrainResult | TrainFailure]

TINY = """
import os, signal, sys, time
import torch
from torch import nn
from participant import Task

class Tiny(Task):
    name = "tiny"
    width = 3

    def build_model(self):
        return nn.Sequential(nn.Linear(4, self.width), nn.BatchNorm1d(self.width), nn.Linear(self.width, 2))

    def site_data(self, site, sites, seed):
        generator = torch.Generator().manual_seed(seed * 1000 + site)
        rows = 6 + site
        return torch.randn(rows, 4, generator=generator), torch.randint(0, 2, (rows,), generator=generator)

    def evaluation_data(self):
        return self.site_data(99, 100, 7)

    def train(self, model, data, seed):
        site = len(data[1]) - 6
        self.before(site)
        return super().train(model, data, seed)

    def before(self, site):
        pass
"""


def write_task(folder: Path, body: str = "", width: int = 3) -> str:
    """A task file whose ``before(self, site)`` has the given body; its reference."""
    text = TINY.replace("width = 3", f"width = {width}")
    if body:
        text = text.replace("        pass\n", "".join(f"        {line}\n" for line in body.splitlines()))
    (folder / "tiny.py").write_text(text)
    return "tiny.py:Tiny"


def settings(folder: Path, task: str, sites: int = 5, **changes: Any) -> ClusterSettings:
    """A run's settings, with its stores in ``folder``."""
    names = tuple(f"site-{number:02}" for number in range(1, sites + 1))
    made = ClusterSettings(
        locate_task(task, folder), names, SEED, str(folder / "models"), str(folder / "blobs"),
        str(folder / "processes.json"), labels={"federation": "test"},
    )  # fmt: skip
    return replace(made, **changes)


def agreement(info: TaskInfo, optimiser: str = "avg") -> dict[str, Any]:
    """As much of an agreement as workers look at."""
    parameters = {"avg": {"learning_rate": "1"}, "avgm": {"learning_rate": "1", "momentum": "0.9"}}[optimiser]
    return {
        "model": {"tensors": [spec.to_json() for spec in info.specs]},
        "aggregation": {"rule": "mean", "optimiser": optimiser, "parameters": parameters},
    }


def orders(of: ClusterSettings, info: TaskInfo, terms: Mapping[str, Any], base: str, number: int) -> list[TrainOrder]:
    """One order per site for a round; the outboxes lie beside the model store."""
    outbox = Path(of.models).with_name("outbox")
    length = sum(spec.elements for spec in info.specs if spec.rule == "mean")
    made = []
    for site in of.sites:
        header = Header(
            FEDERATION, agreement_digest(terms), number, 1, base, f"did:key:{site}", "int32", length, "5" * 64
        )
        made.append(TrainOrder(site, of.seed, header, str(outbox / site)))
    return made


def deliveries(asked: Sequence[TrainOrder], answers: Answers) -> list[Delivery]:
    """What the sites that trained commit to and deliver."""
    made = []
    for order in asked:
        answer, h = answers[order.site], order.header
        if isinstance(answer, TrainResult):
            commitment = Commitment(
                h.federation, h.agreement, h.round, h.attempt, h.base, h.member, answer.digest, answer.size,
                answer.examples, h.encoding, h.length,
            )  # fmt: skip
            made.append(Delivery(commitment, Outbox(Path(order.outbox)).find([answer.digest])[answer.digest]))
    return made


def train(cluster: Dispatch, asked: Sequence[TrainOrder], **options: Any) -> Answers:
    """Every order's answer by its site; each is answered once."""
    answers = [a for batch in cluster.train(asked, **options) for a in batch]
    assert sorted(a.site for a in answers) == sorted(o.site for o in asked)
    return {a.site: a for a in answers}


def finish_round(
    cluster: Dispatch, terms: Mapping[str, Any], asked: Sequence[TrainOrder], answers: Answers, optimiser: str = ""
) -> Outcome:
    """From the sites' answers to the outcome."""
    delivered = deliveries(asked, answers)
    held = cluster.sum(delivered)
    assert isinstance(held, HeldSum)
    assert not any(held.verdicts.values()), held.verdicts
    header = asked[0].header
    return cluster.finish(FinishOrder(terms, header.round, header.base, optimiser, held.weight), [held])


def run_rounds(cluster: Dispatch, of: ClusterSettings, rounds: int, optimiser: str = "avg") -> list[Outcome]:
    """Whole rounds, one after the other."""
    info = cluster.describe()
    terms, outcomes = agreement(info, optimiser), list[Outcome]()
    base, state = info.initial, ""
    for number in range(1, rounds + 1):
        asked = orders(of, info, terms, base, number)
        outcomes.append(finish_round(cluster, terms, asked, train(cluster, asked), state))
        base, state = outcomes[-1].model, outcomes[-1].optimiser
    return outcomes
