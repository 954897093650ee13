# SPDX-License-Identifier: Apache-2.0
"""Rules of the federation and its members: found, amend, admit, revoke, rotate."""

from chaincode import state
from chaincode.entries import Entry
from chaincode.notes import parse_vkey
from chaincode.rules.common import author, authority
from chaincode.state import DidOwner, Federation, Member
from chaincode.statements import rotation
from chaincode.transitions import ABSENT, move
from chaincode.views import View
from identity.canonical import b64decode
from identity.errors import Rejected
from identity.keys import verify_signature

MAX_VALIDITY = 90 * 86_400
"""Seconds that one admission lasts at most, as its credential does."""


def found_keys(_entry: Entry) -> set[str]:
    return set()


def found(entry: Entry, view: View) -> None:
    """The first entry: the federation's constitution, signed by one of its authority's DIDs."""
    if view.get(Federation, state.FEDERATION) is not None:
        raise Rejected("already-founded", "This ledger has a federation already.")
    if entry.did not in entry.body["authority"] or entry.member != entry.did:
        raise Rejected("not-the-authority", f"{entry.did} is not among the authority's DIDs that it states.")
    view.put(state.FEDERATION, _policy(entry, entry.id, entry.body["origin"], entry.body["log_key"] or ""))


def amend_keys(entry: Entry) -> set[str]:
    return {state.did_key(did) for did in entry.body["authority"]}


def amend(entry: Entry, view: View) -> None:
    """Change the authority, the cosigners, the quorum or the skew; origin and log key stay."""
    old = authority(entry, view)
    for did in entry.body["authority"]:
        if view.get(DidOwner, state.did_key(did)) is not None:
            raise Rejected("did-taken", f"{did} is or was a member's DID: the authority needs one of its own.")
    view.put(state.FEDERATION, _policy(entry, old.id, old.origin, old.log_key))


def _policy(entry: Entry, identity: str, origin: str, log_key: str) -> Federation:
    body = entry.body
    log = [parse_vkey(log_key)] if log_key else []
    keys = [v.public_key for v in (*log, *map(parse_vkey, body["cosigners"]))]
    if len(set(keys)) != len(keys) or body["quorum"] > len(body["cosigners"]):
        raise Rejected(
            "policy-inconsistent",
            "The log's and the cosigners' keys are not distinct, or the quorum asks for more than there are.",
        )
    if any(v.name != origin for v in log):
        raise Rejected("policy-inconsistent", f"The log key is that of {log[0].name}, not of the log {origin}.")
    return Federation(
        identity, origin, tuple(body["authority"]), log_key, tuple(body["cosigners"]), body["quorum"], body["skew"]
    )  # fmt: skip


def admit_keys(entry: Entry) -> set[str]:
    return {state.member_key(entry.body["admits"]), state.did_key(entry.body["new_did"])}


def admit(entry: Entry, view: View) -> None:
    """Admit a member under the DID that names it; renew one; or give a member that lost its key a new DID."""
    policy, body = authority(entry, view), entry.body
    name = body["admits"]
    if not 0 < body["not_after"] - body["not_before"] <= MAX_VALIDITY:
        raise Rejected("validity-out-of-range", "An admission must end after it begins and last at most 90 days.")
    old = view.get(Member, state.member_key(name))
    after = move("member", old.state if old else ABSENT, "admit", f"member {name}")
    if old is None and body["new_did"] != name:
        raise Rejected("member-name", f"A new member is named by its first DID, which {name} is not.")
    if old is not None and old.role != body["role"]:
        raise Rejected("role-change", f"{name} is a {old.role}; a member's role does not change.")
    if old is None or old.did != body["new_did"]:
        _take_did(view, body["new_did"], name, policy)
    view.put(state.member_key(name), Member(
        after, body["role"], body["organisation"], body["new_did"], entry.subjects["credential"],
        body["not_before"], body["not_after"],
    ))  # fmt: skip


def _take_did(view: View, did: str, member: str, policy: Federation) -> None:
    """Give a member a DID that nobody has had: one that was put out of force, perhaps because it leaked, never returns."""
    if did in policy.authority or view.get(DidOwner, state.did_key(did)) is not None:
        raise Rejected("did-taken", f"{did} is or was in force for a member, or is the authority's.")
    view.put(state.did_key(did), DidOwner(member))


def revoke_keys(entry: Entry) -> set[str]:
    return {state.member_key(entry.body["revokes"])}


def revoke(entry: Entry, view: View) -> None:
    """End a member's standing; it binds from the next open, commit or seal."""
    authority(entry, view)
    key = state.member_key(entry.body["revokes"])
    old = view.get(Member, key)
    after = move("member", old.state if old else ABSENT, "revoke", f"member {entry.body['revokes']}")
    assert old is not None  # noqa: S101 (an absent member cannot be revoked)
    view.put(key, Member(after, old.role, old.organisation, old.did, old.credential, old.not_before, old.not_after))


def rotate_keys(entry: Entry) -> set[str]:
    return {state.member_key(entry.member), state.did_key(entry.body["new_did"])}


def rotate(entry: Entry, view: View) -> None:
    """Put a new DID in force; the entry is signed by the old one and carries the new one's consent."""
    old, new = author(entry, view), entry.body["new_did"]
    after = move("member", old.state, "rotate", f"member {entry.member}")
    policy = view.get(Federation, state.FEDERATION)
    assert policy is not None  # noqa: S101 (author has said so)
    consent = rotation(federation=policy.id, member=entry.member, new_did=new)
    if not verify_signature(new, consent, b64decode(entry.body["proof"])):
        raise Rejected("rotation-proof", f"The new DID {new} did not sign the rotation of {entry.member}.")
    _take_did(view, new, entry.member, policy)
    view.put(state.member_key(entry.member), Member(
        after, old.role, old.organisation, new, old.credential, old.not_before, old.not_after
    ))  # fmt: skip
