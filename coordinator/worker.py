# SPDX-License-Identifier: Apache-2.0
"""What a worker process does: describe, train, verify and sum, finish. It holds data and models, never a key (R6).

Knows nothing of how it is reached. Each method's result depends on its arguments only, so a call may be repeated in
another process.
"""

import os
import re
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chaincode.aggregation import add, own_state, step_model
from chaincode.agreement import TensorSpec, tensor_specs
from chaincode.blobs import BlobStore
from chaincode.chunks import chunk_root, root_of
from chaincode.crew import own_crew
from chaincode.evidence import ShardEvidence
from chaincode.files import mapped, sync
from chaincode.model_vector import to_model, to_vector
from chaincode.models import model_digest, read_safetensors, write_safetensors
from chaincode.optimisers import parse_optimiser
from chaincode.packs import remove_unfinished
from chaincode.process import collect_rarely
from chaincode.recompute import Result, finish, load_state
from chaincode.threads import CORES
from chaincode.vector import vector_length
from chaincode.writeback import forget
from coordinator.jobs import ClusterSettings, TaskInfo
from coordinator.ports import Delivery, FinishOrder, Outcome
from coordinator.summing import Cut, Hashes, Summing, Sums
from identity.errors import EvidenceError
from participant.ports import Answer, TrainOrder
from participant.tasks import load_task
from participant.train import LocalTrainer
from participant.values import Arrays, to_arrays, to_tensors

Floats = NDArray[np.float32]

_UNNAMED = re.compile(r"\.[0-9a-f]{16}\.unnamed")
"""What a model's file is called until its digest is known."""
SLICE_SECONDS = 0.25
"""After this long a worker answers with what it has: progress is seen, and a lost worker takes little with it."""


