# SPDX-License-Identifier: Apache-2.0
"""The sites of a simulation: many agents in one process, each with a key of its own, one cluster that trains for all."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from chaincode.author import Clock, demand, read_all, sign_all, submit
from chaincode.ledgers import Ledger
from chaincode.place import Place
from chaincode.state import Attestation, Result, attest_key, result_key
from coordinator.ports import SignedAnswer
from identity.envelope import Unsigned
from identity.errors import CredentialError, Rejected, UsageError
from participant.agent import RoundView, read_round
from participant.failures import TRAINING_FAILED
from participant.outbox import Outbox
from participant.ports import Trainer, TrainFailure, TrainOrder, TrainResult


class SiteAgent(Protocol):
    """What a simulation asks of a site in a round: an ``Agent``, or one with a fault around it."""

    @property
    def site(self) -> str: ...
    def order(self, view: RoundView) -> TrainOrder | None: ...
    def answer(self, view: RoundView, result: TrainResult | TrainFailure) -> Unsigned | None: ...
    def decline(self, view: RoundView, reason: str) -> bytes: ...
    def attest(self, round_: int, result: Result, sum_: str, model: str) -> bytes: ...
    def deliver(self, view: RoundView) -> Place | None: ...


class SimulatedSites:
    """The ``Sites`` of a simulation, by member, which share an outbox. ``recompute`` gives a recorded round's digests
    of sum and model anew."""

    def __init__(
        self, agents: Mapping[str, SiteAgent], ledger: Ledger, trainer: Trainer, *, outbox: Outbox,
        recompute: Callable[[str, int], tuple[str, str]], clock: Clock,
    ) -> None:  # fmt: skip
        self._agents, self._ledger, self._trainer, self._clock = agents, ledger, trainer, clock
        self._recompute, self._outbox = recompute, outbox

    def train(self, agreement: str, until: int) -> Iterator[Sequence[SignedAnswer]]:
        """Order training from every agent with an open seat; yields what the sites of each worker sign, as it comes. What
        is not trained when the commitments close is a failure of its site.

        Raises:
            UsageError: ``training-failed``: the task's code failed at every site of the round, and every site has said so. It
                would fail again, since another attempt trains the same updates.
        """
        view = read_round(self._ledger, agreement, list(self._agents), acting=True)
        orders: list[TrainOrder] = []
        refused: list[SignedAnswer] = []
        for member, agent in self._agents.items():
            seat = view.seats.get(member)
            if seat is None or seat.state != "open":
                continue
            try:
                order = agent.order(view)
            except (Rejected, CredentialError) as why:
                facts = {"site": agent.site, "code": why.code, "message": why.message}
                refused.append(SignedAnswer(member, "declined", "site-refuses", facts, agent.decline(view, "policy")))
                continue
            if order is not None:
                orders.append(order)
        if refused:
            yield refused
        failed: list[TrainFailure] = []
        for results in self._trainer.train(orders, seconds=max(0, until - self._clock())):
            failed += [
                result for result in results if isinstance(result, TrainFailure) and result.code == TRAINING_FAILED
            ]
            written = [(result, self._agents[result.member].answer(view, result)) for result in results]
            spoken = [(result, entry) for result, entry in written if entry is not None]  # a silent site signs nothing
            if spoken:
                envelopes = sign_all([entry for _, entry in spoken])
                yield [_answer(result, data) for (result, _), data in zip(spoken, envelopes, strict=True)]
        if failed and len(failed) == sum(seat is not None for seat in view.seats.values()):
            raise UsageError(TRAINING_FAILED, _all_failed(view, failed[0]))

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


def _all_failed(view: RoundView, first: TrainFailure) -> str:
    """That a task fails, with the error of the first site, and what can be done about it."""
    head, attempts = view.head, view.terms.attempts
    again = (
        f"the same command makes attempt {head.attempt + 1} of {attempts}"
        if head.attempt < attempts
        else "no attempt is left"
    )
    return (
        f"Round {head.round} attempt {head.attempt}: the task failed at every site. {first.message}\n"
        "The agreement is of the task's file as it is: mend the file, and begin a new run.\n"
        f"Where the file is not to blame, mend what is, and {again}."
    )


def _answer(result: TrainResult | TrainFailure, envelope: bytes) -> SignedAnswer:
    """What a site has signed about its training."""
    facts: dict[str, Any] = {"site": result.site}
    if isinstance(result, TrainFailure):
        facts |= {"code": result.code, "message": result.message}
        return SignedAnswer(result.member, "declined", "site-failed", facts, envelope)
    facts |= {"examples": result.examples, "metrics": result.metrics}
    return SignedAnswer(result.member, "committed", "site-committed", facts, envelope)
