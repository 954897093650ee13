# SPDX-License-Identifier: Apache-2.0
"""Local training: from a base model and an order to an update's blob, the same bits in any process.

Runs in processes that hold no key. What a task's own code raises becomes a ``TrainFailure`` or a ``UsageError``.
"""

import math
import os
import random
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from chaincode import schema
from chaincode.models import Tensor, model_digest
from chaincode.update import encode_to, vector_length
from identity import canonical
from identity.errors import Error, UsageError
from participant.ports import TrainFailure, TrainOrder, TrainResult
from participant.task import Data, Task, tensor_specs

Arrays = Mapping[str, NDArray[Any]]
"""A model's tensors by name, C-contiguous; between processes they are read in place."""

IN_MEMORY = 1 << 20  # bytes of a delta whose blob is made in memory
MESSAGE_LIMIT = 500


def prepare_process() -> None:
    """One thread and deterministic algorithms, for every run in this process."""
    torch.set_num_threads(1)
    # The same switch as torch.use_deterministic_algorithms, which imports the compiler: a second and more.
    torch.set_deterministic_debug_mode("error")


def derive_seed(*parts: str | int) -> int:
    """A seed of 63 bits from SHA-256 over the canonical JSON of the parts."""
    return int.from_bytes(sha256(canonical.dumps(list(parts))).digest()[:8], "big") >> 1


def seed_all(seed: int) -> None:
    """Seed torch, numpy's legacy generator and random: what a task may draw from."""
    # torch.manual_seed formats a stack trace per call for a GPU that is not there: as long as a small site's epoch.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def decimals(metrics: Mapping[str, float]) -> dict[str, str]:
    """Metrics as the ledger writes them: the shortest decimals that read back as the same float.

    What is not finite has no such form and is left out. Raises EvidenceError(entry-schema) for a bad name.
    """
    written = {}
    for name, value in metrics.items():
        schema.slug(name, f"metric {str(name)[:80]!r}")
        if math.isfinite(number := float(value)):
            mantissa, _, exponent = repr(number).partition("e")
            written[name] = f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return written


def to_tensors(arrays: Arrays) -> dict[str, Tensor]:
    """The form in which models are digested and stored; nothing is copied."""
    return {n: Tensor(str(a.dtype), a.shape, a.reshape(-1).view(np.uint8).data) for n, a in arrays.items()}


def to_arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    """The reverse; nothing is copied."""
    return {n: np.frombuffer(t.data, t.dtype).reshape(t.shape) for n, t in tensors.items()}


def describe_failure(error: BaseException) -> str:
    """What a task's code raised, in one bounded text, with the last line of code that it passed."""
    place, traceback = "", error.__traceback__
    while traceback is not None:
        place = f" ({Path(traceback.tb_frame.f_code.co_filename).name}, line {traceback.tb_lineno})"
        traceback = traceback.tb_next
    return f"{type(error).__name__}: {str(error)[:MESSAGE_LIMIT]}{place}"


class LocalTrainer:
    """One process's trainer for many sites: carries out orders, evaluates, and trains without a federation.

    ``sites`` are the names of all sites in the order of their numbers, ``seed`` the federation file's, ``kept``
    how many sites' data stays in memory.
    """

    def __init__(self, task: Task, sites: Sequence[str], seed: int, kept: int = 64) -> None:
        """Build the model. Raises UsageError: ``task-model``, ``task-rules``."""
        prepare_process()
        self.task, self._sites, self._seed, self._kept = task, {s: i for i, s in enumerate(sites)}, seed, kept
        self._model = self._build()
        self.specs = tensor_specs(self._model, task.tensor_rules())
        self._data: dict[tuple[str, int], Data] = {}
        self._delta = np.empty(vector_length(self.specs), np.float32)
        held_out = task.evaluation_data()
        self._held_out = held_out if held_out is not None and len(held_out[1]) else None

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

    def carry_out(self, base: Arrays, order: TrainOrder) -> TrainResult | TrainFailure:
        """Train a site from the base model that the order names, and write the update's blob to its outbox.

        Failures: ``no-data``, ``training-failed`` (the task's code raised; its text, bounded), ``update-not-finite``,
        ``outbox`` (the file could not be written), and the codes of ``encode_to``.
        """
        try:
            data = self._site_data(order.site, order.seed)
            if not len(data[1]):
                return _failure(order, "no-data", f"{order.site} has no training data.")
            metrics = self._train(base, data, derive_seed("training", order.seed, order.header.round, order.site))
            self._subtract(base)
        except (Exception, SystemExit) as error:
            return _failure(order, "training-failed", f"{order.site}: {describe_failure(error)}")
        try:
            digest, size = self._write(order)
        except Error as error:
            return _failure(order, error.code, f"{order.site}: {error.message}")
        except OSError as error:
            return _failure(order, "outbox", f"{order.site}: the update cannot be written: {error}")
        return TrainResult(order.site, order.header.member, digest, size, len(data[1]), metrics)

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
                raise ValueError(f"site_data() gives {len(features)} features but {len(labels)} labels")
            data = torch.as_tensor(features), torch.as_tensor(labels)
        self._data[site, seed] = data
        while len(self._data) > self._kept:
            del self._data[next(iter(self._data))]
        return data

    def _train(self, base: Arrays, data: Data, seed: int) -> dict[str, str]:
        self._load(base)
        seed_all(seed)
        return decimals(self.task.train(self._model, data, seed) or {})

    def _load(self, arrays: Arrays) -> None:
        """Copy a model's tensors into the module, in place."""
        for name, tensor in self._model.state_dict().items():
            np.copyto(tensor.numpy(), arrays[name], casting="no")

    def _subtract(self, base: Arrays) -> None:
        """Put what training changed into the delta vector: one binary32 subtraction per element."""
        tensors, position = self._model.state_dict(), 0
        for spec in self.specs:
            if spec.rule == "mean":
                out = self._delta[position : position + spec.elements]
                new = tensors[spec.name].numpy()
                if new.dtype != np.float32 or new.shape != spec.shape:
                    raise ValueError(f"training made {spec.name} {new.dtype} {new.shape}")
                with np.errstate(all="ignore"):  # what is not finite is refused by name when it is encoded
                    np.subtract(new, base[spec.name], out=out.reshape(spec.shape))
                position += spec.elements

    def _write(self, order: TrainOrder) -> tuple[str, int]:
        """Encode the delta into the outbox, under its digest. Only what is whole is answered with, and committed to."""
        outbox = Path(order.outbox)
        outbox.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._delta.nbytes <= IN_MEMORY:  # the name is known before the file: one without renaming
            blob = bytearray()
            digest, size = encode_to(order.header, self._delta, None, self.specs, blob.extend)
            with _create(outbox / digest) as file:
                file.write(blob)
            return digest, size
        unnamed = outbox / f"update-{os.getpid()}"
        with _create(unnamed) as file:
            digest, size = encode_to(order.header, self._delta, None, self.specs, file.write)
        os.replace(unnamed, outbox / digest)
        return digest, size


def _create(path: Path) -> BinaryIO:
    """A new file that only its owner can read."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")


def _failure(order: TrainOrder, code: str, message: str) -> TrainFailure:
    return TrainFailure(order.site, order.header.member, code, message)
