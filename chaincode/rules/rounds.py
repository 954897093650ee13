# SPDX-License-Identifier: Apache-2.0
"""Rules of a round up to its seal: open, commit, decline, seal (rules R1 and R2)."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from chaincode import state
from chaincode.agreement import sum_fits
from chaincode.entries import Entry
from chaincode.rules.common import (
    absence,
    agreement_keys,
    attestation_keys,
    author,
    check_attempt,
    check_attestations,
    check_complete,
    head_of,
    listed,
    own_agreement,
    own_seat,
    seat_of,
    terms_of,
)
from chaincode.state import Head, Member, Party, Seat, Terms
from chaincode.transitions import ABSENT, move
from chaincode.views import View
from identity.errors import Rejected
from identity.wording import counted

# A blob is the integers and one header line before them.
MAX_HEADER = 1024


def _judged_keys(entry: Entry, members: list[str]) -> set[str]:
    """What standing in a round is judged from, and the seats."""
    keys, party, seat = agreement_keys(entry), state.party_key(entry.agreement, ""), own_seat(entry, "")
    for m in members:
        keys.update((state.member_key(m), party + m, seat + m))
    return keys


def _absences(entry: Entry, view: View) -> Callable[[str], str]:
    """Answers for a member why it cannot take part at the entry's time; empty if it can."""
    parties, at = state.party_key(entry.agreement, ""), entry.at

    def why(member: str) -> str:
        party = view.get(Party, parties + member)
        if party is None:
            raise Rejected("not-a-party", f"{member} is not a party of agreement {entry.agreement[:12]}.")
        return absence(party, view.get(Member, state.member_key(member)), at)

    return why


def open_keys(entry: Entry) -> set[str]:
    body = entry.body
    keys = _judged_keys(entry, body["roster"]) | attestation_keys(entry, body["round"] - 1)
    for item in body["absent"]:
        keys |= {state.member_key(item["member"]), state.party_key(entry.agreement, item["member"])}
    return keys


def open_(entry: Entry, view: View) -> None:
    """Open the next round, or the next attempt of an aborted one, to every party in standing."""
    terms, head, body = own_agreement(entry, view), head_of(entry, view), entry.body
    after = move("head", head.state, "open", "the agreement")
    _check_next(entry, head, terms)
    if entry.subjects["base-model"] != head.base:
        raise Rejected(
            "base-mismatch", f"The round must start from model {head.base[:12]}, the agreement's last result."
        )
    if not terms.not_before <= entry.at <= terms.not_after:
        raise Rejected(
            "agreement-not-valid",
            f"The agreement is valid from {terms.not_before} to {terms.not_after}, not at {entry.at}.",
        )
    if body["commit_by"] != entry.at + terms.commit_seconds:
        raise Rejected("deadline-mismatch", f"commit_by must be {terms.commit_seconds} s after the opening, as agreed.")
    if head.spent + body["reservation"] > terms.budget:
        raise Rejected(
            "budget-exceeded",
            f"{head.spent} spent and {body['reservation']} reserved exceed the agreed {terms.budget}.",
        )
    check_attestations(entry, view, body["round"] - 1, terms.attest_next_open if body["round"] > 1 else 0, terms)
    _check_roster(entry, view, terms)
    view.put(state.head_key(entry.agreement), Head(
        after, body["round"], body["attempt"], entry.at, entry.id, head.base, head.optimiser, roster=len(body["roster"]),
        opened_at=entry.at, commit_by=body["commit_by"], reserved=body["reservation"], spent=head.spent,
    ))  # fmt: skip
    seats = own_seat(entry, "")
    view.put_each((seats + m for m in body["roster"]), Seat(move("seat", ABSENT, "open", "a seat")))


def _check_next(entry: Entry, head: Head, terms: Terms) -> None:
    again = head.state == "aborted"
    expected = (head.round, head.attempt + 1) if again else (head.round + 1, 1)
    if (entry.body["round"], entry.body["attempt"]) != expected:
        raise Rejected("wrong-round", f"The next opening is round {expected[0]} attempt {expected[1]}.")
    if expected[0] > terms.rounds:
        raise Rejected("rounds-exhausted", f"The agreement has {counted(terms.rounds, 'round')}.")
    if expected[1] > terms.attempts:
        raise Rejected("attempts-exhausted", f"The agreement allows {counted(terms.attempts, 'attempt')} per round.")


def _check_roster(entry: Entry, view: View, terms: Terms) -> None:
    roster, absent = entry.body["roster"], entry.body["absent"]
    check_complete(listed(roster, absent), terms.parties, "parties")
    absence_of = _absences(entry, view)
    for m in roster:
        if why := absence_of(m):
            raise Rejected("not-in-standing", f"{m} cannot take part: {why}.")
    for item in absent:
        if (why := absence_of(item["member"])) != item["reason"]:
            raise Rejected(
                "reason-unfounded", f"{item['member']} is left out as {item['reason']}, but is {why or 'in standing'}."
            )
    if len(roster) < terms.min_participants:
        raise Rejected(
            "below-minimum",
            f"{len(roster)} of at least {counted(terms.min_participants, 'participant')} can take part.",
        )
    if not sum_fits(len(roster), terms.max_weight, terms.largest):
        raise Rejected("sum-could-overflow", "The roster's weighted sum could leave 64 bits.")


