# SPDX-License-Identifier: Apache-2.0
"""What several rules ask: who the author is, in what standing, and where the agreement stands."""

from chaincode import state
from chaincode.entries import Entry
from chaincode.state import Federation, Head, Member, Party, Seat, Terms
from chaincode.views import View
from identity.errors import Rejected
from identity.wording import counted

_ABSENCE_BY = {"": "", "member-not-valid": "expired"}  # by what ``standing`` says


def federation(entry: Entry, view: View) -> Federation:
    """The federation that the entry belongs to."""
    found = view.get(Federation, state.FEDERATION)
    if found is None:
        raise Rejected("not-founded", "This ledger has no federation yet.")
    if entry.federation != found.id:
        raise Rejected(
            "wrong-federation",
            f"The entry belongs to federation {entry.federation[:12]}, this ledger to {found.id[:12]}.",
        )
    return found


def authority(entry: Entry, view: View) -> Federation:
    """The federation, if one of its authority's DIDs signed."""
    found = federation(entry, view)
    if entry.did not in found.authority or entry.member != entry.did:
        raise Rejected("not-the-authority", f"{entry.did} is not a DID of the federation's authority.")
    return found


def standing(member: Member | None, at: int) -> str:
    """Empty for a member in standing at a time, otherwise the code that says why not."""
    if member is None:
        return "member-unknown"
    if member.state != "active":
        return "member-revoked"
    if not member.not_before <= at <= member.not_after:
        return "member-not-valid"
    return ""


def absence(party: Party, member: Member | None, at: int) -> str:
    """Why a party of an agreement cannot take part at a time: a word of ``kinds.ABSENCES``, empty if it can."""
    if party.state != "signed":
        return "withdrawn" if party.state == "withdrawn" else "unsigned"
    return _ABSENCE_BY.get(standing(member, at), "revoked")


def author(entry: Entry, view: View, *roles: str, any_standing: bool = False) -> Member:
    """The entry's author with its DID in force, in one of the roles (any if none), and in standing at the entry's time.

    ``any_standing`` is for what a member may do whatever became of its standing: leave, and claim what was sealed with it.
    """
    federation(entry, view)
    member = view.get(Member, state.member_key(entry.member))
    if member is None:
        raise Rejected("member-unknown", f"{entry.member} was never admitted.")
    if not any_standing and (code := standing(member, entry.at)):
        raise Rejected(code, f"{entry.member} is not a member in standing at {entry.at}.")
    if entry.did != member.did:
        raise Rejected("did-not-in-force", f"{entry.did} is not the DID in force of {entry.member}.")
    if roles and member.role not in roles:
        raise Rejected("wrong-role", f"{entry.member} is a {member.role}; {entry.kind} needs a {' or '.join(roles)}.")
    return member


def terms_of(entry: Entry, view: View) -> Terms:
    """The terms of the entry's agreement."""
    terms = view.get(Terms, state.terms_key(entry.agreement))
    if terms is None:
        raise Rejected("agreement-unknown", f"No agreement {entry.agreement[:12]} was proposed.")
    return terms


def own_agreement(entry: Entry, view: View) -> Terms:
    """The terms, if the author is the agreement's coordinator and in standing."""
    author(entry, view, "coordinator")
    terms = terms_of(entry, view)
    if entry.member != terms.coordinator:
        raise Rejected(
            "not-the-coordinator", f"{entry.member} is not the coordinator of agreement {entry.agreement[:12]}."
        )
    return terms


def head_of(entry: Entry, view: View) -> Head:
    """The agreement's head, if the entry does not claim an earlier time."""
    head = view.get(Head, state.head_key(entry.agreement))
    if head is None:
        raise Rejected("agreement-unknown", f"No agreement {entry.agreement[:12]} was proposed.")
    if entry.at < head.at:
        raise Rejected("at-precedes-head", f"The entry says {entry.at}, the agreement's last step was at {head.at}.")
    return head


def check_attempt(entry: Entry, head: Head) -> None:
    """Refuse an entry for another round or attempt than the head's."""
    stated = (entry.body["round"], entry.body["attempt"])
    if stated != (head.round, head.attempt):
        raise Rejected("wrong-round", f"The entry is for round {stated[0]} attempt {stated[1]}, "
                       f"the agreement is at round {head.round} attempt {head.attempt}.")  # fmt: skip


def own_seat(entry: Entry, member: str) -> str:
    """The key of a member's seat in the entry's round and attempt; for no member what all of them begin with."""
    return state.seat_key(entry.agreement, entry.body["round"], entry.body["attempt"], member)


def check_attestations(entry: Entry, view: View, round_: int, needed: int, terms: Terms) -> None:
    """Refuse a list of attestations that is too short, or names one that is not there or does not agree."""
    named = entry.body["attestations"]
    for member in named:
        verdict = view.get(state.Attestation, state.attest_key(entry.agreement, round_, member))
        if verdict is None or verdict.verdict != "agrees" or member == terms.coordinator:
            raise Rejected(
                "attestation-missing", f"{member} has not attested round {round_}, or may not for its own result."
            )
    if len(named) < needed:
        raise Rejected(
            "attestation-missing",
            f"Round {round_} needs {counted(needed, 'attestation')}, {counted(len(named), 'is', 'are')} named.",
        )


def attestation_keys(entry: Entry, round_: int) -> set[str]:
    """The keys of the attestations that an entry names."""
    return {state.attest_key(entry.agreement, round_, m) for m in entry.body["attestations"]}


def agreement_keys(entry: Entry) -> set[str]:
    """The author, the agreement's terms and its head."""
    a = entry.agreement
    return {state.member_key(entry.member), state.terms_key(a), state.head_key(a)}


def listed(some: list[str], others: list[dict[str, str]]) -> list[str]:
    """The members of two lists, the second of which gives reasons."""
    return [*some, *(item["member"] for item in others)]


def check_complete(names: list[str], expected: int, what: str) -> None:
    """A list is complete when its names are distinct and as many as the state counts; each one's key is checked by the caller."""
    if len(set(names)) != len(names) or len(names) != expected:
        raise Rejected("list-incomplete", f"The entry names {len(set(names))} of {expected} {what}, or one twice.")


def seat_of(entry: Entry, view: View, member: str, key: str) -> Seat:
    """A member's seat in the entry's round and attempt, whose key is at hand."""
    seat = view.get(Seat, key)
    if seat is None:
        raise Rejected("not-on-roster", f"{member} has no seat in round {entry.body['round']}.")
    return seat
