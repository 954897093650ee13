# SPDX-License-Identifier: Apache-2.0
"""The workloads that are compared, and what is wanted of each."""

from dataclasses import dataclass, replace
from itertools import pairwise

SEED = 2026


@dataclass(frozen=True, slots=True)
class Goals:
    """Ratios wanted: Fedledger's round to the plain loop's (at most), Flower's round to Fedledger's (at least),
    Fedledger's peak memory to Flower's (at most), and, of the time from the launch to the end of round 1, seconds and
    the ratio to Flower's (at most). None where nothing is wanted."""

    plain: float
    flower: float
    memory: float | None = None
    launch: float | None = None
    launch_to_flower: float | None = None


@dataclass(frozen=True, slots=True)
class Workload:
    """One federation to train: ``rounds`` in all, of which the first ``warm_up`` are left out of the medians;
    ``repeats`` runs of each contestant, one after the other in turns, and ``more`` of the plain loop and of Fedledger alone: their
    ratio is the closest, and the pace of a shared machine changes. ``goals`` None: measured, not judged. With QUICK
    there are ``quick_rounds`` (none: left out) and, where that is not 0, ``quick_sites``. ``one_by_one`` is the task whose
    sites are not trained as a stack; "" where ``task`` is that already."""

    name: str
    title: str
    task: str
    sites: int
    layers: tuple[int, ...]
    batch: int
    learning_rate: float
    goals: Goals | None
    rounds: int
    quick_rounds: int
    warm_up: int = 2
    repeats: int = 3
    more: int = 4
    quick_sites: int = 0
    one_by_one: str = ""

    @property
    def parameters(self) -> int:
        """The number of the model's parameters."""
        return sum(a * b + b for a, b in pairwise(self.layers))

    def quick(self) -> "Workload":
        """The same in small: one run of fewer rounds; with fewer sites it is another workload, and not judged."""
        small = replace(
            self, rounds=self.quick_rounds, repeats=1, more=0, warm_up=min(self.warm_up, self.quick_rounds - 2)
        )
        if not self.quick_sites:
            return small
        title = f"as {self.name}, but {self.quick_sites} sites (QUICK): {self.title}"
        return replace(small, name=f"{self.name}q", sites=self.quick_sites, title=title, goals=None)


WORKLOADS = (
    Workload(
        "W1", "breast cancer, 10 sites, perceptron 30-64-2, Dirichlet(0.5), batches of 32", "breast-cancer",
        10, (30, 64, 2), 32, 0.1, Goals(2.5, 6, launch=7, launch_to_flower=0.5), rounds=60, quick_rounds=22,
        one_by_one="tasks.py:BreastCancerOneByOne",
    ),
    Workload(
        "W2", "digits, 50 sites, perceptron 64-128-10, Dirichlet(0.7), batches of 32", "tasks.py:DigitsPerceptron",
        50, (64, 128, 10), 32, 0.1, Goals(1.3, 9), rounds=30, quick_rounds=0,
        one_by_one="tasks.py:DigitsPerceptronOneByOne",
    ),
    Workload(
        "W3", "10 million parameters, 10 sites, perceptron 2048-2048-2048-786, one step on a batch of 4, every update kept",
        "tasks.py:TenMillion", 10, (2048, 2048, 2048, 786), 4, 0.01, Goals(1.3, 2.5, memory=0.6), rounds=12, quick_rounds=3, warm_up=4, more=1,
    ),
    Workload(
        "W4", "1,000 sites, perceptron 10-16-2 (210 parameters), one step on a batch of 32", "tasks.py:Thousand",
        1000, (10, 16, 2), 32, 0.1, Goals(1.0, 25), rounds=6, quick_rounds=5, warm_up=1, repeats=2, more=3, quick_sites=200,
        one_by_one="tasks.py:ThousandOneByOne",
    ),
)  # fmt: skip
