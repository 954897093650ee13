# SPDX-License-Identifier: Apache-2.0
"""Local training: from a base model and an order to an update's blob, the same bits in any process.

Runs in processes that hold no key. What a task's own code raises becomes a ``TrainFailure`` or a ``UsageError``.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from chaincode.models import model_digest
from chaincode.packs import SMALL
from chaincode.small_updates import encode_blobs
from chaincode.update import blob_size, encode_tensors
from chaincode.vector import vector_length
from identity.errors import Error, UsageError
from identity.wording import counted
from participant.failures import TRAINING_FAILED, describe_failure
from participant.outbox import Outbox
from participant.ports import Answer, TrainFailure, TrainOrder, TrainResult
from participant.process import prepare_process
from participant.seeding import derive_seed, seed_all
from participant.stack import Stack
from participant.task import Data, Task, tensor_specs
from participant.values import Arrays, decimals, to_tensors

Floats = NDArray[np.float32]
Made = tuple[Answer, bytes | bytearray]
"""An answer, and the bytes of a small update that its outbox is still to get."""

COPIES = 4  # of its sites' data that a stack has in memory at most, the sites' own among them


class LocalTrainer:
    """One process's trainer for many sites: carries out orders, evaluates, and trains without a federation.

    ``sites`` are the names of all sites in the order of their numbers, ``seed`` the federation file's, ``kept``
    how many bytes of sites' data stay in memory.
    """

    def __init__(self, task: Task, sites: Sequence[str], seed: int, kept: int = 1 << 28) -> None:
        """Build the model. Raises UsageError: ``task-model``, ``task-rules``, ``task-evaluation``."""
        prepare_process()
        self.task, self._sites, self._seed, self._kept = task, {s: i for i, s in enumerate(sites)}, seed, kept
        self._model = self._build()
        self.specs = tensor_specs(self._model, task.tensor_rules())
        self._stack = Stack(task, self._model) if task.stacked else None
        self._data: dict[tuple[str, int], Data] = {}
        self._held = 0
        self._held_out = self._hold_out()

    def _build(self) -> nn.Module:
        seed_all(derive_seed("initial model", self._seed))
        try:
            model = self.task.build_model()
        except (Exception, SystemExit) as error:
            raise UsageError("task-model", f"build_model() raises {describe_failure(error)}") from error
        if not isinstance(model, nn.Module):
            raise UsageError(
                "task-model", f"build_model() returns a {type(model).__name__}. Example: return nn.Linear(4, 2)"
            )
        return model

    def _hold_out(self) -> Data | None:
        try:
            data = self.task.evaluation_data()
            return data if data is not None and len(data[1]) else None
        except (Exception, SystemExit) as error:
            raise UsageError("task-evaluation", f"evaluation_data() raises {describe_failure(error)}") from error

    def initial(self) -> Arrays:
        """The initial model, the same for every process."""
        return {n: t.numpy().copy(order="C") for n, t in self._build().state_dict().items()}

    def evaluation_digest(self) -> str:
        """The digest of the held-out data as a model of two tensors, features and labels; empty where there is none."""
        if self._held_out is None:
            return ""
        named = zip(("features", "labels"), self._held_out, strict=True)
        return model_digest(to_tensors({n: t.numpy().copy(order="C") for n, t in named}))

    def evaluate(self, arrays: Arrays) -> dict[str, str]:
        """A model's metrics on the held-out data as decimals. Raises UsageError(task-evaluation)."""
        if self._held_out is None:
            return {}
        self._load(arrays)
        try:
            return decimals(self.task.evaluate(self._model, self._held_out))
        except (Exception, SystemExit) as error:
            raise UsageError("task-evaluation", f"evaluate() raises {describe_failure(error)}") from error

    def warm_up(self) -> None:
        """Run the model once forwards and backwards, so that the first order does not pay for what loads lazily.

        Touches no site's data (R1): the held-out features, against labels of zero.
        """
        if self._held_out is None:
            return
        features, labels = (t[: self.task.batch_size] for t in self._held_out)
        try:
            Task.train(self.task, self._model, (features, torch.zeros_like(labels)), 0)
        except Exception:
            return

    def carry_out(self, base: Arrays, orders: Sequence[TrainOrder], seconds: float = math.inf) -> list[Answer]:
        """Train sites from the base model that their orders name, and write the updates' blobs to their outboxes.

        The answers to the first orders, at least one: after ``seconds`` no further training is begun.

        Failures: ``no-data``, ``training-failed`` (the task's code raised; its text, bounded), ``update-not-finite``,
        ``outbox`` (the file could not be written), and the codes of ``encode_tensors``.
        """
        until, made = time.monotonic() + seconds, list[Made]()
        size = self._stack.most if self._stack else 1
        while len(made) < len(orders) and (not made or time.monotonic() < until):
            part = orders[len(made) : len(made) + size]
            made += self._stacked(self._stack, base, part) if self._stack else [self._alone(base, part[0])]
        return self._keep_small(orders, made)

    def _alone(self, base: Arrays, order: TrainOrder) -> Made:
        """Carry out one order with the task's own ``train``."""
        try:
            data = self._site_data(order.site, order.seed)
            if not len(data[1]):
                return _no_data(order), b""
            metrics = self._train(base, data, _training_seed(order))
            new = self._trained()
        except (Exception, SystemExit) as error:
            return _failure(order, TRAINING_FAILED, describe_failure(error)), b""
        return self._encoded(order, new, base, len(data[1]), metrics)

    def _stacked(self, stack: Stack, base: Arrays, orders: Sequence[TrainOrder]) -> list[Made]:
        """Carry out orders in one stack; where that fails, each in a stack of its own, so that one fails alone.

        The first ones only, where the data of all would take too much memory.
        """
        made: dict[str, Made] = {}
        sites: dict[str, Data] = {}
        held = taken = 0
        while taken < len(orders) and held <= self._kept // COPIES:
            order = orders[taken]
            taken += 1
            try:
                sites[order.site] = self._site_data(order.site, order.seed)
                held += sum(tensor.nbytes for tensor in sites[order.site])
            except (Exception, SystemExit) as error:
                made[order.site] = _failure(order, TRAINING_FAILED, describe_failure(error)), b""
        orders = orders[:taken]
        made |= {o.site: (_no_data(o), b"") for o in orders if o.site in sites and not len(sites[o.site][1])}
        some = [order for order in orders if order.site not in made]
        try:
            if some:
                made |= self._train_stack(stack, base, some, [sites[order.site] for order in some])
        except (Exception, SystemExit) as error:
            if len(some) > 1:
                return [one for order in orders for one in self._stacked(stack, base, [order])]
            made[some[0].site] = _failure(some[0], TRAINING_FAILED, describe_failure(error)), b""
        return [made[order.site] for order in orders]

    def _train_stack(
        self, stack: Stack, base: Arrays, orders: Sequence[TrainOrder], data: Sequence[Data]
    ) -> dict[str, Made]:
        self._load(base)
        start = {name: parameter.detach() for name, parameter in self._model.named_parameters()}
        trained = stack.train(start, data, [_training_seed(order) for order in orders])
        deltas = np.empty((len(orders), vector_length(self.specs)), np.float32)
        position = 0
        for spec in self.specs:
            if spec.rule == "mean":
                new, out = trained.parameters[spec.name].numpy(), deltas[:, position : position + spec.elements]
                with np.errstate(all="ignore"):  # what is not finite is refused by name
                    np.subtract(new.reshape(len(orders), -1), base[spec.name].reshape(-1), out=out)
                position += spec.elements
        blobs = encode_blobs([order.header for order in orders], deltas, self.specs)
        made = dict[str, Made]()
        for i, (order, (_, labels), loss, blob) in enumerate(zip(orders, data, trained.losses, blobs, strict=True)):
            metrics = decimals({"loss": loss})
            if blob is None or len(blob[1]) > SMALL:
                own = {name: parameter[i].numpy() for name, parameter in trained.parameters.items()}
                made[order.site] = self._encoded(order, own, base, len(labels), metrics)
            else:
                made[order.site] = _result(order, blob[0], len(blob[1]), len(labels), metrics), blob[1]
        return made

    def train_alone(self, site: str, rounds: int) -> dict[str, str]:
        """The metrics of a site that trains on its own data only, from the initial model, as often as the others.

        ``site`` "" pools the data of all. Raises UsageError: ``task-training``, ``task-evaluation``.
        """
        try:
            if site:
                data = self._site_data(site, self._seed)
            else:
                parts = [self._site_data(name, self._seed) for name in self._sites]
                features, labels = zip(*(part for part in parts if len(part[1])), strict=True)
                data = torch.cat(features), torch.cat(labels)
            arrays = self.initial()
            for number in range(1, rounds + 1) if len(data[1]) else ():
                self._train(arrays, data, derive_seed("training", self._seed, number, site))
                arrays = {n: t.numpy().copy() for n, t in self._model.state_dict().items()}
        except (Exception, SystemExit) as error:
            raise UsageError("task-training", f"{site or 'All data'}: {describe_failure(error)}") from error
        return self.evaluate(arrays)

    def _site_data(self, site: str, seed: int) -> Data:
        """The site's tensors, from memory where they have been asked for before."""
        data = self._data.pop((site, seed), None)
        if data is None:
            features, labels = self.task.site_data(self._sites[site], len(self._sites), seed)
            if len(features) != len(labels):
                raise ValueError(
                    f"site_data() gives {counted(len(features), 'feature')} but {counted(len(labels), 'label')}"
                )
            data = torch.as_tensor(features), torch.as_tensor(labels)
            self._held += sum(tensor.nbytes for tensor in data)
        self._data[site, seed] = data
        while self._held > self._kept and len(self._data) > 1:
            self._held -= sum(tensor.nbytes for tensor in self._data.pop(next(iter(self._data))))
        return data

    def _train(self, base: Arrays, data: Data, seed: int) -> dict[str, str]:
        self._load(base)
        seed_all(seed)
        return decimals(self.task.train(self._model, data, seed) or {})

    def _load(self, arrays: Arrays) -> None:
        """Copy a model's tensors into the module, in place."""
        for name, tensor in self._model.state_dict().items():
            np.copyto(tensor.numpy(), arrays[name], casting="no")

    def _trained(self) -> Arrays:
        """The trained model's tensors that an update is made of, where they lie."""
        new = {n: t.numpy() for n, t in self._model.state_dict().items()}
        for spec in self.specs:
            if spec.rule == "mean" and (new[spec.name].dtype != np.float32 or new[spec.name].shape != spec.shape):
                raise ValueError(f"training made {spec.name} {new[spec.name].dtype} {new[spec.name].shape}")
        return new

    def _encoded(self, order: TrainOrder, new: Arrays, base: Arrays, examples: int, metrics: Mapping[str, str]) -> Made:
        """A site's answer and its update's blob; a large one is in the outbox already, and not in the answer."""
        names = [spec.name for spec in self.specs if spec.rule == "mean"]
        tensors = [np.ascontiguousarray(new[n]) for n in names], [np.ascontiguousarray(base[n]) for n in names]
        try:
            if (size := blob_size(order.header, self.specs)) <= SMALL:
                blob = bytearray()
                digest, size = encode_tensors(order.header, *tensors, self.specs, blob.extend)
                return _result(order, digest, size, examples, metrics), blob
            with Outbox(Path(order.outbox)).write_large(size) as (file, name):
                digest, size = encode_tensors(order.header, *tensors, self.specs, file.write)
                name.append(digest)
            return _result(order, digest, size, examples, metrics), b""
        except Error as error:
            return _failure(order, error.code, error.message), b""
        except OSError as error:
            return _failure(order, "outbox", f"the update cannot be written: {error}"), b""

    def _keep_small(self, orders: Sequence[TrainOrder], made: Sequence[Made]) -> list[Answer]:
        """Write the small blobs to their outboxes: only what is whole is answered with, and committed to."""
        answers = [answer for answer, _ in made]
        boxes: dict[str, list[int]] = {}
        for number, (_, blob) in enumerate(made):
            if blob:
                boxes.setdefault(orders[number].outbox, []).append(number)
        for folder, numbers in boxes.items():
            blobs = [(a.digest, made[i][1]) for i in numbers if isinstance(a := answers[i], TrainResult)]
            try:
                Outbox(Path(folder)).write_small(blobs)
            except OSError as error:
                for i in numbers:
                    answers[i] = _failure(orders[i], "outbox", f"the update cannot be written: {error}")
        return answers


def _training_seed(order: TrainOrder) -> int:
    return derive_seed("training", order.seed, order.header.round, order.site)


def _result(order: TrainOrder, digest: str, size: int, examples: int, metrics: Mapping[str, str]) -> TrainResult:
    return TrainResult(order.site, order.header.member, digest, size, examples, metrics)


def _no_data(order: TrainOrder) -> TrainFailure:
    return TrainFailure(order.site, order.header.member, "no-data", f"{order.site} has no training data.")


def _failure(order: TrainOrder, code: str, message: str) -> TrainFailure:
    return TrainFailure(order.site, order.header.member, code, f"{order.site}: {message}")
