# SPDX-License-Identifier: Apache-2.0
"""What accepted entries say, gathered in one pass and kept small: the later claims rest on this, not on the log."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chaincode import state
from chaincode.entries import Entry
from chaincode.kinds import KINDS
from chaincode.state import Head, Seat

SHORT = 12


@dataclass(frozen=True, slots=True)
class Ref:
    """An entry: its index in the log, its id, and the time that it states."""

    index: int
    id: str
    at: int

    def __str__(self) -> str:
        return f"entry {self.index} ({self.id[:SHORT]})"


@dataclass(frozen=True, slots=True)
class Admission:
    """A member's admission, with the authority's DIDs that were in force at that index."""

    ref: Ref
    member: str
    did: str
    role: str
    organisation: str
    not_before: int
    not_after: int
    credential: str
    issuers: tuple[str, ...]


@dataclass(slots=True)
class Agreement:
    """An agreement: its terms as proposed, and which party signed and left it with which entry."""

    ref: Ref
    digest: str
    terms: Mapping[str, Any]
    continues: bool
    signed: dict[str, Ref] = field(default_factory=dict)
    withdrawn: dict[str, Ref] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Commit:
    """One commitment: the update's digest, its bytes and its weight."""

    index: int
    update: str
    size: int
    examples: int


@dataclass(frozen=True, slots=True)
class Omission:
    """A cohort member that a record leaves out; ``contested`` is empty, bare or receipt."""

    member: str
    reason: str
    contested: str


@dataclass(slots=True)
class Attempt:
    """One attempt of one round, from its opening on.

    ``base`` and ``optimiser`` are the digests that it starts from; ``out`` names whom the seal left out, and why.
    """

    agreement: str
    round: int
    number: int
    opened: Ref
    base: str
    optimiser: str
    roster: tuple[str, ...]
    commits: dict[str, Commit] = field(default_factory=dict)
    claims: dict[str, Ref] = field(default_factory=dict)
    sealed: Ref | None = None
    cohort: tuple[str, ...] = ()
    out: tuple[tuple[str, str], ...] = ()
    recorded: Ref | None = None
    coordinator: str = ""
    included: tuple[str, ...] = ()
    omitted: tuple[Omission, ...] = ()
    sum: str = ""
    model: str = ""
    state: str = ""
    examples: int = 0
    aborted: Ref | None = None
    abort_reason: str = ""
    abort_author: str = ""

    def __str__(self) -> str:
        return f"round {self.round} attempt {self.number}"


@dataclass(frozen=True, slots=True)
class Released:
    """A release: the round, and the digests of the model and its card."""

    ref: Ref
    agreement: str
    round: int
    model: str
    card: str


