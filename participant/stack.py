# SPDX-License-Identifier: Apache-2.0
"""Many small sites trained as one stack: batched matrix products in the place of one site after the other.

A site's update has the same bits whatever is stacked with it, alone too, so neither the number of workers nor a
restart shows in a model. They are not the bits that ``Task.train`` gives: products are rounded in another order. A
task therefore says in its source, which the agreement names by digest, that it is trained so.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from identity.errors import UsageError
from identity.wording import counted
from participant.task import Data, Task

FLOATS = 1 << 24
"""A stack's weights, gradients and activations together: 64 MiB, so that they stay near the cache."""

LINE = 16
"""Every matrix is filled up with zeros to multiples of so many floats, 64 bytes: the kernels for other shapes round
differently with where in memory a matrix lies, and so with what is stacked before it."""

_EXACT = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Flatten)
"""Layers of which each element's result is the same wherever it lies in memory, and 0 for 0."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A stack's result: each parameter by name, of shape (sites, *shape), and each site's mean loss in its last epoch."""

    parameters: dict[str, Tensor]
    losses: list[float]


class Stack:
    """Trains a task's model, which must be an ``nn.Sequential`` of linear layers and ReLUs, for many sites at once."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        """Raises UsageError(task-stacked) where the task's model or training cannot be stacked."""
        layers = list(model) if type(model) is nn.Sequential else []
        if not any(type(layer) is nn.Linear for layer in layers) or any(
            type(layer) not in (nn.Linear, *_EXACT) for layer in layers
        ):
            _refuse("its model is an nn.Sequential of nn.Linear, nn.ReLU, nn.LeakyReLU, nn.Flatten, nn.Identity")
        if any(type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) != (1, -1) for layer in layers):
            _refuse("each nn.Flatten makes one row of each example: start_dim=1, end_dim=-1")
        parts: list[nn.Module | Tensor] = [model, *layers, *model.parameters()]
        if any(map(_is_altered, parts)):
            _refuse("it has no hooks, and no layer with a forward() of its own: they would see all sites at once")
        if (type(task).train, type(task).loss) != (Task.train, Task.loss):
            _refuse("train() and loss() are the default ones")
        if not all(parameter.requires_grad for parameter in model.parameters()):
            _refuse("all of its parameters are trained")
        linear = [layer for layer in layers if type(layer) is nn.Linear]
        if any(before.out_features != after.in_features for before, after in pairwise(linear)):
            _refuse("each of its linear layers takes what the one before it gives")
        named = list(model.named_parameters(remove_duplicate=False))
        if len(named) != len(list(model.parameters())):
            _refuse("no two of its layers share a parameter")
        if len(named) != sum(1 + (layer.bias is not None) for layer in linear) or any(True for _ in model.buffers()):
            _refuse("its parameters are those of its linear layers, and it has no buffers")
        self._task, self._layers, self._flat = task, layers, type(layers[0]) is nn.Flatten
        self._shapes = {name: tuple(parameter.shape) for name, parameter in named}
        self._inputs, self._outputs = linear[0].in_features, linear[-1].out_features
        width = sum(_padded(layer.in_features) + _padded(layer.out_features) for layer in linear)
        weights = sum(prod(map(_padded, shape)) for shape in self._shapes.values())
        self.most = max(1, FLOATS // (3 * weights + 3 * _padded(task.batch_size) * width))

    def train(self, base: dict[str, Tensor], sites: Sequence[Data], seeds: Sequence[int]) -> Trained:
        """Train at most ``most`` sites, each with at least one row, from one base model.

        ``base`` holds the parameters by name; a site's batches are those of ``Task.train`` with its seed. A batch is
        filled up with rows that weigh nothing, so every product has one shape. Raises ValueError for other features or
        labels, also for such as would only do beside those of others, whose type they would take.
        """
        if any((s[0].dim() != 2 and not self._flat) or s[0].flatten(1).shape[1] != self._inputs for s in sites):
            raise ValueError(f"the model takes {counted(self._inputs, 'feature')} for each row")
        for features, labels in sites:
            if features.dtype != torch.float32 or labels.dtype not in (torch.int64, torch.uint8) or labels.dim() != 1:
                message = f"features {features.dtype}, labels {labels.dtype} of {counted(labels.dim(), 'dimension')}"
                raise ValueError(f"{message}: a stack takes features float32 and one label int64 for each row")
        order = sorted(
            range(len(sites)), key=lambda i: -len(sites[i][1])
        )  # at each step those that go on are the first
        batches = _Batches([sites[i] for i in order], [seeds[i] for i in order], self._task.batch_size)
        weights = [self._stacked(base[name], len(sites)) for name in self._shapes]
        losses = torch.zeros(len(sites), dtype=torch.float64)
        for _ in range(self._task.epochs):
            batches.shuffle()
            losses.zero_()
            for step in range(batches.steps):
                self._step(weights, losses, batches.at(step))
        back = torch.tensor(order).argsort()
        return Trained(
            {n: _cut(w[back], shape) for (n, shape), w in zip(self._shapes.items(), weights, strict=True)},
            (losses / batches.rows)[back].tolist(),
        )

    @staticmethod
    def _stacked(parameter: Tensor, sites: int) -> Tensor:
        """A parameter once for each site, filled up with zeros."""
        weight = torch.zeros(sites, *map(_padded, parameter.shape))
        _cut(weight, tuple(parameter.shape)).copy_(parameter)
        return weight

    def _step(self, weights: list[Tensor], losses: Tensor, batch: "_Batch") -> None:
        """One step of SGD of the first sites, those that are in the batch, in place."""
        live = len(batch.labels)
        parameters = [weight[:live].detach().requires_grad_() for weight in weights]
        outputs = self._forward(parameters, batch.features)[..., : self._outputs]
        rows = nn.functional.cross_entropy(outputs.flatten(0, 1), batch.labels.flatten(), reduction="none")
        gradients = torch.autograd.grad(rows, parameters, batch.shares.flatten())
        for weight, gradient in zip(weights, gradients, strict=True):
            weight[:live].add_(gradient, alpha=-self._task.learning_rate)
        losses[:live] += (rows.detach().view(live, -1).double() * batch.real).sum(1)

    def _forward(self, parameters: Sequence[Tensor], x: Tensor) -> Tensor:
        """The outputs (sites, rows, classes) of the stacked model."""
        rest = iter(parameters)
        for layer in self._layers:
            if not isinstance(layer, nn.Linear):
                x = x if isinstance(layer, nn.Flatten) else layer(x)
            elif layer.bias is None:
                x = torch.bmm(x, next(rest).transpose(1, 2))
            else:
                weight, bias = next(rest), next(rest)
                x = torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))
        return x


