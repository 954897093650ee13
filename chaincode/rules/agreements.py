# SPDX-License-Identifier: Apache-2.0
"""Rules of an agreement's life outside its rounds: propose, sign, withdraw."""

from chaincode import state
from chaincode.agreement import agreement_digest, check_terms, tensor_specs
from chaincode.entries import Entry
from chaincode.rules.common import author, standing, terms_of
from chaincode.state import Head, Member, Party, Terms
from chaincode.transitions import ABSENT, move
from chaincode.views import View
from identity.errors import Rejected


def propose_keys(entry: Entry) -> set[str]:
    a, older = entry.agreement, entry.body["continues"]
    keys = {state.member_key(entry.member), state.terms_key(a), state.head_key(a)}
    for party in entry.body["terms"]["parties"]:
        keys |= {state.member_key(party), state.party_key(a, party)}
    return keys | {state.terms_key(older), state.head_key(older)} if older else keys


def propose(entry: Entry, view: View) -> None:
    """Propose an agreement to parties that are members; with ``continues``, close an older one and go on from it."""
    author(entry, view, "coordinator")
    agreement = entry.body["terms"]
    if (
        agreement_digest(agreement) != entry.agreement
        or agreement["model"]["initial"] != entry.subjects["initial-model"]
    ):
        raise Rejected("subject-mismatch", "The entry's subjects are not the digests of the agreement that it carries.")
    if agreement["coordinator"] != entry.member:
        raise Rejected("not-the-coordinator", "The agreement names another coordinator than its author.")
    if view.get(Terms, state.terms_key(entry.agreement)) is not None:
        raise Rejected("already-proposed", f"Agreement {entry.agreement[:12]} was proposed before.")
    terms = check_terms(agreement, tensor_specs(agreement))
    for party in agreement["parties"]:
        member = view.get(Member, state.member_key(party))
        if (code := standing(member, entry.at)) or member is None:
            raise Rejected(code, f"The party {party} is not a member in standing.")
        if member.role != "participant":
            raise Rejected("wrong-role", f"The party {party} is a {member.role}, not a participant.")
        view.put(state.party_key(entry.agreement, party), Party(move("party", ABSENT, "propose", f"party {party}")))
    older, optimiser = _close(entry, view, agreement["model"]["initial"], terms)
    view.put(state.terms_key(entry.agreement), terms)
    view.put(state.head_key(entry.agreement), Head(
        move("head", ABSENT, "propose", "the agreement"), 0, 0, entry.at, entry.id, agreement["model"]["initial"],
        optimiser, spent=older.spent if older else 0,
    ))  # fmt: skip


def _close(entry: Entry, view: View, initial: str, newer: Terms) -> tuple[Head | None, str]:
    """Close the agreement that this one continues: its head, None where it continues none, and the optimiser's state
    to go on from, empty where the newer agreement's optimiser could not."""
    older = entry.body["continues"]
    if older is None:
        return None, ""
    head, terms = view.get(Head, state.head_key(older)), view.get(Terms, state.terms_key(older))
    if head is None or terms is None:
        raise Rejected("agreement-unknown", f"No agreement {older[:12]} to continue.")
    if terms.coordinator != entry.member:
        raise Rejected("not-the-coordinator", f"{entry.member} is not the coordinator of agreement {older[:12]}.")
    if entry.at < head.at:
        raise Rejected(
            "at-precedes-head", f"The entry says {entry.at}, the older agreement's last step was at {head.at}."
        )
    after = move("head", head.state, "continue", f"agreement {older[:12]}")
    if head.base != initial:
        raise Rejected(
            "base-mismatch",
            f"The initial model is not the last result {head.base[:12]} of the agreement that it continues.",
        )
    view.put(state.head_key(older), Head(
        after, head.round, head.attempt, entry.at, entry.id, head.base, head.optimiser, spent=head.spent
    ))  # fmt: skip
    return head, head.optimiser if terms.optimiser_layout == newer.optimiser_layout else ""


def party_keys(entry: Entry) -> set[str]:
    """The keys of sign and of withdraw."""
    a = entry.agreement
    return {state.member_key(entry.member), state.terms_key(a), state.party_key(a, entry.member)}


def sign(entry: Entry, view: View) -> None:
    """A party accepts the agreement whose digest it signs."""
    author(entry, view, "participant")
    terms = terms_of(entry, view)
    if entry.at > terms.not_after:
        raise Rejected("agreement-not-valid", f"Agreement {entry.agreement[:12]} ended at {terms.not_after}.")
    _move_party(entry, view, "sign")


def withdraw(entry: Entry, view: View) -> None:
    """A party leaves the agreement, for good; one that was revoked or has expired may too."""
    author(entry, view, "participant", any_standing=True)
    terms_of(entry, view)
    _move_party(entry, view, "withdraw")


def _move_party(entry: Entry, view: View, verb: str) -> None:
    key = state.party_key(entry.agreement, entry.member)
    party = view.get(Party, key)
    view.put(key, Party(move("party", party.state if party else ABSENT, verb, f"party {entry.member}")))