def seat_keys(entry: Entry) -> set[str]:
    """The keys of commit and of decline."""
    return agreement_keys(entry) | {state.party_key(entry.agreement, entry.member), own_seat(entry, entry.member)}


def _own_open_seat(entry: Entry, view: View, key: str) -> tuple[Terms, Seat]:
    author(entry, view, "participant")
    terms, head = terms_of(entry, view), head_of(entry, view)
    move("head", head.state, entry.kind, "the round")
    check_attempt(entry, head)
    if entry.at > head.commit_by:
        raise Rejected(
            "past-deadline", f"Commitments to round {head.round} closed at {head.commit_by}; the entry says {entry.at}."
        )
    seat = view.get(Seat, key)
    if seat is None:
        raise Rejected("not-on-roster", f"{entry.member} has no seat in round {head.round} attempt {head.attempt}.")
    party = view.get(Party, state.party_key(entry.agreement, entry.member))
    if party is None or party.state != "signed":
        raise Rejected("party-withdrawn", f"{entry.member} has left the agreement.")
    return terms, seat


def commit(entry: Entry, view: View) -> None:
    """A site commits to the digest of its update before anyone sees its bytes."""
    key = own_seat(entry, entry.member)
    terms, seat = _own_open_seat(entry, view, key)
    body, update = entry.body, entry.subjects["update"]
    if seat.state == "committed":
        code = "duplicate-commitment" if seat.update == update else "conflicting-commitment"
        raise Rejected(code, f"{entry.member} has committed to {seat.update[:12]} in this round.")
    after = move("seat", seat.state, "commit", f"the seat of {entry.member}")
    if not 1 <= body["examples"] <= terms.max_weight:
        raise Rejected(
            "weight-out-of-range",
            f"{counted(body['examples'], 'example')}; the agreement allows 1 to {terms.max_weight}.",
        )
    if not 0 < body["size"] - terms.elements * terms.width <= MAX_HEADER:
        raise Rejected(
            "size-mismatch",
            f"An update of {counted(terms.elements, 'element')} cannot have {counted(body['size'], 'byte')}.",
        )
    if body["metrics"] is not None and not terms.share_metrics:
        raise Rejected("metrics-not-agreed", "The agreement does not share local metrics.")
    view.put(key, Seat(after, update, body["size"], body["examples"]))


def decline(entry: Entry, view: View) -> None:
    """A site does not take part in this attempt."""
    key = own_seat(entry, entry.member)
    _, seat = _own_open_seat(entry, view, key)
    after = move("seat", seat.state, "decline", f"the seat of {entry.member}")
    view.put(key, seat.moved(after, entry.body["reason"]))


def seal_keys(entry: Entry) -> set[str]:
    return _judged_keys(entry, listed(entry.body["cohort"], entry.body["out"]))


def seal(entry: Entry, view: View) -> None:
    """Fix the cohort: every committed seat in standing; from now on bytes may be delivered, and no commitment is added."""
    terms, head, body = own_agreement(entry, view), head_of(entry, view), entry.body
    after = move("head", head.state, "seal", "the round")
    check_attempt(entry, head)
    check_complete(listed(body["cohort"], body["out"]), head.roster, "seats")
    if body["deliver_by"] != entry.at + terms.deliver_seconds:
        raise Rejected("deadline-mismatch", f"deliver_by must be {terms.deliver_seconds} s after the seal, as agreed.")
    absence_of, seats = _absences(entry, view), own_seat(entry, "")
    weight = sum(_include(entry, view, m, seats + m, absence_of) for m in body["cohort"])
    for item in body["out"]:
        _exclude(entry, view, head, item, absence_of)
    if len(body["cohort"]) < terms.min_participants:
        raise Rejected(
            "below-minimum",
            f"{len(body['cohort'])} of at least {counted(terms.min_participants, 'participant has', 'participants have')} committed.",
        )
    view.put(state.head_key(entry.agreement), replace(
        head, state=after, at=entry.at, entry=entry.id, cohort=len(body["cohort"]), weight=weight, deliver_by=body["deliver_by"]
    ))  # fmt: skip


def _include(entry: Entry, view: View, member: str, key: str, absence_of: Callable[[str], str]) -> int:
    seat = seat_of(entry, view, member, key)
    after = move("seat", seat.state, "include", f"the seat of {member}")
    if why := absence_of(member):
        raise Rejected("not-in-standing", f"{member} cannot take part: {why}.")
    view.put(key, seat.moved(after))
    return seat.examples


def _exclude(entry: Entry, view: View, head: Head, item: Mapping[str, str], absence_of: Callable[[str], str]) -> None:
    """Put a seat out of the cohort for the reason that the state shows, and no other (R2)."""
    member, reason = item["member"], item["reason"]
    key = own_seat(entry, member)
    seat = seat_of(entry, view, member, key)
    why = absence_of(member) or {"open": "silent", "declined": "declined"}.get(seat.state, "")
    if why != reason:
        raise Rejected(
            "reason-unfounded", f"{member} is left out as {reason}, but is {why or 'committed and in standing'}."
        )
    if why == "silent" and entry.at <= head.commit_by:
        raise Rejected("seal-too-early", f"{member} may still commit until {head.commit_by}.")
    after = move("seat", seat.state, "exclude", f"the seat of {member}")
    view.put(key, seat.moved(after, reason))