@dataclass(frozen=True, slots=True)
class _Batch:
    """One batch of each site that goes on: ``shares`` are the rows' weights in its mean loss, ``real`` says which rows
    are its own. Of shapes (sites, rows, features) and (sites, rows)."""

    features: Tensor
    labels: Tensor
    shares: Tensor
    real: Tensor


class _Batches:
    """The batches of many sites, of which none has more rows than the one before it."""

    def __init__(self, sites: Sequence[Data], seeds: Sequence[int], size: int) -> None:
        features = torch.cat([s[0].flatten(1) for s in sites])
        # Row 0 is what batches are filled up with: nobody's data, for 0 times one site's NaN would be another's NaN.
        self._features = nn.functional.pad(features, (0, _padded(features.shape[1]) - features.shape[1], 1, 0))
        self._labels = nn.functional.pad(torch.cat([s[1] for s in sites]), (1, 0))
        self._counts, self._batch = [len(s[1]) for s in sites], size
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.rows, self.steps = torch.tensor(self._counts), -(-self._counts[0] // size)
        self._ends = [-count for count in self._counts]  # ascending
        self._column = torch.arange(_padded(size))
        self._places = (self.rows.cumsum(0) - self.rows)[:, None] + self._column  # of a site's first batch in the order
        # One row after the other: a table of sites by rows would be as wide as the largest site. A batch may reach beyond.
        self._order = torch.zeros(len(features) + len(self._column), dtype=torch.int64)

    def shuffle(self) -> None:
        """Draw each site's next order, as ``Task.train`` does."""
        start = 1
        for order, generator in zip(
            torch.split(self._order[: -len(self._column)], self._counts), self._generators, strict=True
        ):
            torch.add(torch.randperm(len(order), generator=generator), start, out=order)
            start += len(order)

    def at(self, step: int) -> _Batch:
        """A step's batch, of the sites that go on."""
        first = step * self._batch
        live = bisect_left(self._ends, -first)
        own = (self.rows[:live, None] - first).clamp(max=self._batch)
        real = self._column < own
        index = self._order[self._places[:live] + first] * real
        return _Batch(self._features[index], self._labels[index], real / own, real)


def _cut(stacked: Tensor, shape: Sequence[int]) -> Tensor:
    """The parameters of this shape that a filled up stack holds: a view."""
    for dimension, size in enumerate(shape, 1):
        stacked = stacked.narrow(dimension, 0, size)
    return stacked


def _is_altered(part: nn.Module | Tensor) -> bool:
    """Whether something is called when this module or parameter is used, beside what its type does."""
    if isinstance(part, Tensor):
        return bool(part._backward_hooks)
    return any(value for name, value in vars(part).items() if name == "forward" or name.endswith("_hooks"))


def _padded(size: int) -> int:
    return -(-size // LINE) * LINE


def _refuse(what: str) -> None:
    raise UsageError("task-stacked", f"A task with stacked = True is trained in a stack, which needs that {what}.",
                     next="remove stacked = True from the task")  # fmt: skip
