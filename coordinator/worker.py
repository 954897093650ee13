# SPDX-License-Identifier: Apache-2.0
"""What a worker process does: describe, train, verify and sum, finish. It holds data and models, never a key (R6).

Knows nothing of how it is reached. Each method's result depends on its arguments only, so a call may be repeated in
another process.
"""

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chaincode.aggregation import add, weighted_sum
from chaincode.agreement import tensor_specs
from chaincode.blobs import BlobStore, chunk_root
from chaincode.evidence import VerifiedUpdate, verify_update
from chaincode.files import mapped
from chaincode.models import model_digest, read_safetensors, write_safetensors
from chaincode.recompute import Result, finish, load_state
from chaincode.update import check_range
from coordinator.jobs import ClusterSettings, TaskInfo
from coordinator.ports import Delivery, FinishOrder, Outcome
from coordinator.processes import available_cores
from identity.errors import Error, EvidenceError
from participant.ports import TrainFailure, TrainOrder, TrainResult
from participant.tasks import load_task
from participant.train import Arrays, LocalTrainer, to_arrays, to_tensors

Answer = TrainResult | TrainFailure
Sums = NDArray[np.int64]

OPEN_FILES = 256
"""So many updates are open at a time: a process may not open as many files as there are sites."""

SLICE_SECONDS = 0.25
"""After this long a worker answers with what it has: progress is seen, and a lost worker takes little with it."""


