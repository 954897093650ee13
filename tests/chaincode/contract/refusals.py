# SPDX-License-Identifier: Apache-2.0
"""The refusal table, the specification of the contract: the federation, its members and its agreements.

A row is a code, what is refused, the entries before, and the entry refused. ``W()`` is a world of three sites of which
two suffice; ``w.verb(...)`` submits one entry, sensible but for the fields that are named. The table goes on in
``refusals_rounds.py``; the transitions that a round's head refuses are a matrix there.
"""

# A table: one row a line.
# fmt: off
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.chaincode.contract.agreements import DAY, digest, tensor
from tests.chaincode.contract.refusals_rounds import ROUNDS
from tests.chaincode.contract.rows import Row, elsewhere, named, rotated, vkey
from tests.chaincode.contract.world import World, key

W = World
HOST_CODES = frozenset({"clock-skew", "log-key-mismatch"})
"""Codes of the hosts, not of the contract: the ledgers' conformance suite has their rows."""

FEDERATION = (
    Row("duplicate-entry", "the very same entry again", lambda: W().founded(), lambda w: w.submit(w.envelopes[-1])),
    Row("duplicate-entry", "found itself again", lambda: W().founded(), lambda w: w.submit(w.envelopes[0])),
    Row("not-founded", "an admission on an empty ledger", W, lambda w: w.admit(1, federation=digest("none"))),
    Row("not-founded", "an amendment on an empty ledger", W, lambda w: w.amend(federation=digest("none"))),
    Row("already-founded", "a second federation", lambda: W().founded(), lambda w: w.found(nonce=digest("second"))),
    Row("wrong-federation", "an admission replayed from elsewhere", lambda: W().found(), lambda w: w.submit(elsewhere().envelopes[1])),
    Row("wrong-federation", "a proposal replayed from elsewhere", lambda: W().founded(), lambda w: w.submit(elsewhere().propose().envelopes[-1])),
    Row("wrong-federation", "a signature replayed from elsewhere", lambda: W().proposed(), lambda w: w.submit(elsewhere().wait(1).propose().sign(1).envelopes[-1])),
    Row("wrong-federation", "a commitment replayed from elsewhere", lambda: W().opened(), lambda w: w.submit(elsewhere().opened().commit(1).envelopes[-1])),
    Row("wrong-federation", "a revocation replayed from elsewhere", lambda: W().founded(), lambda w: w.submit(elsewhere().revoke(1).envelopes[-1])),
    Row("not-the-authority", "found is signed by nobody whom it names", W, lambda w: w.found(authority=w.names("coordinator"))),
    Row("not-the-authority", "found in another's name", W, lambda w: w.found(member=w.name(1))),
    Row("not-the-authority", "the coordinator admits a member", lambda: W().founded(), lambda w: w.admit(4, by="coordinator")),
    Row("not-the-authority", "a site revokes another", lambda: W().founded(), lambda w: w.revoke(2, by=1)),
    Row("not-the-authority", "the coordinator amends the federation", lambda: W().founded(), lambda w: w.amend(by="coordinator")),
    Row("not-the-authority", "the coordinator in the authority's name", lambda: W().founded(), lambda w: w.amend(member=w.name("authority"), signer=key("coordinator"))),
    Row("not-the-authority", "the authority in a member's name", lambda: W().founded(), lambda w: w.revoke(2, member=w.name(1), signer=key("authority"))),
    Row("not-the-authority", "an authority's DID that was replaced", lambda: W().founded().amend(authority=[key("authority 2").did]), lambda w: w.revoke(1)),
    Row("policy-inconsistent", "a cosigner twice", W, lambda w: w.found(cosigners=[vkey("a"), vkey("a")])),
    Row("policy-inconsistent", "one key as two cosigners", W, lambda w: w.found(cosigners=[vkey("a"), vkey("a", name="other")], quorum=2)),
    Row("policy-inconsistent", "the log's key as its own cosigner", W, lambda w: w.found(log_key=vkey("log", 1, "ledger.example/test"), cosigners=[vkey("log")])),
    Row("policy-inconsistent", "the same by amendment", lambda: W(policy={"log_key": vkey("log", 1, "ledger.example/test")}).founded(), lambda w: w.amend(cosigners=[vkey("log")])),
    Row("policy-inconsistent", "a log key of another log", W, lambda w: w.found(log_key=vkey("log", 1, "ledger.example/other"))),
    Row("policy-inconsistent", "a quorum beyond the cosigners", lambda: W().founded(), lambda w: w.amend(cosigners=[vkey("a")], quorum=2)),
    Row("did-taken", "the authority takes a member's DID", lambda: W().founded(), lambda w: w.amend(authority=w.names("authority", 1))),
    Row("did-taken", "the authority takes a retired DID", lambda: rotated(W().founded()), lambda w: w.amend(authority=w.names("authority", 1))),
)

