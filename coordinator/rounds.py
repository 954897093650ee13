# SPDX-License-Identifier: Apache-2.0
"""One round, from the opening to the record.

``next_step`` is pure: what the ledger says, what this process has gathered, and the time give the next step. ``Driver``
carries steps out until the agreement's rounds are recorded. All progress is on the ledger: a coordinator that
is killed at any instant and started again reads it and goes on (ops/decisions/0004).

    open ---------> sites train and commit ---> seal ---> sites deliver ---> verify and sum ---> record
     ^  (R1: on the ledger before the act)   (R2: digests before bytes)                            |
     +---------------------------------------------------------------------------------------------+

What follows at once from what is being submitted goes with it, in one batch: the seal behind the last commitments, the next
opening behind a record. Where the ledger refuses the one in front, it refuses that too, and the driver decides anew.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from chaincode.author import Author
from chaincode.blobs import BlobStore
from chaincode.ledgers import Ledger
from chaincode.rules.common import absence
from chaincode.state import Seat
from chaincode.writeback import forget
from coordinator.ports import UNKNOWN_BYTES, Aggregator, Delivery, FinishOrder, Outcome, Sites
from coordinator.steps import (
    Abort,
    Clock,
    Collect,
    Draft,
    Event,
    Finished,
    Gathered,
    Open,
    Reasons,
    Record,
    Seal,
    Step,
    Stuck,
    Train,
    Wait,
)  # fmt: skip
from coordinator.submitting import Submitter
from identity.errors import EvidenceError, Rejected, Unavailable
from identity.wording import counted
from participant.agent import RoundView, read_round

STALE = frozenset({"at-precedes-head", "not-in-standing", "reason-unfounded", "seal-too-early"})
"""Refusals that say that the ledger has moved on since it was read."""
TRIES = 3
PATIENCE = 600
"""Seconds that are waited for a worker to sum and evaluate at least; longer where the agreement gives a record more time."""


def next_step(view: RoundView, gathered: Gathered, now: int, since: int) -> Step:
    """The next step at the UTC second ``now`` for a coordinator that has been at work since ``since``.

    A site that a coordinator did not hear because it was not running is not called silent: such an attempt is
    given up and opened anew.
    """
    head, terms = view.head, view.terms
    if head.state == "open":
        return _before_seal(view, gathered, now, since)
    if head.state == "sealed":
        return _after_seal(view, gathered, now, since)
    if head.state != "aborted" and head.round >= terms.rounds:
        return Finished()
    again = head.state == "aborted"
    if again and head.attempt >= terms.attempts:
        return Stuck("attempts-exhausted")
    # An attempt follows the last one, also in time: two in the same second would have the same deadlines.
    absent = _absences(view, max(now, head.at))
    return Open(
        head.round if again else head.round + 1, head.attempt + 1 if again else 1,
        sorted(view.parties.keys() - absent.keys()), absent,
    )  # fmt: skip


def _absences(view: RoundView, at: int) -> dict[str, str]:
    reasons = {m: absence(p, view.members[m], at) for m, p in view.parties.items() if p is not None}
    return {m: why for m, why in reasons.items() if why}


def _before_seal(view: RoundView, gathered: Gathered, now: int, since: int) -> Step:
    head = view.head
    seats = {m: s for m, s in view.seats.items() if s is not None}
    out: dict[str, str] = {m: why for m, why in _absences(view, max(now, head.at)).items() if m in seats}
    silent = [m for m, s in seats.items() if s.state == "open" and m not in out]
    if silent and now <= head.commit_by:
        return Wait(head.commit_by + 1, silent) if gathered.asked else Train(silent)
    if silent and since > head.opened_at:
        return Abort("coordinator-absent")
    out |= dict.fromkeys(silent, "silent")
    out |= {m: "declined" for m, s in seats.items() if s.state == "declined" and m not in out}
    cohort = sorted(seats.keys() - out.keys())
    return Seal(cohort, out) if len(cohort) >= view.terms.min_participants else Abort("below-minimum")


def _after_seal(view: RoundView, gathered: Gathered, now: int, since: int) -> Step:
    head = view.head
    cohort = sorted(m for m, s in view.seats.items() if s is not None and s.state == "in")
    if not_asked := [m for m in cohort if m not in gathered.collected]:
        return Collect(not_asked)
    missing = [m for m in cohort if gathered.verdicts.get(m) != ""]
    if missing and now <= head.deliver_by:
        return Wait(head.deliver_by + 1, missing)
    if missing and not gathered.retried:
        return Collect(missing)
    if missing and since > head.at:
        return Abort("coordinator-absent")
    if len(cohort) - len(missing) < view.terms.min_participants:
        return Abort("below-minimum")
    return Record(sorted(set(cohort) - set(missing)), {m: _omission(gathered.verdicts.get(m)) for m in missing})


def _omission(verdict: str | None) -> str:
    """The ledger's reason for a verdict of ``verify_update``."""
    if verdict in {None, "update-missing"}:
        return "not-delivered"
    return "digest-mismatch" if verdict in UNKNOWN_BYTES else "invalid-update"


