# SPDX-License-Identifier: Apache-2.0
"""Credentials: what a signature checker lets through is refused here, case by case.

The names of the cases in `ROWS` say what such a checker (DIDKit 0.3.3) was measured to accept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from identity import credentials
from identity.credentials import Membership
from identity.errors import CredentialError
from identity.keys import Identity
from tests.identity import forge
from tests.identity.forge import (
    AUTHORITY,
    DAY,
    EVE,
    FEDERATION,
    HOSPITAL,
    NOW,
    changed,
    claims,
    code,
    header,
    put,
    verify,
)

SMALL_ORDER = "did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj"
TERMS: dict[str, Any] = {
    "subject": HOSPITAL.did,
    "role": "participant",
    "organisation": "Hôpital du Lac",
    "federation": FEDERATION,
    "not_before": NOW,
    "not_after": NOW + 90 * DAY,
}


def test_what_we_issue_we_accept() -> None:
    token = credentials.issue(AUTHORITY, **TERMS)
    membership = verify(token)
    assert membership == Membership(
        issuer=AUTHORITY.did,
        subject=HOSPITAL.did,
        role="participant",
        organisation="Hôpital du Lac",
        federation=FEDERATION,
        not_before=NOW,
        not_after=NOW + 90 * DAY,
        digest=hashlib.sha256(token.encode()).hexdigest(),
        jti=membership.jti,
    )


def test_issuing_is_deterministic_and_identifiers_differ() -> None:
    assert credentials.issue(AUTHORITY, **TERMS) == credentials.issue(AUTHORITY, **TERMS)
    identifiers = {verify(credentials.issue(AUTHORITY, **TERMS)).jti}
    for change in ({"role": "auditor"}, {"subject": EVE.did}, {"organisation": "B"}, {"not_before": NOW + 1}):
        identifiers.add(verify(credentials.issue(AUTHORITY, **(TERMS | change))).jti)
    assert len(identifiers) == 5
    assert all(identifier[23] == "8" for identifier in identifiers)  # the UUID's version
    chosen = credentials.issue(AUTHORITY, **TERMS, jti=forge.IDENTIFIER)
    assert verify(chosen).jti == forge.IDENTIFIER


@pytest.mark.parametrize("role", ["participant", "coordinator", "auditor", "authority"])
def test_every_role_can_be_held(role: str) -> None:
    assert verify(credentials.issue(AUTHORITY, **(TERMS | {"role": role}))).role == role


def test_the_forge_makes_a_good_credential_when_nothing_is_changed() -> None:
    assert verify(forge.token(claims())).subject == HOSPITAL.did
    assert verify(forge.token(claims(), header(typ=None))).subject == HOSPITAL.did


def _times(not_before: Any, not_after: Any) -> Callable[[dict[str, Any]], object]:
    def change(fields: dict[str, Any]) -> None:
        fields.update(nbf=not_before, exp=not_after)
        fields["vc"].update(issuanceDate=forge.iso(not_before), expirationDate=forge.iso(not_after))

    return change


LDP_PROOF = {"type": "Ed25519Signature2018", "proofPurpose": "assertionMethod", "jws": "e30..AA"}
SWAPPED_CONTEXT = ["https://www.w3.org/2018/credentials/v1", {"role": "urn:x:organisation"}]
STATUS = {"id": "https://attacker.example/list#1", "type": "StatusList2021Entry"}
ROWS = [
    ("expirationDate in the past", _times(NOW - 9 * DAY, NOW - DAY), "credential-expired"),
    ("issuanceDate in the future", _times(NOW + 2 * DAY, NOW + 9 * DAY), "credential-not-yet-valid"),
    ("changed claim is signed anew by nobody", None, "credential-signature"),
    ("undefined extra term in the vc", put("vc.extra", 1), "credential-fields"),
    ("undefined extra term in the subject", put("vc.credentialSubject.extra", 1), "credential-fields"),
    ("undefined extra claim", put("aud", "someone"), "credential-fields"),
    ("inline @context that swaps two terms", put("vc.@context", SWAPPED_CONTEXT), "credential-context"),
    ("a proof inside vc", put("vc.proof", LDP_PROOF), "credential-proof"),
    ("a proof of null inside vc", put("vc.proof", None), "credential-proof"),
    ("credentialStatus that nobody checks", put("vc.credentialStatus", STATUS), "credential-fields"),
    ("iss is not vc.issuer", put("vc.issuer", EVE.did), "credential-issuer"),
    ("issuer as an object", put("vc.issuer", {"id": AUTHORITY.did}), "credential-issuer"),
    (
        "issuer did:web, resolved over the network",
        put("iss", "did:web:attacker.example"),
        "credential-issuer",
    ),
    ("DID of a key of one byte", put("sub", "did:key:z6Mk1"), "credential-subject"),
    ("DID of a megabyte-like length", put("sub", "did:key:z6Mk" + "1" * 40000), "credential-subject"),
    ("DID of small order as issuer", put("iss", SMALL_ORDER), "credential-issuer"),
    ("DID of small order as subject", put("sub", SMALL_ORDER), "credential-subject"),
    ("another holder's subject", put("sub", EVE.did), "credential-subject"),
    ("bare presentation", lambda fields: fields.update(vp={"holder": EVE.did}), "credential-format"),
    ("presentation alone", lambda fields: fields.update(vp=fields.pop("vc")), "credential-format"),
    ("no vc at all", put("vc", ...), "credential-format"),
]


@pytest.mark.parametrize(("change", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_what_a_signature_checker_lets_through(
    change: Callable[[dict[str, Any]], object] | None, expected: str
) -> None:
    if change is None:
        other = forge.token(changed(put("vc.credentialSubject.role", "coordinator")))
        good = forge.token(claims())
        swapped = ".".join([good.split(".")[0], other.split(".")[1], good.split(".")[2]])
        assert code(swapped) == expected
    else:
        assert code(forge.token(changed(change))) == expected


def test_garbage_signature_and_past_exp_around_a_vc_with_a_proof_of_its_own() -> None:
    expired = claims(NOW - 9 * DAY, NOW - DAY)
    wrapped = forge.token(changed(put("vc.proof", LDP_PROOF), expired))
    assert code(forge.garbage_signature(wrapped)) == "credential-proof"


def test_presentations_and_json_ld_are_refused_by_their_format() -> None:
    # A presentation's embedded credentials, its holder and its challenge are never looked at: it does not get
    # that far.
    vc = claims()["vc"]
    for document in (
        vc,
        vc | {"proof": LDP_PROOF},
        {"type": "VerifiablePresentation", "holder": EVE.did},
        [vc],
    ):
        assert code(json.dumps(document)) == "credential-format"
        assert code("\n " + json.dumps(document)) == "credential-format"
    presentation = {
        "iss": HOSPITAL.did,
        "nonce": "x",
        "vp": {"verifiableCredential": [forge.token(claims())]},
    }
    assert code(forge.token(presentation, signer=HOSPITAL)) == "credential-format"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (put("vc.@context", ["https://www.w3.org/2018/credentials/v1"]), "credential-context"),
        (put("vc.@context", list(reversed(claims()["vc"]["@context"]))), "credential-context"),
        (put("vc.@context", "https://www.w3.org/2018/credentials/v1"), "credential-context"),
        (put("vc.@context", ["https://www.w3.org/ns/credentials/v2"]), "credential-context"),
        (put("vc.type", ["VerifiableCredential"]), "credential-type"),
        (put("vc.type", ["FederationMembership", "VerifiableCredential"]), "credential-type"),
        (put("vc.type", "FederationMembership"), "credential-type"),
        (put("vc", []), "credential-fields"),
        (put("vc", None), "credential-fields"),
        (put("vc.id", ...), "credential-fields"),
        (put("vc.expirationDate", ...), "credential-fields"),
        (put("vc.credentialSubject", [claims()["vc"]["credentialSubject"]]), "credential-fields"),
        (put("vc.credentialSubject.organisation", ...), "credential-fields"),
        (put("exp", ...), "credential-fields"),
        (put("nbf", ...), "credential-fields"),
        (put("jti", ...), "credential-fields"),
        (put("iss", ...), "credential-fields"),
        (put("iss", 7), "credential-issuer"),
        (put("iss", [AUTHORITY.did]), "credential-issuer"),
        (put("sub", None), "credential-subject"),
        (put("vc.credentialSubject.id", EVE.did), "credential-subject"),
        (put("jti", "urn:uuid:7d9f0f0e-0000-4000-8000-0000000000ab"), "credential-id"),
        (put("vc.id", None), "credential-id"),
        (lambda fields: (fields.update(jti="x"), fields["vc"].update(id="x")), "credential-id"),
        (lambda fields: (fields.update(jti=1), fields["vc"].update(id=1)), "credential-id"),
        (put("vc.credentialSubject.role", "owner"), "credential-role"),
        (put("vc.credentialSubject.role", ["participant"]), "credential-role"),
        (put("vc.credentialSubject.role", None), "credential-role"),
        (put("vc.credentialSubject.organisation", ""), "credential-organisation"),
        (put("vc.credentialSubject.organisation", "a" * 201), "credential-organisation"),
        (put("vc.credentialSubject.organisation", "a\u202eb"), "credential-organisation"),
        (put("vc.credentialSubject.organisation", "a\nb"), "credential-organisation"),
        (put("vc.credentialSubject.organisation", " DID:web:attacker.example"), "credential-organisation"),
        (put("vc.credentialSubject.organisation", {"name": "x"}), "credential-organisation"),
        (put("vc.credentialSubject.federation", "0" * 64), "credential-federation"),
        (put("vc.credentialSubject.federation", None), "credential-federation"),
        (put("vc.credentialSubject.federation", ""), "credential-federation"),
    ],
)
def test_every_field_is_judged(change: Callable[[dict[str, Any]], object], expected: str) -> None:
    assert code(forge.token(changed(change))) == expected


def test_signed_by_another() -> None:
    assert code(forge.token(claims(), signer=EVE)) == "credential-signature"
    own = changed(lambda fields: (fields.update(iss=EVE.did), fields["vc"].update(issuer=EVE.did)))
    assert code(forge.token(own, header(kid=forge.method(EVE.did)), EVE)) == "credential-issuer-untrusted"
    assert code(forge.garbage_signature(forge.token(claims()))) == "credential-signature"
    assert code(forge.token(claims()).rsplit(".", 1)[0] + ".QUJD") == "credential-signature"


def test_the_federation_is_the_callers() -> None:
    assert code(forge.token(claims()), federation="0" * 64) == "credential-federation"
    for empty in ("", "two words"):
        unnamed = changed(put("vc.credentialSubject.federation", empty))
        assert code(forge.token(unnamed), federation=empty) == "credential-federation"


# Dates


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_times(NOW, NOW + 90 * DAY + 1), "credential-lifetime"),
        (_times(NOW, NOW), "credential-lifetime"),
        (_times(NOW, NOW - 1), "credential-lifetime"),
        (put("vc.issuanceDate", forge.iso(NOW + 1)), "credential-dates"),
        (put("vc.expirationDate", forge.iso(NOW + 31 * DAY)), "credential-dates"),
        (put("vc.issuanceDate", forge.iso(NOW).replace("Z", "+00:00")), "credential-dates"),
        (put("vc.issuanceDate", forge.iso(NOW).replace("Z", ".000Z")), "credential-dates"),
        (put("vc.issuanceDate", NOW), "credential-dates"),
        (put("nbf", str(NOW)), "credential-dates"),
        (put("nbf", NOW + 0.5), "credential-dates"),
        (put("nbf", True), "credential-dates"),
        (put("nbf", -1), "credential-dates"),
        (put("exp", None), "credential-dates"),
        (put("exp", 253402300800), "credential-dates"),
        (put("exp", 1e300), "credential-dates"),
    ],
)
def test_dates(change: Callable[[dict[str, Any]], object], expected: str) -> None:
    assert code(forge.token(changed(change))) == expected


def test_the_validity_with_its_leeway_to_the_second() -> None:
    token, end = forge.token(claims()), NOW + 30 * DAY
    for now in (NOW - 60, NOW, end, end + 59):
        assert verify(token, now=now).not_after == end
    assert code(token, now=NOW - 61) == "credential-not-yet-valid"
    assert code(token, now=end + 60) == "credential-expired"
    assert code(token, now=NOW - 1, leeway=0) == "credential-not-yet-valid"
    assert code(token, now=end, leeway=0) == "credential-expired"


# Issuing


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"role": "owner"}, "credential-role"),
        ({"organisation": ""}, "credential-organisation"),
        ({"organisation": "\ud800"}, "credential-malformed"),
        ({"subject": "did:web:hospital.example"}, "credential-subject"),
        ({"subject": SMALL_ORDER}, "credential-subject"),
        ({"federation": ""}, "credential-federation"),
        ({"not_after": NOW + 90 * DAY + 1}, "credential-lifetime"),
        ({"not_after": NOW}, "credential-lifetime"),
        ({"not_before": float(NOW)}, "credential-malformed"),
        ({"not_before": -1}, "credential-dates"),
        ({"not_after": 2**52}, "credential-dates"),
        ({"jti": "urn:uuid:x"}, "credential-id"),
    ],
)
def test_nothing_is_issued_that_would_be_refused(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(CredentialError) as caught:
        credentials.issue(AUTHORITY, **(TERMS | change))
    assert caught.value.code == expected


def test_a_signer_that_signs_for_another_is_noticed() -> None:
    with pytest.raises(CredentialError, match="credential-signature"):
        credentials.issue(Identity(AUTHORITY.did, EVE.sign), **TERMS)