MEMBERS = (
    Row("validity-out-of-range", "an admission for 91 days", lambda: W().founded(), lambda w: w.admit(4, not_before=w.now, not_after=w.now + 91 * DAY)),
    Row("validity-out-of-range", "an admission that ends as it begins", lambda: W().founded(), lambda w: w.admit(4, not_before=w.now, not_after=w.now)),
    Row("validity-out-of-range", "an admission that ends before it begins", lambda: W().founded(), lambda w: w.admit(4, not_before=w.now, not_after=w.now - 1)),
    Row("member-name", "a new member that is not named by its DID", lambda: W().founded(), lambda w: w.admit(4, new_did=key("other").did)),
    Row("role-change", "a participant becomes coordinator", lambda: W().founded(), lambda w: w.admit(1, role="coordinator")),
    Row("role-change", "an auditor becomes participant, once revoked", lambda: W().founded().revoke("auditor"), lambda w: w.admit("auditor", role="participant")),
    Row("did-taken", "a member is admitted under the authority's DID", lambda: W().founded(), lambda w: w.admit("authority")),
    Row("did-taken", "a member is admitted under another's rotated DID", lambda: rotated(W().founded()), lambda w: w.admit(w.keys(1)[1].did, new_did=w.keys(1)[1].did)),
    Row("did-taken", "a lost key is replaced by another member's", lambda: W().founded(), lambda w: w.lose_key(1, new_did=w.name(2))),
    Row("did-taken", "a lost key is replaced by the member's retired one", lambda: rotated(W().founded()), lambda w: w.wait(1).admit(1, new_did=w.name(1))),
    Row("did-taken", "a renewal from before a rotation", lambda: rotated(W().founded()), lambda w: w.admit(1, new_did=w.name(1), not_after=w.now + 80 * DAY)),
    Row("did-taken", "rotation to the DID in force", lambda: W().founded(), lambda w: w.rotate(1, new=w.keys(1)[0])),
    Row("did-taken", "rotation back to a retired DID", lambda: rotated(W().founded()), lambda w: w.rotate(1, new=w.keys(1)[0])),
    Row("did-taken", "rotation to another member's DID", lambda: W().founded(), lambda w: w.rotate(1, new=key("site-02"))),
    Row("did-taken", "rotation to the authority's DID", lambda: W().founded(), lambda w: w.rotate(1, new=key("authority"))),
    Row("rotation-proof", "the old key vouches for the new one", lambda: W().founded(), lambda w: w.rotate(1, new=replace(w.keys(1)[0], did=key("new").did))),
    Row("rotation-proof", "a consent that was given to another member", lambda: rotated(W().founded()), lambda w: w.rotate(2, new=w.keys(1)[1], proof=w.entries[-1].body["proof"])),
    Row("rotation-proof", "a consent that was given elsewhere", lambda: W().founded(), lambda w: w.rotate(1, proof=rotated(elsewhere()).entries[-1].body["proof"])),
    Row("member-unknown", "a stranger signs", lambda: W().proposed(), lambda w: w.sign(9)),
    Row("member-unknown", "a stranger rotates", lambda: W().founded(), lambda w: w.rotate(9)),
    Row("member-unknown", "a stranger commits", lambda: W().opened(), lambda w: w.commit(9)),
    Row("member-unknown", "a stranger claims", lambda: W().sealed(), lambda w: w.claim(9)),
    Row("member-unknown", "a stranger is revoked", lambda: W().founded(), lambda w: w.revoke(9)),
    Row("member-unknown", "a proposal to a stranger", lambda: W().founded(), lambda w: w.propose(terms={"parties": w.names(1, 2, 9)})),
    Row("member-unknown", "a member acts under its new DID as its name", lambda: rotated(W().opened()), lambda w: w.commit(1, member=w.keys(1)[1].did)),
    Row("member-revoked", "a revoked member is revoked", lambda: W().founded().revoke(1), lambda w: w.revoke(1, reason="misconduct")),
    Row("member-revoked", "a revoked site signs", lambda: W().proposed().revoke(1), lambda w: w.sign(1)),
    Row("member-revoked", "a revoked site commits", lambda: W().opened().revoke(1), lambda w: w.commit(1)),
    Row("member-revoked", "a revoked site rotates", lambda: W().founded().revoke(1), lambda w: w.rotate(1)),
    Row("member-revoked", "a revoked coordinator opens", lambda: W().agreed().revoke("coordinator"), lambda w: w.open()),
    Row("member-revoked", "a revoked coordinator records", lambda: W().sealed().revoke("coordinator"), lambda w: w.record()),
    Row("member-revoked", "a revoked member attests", lambda: W().recorded().revoke(1), lambda w: w.attest(1)),
    Row("member-revoked", "a proposal to a revoked site", lambda: W().founded().revoke(1), lambda w: w.propose()),
    Row("member-not-valid", "a site signs before its admission begins", lambda: W().proposed().admit(1, not_before=W().now + 50), lambda w: w.sign(1)),
    Row("member-not-valid", "a site commits after its admission ended", lambda: W().opened().admit(1, not_after=W().now + 50), lambda w: w.wait(60).commit(1)),
    Row("member-not-valid", "the coordinator opens after its admission ended", lambda: W().agreed().admit("coordinator", not_after=W().now + 50), lambda w: w.wait(60).open()),
    Row("member-not-valid", "a proposal to a site before its admission begins", lambda: W().founded().admit(1, not_before=W().now + 50), lambda w: w.propose()),
    Row("did-not-in-force", "the rotated key commits in mid-round", lambda: rotated(W().opened()), lambda w: w.commit(1, signer=w.keys(1)[0])),
    Row("did-not-in-force", "a lost key commits in mid-round", lambda: W().opened().lose_key(1), lambda w: w.commit(1, signer=w.keys(1)[0])),
    Row("did-not-in-force", "a retired key claims", lambda: rotated(W().sealed()), lambda w: w.claim(1, signer=w.keys(1)[0])),
    Row("did-not-in-force", "a retired key rotates on", lambda: rotated(W().founded()), lambda w: w.rotate(1, signer=w.keys(1)[0])),
    Row("did-not-in-force", "one site signs for another", lambda: W().proposed(), lambda w: w.sign(1, signer=key("site-02"))),
    Row("did-not-in-force", "the coordinator commits for a site", lambda: W().opened(), lambda w: w.commit(1, signer=key("coordinator"))),
    Row("did-not-in-force", "the authority withdraws for a site", lambda: W().agreed(), lambda w: w.withdraw(1, signer=key("authority"))),
    Row("wrong-role", "a site proposes", lambda: W().founded(), lambda w: w.propose(by=1, terms={"coordinator": w.name(1)})),
    Row("wrong-role", "the coordinator signs", lambda: W().proposed(), lambda w: w.sign("coordinator")),
    Row("wrong-role", "an auditor commits", lambda: W().opened(), lambda w: w.commit("auditor")),
    Row("wrong-role", "a site opens", lambda: W().agreed(), lambda w: w.open(by=1)),
    Row("wrong-role", "an auditor is a party", lambda: W().founded(), lambda w: w.propose(terms={"parties": w.names(1, 2, "auditor")})),
    Row("wrong-role", "the coordinator is a party", lambda: W().founded(), lambda w: w.propose(terms={"parties": w.names(1, 2, "coordinator")})),
    Row("wrong-role", "the coordinator claims", lambda: W().sealed(), lambda w: w.claim("coordinator")),
)

