# SPDX-License-Identifier: Apache-2.0
"""A small federation on the real contract: real keys, real signed entries, a dict for the state, a number for the clock.

    world = World(participants=3).recorded()          # founded, agreed, opened, committed, sealed, recorded
    world = World().opened().commit(1).commit(2).wait(COMMIT + 1).seal().record()
    world.envelopes                                   # every accepted entry's bytes, in order
    world.head, world.seat(1), world.member(1)        # typed values of the state

A verb (``commit``, ``seal`` ...) makes one entry with sensible fields out of the state, signs it, and takes it through
``open_entry`` and ``apply_all``; a refused one raises ``Rejected`` and changes nothing. Keyword arguments replace any
field: a subject by its name (``base_model=...``; None leaves it out), ``at``, ``member``, ``signer``, or a field of the
body; ``by`` names another author. Stages (``founded``, ``opened`` ...) do whatever is missing until they hold; each takes a second of the world's clock.

People are named ``authority``, ``coordinator``, ``auditor`` or by a site's number, from 1. Keys follow from the seed.
"""

from __future__ import annotations

from typing import Any, Self

from chaincode import state
from chaincode.agreement import agreement_digest
from chaincode.rules.common import absence
from chaincode.statements import receipt, rotation
from identity.canonical import b64encode
from identity.keys import Identity
from tests.chaincode.contract.agreements import DAY, agreement, digest, merged
from tests.chaincode.contract.memory import NOW, Memory, Who, key, label

__all__ = ["NOW", "Who", "World", "digest", "key"]