class Worker:
    """One process's task, model and stores."""

    def __init__(self, settings: ClusterSettings) -> None:
        """Load the task and warm up. Raises UsageError: ``task-*``."""
        collect_rarely()
        self._task = load_task(settings.task)
        self._trainer = LocalTrainer(self._task, settings.sites, settings.seed)
        self._models, self._blobs = Path(settings.models), BlobStore(settings.blobs)
        if self._models.is_dir():
            remove_unfinished(self._models, _UNNAMED)
        self._summing = Summing(self._trainer.specs, BlobStore(settings.blobs))
        self._beside = ThreadPoolExecutor(1)  # starting a thread for each round takes three times as long as using one
        self._hashing = ThreadPoolExecutor(1)
        self._evaluation: str | None = None
        self._loaded: tuple[str, Arrays] = "", {}
        self._vector = np.empty(0, np.float32)  # the assembled model's; new memory would cost more than filling it
        self._trainer.warm_up()

    def hello(self) -> str:
        """The digest of the task's code as loaded."""
        return self._task.code_digest()

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
        """The model that was given, or else the one that the last call left here, or the store's, which is then kept here."""
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
        return self._trainer.carry_out(self._base(base, orders[0].header.base), orders, SLICE_SECONDS)

    def train_alone(self, site: str, rounds: int) -> dict[str, str]:
        """A baseline: see ``LocalTrainer.train_alone``. Raises UsageError."""
        return self._trainer.train_alone(site, rounds)

    def sum(self, deliveries: Sequence[Delivery]) -> tuple[dict[str, str], Sums | None]:
        """See ``Summing.sum``."""
        return self._summing.sum(deliveries)

    def aggregate(self, deliveries: Sequence[Delivery], order: FinishOrder) -> tuple[dict[str, str], Outcome | None]:
        """``sum``, and where every delivery passes, ``finish`` of it: the verdicts, and the outcome or None. Raises as both.

        The model stays here for the next round.
        """
        with self._summing.summed(deliveries, own_crew()) as (verdicts, total):
            if total is None or any(verdicts.values()):
                return verdicts, None
            outcome, arrays = self.finish(order, None, total)
        self._loaded = outcome.model, arrays
        return verdicts, outcome

    def sum_shard(self, deliveries: Sequence[Delivery], cut: Cut) -> list[ShardEvidence]:
        """See ``Summing.sum_shard``; the disk is put to work meanwhile."""
        self._beside.submit(self._summing.start_writing_back, deliveries, cut)
        return self._summing.sum_shard(deliveries, cut)

    def finish_shard(
        self, order: FinishOrder, base: Arrays | None, deliveries: Sequence[Delivery], cut: Cut, hashes: Hashes
    ) -> tuple[tuple[bytes, ...], Sums | Floats]:
        """A shard of the sum that has been confirmed: the leaf hashes of its chunks, and what ``assemble`` needs of it,
        which is the shard of the new model, or of the sum where the optimiser has a state.

        Raises EvidenceError: ``load`` and ``Summing.confirm``, ``model-not-finite``.
        """
        sums, leaves = self._summing.confirm(deliveries, cut, hashes)
        terms = order.agreement["aggregation"]
        optimiser = parse_optimiser(terms["optimiser"], terms["parameters"])
        if optimiser.rows:
            self._beside.submit(self._forget, order, deliveries, cut)
            return leaves, sums
        specs, state = self._specs(order), own_state(optimiser, None, len(sums))
        vector = to_vector(to_tensors(self._base(base, order.base)), specs, *cut)
        step_model(vector, sums, order.weight, specs, optimiser=optimiser, state=state, start=cut[0])
        self._beside.submit(self._forget, order, deliveries, cut)
        return leaves, vector

    def _forget(self, order: FinishOrder, deliveries: Sequence[Delivery], cut: Cut) -> None:
        """Let go of the pages of what the next model follows from: it, and the next updates, are written into them."""
        self._summing.forget(deliveries, cut)
        forget(self._model_path(order.base))

    def assemble(
        self, order: FinishOrder, base: Arrays | None, leaves: Sequence[bytes], *parts: Sums | Floats
    ) -> tuple[Outcome, Arrays]:
        """The round's model out of ``finish_shard``'s, in the order of the cuts. Raises as ``finish``."""
        if parts[0].dtype == np.int64:
            return self.finish(order, base, np.concatenate(parts))
        base, specs = self._base(base, order.base), self._specs(order)
        if len(self._vector) != vector_length(specs):
            self._vector = np.empty(vector_length(specs), np.float32)
        model = to_model(np.concatenate(parts, out=self._vector), to_tensors(base), specs)
        arrays, unnamed = to_arrays(model), self._models / f".{secrets.token_hex(8)}.unnamed"
        self._models.mkdir(parents=True, exist_ok=True)
        # A large model takes as long to write as to hash, or to evaluate: its name, which is its digest, follows.
        written = self._beside.submit(write_safetensors, unnamed, model)
        hashed = self._hashing.submit(model_digest, model, threads=max(1, CORES - 1))
        try:
            metrics = self._trainer.evaluate(arrays)
            digest = hashed.result()
            written.result()
            os.replace(unnamed, self._model_path(digest))
            sync(self._models)
        finally:
            wait([written])
            wait([hashed])
            unnamed.unlink(missing_ok=True)
        return Outcome(root_of(leaves), digest, "", metrics, self._evaluation_digest()), arrays

    def finish(self, order: FinishOrder, base: Arrays | None, *partials: Sums) -> tuple[Outcome, Arrays]:
        """Make, store and evaluate the round's model; ``base`` is None where nobody has it at hand.

        Raises:
            EvidenceError: ``task-changed``, ``sum-empty``, and those of ``load`` and ``recompute.finish``.
            UsageError: ``task-evaluation``.
        """
        base = self._base(base, order.base)
        self._specs(order)
        total = add(partials) if len(partials) != 1 else partials[0]
        state, cores = self._optimiser_state(order), CORES  # the other workers have nothing to do meanwhile
        result = finish(order.agreement, to_tensors(base), total, order.weight, state, threads=cores)
        return self._conclude(result)

    def _conclude(self, result: Result) -> tuple[Outcome, Arrays]:
        """Store a round's result, and evaluate it while the disk is waited for."""
        arrays = to_arrays(result.model)
        stored = self._beside.submit(self._store, arrays, result.model_digest)
        try:
            metrics = self._trainer.evaluate(arrays)
            self._store_state(result)
        finally:
            wait([stored])
        stored.result()
        return Outcome(result.sum, result.model_digest, result.optimiser, metrics, self._evaluation_digest()), arrays

    def _specs(self, order: FinishOrder) -> tuple[TensorSpec, ...]:
        """The model's tensors, which are the agreement's. Raises EvidenceError(task-changed)."""
        if tensor_specs(order.agreement) != self._trainer.specs:
            raise EvidenceError("task-changed", "The task's model is no longer the one that the agreement describes.")
        return self._trainer.specs

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