BAD_TERMS: dict[str, dict[str, Any]] = {
    "two tensors have one name": {"model": {"tensors": [tensor("a", [2]), tensor("a", [3])]}},
    "nothing is averaged": {"model": {"tensors": [tensor("a", [2], rule="keep")]}},
    "what is averaged is empty": {"model": {"tensors": [tensor("a", [0])]}},
    "the model is enormous": {"model": {"tensors": [tensor("a", [2**32, 2**32])]}},
    "integers are averaged": {"model": {"tensors": [tensor("a", [2], dtype="int64")]}},
    "clip and fraction bits exceed an int32": {"model": {"tensors": [tensor("a", [2], clip_exponent=15)]}},
    "clip and fraction bits lie below one": {"model": {"tensors": [tensor("a", [2], clip_exponent=-17)]}},
    "more must take part than there are": {"min_participants": 4},
    "it ends before it begins": {"not_before": 1_900_000_000, "not_after": 1_900_000_000},
    "a parameter is missing": {"aggregation": {"optimiser": "avgm"}},
    "a parameter is another optimiser's": {"aggregation": {"parameters": {"learning_rate": "1", "tau": "1"}}},
    "a rate of zero": {"aggregation": {"parameters": {"learning_rate": "0"}}},
    "a rate that no float holds": {"aggregation": {"parameters": {"learning_rate": "1e999"}}},
    "a momentum of one": {"aggregation": {"optimiser": "avgm", "parameters": {"learning_rate": "1", "momentum": "1"}}},
    "a negative momentum": {"aggregation": {"optimiser": "avgm", "parameters": {"learning_rate": "1", "momentum": "-0.1"}}},
    "a privacy budget without privacy": {"privacy": {"budget": 1}},
    "more attestations than parties for the next round": {"attestations": {"next_open": 4}},
    "more attestations than parties for a release": {"attestations": {"release": 4}},
}


