# SPDX-License-Identifier: Apache-2.0
"""Rules of what follows a seal: claim, record, abort, release, attest (rules R2 and R7)."""

from dataclasses import replace

from chaincode import state
from chaincode.entries import Entry
from chaincode.rules.common import (
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
from chaincode.state import Attestation, DidOwner, Head, Party, Release, Result, Seat
from chaincode.statements import receipt
from chaincode.transitions import move
from chaincode.views import View
from identity.canonical import b64decode
from identity.errors import Rejected
from identity.keys import verify_signature
from identity.wording import counted


def claim_keys(entry: Entry) -> set[str]:
    keys = agreement_keys(entry) | {own_seat(entry, entry.member)}
    signed = entry.body["receipt"]
    return keys | {state.did_key(signed["did"])} if signed else keys


def claim(entry: Entry, view: View) -> None:
    """A cohort member states that it delivered; with the coordinator's receipt, its omission is refused later.

    Who has left or lost its standing since the seal may still claim: its update is in the cohort (R2).
    """
    author(entry, view, "participant", any_standing=True)
    terms, head = terms_of(entry, view), head_of(entry, view)
    move("head", head.state, "claim", "the round")
    check_attempt(entry, head)
    key = own_seat(entry, entry.member)
    seat = seat_of(entry, view, entry.member, key)
    move("seat", seat.state, "claim", f"the seat of {entry.member}")
    if entry.subjects["update"] != seat.update:
        raise Rejected(
            "claim-mismatch", f"{entry.member} committed to {seat.update[:12]}, not to {entry.subjects['update'][:12]}."
        )
    signed = entry.body["receipt"]
    if signed is None:
        view.put(key, seat._replace(claim=seat.claim or "bare"))
        return
    owner = view.get(DidOwner, state.did_key(signed["did"]))
    stated = receipt(federation=entry.federation, agreement=entry.agreement, round_=head.round, attempt=head.attempt,
                     member=entry.member, update=seat.update)  # fmt: skip
    if (
        owner is None
        or owner.member != terms.coordinator
        or not verify_signature(signed["did"], stated, b64decode(signed["signature"]))
    ):
        raise Rejected("receipt-invalid", "The receipt is not one of the agreement's coordinator for this update.")
    view.put(key, seat._replace(claim="receipt"))


def record_keys(entry: Entry) -> set[str]:
    seat = own_seat(entry, "")
    seats = {seat + m for m in listed(entry.body["included"], entry.body["omitted"])}
    return agreement_keys(entry) | seats | {state.result_key(entry.agreement, entry.body["round"])}


def record(entry: Entry, view: View) -> None:
    """Record the aggregate of the cohort; each omission has its reason, and none goes against a receipt."""
    terms, head, body = own_agreement(entry, view), head_of(entry, view), entry.body
    after = move("head", head.state, "record", "the round")
    check_attempt(entry, head)
    check_complete(listed(body["included"], body["omitted"]), head.cohort, "cohort members")
    key = own_seat(entry, "")
    seats = {m: seat_of(entry, view, m, key + m) for m in listed(body["included"], body["omitted"])}
    for m, seat in seats.items():
        move("seat", seat.state, "record", f"the seat of {m}")
    contested = sum(_omit(entry, head, item["member"], item["reason"], seats) for item in body["omitted"])
    if len(body["included"]) < terms.min_participants:
        raise Rejected(
            "below-minimum", f"{len(body['included'])} of at least {counted(terms.min_participants, 'update')} arrived."
        )
    if body["examples"] != sum(seats[m].examples for m in body["included"]):
        raise Rejected("weight-mismatch", "The examples are not the sum of what the included members committed to.")
    optimiser = entry.subjects.get("optimiser-state", "")
    if (optimiser != "") != (terms.optimiser_layout != ""):
        raise Rejected(
            "optimiser-state-mismatch",
            "The record must state the optimiser's state exactly if the agreed optimiser has one.",
        )
    view.put(state.result_key(entry.agreement, head.round), Result(
        entry.id, head.attempt, entry.subjects["sum"], entry.subjects["model"], optimiser, body["examples"],
        len(body["included"]), len(body["omitted"]), contested,
    ))  # fmt: skip
    view.put(state.head_key(entry.agreement), replace(
        head, state=after, at=entry.at, entry=entry.id, base=entry.subjects["model"], optimiser=optimiser,
        spent=head.spent + head.reserved, reserved=0,
    ))  # fmt: skip


def _omit(entry: Entry, head: Head, member: str, reason: str, seats: dict[str, Seat]) -> bool:
    """Check an omission; whether its site contests it."""
    if entry.at <= head.deliver_by:
        raise Rejected("omission-too-early", f"{member} may still deliver until {head.deliver_by}.")
    # A receipt shows that the committed bytes arrived. That these bytes are no valid update, anyone can check on the bytes.
    if seats[member].claim == "receipt" and reason != "invalid-update":
        raise Rejected("omission-against-receipt", f"{member} holds the coordinator's receipt for its update.")
    return seats[member].claim != ""


def abort_keys(entry: Entry) -> set[str]:
    return agreement_keys(entry) | {state.party_key(entry.agreement, entry.member)}


def abort(entry: Entry, view: View) -> None:
    """Give up an attempt: the coordinator before a seal or past the delivery deadline, any party after the last deadline."""
    author(entry, view)
    terms, head = terms_of(entry, view), head_of(entry, view)
    after = move("head", head.state, "abort", "the round")
    check_attempt(entry, head)
    sealed = head.state == "sealed"
    if entry.member == terms.coordinator:
        earliest = head.deliver_by + 1 if sealed else head.at
    elif (
        party := view.get(Party, state.party_key(entry.agreement, entry.member))
    ) is not None and party.state != "proposed":
        earliest = 1 + terms.record_seconds + (head.deliver_by if sealed else head.commit_by + terms.deliver_seconds)
    else:
        raise Rejected("not-a-party", f"{entry.member} is neither a party nor the coordinator of the agreement.")
    if entry.at < earliest:
        raise Rejected(
            "abort-too-early", f"{entry.member} may give up this attempt from {earliest}; the entry says {entry.at}."
        )
    spent = head.spent + (head.reserved if sealed else 0)
    view.put(state.head_key(entry.agreement), replace(
        head, state=after, at=entry.at, entry=entry.id, spent=spent, reserved=0
    ))  # fmt: skip


def release_keys(entry: Entry) -> set[str]:
    a, n = entry.agreement, entry.body["round"]
    return agreement_keys(entry) | {state.result_key(a, n), state.release_key(a, n)} | attestation_keys(entry, n)


def release(entry: Entry, view: View) -> None:
    """Publish the model of a recorded round."""
    terms, round_ = own_agreement(entry, view), entry.body["round"]
    head_of(entry, view)
    result = view.get(Result, state.result_key(entry.agreement, round_))
    if result is None:
        raise Rejected("result-unknown", f"Round {round_} has no recorded result.")
    if result.model != entry.subjects["model"]:
        raise Rejected(
            "result-differs", f"Round {round_} recorded model {result.model[:12]}, not {entry.subjects['model'][:12]}."
        )
    if view.get(Release, state.release_key(entry.agreement, round_)) is not None:
        raise Rejected("already-released", f"The model of round {round_} was released before.")
    check_attestations(entry, view, round_, terms.attest_release, terms)
    view.put(state.release_key(entry.agreement, round_), Release(entry.id, result.model, entry.subjects["model-card"]))


def attest_keys(entry: Entry) -> set[str]:
    a, n = entry.agreement, entry.body["round"]
    return {state.member_key(entry.member), state.result_key(a, n), state.attest_key(a, n, entry.member)}


def attest(entry: Entry, view: View) -> None:
    """A member states that it recomputed a result and got the same digests, or that it did not."""
    author(entry, view)
    round_ = entry.body["round"]
    result = view.get(Result, state.result_key(entry.agreement, round_))
    if result is None:
        raise Rejected("result-unknown", f"Round {round_} has no recorded result.")
    same = (entry.subjects["sum"], entry.subjects["model"]) == (result.sum, result.model)
    if same != (entry.body["verdict"] == "agrees"):
        raise Rejected(
            "attestation-inconsistent", "The verdict does not follow from the digests that the entry states."
        )
    key = state.attest_key(entry.agreement, round_, entry.member)
    if view.get(Attestation, key) is not None:
        raise Rejected("already-attested", f"{entry.member} has attested round {round_} before.")
    view.put(key, Attestation(entry.body["verdict"]))
