# SPDX-License-Identifier: Apache-2.0
"""A task: what is trained, on which data, and how it is evaluated. Subclass ``Task`` to write your own."""

import hashlib
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from chaincode.agreement import TensorSpec
from identity.errors import UsageError
from participant.failures import SOURCE

Data = tuple[Tensor, Tensor]
"""(features, labels): one row each per example, in the same order."""

PARAMETER_SCALE = (4, 24)
"""clip_exponent and fraction_bits of a parameter: updates within 16, in steps of 6e-8."""
BUFFER_SCALE = (10, 20)
"""The same for running statistics, whose scale is the data's: within 1024, in steps of 1e-6."""

EVALUATION_ROWS = 1024  # at a time: bounds the memory, and is part of the result's bits
_RULES = ("mean", "keep")
_INTEGERS = {"clip_exponent": (-30, 30), "fraction_bits": (0, 60)}


class Task:
    """A model, the sites' data, and how both meet. ``build_model`` and ``site_data`` are needed; the rest has defaults.

    One instance lives in each worker process and serves many sites in turn. Everything it returns must depend on
    its arguments only: a worker may be replaced at any moment, and another number of workers must give the same
    bits. The model is loaded anew for each site, its parameters and saved buffers that is: keep no other state
    in it. torch, numpy and random are seeded before each ``train``; random numbers drawn there are reproducible.
    """

    name: ClassVar[str] = ""
    """1 to 64 characters out of a-z 0-9 . _ -"""
    version: ClassVar[str] = "1"
    stacked: ClassVar[bool] = False
    """Train many sites at once (``participant.stack``): many times faster where sites are small. For models that are
    an ``nn.Sequential`` of linear layers and ReLUs, with the default ``train`` and ``loss``."""

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.1

    def build_model(self) -> nn.Module:
        """A new model with its initial weights, which are drawn from torch's seeded generator.

        Floating parameters and buffers must be float32, other buffers int64.
        """
        raise NotImplementedError(f"{type(self).__name__} must define build_model(self)")

    def site_data(self, site: int, sites: int, seed: int) -> Data:
        """The training data of site number ``site`` (0 to ``sites`` - 1); no rows where it has none."""
        raise NotImplementedError(f"{type(self).__name__} must define site_data(self, site, sites, seed)")

    def evaluation_data(self) -> Data | None:
        """Held-out data that no site trains on; None where there is none."""
        return None

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss that the default ``train`` and ``evaluate`` use: cross-entropy."""
        return nn.functional.cross_entropy(outputs, labels)

    def train(self, model: nn.Module, data: Data, seed: int) -> Mapping[str, float] | None:
        """Train ``model`` in place on one site's data; may return metrics of the training.

        The default is SGD over ``epochs`` in a seeded order: bit for bit what torch.optim.SGD computes, without
        the second that importing torch.optim takes.
        """
        features, labels = data
        parameters = [p for p in model.parameters() if p.requires_grad]
        shuffle = torch.Generator().manual_seed(seed)
        losses: list[tuple[Tensor, int]] = []
        model.train()
        for _ in range(self.epochs):
            losses.clear()
            for batch in torch.split(torch.randperm(len(labels), generator=shuffle), self.batch_size):
                loss = self.loss(model(features[batch]), labels[batch])
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                with torch.no_grad():
                    for parameter, gradient in zip(parameters, gradients, strict=True):
                        if gradient is not None:
                            parameter.add_(gradient, alpha=-self.learning_rate)
                losses.append((loss.detach(), len(batch)))
        return {"loss": sum(loss.item() * rows for loss, rows in losses) / len(labels)} if losses else None

    def evaluate(self, model: nn.Module, data: Data) -> Mapping[str, float]:
        """The model's metrics on held-out data; the default gives ``loss`` and ``accuracy`` of a classifier."""
        features, labels = data
        total, correct = 0.0, 0
        model.eval()
        with torch.inference_mode():
            pieces = torch.split(features, EVALUATION_ROWS), torch.split(labels, EVALUATION_ROWS)
            for rows, truth in zip(*pieces, strict=True):
                outputs = model(rows)
                total += self.loss(outputs, truth).item() * len(truth)
                correct += int((outputs.argmax(dim=1) == truth).sum())
        return {"accuracy": correct / len(labels), "loss": total / len(labels)}

    def tensor_rules(self) -> Mapping[str, Mapping[str, Any]]:
        """Overrides by the tensor's name in ``state_dict``: ``rule`` ("mean" or "keep"), ``clip_exponent``,
        ``fraction_bits``, each as the agreement's tensors have them. For example
        ``{"head.weight": {"clip_exponent": 6, "fraction_bits": 22}}``.
        """
        return {}

    @classmethod
    def code_digest(cls) -> str:
        """The SHA-256 of the source of the module that defines the task, 64 hex digits.

        Canonical: the file's bytes without a UTF-8 byte order mark, every line end (CR LF, CR) as LF. It covers
        that file alone, so write a task in one file.
        """
        source = getattr(sys.modules[cls.__module__], SOURCE, None)  # what was loaded, if the file changed since
        if source is None:
            source = Path(inspect.getfile(cls)).read_bytes()
        canonical = source.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return hashlib.sha256(canonical).hexdigest()


def tensor_specs(model: nn.Module, rules: Mapping[str, Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    """The agreement's tensors for a model, in the order of its ``state_dict``.

    Raises:
        UsageError: ``task-model`` for a type that an agreement has no place for, ``task-rules`` for an override
            that names no tensor or states something impossible.
    """
    tensors, parameters = model.state_dict(), dict(model.named_parameters(remove_duplicate=False))
    if unknown := sorted(rules.keys() - tensors.keys()):
        raise UsageError("task-rules", f"tensor_rules() names {unknown[0]}, but the model has {', '.join(tensors)}.")
    specs = []
    for name, tensor in tensors.items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in ("float32", "int64"):
            message = f"The model's tensor {name} is {dtype}. Allowed: float32 and, for buffers, int64."
            raise UsageError("task-model", f"{message} Example: model.float()")
        clip, fraction = PARAMETER_SCALE if name in parameters else BUFFER_SCALE
        if dtype != "float32":
            clip, fraction = 0, 0
        stated = {"rule": "mean" if dtype == "float32" else "keep", "clip_exponent": clip, "fraction_bits": fraction}
        own = _checked_rule(name, dtype, rules.get(name, {}))
        specs.append(TensorSpec(name=name, shape=tuple(tensor.shape), dtype=dtype, **{**stated, **own}))
    return tuple(specs)


def _checked_rule(name: str, dtype: str, rule: Mapping[str, Any]) -> Mapping[str, Any]:
    wrong = [
        why
        for why, bad in (
            ("has a field other than rule, clip_exponent and fraction_bits", rule.keys() - {"rule", *_INTEGERS}),
            (f"rule must be one of {', '.join(_RULES)}", rule.get("rule", "keep") not in _RULES),
            ("only a float32 tensor can have the rule mean", rule.get("rule") == "mean" and dtype != "float32"),
            *(
                (f"{field} must be an integer from {low} to {high}", not (type(v) is int and low <= v <= high))
                for field, (low, high) in _INTEGERS.items()
                for v in [rule.get(field, 0)]
            ),
        )
        if bad
    ]
    if wrong:
        example = '{"head.weight": {"clip_exponent": 6, "fraction_bits": 22}}'
        raise UsageError("task-rules", f"tensor_rules() for {name}: {wrong[0]}. Example: {example}")
    return rule