def proposed_with(terms: dict[str, Any]) -> Callable[[W], object]:
    return lambda w: w.propose(terms=terms)


NEWER = {"title": "Newer", "model": {"initial": digest("model 1")}}
INT64 = {"encoding": "int64", "tensors": [tensor("a", [2], fraction_bits=52)]}

AGREEMENTS = (
    *(Row("agreement-inconsistent", what, lambda: W().founded(), proposed_with(terms)) for what, terms in BAD_TERMS.items()),
    Row("not-supported", "tensors local to the sites", lambda: W().founded(), lambda w: w.propose(terms={"model": {"tensors": [tensor("a", [2]), tensor("b", [2], rule="local")]}})),
    Row("sum-could-overflow", "3 x 1000 x 2^52 exceeds 2^63", lambda: W().founded(), lambda w: w.propose(terms={"model": INT64})),
    Row("sum-could-overflow", "the largest weights at the largest int32", lambda: W(max_weight=2**40).founded(), lambda w: w.propose(terms={"model": {"tensors": [tensor("a", [2], fraction_bits=30)]}})),
    Row("subject-mismatch", "the subject is another agreement", lambda: W().founded(), lambda w: w.propose(agreement=digest("other"))),
    Row("subject-mismatch", "the subject is another initial model", lambda: W().founded(), lambda w: w.propose(initial_model=digest("other"))),
    Row("already-proposed", "the same agreement a second later", lambda: W().proposed(), lambda w: w.propose(at=w.now + 1)),
    Row("already-proposed", "the same agreement as a continuation of itself", lambda: W().proposed(), lambda w: w.propose(continues=w.digest)),
    Row("not-the-coordinator", "the agreement names another coordinator", lambda: W().founded().admit("rival", role="coordinator"), lambda w: w.propose(by="rival")),
    Row("not-the-coordinator", "a rival continues the agreement", lambda: W().recorded().admit("rival", role="coordinator"), lambda w: w.propose(by="rival", continues=w.digest, terms={**NEWER, "coordinator": w.name("rival")})),
    Row("not-the-coordinator", "a rival opens", lambda: W().agreed().admit("rival", role="coordinator"), lambda w: w.open(by="rival")),
    Row("not-the-coordinator", "a rival seals", lambda: W().committed().admit("rival", role="coordinator"), lambda w: w.seal(by="rival")),
    Row("not-the-coordinator", "a rival records", lambda: W().sealed().admit("rival", role="coordinator"), lambda w: w.record(by="rival")),
    Row("not-the-coordinator", "a rival releases", lambda: W().recorded().admit("rival", role="coordinator"), lambda w: w.release(by="rival")),
    Row("agreement-unknown", "a signature on no agreement", lambda: W().proposed(), lambda w: w.sign(1, agreement=digest("none"))),
    Row("agreement-unknown", "a withdrawal from no agreement", lambda: W().agreed(), lambda w: w.withdraw(1, agreement=digest("none"))),
    Row("agreement-unknown", "an opening of no agreement", lambda: W().agreed(), lambda w: w.open(agreement=digest("none"))),
    Row("agreement-unknown", "a commitment to no agreement", lambda: W().opened(), lambda w: w.commit(1, agreement=digest("none"))),
    Row("agreement-unknown", "a continuation of no agreement", lambda: W().founded(), lambda w: w.propose(continues=digest("none"))),
    Row("base-mismatch", "a continuation from another model", lambda: W().recorded(), lambda w: w.propose(continues=w.digest, terms={"title": "Newer"})),
    Row("at-precedes-head", "a continuation dated back", lambda: W().recorded(), lambda w: w.propose(continues=w.digest, terms=NEWER, at=w.head.at - 1)),
    Row("agreement-not-valid", "a signature after the end", lambda: W().proposed(), lambda w: w.until(w.terms.not_after + 1).sign(1)),
    Row("agreement-not-valid", "an opening before the beginning", lambda: W(not_before=W().now + 90).agreed(), lambda w: w.open()),
    Row("agreement-not-valid", "an opening after the end", lambda: W().agreed(), lambda w: w.until(w.terms.not_after + 1).open()),
    Row("not-a-party", "a member signs another's agreement", lambda: W().proposed().admit(4), lambda w: w.sign(4)),
    Row("not-a-party", "a member withdraws from another's agreement", lambda: W().proposed().admit(4), lambda w: w.withdraw(4)),
    Row("not-a-party", "a roster with a stranger to the agreement", lambda: W().agreed().admit(4), lambda w: w.open(roster=w.names(1, 2, 4))),
    Row("not-a-party", "a stranger to the agreement is called absent", lambda: W().agreed().admit(4), lambda w: w.open(roster=w.names(1, 2), absent=named(w, "unsigned", 4))),
    Row("not-a-party", "a bystander gives the attempt up", lambda: W().opened(), lambda w: w.wait(9 * DAY).abort("auditor")),
    Row("already-signed", "a second signature", lambda: W().agreed(), lambda w: w.wait(1).sign(1)),
    Row("party-withdrawn", "a signature after withdrawal", lambda: W().agreed().withdraw(1), lambda w: w.wait(1).sign(1)),
    Row("party-withdrawn", "a second withdrawal", lambda: W().agreed().withdraw(1), lambda w: w.wait(1).withdraw(1)),
    Row("party-withdrawn", "a commitment after withdrawal", lambda: W().opened().withdraw(1), lambda w: w.commit(1)),
    Row("party-withdrawn", "a decline after withdrawal", lambda: W().opened().withdraw(1), lambda w: w.decline(1)),
)

ROWS = (*FEDERATION, *MEMBERS, *AGREEMENTS, *ROUNDS)
