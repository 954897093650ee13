# SPDX-License-Identifier: Apache-2.0
"""The sites of a simulation: many agents in one process, each with a key of its own, one cluster that trains for all."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from chaincode.author import Clock, demand, read_all, submit
from chaincode.ledgers import Ledger
from chaincode.place import Place
from chaincode.state import Attestation, Result, attest_key, result_key
from coordinator.steps import Event
from identity.errors import CredentialError, Rejected
from participant.agent import RoundView, read_round
from participant.outbox import Outbox
from participant.ports import Trainer, TrainFailure, TrainOrder, TrainResult

Answer = tuple[str, dict[str, Any], bytes | None]
"""What happened at a site, its facts for whoever watches, and the entry that the site signed, if it did."""


class SiteAgent(Protocol):
    """What a simulation asks of a site in a round: an ``Agent``, or one with a fault around it."""

    @property
    def site(self) -> str: ...
    def order(self, view: RoundView) -> TrainOrder | None: ...
    def answer(self, view: RoundView, result: TrainResult | TrainFailure) -> bytes | None: ...
    def decline(self, view: RoundView, reason: str) -> bytes: ...
    def attest(self, round_: int, result: Result, sum_: str, model: str) -> bytes: ...
    def deliver(self, view: RoundView) -> Place | None: ...


class SimulatedSites:
    """The ``Sites`` of a simulation, by member, which share an outbox. ``recompute`` gives a recorded round's digests
    of sum and model anew."""

    def __init__(
        self, agents: Mapping[str, SiteAgent], ledger: Ledger, trainer: Trainer, *, outbox: Outbox,
        recompute: Callable[[str, int], tuple[str, str]], watch: Callable[[Event], None], clock: Clock,
    ) -> None:  # fmt: skip
        self._agents, self._ledger, self._trainer, self._clock = agents, ledger, trainer, clock
        self._recompute, self._watch, self._outbox = recompute, watch, outbox

    def train(self, agreement: str, until: int) -> None:
        """Order training from every agent with an open seat, and submit each worker's commitments as they come. What
        is not trained when the commitments close is a failure of its site."""
        view = read_round(self._ledger, agreement, list(self._agents), acting=True)
        orders: list[TrainOrder] = []
        refused: list[Answer] = []
        for member, agent in self._agents.items():
            seat = view.seats.get(member)
            if seat is None or seat.state != "open":
                continue
            try:
                order = agent.order(view)
            except (Rejected, CredentialError) as why:
                facts = {"site": agent.site, "code": why.code, "message": why.message}
                refused.append(("site-refuses", facts, agent.decline(view, "policy")))
                continue
            if order is not None:
                orders.append(order)
        self._submit(view, refused)
        for results in self._trainer.train(orders, seconds=max(0, until - self._clock())):
            self._submit(view, [self._answer(view, result) for result in results])

    def deliver(self, agreement: str, members: Sequence[str]) -> Mapping[str, Place]:
        """What each of the members delivers of the sealed round."""
        view = read_round(self._ledger, agreement, list(members), acting=True)
        places = {m: self._agents[m].deliver(view) for m in members if m in self._agents}
        return {m: place for m, place in places.items() if place is not None}

    def attest(self, agreement: str, round_: int, needed: int) -> Sequence[str]:
        """Attestations that are there, and as many more as are needed; each site recomputes once more."""
        keys = {m: attest_key(agreement, round_, m) for m in self._agents}
        verdicts = read_all(self._ledger, Attestation, keys)
        agreeing = [m for m, verdict in verdicts.items() if verdict is not None and verdict.verdict == "agrees"]
        result = demand(self._ledger, Result, result_key(agreement, round_))
        for member in [m for m, verdict in verdicts.items() if verdict is None][: max(0, needed - len(agreeing))]:
            sum_, model = self._recompute(agreement, round_)
            submit(self._ledger, self._agents[member].attest(round_, result, sum_, model))
            if (sum_, model) == (result.sum, result.model):
                agreeing.append(member)
        return sorted(agreeing)

    def settled(self, agreement: str) -> None:
        """Clear the outbox."""
        self._outbox.clean()

    def _answer(self, view: RoundView, result: TrainResult | TrainFailure) -> Answer:
        envelope = self._agents[result.member].answer(view, result)
        if isinstance(result, TrainFailure):
            return "site-failed", {"site": result.site, "code": result.code, "message": result.message}, envelope
        return "site-committed", {"site": result.site, "examples": result.examples, "metrics": result.metrics}, envelope

    def _submit(self, view: RoundView, answers: Sequence[Answer]) -> None:
        """Submit what the sites have signed, in one batch; a silent site has signed nothing."""
        spoken = [(kind, facts, envelope) for kind, facts, envelope in answers if envelope is not None]
        if not spoken:
            return
        outcomes = self._ledger.submit([envelope for _, _, envelope in spoken])
        for (kind, facts, _), outcome in zip(spoken, outcomes, strict=True):
            told, what = kind, facts
            if isinstance(outcome, Rejected):
                told, what = "site-rejected", {"site": facts["site"], "code": outcome.code, "message": outcome.message}
            self._watch(Event(told, view.head.round, view.head.attempt, what))
