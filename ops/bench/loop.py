# SPDX-License-Identifier: Apache-2.0
"""The training that all contestants do, on torch alone: what the plain loop and Flower's clients share.

It runs in environments without Fedledger, so it imports the standard library, numpy and torch only. What is trained
on is in a folder that ``ops.bench.prepare`` wrote: the arithmetic is that of ``participant.task.Task``, the data, the
initial weights and the seeds of the batches are the very ones that Fedledger's sites have.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Vector = NDArray[np.float32]
Data = tuple[Tensor, Tensor]
EVALUATION_ROWS = 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained: ``layers`` are the widths of a perceptron, ``batch`` in rows, one local epoch a round."""

    layers: tuple[int, ...]
    sites: int
    rounds: int
    batch: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Work:
    """A plan with its data: every site's rows, held-out rows, and ``seeds[round - 1, site]``."""

    plan: Plan
    data: Sequence[Data]
    held_out: Data
    seeds: NDArray[np.int64]


def write_work(folder: Path, work: Work, initial: Sequence[Vector]) -> None:
    """Write the work and the initial parameters as files that ``load`` and ``load_initial`` read back bit for bit."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(json.dumps(asdict(work.plan)))
    bounds = np.cumsum([0, *(len(labels) for _, labels in work.data)])
    features, labels = zip(*work.data, strict=True)
    for name, array in {
        "bounds": bounds, "features": torch.cat(features).numpy(), "labels": torch.cat(labels).numpy(),
        "held_features": work.held_out[0].numpy(), "held_labels": work.held_out[1].numpy(), "seeds": work.seeds,
        **{f"initial_{i}": array for i, array in enumerate(initial)},
    }.items():  # fmt: skip
        np.save(folder / f"{name}.npy", array)


@lru_cache(maxsize=1)
def load(folder: str) -> Work:
    """The work in a folder; a process reads it once. A site's rows are a view of the file, read when they are used."""
    place = Path(folder)
    stated = json.loads((place / "plan.json").read_text())
    plan = Plan(**stated | {"layers": tuple(stated["layers"])})
    bounds = np.load(place / "bounds.npy")
    features, labels, held_features, held_labels = (
        torch.from_numpy(np.load(place / f"{name}.npy"))
        for name in ("features", "labels", "held_features", "held_labels")
    )
    data = [(features[a:b], labels[a:b]) for a, b in pairwise(bounds)]
    return Work(plan, data, (held_features, held_labels), np.load(place / "seeds.npy"))


def load_initial(folder: str) -> list[Tensor]:
    """The initial parameters, in the model's order; only who begins needs them."""
    count = 2 * (len(load(folder).plan.layers) - 1)
    return [torch.from_numpy(np.load(Path(folder) / f"initial_{i}.npy")) for i in range(count)]


def build(layers: Sequence[int]) -> nn.Sequential:
    """A perceptron with rectifiers between its layers."""
    parts: list[nn.Module] = []
    for width, following in pairwise(layers):
        parts += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


@lru_cache(maxsize=1)
def own_model(layers: tuple[int, ...]) -> nn.Sequential:
    """The one model of a process, whose parameters are set before each use: drawing ten million numbers takes long."""
    return build(layers)


def set_parameters(model: nn.Module, values: Sequence[Tensor]) -> None:
    """Copy values into the model, in the order of its parameters."""
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(value)


def train(model: nn.Module, data: Data, seed: int, plan: Plan) -> float:
    """One epoch of stochastic gradient descent in place, in an order that the seed gives; the mean loss.

    As one would write it: an optimiser of ``torch.optim`` for each site and round.
    """
    features, labels = data
    shuffle = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(model.parameters(), lr=plan.learning_rate)
    total = 0.0
    model.train()
    for batch in torch.split(torch.randperm(len(labels), generator=shuffle), plan.batch):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(features[batch]), labels[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += loss.item() * len(batch)
    return total / len(labels)


def train_tuned(model: nn.Module, data: Data, seed: int, plan: Plan) -> float:
    """As ``train``, bit for bit, without what ``torch.optim`` and ``backward`` add to small models' steps."""
    features, labels = data
    parameters = list(model.parameters())
    shuffle = torch.Generator().manual_seed(seed)
    losses: list[tuple[Tensor, int]] = []
    model.train()
    for batch in torch.split(torch.randperm(len(labels), generator=shuffle), plan.batch):
        loss = nn.functional.cross_entropy(model(features[batch]), labels[batch])
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.add_(gradient, alpha=-plan.learning_rate)
        losses.append((loss.detach(), len(batch)))
    return sum(loss.item() * rows for loss, rows in losses) / len(labels)


def evaluate(model: nn.Module, data: Data) -> tuple[float, float]:
    """(accuracy, loss) on held-out data."""
    features, labels = data
    total, correct = 0.0, 0
    model.eval()
    with torch.inference_mode():
        pieces = torch.split(features, EVALUATION_ROWS), torch.split(labels, EVALUATION_ROWS)
        for rows, truth in zip(*pieces, strict=True):
            outputs = model(rows)
            total += nn.functional.cross_entropy(outputs, truth).item() * len(truth)
            correct += int((outputs.argmax(dim=1) == truth).sum())
    return correct / len(labels), total / len(labels)


class Journal:
    """A contestant's own record: a line of JSON at the end of each round, with seconds since the process started."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115  (as long as the process)
        self._began = time.monotonic() - _process_age()

    def round(self, number: int, accuracy: float, loss: float) -> None:
        """A round's model is there and evaluated."""
        line = {"round": number, "seconds": time.monotonic() - self._began, "accuracy": accuracy, "loss": loss}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def _process_age() -> float:
    """Seconds since this process was started, to 0.01 s (proc_pid_stat(5))."""
    ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


Train = Callable[[nn.Module, Data, int, Plan], float]


def run_plain(work: Work, present: Sequence[Tensor], journal: Journal, train: Train = train) -> Sequence[Tensor]:
    """Federated averaging in one process and one thread from the ``present`` parameters; the final ones."""
    plan, model = work.plan, own_model(work.plan.layers)
    weight = sum(len(labels) for _, labels in work.data)
    for number in range(1, plan.rounds + 1):
        mean = [torch.zeros_like(tensor) for tensor in present]
        for site, data in enumerate(work.data):
            set_parameters(model, present)
            train(model, data, int(work.seeds[number - 1, site]), plan)
            with torch.no_grad():
                for total, parameter in zip(mean, model.parameters(), strict=True):
                    total.add_(parameter, alpha=len(data[1]) / weight)
        present = mean
        set_parameters(model, present)
        journal.round(number, *evaluate(model, work.held_out))
    return present


def main(folder: str, journal: str, how: str = "") -> None:
    """The plain loop as a process of its own; ``how`` "tuned" trains with ``train_tuned``."""
    keeper = Journal(journal)
    torch.set_num_threads(1)
    run_plain(load(folder), load_initial(folder), keeper, train_tuned if how == "tuned" else train)


if __name__ == "__main__":
    main(*sys.argv[1:])