@dataclass(slots=True)
class Facts:
    """All that was gathered. Call ``see`` with each accepted entry, after its writes."""

    federation: str = ""
    found: Ref | None = None
    admissions: list[Admission] = field(default_factory=list)
    revoked: dict[str, Ref] = field(default_factory=dict)
    acted_after_revocation: list[tuple[Ref, str]] = field(default_factory=list)
    agreements: dict[str, Agreement] = field(default_factory=dict)
    attempts: dict[tuple[str, int, int], Attempt] = field(default_factory=dict)
    releases: list[Released] = field(default_factory=list)
    attestations: list[str] = field(default_factory=list)

    def see(self, index: int, entry: Entry, values: Mapping[str, Any]) -> None:
        """Take in an accepted entry; ``values`` is the state with its writes."""
        if (
            self.revoked and entry.member in self.revoked and entry.kind not in ("claim", "withdraw")
        ):  # these need no standing
            self.acted_after_revocation.append((_ref(index, entry), entry.member))
        handler = _HANDLERS.get(entry.kind)
        if handler is not None:
            handler(self, index, entry, values)

    def _found(self, index: int, entry: Entry, _: Mapping[str, Any]) -> None:
        self.found, self.federation = _ref(index, entry), entry.id

    def _admit(self, index: int, entry: Entry, values: Mapping[str, Any]) -> None:
        body, policy = entry.body, values[state.FEDERATION]
        self.revoked.pop(body["admits"], None)
        self.admissions.append(Admission(
            _ref(index, entry), body["admits"], body["new_did"], body["role"], body["organisation"], body["not_before"],
            body["not_after"], entry.subjects["credential"], policy.authority,
        ))  # fmt: skip

    def _revoke(self, index: int, entry: Entry, _: Mapping[str, Any]) -> None:
        self.revoked[entry.body["revokes"]] = _ref(index, entry)

    def _propose(self, index: int, entry: Entry, _: Mapping[str, Any]) -> None:
        self.agreements[entry.agreement] = Agreement(
            _ref(index, entry), entry.agreement, entry.body["terms"], entry.body["continues"] is not None
        )

    def _sign(self, index: int, entry: Entry, _: Mapping[str, Any]) -> None:
        self.agreements[entry.agreement].signed[entry.member] = _ref(index, entry)

    def _withdraw(self, index: int, entry: Entry, _: Mapping[str, Any]) -> None:
        self.agreements[entry.agreement].withdrawn[entry.member] = _ref(index, entry)

    def _open(self, index: int, entry: Entry, values: Mapping[str, Any]) -> None:
        head: Head = values[state.head_key(entry.agreement)]
        n, t = entry.body["round"], entry.body["attempt"]
        self.attempts[entry.agreement, n, t] = Attempt(
            entry.agreement, n, t, _ref(index, entry), head.base, head.optimiser, tuple(entry.body["roster"])
        )

    def _attempt(self, entry: Entry) -> Attempt:
        return self.attempts[entry.agreement, entry.body["round"], entry.body["attempt"]]

    def _commit(self, index: int, entry: Entry, _: Mapping[str, Any]) -> None:
        body = entry.body
        commit = Commit(index, entry.subjects["update"], body["size"], body["examples"])
        self._attempt(entry).commits[entry.member] = commit

    def _seal(self, index: int, entry: Entry, _: Mapping[str, Any]) -> None:
        attempt = self._attempt(entry)
        attempt.sealed, attempt.cohort = _ref(index, entry), tuple(entry.body["cohort"])
        attempt.out = tuple((item["member"], item["reason"]) for item in entry.body["out"])

    def _claim(self, index: int, entry: Entry, _: Mapping[str, Any]) -> None:
        self._attempt(entry).claims[entry.member] = _ref(index, entry)

    def _record(self, index: int, entry: Entry, values: Mapping[str, Any]) -> None:
        attempt, body, subjects = self._attempt(entry), entry.body, entry.subjects
        attempt.recorded, attempt.coordinator = _ref(index, entry), entry.member
        attempt.included, attempt.examples = tuple(body["included"]), body["examples"]
        attempt.sum, attempt.model = subjects["sum"], subjects["model"]
        attempt.state = subjects.get("optimiser-state", "")
        attempt.omitted = tuple(
            Omission(o["member"], o["reason"], _contest(attempt, o["member"], values)) for o in body["omitted"]
        )

    def _abort(self, index: int, entry: Entry, _: Mapping[str, Any]) -> None:
        attempt = self._attempt(entry)
        attempt.aborted, attempt.abort_reason, attempt.abort_author = (
            _ref(index, entry),
            entry.body["reason"],
            entry.member,
        )

    def _release(self, index: int, entry: Entry, _: Mapping[str, Any]) -> None:
        subjects = entry.subjects
        self.releases.append(
            Released(
                _ref(index, entry), entry.agreement, entry.body["round"], subjects["model"], subjects["model-card"]
            )
        )

    def _attest(self, index: int, entry: Entry, _: Mapping[str, Any]) -> None:
        ref, body = _ref(index, entry), entry.body
        self.attestations.append(
            f"{ref}: {entry.member} {body['verdict']} with round {body['round']} of agreement {entry.agreement[:SHORT]}"
        )


def _ref(index: int, entry: Entry) -> Ref:
    return Ref(index, entry.id, entry.at)


def _contest(attempt: Attempt, member: str, values: Mapping[str, Any]) -> str:
    seat: Seat = values[state.seat_key(attempt.agreement, attempt.round, attempt.number, member)]
    return seat.claim


_HANDLERS = {kind: getattr(Facts, f"_{kind}") for kind in KINDS if hasattr(Facts, f"_{kind}")}