class World(Memory):
    """A federation in memory. ``terms`` changes the default agreement, ``policy`` the fields of ``found``."""

    def _do(self, kind: str, who: Who, fields: dict[str, Any], changes: dict[str, Any]) -> Self:
        return self.submit(self.make(kind, who, fields, changes))

    # Verbs of the authority and the members

    def found(self, **changes: Any) -> Self:
        return self._do("found", "authority", {
            "nonce": digest("nonce"), "origin": "ledger.example/test", "log_key": None, **self._policy(), **self.policy,
        }, changes)  # fmt: skip

    def amend(self, **changes: Any) -> Self:
        return self._do("amend", "authority", self._policy(), changes)

    def _policy(self) -> dict[str, Any]:
        return {"authority": self.names("authority"), "cosigners": [], "quorum": 0, "skew": 60}

    def admit(self, who: Who, **changes: Any) -> Self:
        """Admit or renew someone for 90 days; ``new_did`` gives a member that lost its key another one."""
        role = who if who in ("coordinator", "auditor") else "participant"
        return self._do("admit", "authority", {
            "credential": digest(f"credential of {label(who)}"), "admits": self.name(who), "new_did": self.keys(who)[-1].did,
            "role": role, "organisation": label(who), "not_before": self.now - 60, "not_after": self.now - 60 + 90 * DAY,
        }, changes)  # fmt: skip

    def lose_key(self, who: Who, **changes: Any) -> Self:
        """The authority gives a member that lost its key a new one."""
        new = self._new_key(who)
        self.admit(who, **{"new_did": new.did, **changes})
        self.keys(who).append(new)
        return self

    def revoke(self, who: Who, **changes: Any) -> Self:
        return self._do("revoke", "authority", {"revokes": self.name(who), "reason": "left"}, changes)

    def rotate(self, who: Who, *, new: Identity | None = None, **changes: Any) -> Self:
        """Put a member's next key in force."""
        new = new or self._new_key(who)
        consent = rotation(federation=self.federation, member=self.name(who), new_did=new.did)
        self._do("rotate", who, {"new_did": new.did, "proof": b64encode(new.sign(consent))}, changes)
        self.keys(who).append(new)
        return self

    def _new_key(self, who: Who) -> Identity:
        return key(f"{label(who)} key {len(self.keys(who)) + 1}", self.seed)

    # Verbs of an agreement

    def propose(self, *, continues: str | None = None, terms: dict[str, Any] | None = None, **changes: Any) -> Self:
        """Propose the default agreement with the world's changes and ``terms`` over it; it becomes the current one."""
        default = agreement(self.name("coordinator"), self.names(*self.sites), self.now, **self.changes)
        proposed = merged(default, terms or {})
        subjects = {"agreement": agreement_digest(proposed), "initial_model": proposed["model"]["initial"]}
        return self._do("propose", "coordinator", {**subjects, "terms": proposed, "continues": continues}, changes)

    def sign(self, who: Who, **changes: Any) -> Self:
        return self._do("sign", who, {}, changes)

    def withdraw(self, who: Who, **changes: Any) -> Self:
        return self._do("withdraw", who, {}, changes)

    def release(self, round_: int = 0, **changes: Any) -> Self:
        n = round_ or self.head.round
        fields = {"model": self._digests(n)["model"], "model_card": digest(f"card {n}"), "round": n, "attestations": []}
        return self._do("release", "coordinator", fields, changes)

    def attest(self, who: Who, round_: int = 0, **changes: Any) -> Self:
        n = round_ or self.head.round
        return self._do("attest", who, {**self._digests(n), "round": n, "verdict": "agrees"}, changes)

    def _digests(self, n: int) -> dict[str, str]:
        """What round n recorded, or would record here."""
        if state.result_key(self.digest, n) in self.values:
            return {"sum": self.result(n).sum, "model": self.result(n).model}
        return {"sum": digest(f"sum {n}"), "model": digest(f"model {n}")}

    # Verbs of a round

    @property
    def _round(self) -> dict[str, int]:
        return {"round": max(1, self.head.round), "attempt": max(1, self.head.attempt)}

    def open(self, **changes: Any) -> Self:
        """Open the next round or attempt to every party in standing."""
        head, again = self.head, self.head.state == "aborted"
        why = {m: self._absence(m) for m in self.agreement["parties"]}
        return self._do("open", "coordinator", {
            "base_model": head.base, "round": head.round if again else head.round + 1, "attempt": head.attempt + 1 if again else 1,
            "commit_by": changes.get("at", self.now) + self.terms.commit_seconds, "reservation": 0, "attestations": [],
            "roster": [m for m in why if not why[m]], "absent": [{"member": m, "reason": why[m]} for m in why if why[m]],
        }, changes)  # fmt: skip

    def commit(self, who: Who, **changes: Any) -> Self:
        size = self.terms.elements * self.terms.width + 500
        return self._do("commit", who, {
            **self._round, "update": self.update(who), "size": size, "examples": 10, "metrics": None,
        }, changes)  # fmt: skip

    def decline(self, who: Who, **changes: Any) -> Self:
        return self._do("decline", who, {**self._round, "reason": "not-this-round"}, changes)

    def seal(self, **changes: Any) -> Self:
        """Seal with every seat that has committed and is in standing."""
        seats = self._seats("open", "committed", "declined")
        why = {
            m: self._absence(m) or {"open": "silent", "declined": "declined"}.get(s.state, "") for m, s in seats.items()
        }
        return self._do("seal", "coordinator", {
            **self._round, "deliver_by": changes.get("at", self.now) + self.terms.deliver_seconds,
            "cohort": [m for m in why if not why[m]], "out": [{"member": m, "reason": why[m]} for m in why if why[m]],
        }, changes)  # fmt: skip

    def claim(self, who: Who, **changes: Any) -> Self:
        return self._do("claim", who, {**self._round, "update": self.update(who), "receipt": None}, changes)

    def receipt(self, who: Who, *, signer: Identity | None = None, **changes: Any) -> dict[str, str]:
        """The coordinator's receipt for someone's committed update, as ``claim`` carries it."""
        signer = signer or self.keys("coordinator")[-1]
        stated = {"federation": self.federation, "agreement": self.digest, "round_": self.head.round, "attempt": self.head.attempt,
                  "member": self.name(who), "update": self.update(who), **changes}  # fmt: skip
        return {"did": signer.did, "signature": b64encode(signer.sign(receipt(**stated)))}

    def record(self, *, omit: dict[Who, str] | None = None, **changes: Any) -> Self:
        """Record the sealed cohort without those that ``omit`` names, each with its reason."""
        left_out = {self.name(who): reason for who, reason in (omit or {}).items()}
        cohort, n = self._seats("in"), self.head.round
        included = [m for m in cohort if m not in left_out]
        stateful = digest(f"optimiser {n}") if self.agreement["aggregation"]["optimiser"] != "avg" else None
        return self._do("record", "coordinator", {
            **self._round, "sum": digest(f"sum {n}"), "model": digest(f"model {n}"), "optimiser_state": stateful,
            "included": included, "omitted": [{"member": m, "reason": left_out[m]} for m in sorted(left_out)],
            "examples": sum(cohort[m].examples for m in included), "metrics": {},
        }, changes)  # fmt: skip

    def abort(self, who: Who = "coordinator", **changes: Any) -> Self:
        return self._do("abort", who, {**self._round, "reason": "operator"}, changes)

    def update(self, who: Who) -> str:
        """The digest that someone committed in the head's attempt, or that the world lets it commit."""
        stored = self.values.get(state.seat_key(self.digest, self.head.round, self.head.attempt, self.name(who)))
        committed = state.decode(state.Seat, stored).update if stored else ""
        return committed or digest(f"update of {label(who)} in {self.head.round}/{self.head.attempt}")

    def _absence(self, member: str) -> str:
        stored = self.values.get(state.member_key(member))
        return absence(self.party(member), state.decode(state.Member, stored) if stored else None, self.now)

    def _seats(self, *states: str) -> dict[str, state.Seat]:
        """The head's seats in these states, by member, in order."""
        at = {m: state.seat_key(self.digest, self.head.round, self.head.attempt, m) for m in self.agreement["parties"]}
        seats = {m: self.get(state.Seat, k) for m, k in at.items() if k in self.values}
        return {m: seat for m, seat in seats.items() if seat.state in states}

    # Stages: whatever is missing until they hold

    def founded(self) -> Self:
        """Founded, and everybody admitted."""
        self.wait(1).found()
        everybody: list[Who] = ["coordinator", "auditor", *self.sites]
        for who in everybody:
            self.admit(who)
        return self

    def proposed(self) -> Self:
        return (self if self.federation else self.founded()).wait(1).propose()

    def agreed(self) -> Self:
        """Proposed, and signed by every site."""
        if not self.digest:
            self.proposed()
        for who in self.sites:
            if self.party(who).state == "proposed":
                self.wait(0 if who > 1 else 1).sign(who)
        return self

    def opened(self) -> Self:
        return (self if self.digest and self._signed() else self.agreed()).wait(1).open()

    def _signed(self) -> bool:
        return any(self.party(who).state != "proposed" for who in self.sites)

    def committed(self) -> Self:
        """Every open seat of the round has committed; opens the next round if none is open."""
        if not self.digest or self.head.state != "open":
            self.opened()
        for member in self._seats("open"):
            self.wait(0).commit(self._who(member))
        return self.wait(1)

    def sealed(self) -> Self:
        """Sealed with whatever has committed; all seats commit if no round is open."""
        return (self if self.digest and self.head.state == "open" else self.committed()).wait(1).seal()

    def recorded(self, rounds: int = 1) -> Self:
        """So many rounds more are recorded; one that is under way is completed first and counts."""
        for _ in range(rounds):
            (self if self.digest and self.head.state == "sealed" else self.sealed()).wait(1).record()
        return self

    def aborted(self) -> Self:
        return (self if self.digest and self.head.state == "open" else self.opened()).wait(1).abort()

    def _who(self, member: str) -> Who:
        return next((who for who in self.sites if self.name(who) == member), member)
