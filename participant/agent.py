# SPDX-License-Identifier: Apache-2.0
"""A participant's agent: it holds the key, takes its instructions from the ledger only (R1), and signs.

It never trains: it orders training from a ``Trainer`` in another process, commits to the digest that comes back, and
delivers the bytes after the seal (R2). Each ``check`` refuses what the ledger does not bear out.
"""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chaincode import state
from chaincode.agreement import agreement_digest, tensor_specs
from chaincode.author import Author, Clock, demand, read_tables
from chaincode.entries import Entry
from chaincode.evidence import Commitment
from chaincode.header import Header
from chaincode.ledgers import Ledger
from chaincode.place import Place
from chaincode.rules.common import absence, standing
from chaincode.state import Federation, Head, Member, Party, Result, Seat, Terms
from identity import credentials
from identity.envelope import Unsigned
from identity.errors import CredentialError, EvidenceError, Rejected
from participant.outbox import Outbox
from participant.ports import TrainFailure, TrainOrder, TrainResult


@dataclass(frozen=True, slots=True)
class RoundView:
    """One attempt as the ledger states it: what every agent reads before it acts."""

    agreement: str
    terms: Terms
    head: Head
    coordinator: Member | None
    seats: Mapping[str, Seat | None]
    parties: Mapping[str, Party | None]
    members: Mapping[str, Member | None]

    def commitment(self, member: str, federation: str, encoding: str) -> Commitment:
        """What the ledger says that a member committed to; the bytes are checked against this and nothing else.

        Raises EvidenceError(state-missing): it has no seat.
        """
        seat, head = self.seats[member], self.head
        if seat is None:
            raise EvidenceError("state-missing", f"The ledger has no seat of {member} in round {head.round}.")
        return Commitment(
            federation=federation, agreement=self.agreement, round=head.round, attempt=head.attempt, base=head.base,
            member=member, digest=seat.update, size=seat.size, weight=seat.examples, encoding=encoding,
            elements=self.terms.elements,
        )  # fmt: skip


def read_round(ledger: Ledger, agreement: str, names: list[str], *, acting: bool = False) -> RoundView:
    """The agreement's present attempt, and the standing of the named members in it.

    Whoever is ``acting`` in the round needs less, and among thousands of sites that counts: the view then has no
    parties and members after the seal, which no later change of standing touches, and no seats where none is open.
    """
    terms = demand(ledger, Terms, state.terms_key(agreement))
    head = demand(ledger, Head, state.head_key(agreement))
    seated = names if head.state in {"open", "sealed"} or not acting else []
    judged = names if head.state != "sealed" or not acting else []
    coordinator, seats, parties, members = read_tables(
        ledger,
        (Member, {"": state.member_key(terms.coordinator)}),
        (Seat, {m: state.seat_key(agreement, head.round, head.attempt, m) for m in seated}),
        (Party, {m: state.party_key(agreement, m) for m in judged}),
        (Member, {m: state.member_key(m) for m in judged}),
    )
    return RoundView(agreement, terms, head, coordinator[""], seats, parties, members)