class Driver:
    """Carries out an agreement's rounds as its coordinator."""

    def __init__(
        self, *, author: Author, agreement: Mapping[str, Any], digest: str, ledger: Ledger, sites: Sites,
        aggregator: Aggregator, blobs: BlobStore, stored: Callable[[str], str], clock: Clock, watch: Callable[[Event], None],
    ) -> None:  # fmt: skip
        """``stored`` gives the digest of the model that is stored under a digest, "" where there is none."""
        self._federation, self._agreement, self._digest, self._ledger = author.federation, agreement, digest, ledger
        self._sites, self._aggregator, self._blobs, self._clock, self._watch = sites, aggregator, blobs, clock, watch
        self._stored, self._submitter = stored, Submitter(author, digest, ledger, watch)
        self._patience = max(PATIENCE, agreement["phases"]["record_seconds"])
        self._gathered, self._since = Gathered(), clock.now()

    def drive(self) -> RoundView:
        """Carry out steps until every agreed round is recorded; the last state.

        Raises:
            Rejected: the contract refuses to go on (attempts exhausted, agreement expired, too few participants).
        """
        self._since, again = self._clock.now(), 0
        while True:
            view = read_round(self._ledger, self._digest, self._agreement["parties"], acting=True)
            step = self._next(view)
            if isinstance(step, Finished):
                return view
            if isinstance(step, Stuck):
                message = f"Round {view.head.round} was given up {counted(view.head.attempt, 'time')}; the agreement allows no further attempt."
                raise Rejected(step.code, message)
            try:
                self._carry_out(step, view)
                again = 0
            except Rejected as refusal:
                # A site acted between our reading and our writing: what the ledger says now decides.
                again += 1
                if refusal.code not in STALE or again > TRIES:
                    raise

    def _next(self, view: RoundView) -> Step:
        return next_step(view, self._gathered, self._clock.now(), self._since)

    def _carry_out(self, step: Step, view: RoundView) -> None:
        match step:
            case Open():
                self._open(step, view)
            case Train():
                self._train(step, view)
            case Wait():
                self._tell("wait", view, until=step.until, members=step.members)
                self._clock.wait_until(step.until)
            case Seal():
                self._submitter.submit(self._sealing(step, view))
            case Collect():
                self._collect(step, view)
            case Record():
                self._record(step, view)
            case Abort():
                self._submitter.submit(
                    Draft("abort", view.head.round, view.head.attempt, self._at(view), {"reason": step.reason})
                )
                self._settle()

    def _open(self, step: Open, view: RoundView) -> None:
        needed = view.terms.attest_next_open if step.round > 1 else 0
        attested = list(self._sites.attest(self._digest, step.round - 1, needed)) if needed else []
        self._gathered = Gathered()
        self._submitter.submit(self._opening(step, view, attested))

    def _opening(self, step: Open, view: RoundView, attested: Sequence[str] = ()) -> Draft:
        at = self._at(view)
        body = {"commit_by": at + view.terms.commit_seconds, "reservation": 0, "roster": list(step.roster),
                "absent": _named(step.absent), "attestations": list(attested)}  # fmt: skip
        return Draft("open", step.round, step.attempt, at, body, {"base-model": view.head.base})

    def _train(self, step: Train, view: RoundView) -> None:
        """Let the sites train, and submit what they sign; where every seat has acted then, with the seal behind it."""
        self._tell("train", view, members=step.silent)
        self._gathered.asked = True
        seats, silent = dict(view.seats), set(step.silent)
        for answers in self._sites.train(self._digest, view.head.commit_by):
            for answer in answers:
                seats[answer.member] = Seat(answer.seat)
                silent.discard(answer.member)
            following = None if silent else self._next(replace(view, seats=seats))
            drafts = [self._sealing(following, view)] if isinstance(following, Seal) else []
            self._submitter.relay(answers, view.head, drafts)

    def _sealing(self, step: Seal, view: RoundView) -> Draft:
        at = self._at(view)
        body = {"deliver_by": at + view.terms.deliver_seconds, "cohort": list(step.cohort), "out": _named(step.out)}
        return Draft("seal", view.head.round, view.head.attempt, at, body)

    def _collect(self, step: Collect, view: RoundView) -> None:
        """Verify and sum what the members deliver; bytes whose digest is the committed one are kept as evidence."""
        gathered = self._gathered
        gathered.retried = bool(gathered.collected)
        gathered.collected |= frozenset(step.members)
        encoding = self._agreement["model"]["encoding"]
        commitments = {m: view.commitment(m, self._federation, encoding) for m in step.members}
        # Where the store has other bytes than were committed, that is not the site's doing: the site is asked.
        trusted = {m: c for m, c in commitments.items() if gathered.verdicts.get(m) not in UNKNOWN_BYTES}
        # Who asked for the updates of this attempt knows what has been kept of it: nothing, until there is a sum.
        stored = {} if gathered.asked and not gathered.sums else self._blobs.find([c.digest for c in trusted.values()])
        kept = {m: stored[c.digest] for m, c in trusted.items() if c.digest in stored}
        places = {**self._sites.deliver(self._digest, [m for m in step.members if m not in kept]), **kept}
        deliveries = [Delivery(commitments[m], places[m]) for m in sorted(places)]
        if not deliveries:
            return
        everybody = not gathered.sums and len(places) == len(step.members)
        order = self._order(view, places) if everybody else None
        partial = self._aggregator.sum(deliveries, order, seconds=self._patience)
        gathered.sums.append(partial)
        news = {m: verdict for m, verdict in partial.verdicts.items() if gathered.verdicts.get(m) != verdict}
        gathered.verdicts.update(partial.verdicts)
        files = {m: place.path for m, place in places.items() if place.size < 0 and m not in kept}
        genuine = [m for m in files if partial.verdicts[m] not in UNKNOWN_BYTES]
        self._blobs.adopt_all([(files[m], commitments[m].digest) for m in genuine])
        gathered.adopted += [self._blobs.path(commitments[m].digest) for m in genuine]
        for member, verdict in sorted(news.items()):
            self._tell("delivered", view, member=member, verdict=verdict)

    def _order(self, view: RoundView, included: Iterable[str]) -> FinishOrder:
        """What makes the model of the present round from the updates of these members."""
        head = view.head
        examples = sum(seat.examples for m in included if isinstance(seat := view.seats[m], Seat))
        return FinishOrder(self._agreement, head.round, head.base, head.optimiser, examples)

    def _record(self, step: Record, view: RoundView) -> None:
        order, sums = self._order(view, step.included), self._gathered.sums
        outcome = (len(sums) == 1 and sums[0].outcome) or self._aggregator.finish(order, sums, seconds=self._patience)
        self._check_stored(view, outcome.model)
        body = {"included": list(step.included), "omitted": _named(step.omitted), "examples": order.weight,
                "metrics": dict(outcome.metrics)}  # fmt: skip
        record = Draft("record", view.head.round, view.head.attempt, self._at(view), body, outcome.subjects)
        self._submitter.submit(record, *self._following(view, record.at, outcome))
        for path in self._gathered.adopted:
            forget(path)
        self._settle()

    def _check_stored(self, view: RoundView, model: str) -> None:
        """Refuse to record a model that nobody could go on from, whatever the worker says that made it."""
        if (found := self._stored(model)) != model:
            message = (
                f"Round {view.head.round}: a worker says that it stored the model {model}; there is {found or 'none'}."
            )
            raise EvidenceError("model-missing", message)

    def _following(self, view: RoundView, at: int, outcome: Outcome) -> list[Draft]:
        """The next round's opening, where it waits for nothing but the record of this one, and there is more than one attempt
        for it: a coordinator that is gone for long finds an open round."""
        if view.head.round == view.terms.rounds or view.terms.attest_next_open or view.terms.attempts == 1:
            return []
        head = replace(view.head, state="recorded", at=at, base=outcome.model, optimiser=outcome.optimiser)
        with suppress(Unavailable):  # a record does not wait for what the next opening wants to know
            # Read whole: after the seal, who acts has no view of the parties and members.
            after = replace(read_round(self._ledger, self._digest, self._agreement["parties"]), head=head)
            if isinstance(step := self._next(after), Open):
                return [self._opening(step, after)]
        return []

    def _settle(self) -> None:
        self._gathered = Gathered()
        self._sites.settled(self._digest)

    def _at(self, view: RoundView) -> int:
        return max(self._clock.now(), view.head.at)

    def _tell(self, kind: str, view: RoundView, **facts: Any) -> None:
        self._watch(Event(kind, view.head.round, view.head.attempt, facts))


def _named(reasons: Reasons) -> list[dict[str, str]]:
    return [{"member": m, "reason": reasons[m]} for m in sorted(reasons)]
