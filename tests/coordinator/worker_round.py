# SPDX-License-Identifier: Apache-2.0
"""A worker in this process, with a round that it has trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from coordinator.ports import Delivery, FinishOrder, Outcome
from coordinator.worker import Worker
from tests.coordinator import cluster_rounds as rounds


class Round:
    """A worker that has trained the first round of the tiny task."""

    def __init__(self, folder: Path, optimiser: str = "avg") -> None:
        self.folder = folder
        self.settings = rounds.settings(folder, rounds.write_task(folder))
        self.worker = Worker(self.settings)
        self.info, self.arrays = self.worker.describe()
        self.terms = rounds.agreement(self.info, optimiser)
        self.orders = rounds.orders(self.settings, self.info, self.terms, self.info.initial, 1)
        self.answers = {a.site: a for a in self.worker.train(self.arrays, self.orders)}
        self.deliveries = rounds.deliveries(self.orders, self.answers)

    def finish(self, weight: int = sum(range(6, 11)), base: Any = None, **changes: Any) -> Outcome:
        verdicts, total = self.worker.sum(self.deliveries)
        assert not any(verdicts.values())
        order = FinishOrder(self.terms, 1, self.info.initial, "", weight)
        return self.worker.finish(replace(order, **changes), base, total)[0]


def another(of: Round) -> Worker:
    """A second process's worker, in this one."""
    return Worker(of.settings)


def other_bytes(first: Round, delivery: Delivery) -> Delivery:
    """The delivery, its file altered in the last byte."""
    path = Path(delivery.place.path)
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    return delivery