class Worker:
    """One process's task, model and stores."""

    def __init__(self, settings: ClusterSettings) -> None:
        """Load the task and warm up. Raises UsageError: ``task-*``."""
        self._task = load_task(settings.task)
        self._trainer = LocalTrainer(self._task, settings.sites, settings.seed)
        self._models, self._blobs = Path(settings.models), BlobStore(settings.blobs)
        self._evaluation: str | None = None
        self._loaded: tuple[str, Arrays] = "", {}
        self._trainer.warm_up()

    def hello(self) -> tuple[str, int]:
        """The digest of the task's code as loaded, and the process's id."""
        return self._task.code_digest(), os.getpid()

    def describe(self) -> tuple[TaskInfo, Arrays]:
        """What the agreement says of the task, and the initial model, which is stored. Raises UsageError."""
        arrays = self._trainer.initial()
        info = TaskInfo(
            name=self._task.name, version=self._task.version, code=self._task.code_digest(), specs=self._trainer.specs,
            initial=self._store(arrays), evaluation=self._evaluation_digest(), metrics=self._trainer.evaluate(arrays),
        )  # fmt: skip
        return info, arrays

    def load(self, digest: str) -> Arrays:
        """A model out of the store, its digest verified.

        Raises:
            EvidenceError: ``model-missing``, ``model-digest``, and those of ``read_safetensors``.
        """
        path = self._model_path(digest)
        try:
            with mapped(path) as data:
                tensors = read_safetensors(data)
                if (found := model_digest(tensors)) != digest:
                    raise EvidenceError("model-digest", f"The model in {path} has the digest {found}.")
                return {name: array.copy() for name, array in to_arrays(tensors).items()}
        except FileNotFoundError as error:
            raise EvidenceError("model-missing", f"There is no model {digest} in {self._models}.") from error

    def _base(self, given: Arrays | None, digest: str) -> Arrays:
        """The model that was given, or else the one in the store, which is kept until another is asked for."""
        if given is not None:
            self._loaded = "", {}
            return given
        if self._loaded[0] != digest:
            self._loaded = digest, self.load(digest)
        return self._loaded[1]

    def train(self, base: Arrays | None, orders: Sequence[TrainOrder]) -> list[Answer]:
        """Carry out orders of one round, from the first on; fewer answers than orders where that takes long, at least one.

        ``base`` is None where nobody has it at hand. Raises EvidenceError as ``load``.
        """
        base = self._base(base, orders[0].header.base)
        answers: list[Answer] = []
        until = time.monotonic() + SLICE_SECONDS
        for order in orders:
            answers.append(self._trainer.carry_out(base, order))
            if time.monotonic() >= until:
                break
        return answers

    def train_alone(self, site: str, rounds: int) -> dict[str, str]:
        """A baseline: see ``LocalTrainer.train_alone``. Raises UsageError."""
        return self._trainer.train_alone(site, rounds)

    def sum(self, deliveries: Sequence[Delivery]) -> tuple[dict[str, str], Sums | None]:
        """A verdict per member ("" or an EvidenceError's code), and the weighted sum of those that pass, if any do."""
        verdicts: dict[str, str] = {}
        total: Sums | None = None
        for first in range(0, len(deliveries), OPEN_FILES):
            part = self._sum_some(deliveries[first : first + OPEN_FILES], verdicts)
            if part is not None:
                total = part if total is None else add([total, part])
        return verdicts, total

    def _sum_some(self, deliveries: Sequence[Delivery], verdicts: dict[str, str]) -> Sums | None:
        """The sum of as many deliveries as may be open at a time; adds their verdicts."""
        updates: list[VerifiedUpdate] = []
        with ExitStack() as stack:
            for delivery in deliveries:
                try:
                    data = stack.enter_context(mapped(self._delivered(delivery)))
                    updates.append(verify_update(delivery.commitment, data))
                    verdicts[delivery.commitment.member] = ""
                except EvidenceError as error:
                    # A link or a folder is no bytes: nothing was delivered that could be judged, or kept.
                    verdicts[delivery.commitment.member] = (
                        "update-missing" if error.code == "file-not-regular" else error.code
                    )
                except OSError:
                    verdicts[delivery.commitment.member] = "update-missing"
            return self._sum_in_range(updates, verdicts) if updates else None

    def _delivered(self, delivery: Delivery) -> Path:
        """The delivered file, or the blob that it has become: a sum may be asked for again after it was kept."""
        path = Path(delivery.path)
        return path if path.exists() else self._blobs.path(delivery.commitment.digest)

    def _sum_in_range(self, updates: Sequence[VerifiedUpdate], verdicts: dict[str, str]) -> Sums | None:
        """The sum; one update with a value beyond its clip makes every one be looked at alone."""
        specs = self._trainer.specs
        try:
            return weighted_sum(updates, specs)
        except EvidenceError:
            good = []
            for update in updates:
                try:
                    check_range(update.body, specs, update.commitment.encoding)
                    good.append(update)
                except EvidenceError as error:
                    verdicts[update.commitment.member] = error.code
            if len(good) == len(updates):
                raise
            return weighted_sum(good, specs) if good else None

    def finish(self, order: FinishOrder, base: Arrays | None, *partials: Sums) -> tuple[Outcome, Arrays]:
        """Make, store and evaluate the round's model; ``base`` is None where nobody has it at hand.

        Raises:
            EvidenceError: ``task-changed``, ``sum-empty``, and those of ``load`` and ``recompute.finish``.
            UsageError: ``task-evaluation``.
        """
        base = self._base(base, order.base)
        if tensor_specs(order.agreement) != self._trainer.specs:
            raise EvidenceError("task-changed", "The task's model is no longer the one that the agreement describes.")
        total = add(partials) if len(partials) != 1 else partials[0]
        state, cores = self._optimiser_state(order), available_cores()  # the other workers have nothing to do meanwhile
        result = finish(order.agreement, to_tensors(base), total, order.weight, state, threads=cores)
        arrays = to_arrays(result.model)
        self._store(arrays, result.model_digest)
        self._store_state(result)
        metrics = self._trainer.evaluate(arrays)
        return Outcome(result.sum, result.model_digest, result.optimiser, metrics, self._evaluation_digest()), arrays

    def _optimiser_state(self, order: FinishOrder) -> NDArray[np.float64] | None:
        if not order.optimiser:
            return None
        with self._blobs.open(order.optimiser) as data:
            if chunk_root(data) != order.optimiser:
                raise EvidenceError(
                    "blob-digest", f"The optimiser's state {order.optimiser} has other bytes than recorded."
                )
            return load_state(order.agreement, data)

    def _store_state(self, result: Result) -> None:
        if result.state is not None:
            self._blobs.put(np.ascontiguousarray(result.state, "<f8").reshape(-1).view(np.uint8).data, result.optimiser)

    def _store(self, arrays: Arrays, digest: str = "") -> str:
        """Write a model to the store; its digest."""
        tensors = to_tensors(arrays)
        digest = digest or model_digest(tensors)
        self._models.mkdir(parents=True, exist_ok=True)
        write_safetensors(self._model_path(digest), tensors)
        return digest

    def _model_path(self, digest: str) -> Path:
        return self._models / f"{digest}.safetensors"

    def _evaluation_digest(self) -> str:
        if self._evaluation is None:
            self._evaluation = self._trainer.evaluation_digest()
        return self._evaluation


class Host:
    """Holds a process's worker for whoever reaches it by a method's name; all that it raises is an ``Error``."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def call(self, method: str, *arguments: Any) -> Any:
        """``open`` makes the worker from its settings and says ``hello``; every other name is a method of it.

        Raises:
            Error: the method's own, or ``worker-failed`` with the text of what was raised.
        """
        try:
            if method == "open":
                self._worker = Worker(*arguments)
                return self._worker.hello()
            return getattr(self._worker, method)(*arguments)
        except Error:
            raise
        except Exception as error:
            raise Error("worker-failed", f"{method}: {type(error).__name__}: {str(error)[:500]}") from error