class Agent:
    """One site's agent.

    ``secret`` (32 bytes) makes the salts, ``outbox`` is where its updates lie, ``base_model`` answers with the
    digest of the model file that is at hand for a digest, after having hashed it.
    """

    def __init__(
        self, *, site: str, author: Author, secret: bytes, outbox: Outbox, ledger: Ledger, clock: Clock,
        base_model: Callable[[str], str],
    ) -> None:  # fmt: skip
        self.site, self.author, self.outbox = site, author, outbox
        self._secret, self._ledger, self._clock, self._base_model = secret, ledger, clock, base_model
        self._agreement: Mapping[str, Any] = {}
        self._digest, self._length = "", 0
        self._coordinator: credentials.Membership | None = None

    @property
    def member(self) -> str:
        """The name of the site's member."""
        return self.author.member

    def adopt(self, proposal: Entry, coordinator_token: str) -> None:
        """Take an agreement from the entry that proposed it, and the coordinator's credential with it.

        Raises:
            Rejected: the proposal is not for this site, or its digest is not the agreement's.
            CredentialError: the coordinator's credential does not hold, or is not the one on the ledger.
        """
        agreement = proposal.body["terms"]
        if agreement_digest(agreement) != proposal.agreement:
            raise Rejected("subject-mismatch", f"{self.site}: the proposal's digest is not that of its agreement.")
        if self.member not in agreement["parties"]:
            raise Rejected("not-a-party", f"{self.site}: agreement {proposal.agreement[:12]} does not name this site.")
        federation = demand(self._ledger, Federation, state.FEDERATION)
        held = demand(self._ledger, Member, state.member_key(agreement["coordinator"]))
        membership = credentials.verify(
            coordinator_token, issuers=federation.authority, federation=federation.id, now=self._clock()
        )
        if membership.digest != held.credential or membership.subject != held.did or membership.role != "coordinator":
            raise CredentialError(
                "credential-not-on-ledger",
                f"{self.site}: the coordinator's credential is not the one of its admission.",
            )
        self._agreement, self._coordinator, self._digest = agreement, membership, proposal.agreement
        self._length = sum(s.elements for s in tensor_specs(agreement) if s.rule == "mean")

    def sign(self) -> bytes:
        """The site's acceptance of the agreement that it adopted."""
        return self.author.entry("sign", self._clock(), {}, agreement=self._digest)

    def check(self, view: RoundView, at: int) -> None:
        """Whether this site may take part in the attempt that the ledger states.

        Raises:
            Rejected, CredentialError: it may not; the code says why.
        """
        if self._coordinator is None or view.agreement != self._digest:
            raise Rejected("agreement-unknown", f"{self.site} has not signed agreement {view.agreement[:12]}.")
        if view.head.state != "open" or view.seats[self.member] is None:
            raise Rejected("not-on-roster", f"{self.site} has no seat in an open round.")
        if code := standing(view.coordinator, at):
            raise Rejected(code, f"{self.site}: the agreement's coordinator is not in standing.")
        if at > self._coordinator.not_after:
            raise CredentialError("credential-expired", f"{self.site}: the coordinator's credential has expired.")
        party = view.parties[self.member]
        if party is None or absence(party, view.members[self.member], at):
            raise Rejected("not-in-standing", f"{self.site} is not in standing for this agreement.")
        if at > view.head.commit_by:
            raise Rejected("past-deadline", f"{self.site}: commitments closed at {view.head.commit_by}.")
        if self._base_model(view.head.base) != view.head.base:
            raise Rejected(
                "base-mismatch", f"{self.site}: the model at hand is not the round's base {view.head.base[:12]}."
            )

    def order(self, view: RoundView) -> TrainOrder | None:
        """The order that trains this site's update, None where its seat has acted already.

        Raises:
            Rejected, CredentialError: as ``check``.
        """
        self.check(view, self._at(view))
        seat = view.seats[self.member]
        if seat is None or seat.state != "open":
            return None
        model = self._agreement["model"]
        header = Header(
            federation=self.author.federation, agreement=view.agreement, round=view.head.round, attempt=view.head.attempt,
            base=view.head.base, member=self.member, encoding=model["encoding"],
            length=self._length, salt=self._salt(view),
        )  # fmt: skip
        return TrainOrder(self.site, self._agreement["task"]["seed"], header, str(self.outbox.folder))

    def answer(self, view: RoundView, result: TrainResult | TrainFailure) -> Unsigned:
        """The commitment to a trained update, or the refusal of the seat where training gave none; still to be signed."""
        if isinstance(result, TrainFailure):
            return self._declining(view, "no-data" if result.code == "no-data" else "training-failed")
        body = {**_place(view), "size": result.size, "examples": result.examples,
                "metrics": dict(result.metrics) if view.terms.share_metrics else None}  # fmt: skip
        return self.author.unsigned(
            "commit", self._at(view), body, agreement=view.agreement, subjects={"update": result.digest}
        )

    def decline(self, view: RoundView, reason: str) -> bytes:
        """The statement that this site does not take part in the attempt, with a reason of ``kinds.DECLINES``."""
        return self._declining(view, reason).signed()

    def _declining(self, view: RoundView, reason: str) -> Unsigned:
        return self.author.unsigned(
            "decline", self._at(view), {**_place(view), "reason": reason}, agreement=view.agreement
        )

    def deliver(self, view: RoundView) -> Place | None:
        """Where the committed blob is, once the ledger says that the round is sealed with this site in it; else None."""
        seat = view.seats[self.member]
        if view.head.state != "sealed" or seat is None or seat.state != "in":
            return None
        return self.outbox.find([seat.update]).get(seat.update)

    def claim(self, view: RoundView, receipt: Mapping[str, str] | None) -> bytes:
        """The statement that this site delivered, with the coordinator's receipt if it has one."""
        seat = view.seats[self.member]
        if seat is None:
            raise Rejected("not-on-roster", f"{self.site} has no seat in this attempt.")
        body = {**_place(view), "receipt": receipt}
        return self.author.entry(
            "claim", self._at(view), body, agreement=view.agreement, subjects={"update": seat.update}
        )

    def attest(self, round_: int, result: Result, sum_: str, model: str) -> bytes:
        """The statement that this site recomputed a round and got the recorded digests, or others: a dispute."""
        verdict = "agrees" if (sum_, model) == (result.sum, result.model) else "disputes"
        body = {"round": round_, "verdict": verdict}
        return self.author.entry(
            "attest", self._clock(), body, agreement=self._digest, subjects={"sum": sum_, "model": model}
        )

    def withdraw(self) -> bytes:
        """The site leaves the agreement."""
        return self.author.entry("withdraw", self._clock(), {}, agreement=self._digest)

    def _at(self, view: RoundView) -> int:
        return max(self._clock(), view.head.at)

    def _salt(self, view: RoundView) -> str:
        seat = state.seat_key(view.agreement, view.head.round, view.head.attempt, self.member)
        return hmac.digest(self._secret, seat.encode(), "sha256").hex()


def _place(view: RoundView) -> dict[str, Any]:
    return {"round": view.head.round, "attempt": view.head.attempt}
