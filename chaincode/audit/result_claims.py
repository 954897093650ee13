# SPDX-License-Identifier: Apache-2.0
"""The claim about results (8): sum, model and optimiser state of each recorded round, computed again to the bit (R4)."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from chaincode import artefacts
from chaincode.agreement import TensorSpec, tensor_specs
from chaincode.audit.facts import Attempt
from chaincode.audit.report import Draft
from chaincode.audit.source import Source
from chaincode.chunks import chunk_root
from chaincode.evidence import VerifiedUpdate
from chaincode.models import Tensor, model_digest, read_safetensors
from chaincode.threads import CORES
from identity.errors import EvidenceError
from identity.wording import counted

Model = Mapping[str, Tensor]

_STATE_BYTES = 64  # per element of the model at most: what is larger is not worth hashing


class Outcome(Protocol):
    """What a round gives: ``chaincode.recompute.Result``."""

    @property
    def sum(self) -> str: ...
    @property
    def model(self) -> Model: ...
    @property
    def model_digest(self) -> str: ...
    @property
    def state(self) -> Any: ...
    @property
    def optimiser(self) -> str: ...


class Engine(Protocol):
    """What needs numpy: ``chaincode.audit.recomputing``, which is loaded only where recomputation is asked for."""

    def check_range(self, body: memoryview, specs: Sequence[TensorSpec], encoding: str) -> None: ...
    def add(self, total: Any, updates: Sequence[VerifiedUpdate], specs: Sequence[TensorSpec], rule: str) -> Any: ...
    def finish(
        self, terms: Mapping[str, Any], base: Model, total: Any, weight: int, state: Any, *,
        recorded: tuple[str, Model] | None,
    ) -> Outcome: ...  # fmt: skip
    def at_once(
        self, terms: Mapping[str, Any], base: Model, updates: Sequence[VerifiedUpdate], weight: int, *,
        recorded: tuple[str, Model],
    ) -> Outcome: ...  # fmt: skip
    def load_state(self, terms: Mapping[str, Any], data: memoryview) -> Any: ...


@dataclass(slots=True)
class Results:
    """The walk over recorded rounds. ``last`` is the latest recomputed outcome, which the next round may start from."""

    draft: Draft
    source: Source
    engine: Engine | None
    attempt: Attempt = field(init=False)
    terms: Mapping[str, Any] = field(init=False)
    total: Any = None
    made: Outcome | None = None
    incomplete: bool = False
    last: Outcome | None = None
    recorded: int = 0
    recomputed: int = 0
    sound: dict[str, bool] = field(default_factory=dict)

    def begin(self, attempt: Attempt, terms: Mapping[str, Any]) -> None:
        """Start on an attempt."""
        self.attempt, self.terms, self.total, self.made, self.incomplete = attempt, terms, None, None, False

    def add(self, updates: Sequence[object], specs: Sequence[TensorSpec], *, are_all: bool) -> bool:
        """Add some of the attempt's included updates to its sum, if all are verified and in range; whether that was done.

        Where they ``are_all`` of them, the sum goes into the attempt's result at once, if that can be had.
        """
        verified = [update for update in updates if isinstance(update, VerifiedUpdate)]
        if len(verified) != len(updates):
            return False
        with suppress(EvidenceError):
            if are_all and self._at_once(verified):
                return True
        with suppress(EvidenceError):
            return self._add(verified, specs)
        return False

    def _at_once(self, updates: Sequence[VerifiedUpdate]) -> bool:
        """Make the attempt's result from all of its updates, if nothing about it is in question; whether that was done.

        Nothing is found here: whatever raises EvidenceError is found by the same steps one by one.
        """
        attempt = self.attempt
        if self.engine is None or attempt.recorded is None or attempt.optimiser or not updates:
            return False
        with ExitStack() as stack:
            base, model = self._verified_model(attempt.base, stack), self._verified_model(attempt.model, stack)
            if base is not None and model is not None:
                recorded = attempt.model, model
                self.made = self.engine.at_once(self.terms, base, updates, attempt.examples, recorded=recorded)
        return self.made is not None

    def sum(self, updates: Sequence[VerifiedUpdate], specs: Sequence[TensorSpec]) -> None:
        """Add updates that are in range. That they have no sum is a finding."""
        try:
            self._add(updates, specs)
        except EvidenceError as error:
            self.incomplete = True
            what = f"The updates of {self.attempt} have no sum: {error.message}"
            self.draft.fail(error.code, str(self.attempt.recorded), what)

    def _add(self, updates: Sequence[VerifiedUpdate], specs: Sequence[TensorSpec]) -> bool:
        if self.engine is None or self.attempt.recorded is None or self.incomplete or not updates:
            return False
        self.total = self.engine.add(self.total, updates, specs, self.terms["aggregation"]["rule"])
        return True

    def check(self) -> None:
        """Judge the attempt's record, after all of its updates."""
        attempt = self.attempt
        if attempt.recorded is None:
            return
        self.recorded += 1
        self.draft.rest(attempt.recorded.index)
        with ExitStack() as stack:
            base, model = self._model(attempt.base, stack), self._model(attempt.model, stack)
            if attempt.state:
                self._state_bytes(attempt.state, stack)
            if self.engine is None:
                return
            try:
                self._recompute(self.engine, base, model, stack)
            except EvidenceError as error:
                what = f"The result of {attempt} cannot be recomputed: {error.message}"
                self.draft.fail(error.code, str(attempt.recorded), what)

    def _recompute(self, engine: Engine, base: Model | None, model: Model | None, stack: ExitStack) -> None:
        attempt = self.attempt
        if self.made is not None:
            self.last = self.made
            self._compare(self.made, model)
            return
        if self.incomplete or self.total is None:
            self.draft.lose(f"every included update of {attempt}: its result is not recomputed")
            return
        if base is None and self.last is not None and self.last.model_digest == attempt.base:
            base = self.last.model
        if base is None:
            self.draft.lose(f"{artefacts.model(attempt.base)}, the base model of {attempt}")
            return
        ready, state = self._state(engine, stack)
        if ready:
            recorded = None if model is None else (attempt.model, model)
            self.last = engine.finish(self.terms, base, self.total, attempt.examples, state, recorded=recorded)
            self._compare(self.last, model)

    def conclude(self) -> None:
        """Say what was counted."""
        self.draft.summary = (
            f"{self.recomputed} of {counted(self.recorded, 'recorded round')} recomputed to the same bits."
        )
        if self.engine is None:
            self.draft.lack("recomputation, which was not asked for")
        if not self.recorded:
            self.draft.lack("a recorded round")

    def _model(self, digest: str, stack: ExitStack) -> Model | None:
        """A model out of the evidence, its digest verified; None where it is not there or not sound."""
        name = artefacts.model(digest)
        try:
            return self._verified_model(digest, stack)
        except EvidenceError as error:
            if name not in self.sound:
                self.draft.fail(error.code, name, error.message)
            self.sound[name] = False
            return None

    def _verified_model(self, digest: str, stack: ExitStack) -> Model | None:
        """As ``_model``, but what is not sound and was not found so before raises EvidenceError."""
        name = artefacts.model(digest)
        data = stack.enter_context(self.source.open(name))
        if data is None or self.sound.get(name) is False:
            return None
        tensors = read_safetensors(data)
        if name not in self.sound:
            found = model_digest(tensors, threads=CORES)
            if found != digest:
                raise EvidenceError("model-digest", f"The file holds a model with the digest {found}.")
            self.sound[name] = True
        return tensors

    def _state_bytes(self, digest: str, stack: ExitStack) -> memoryview | None:
        """An optimiser's state out of the evidence, its digest verified; None where it is not there or not sound."""
        name = artefacts.blob(digest)
        try:
            data = stack.enter_context(self.source.open(name))
            if data is not None and name not in self.sound:
                most = _STATE_BYTES * sum(spec.elements for spec in tensor_specs(self.terms))
                found = (
                    chunk_root(data, threads=CORES)
                    if len(data) <= most
                    else f"of {len(data)} bytes, more than any state of this model"
                )
                self.sound[name] = found == digest
                if found != digest:
                    raise EvidenceError("blob-digest", f"The optimiser's state has the digest {found}.")
        except EvidenceError as error:
            self.draft.fail(error.code, name, error.message)
            return None
        return data if data is not None and self.sound[name] else None

    def _state(self, engine: Engine, stack: ExitStack) -> tuple[bool, Any]:
        """Whether the optimiser's state that the round starts from can be had, and the state (None for a fresh one)."""
        digest = self.attempt.optimiser
        if not digest:
            return True, None
        data = self._state_bytes(digest, stack)
        if data is not None:
            return True, engine.load_state(self.terms, data)
        if self.last is not None and self.last.optimiser == digest:
            return True, self.last.state
        self.draft.lose(f"{artefacts.blob(digest)}, the optimiser's state that {self.attempt} starts from")
        return False, None

    def _compare(self, found: Outcome, model: Model | None) -> None:
        attempt, same = self.attempt, True
        for what, recorded, again in (
            ("sum", attempt.sum, found.sum),
            ("model", attempt.model, found.model_digest),
            ("optimiser-state", attempt.state, found.optimiser),
        ):
            if recorded != again:
                same = False
                where = difference(model, found.model) if what == "model" and model is not None else ""
                why = f"{attempt}: the record says {what} {recorded or 'none'}, the included updates give {again or 'none'}.{where}"
                self.draft.fail("result-differs", str(attempt.recorded), why)
        self.recomputed += same


def difference(recorded: Model, again: Model) -> str:
    """Where two models first differ, in words; empty where they do not."""
    for name in sorted(recorded.keys() | again.keys()):
        one, other = recorded.get(name), again.get(name)
        if one is None or other is None or (one.dtype, one.shape) != (other.dtype, other.shape):
            return f" Tensor {name} is not in both, or has another shape."
        if one.data != other.data:
            size = len(one.data)
            position = next(i for i in range(0, size, 4096) if one.data[i : i + 4096] != other.data[i : i + 4096])
            while one.data[position] == other.data[position]:
                position += 1
            elements = 1
            for dimension in one.shape:
                elements *= dimension
            return f" They differ first in tensor {name}, element {position // (size // elements)}."
    return ""
