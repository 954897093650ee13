# SPDX-License-Identifier: Apache-2.0
"""Membership credentials: W3C Verifiable Credentials 1.1 as JWT (EdDSA), judged by our own policy.

A signature checker lets expired, future, mislabelled and wrapped credentials through; so every field is
closed and checked here. Source: W3C VC Data Model 1.1 section 6.3.1 (JWT encoding), RFC 7515, RFC 7519, RFC
8037.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, NoReturn

from identity import canonical, jws
from identity.did import public_key_from_did
from identity.errors import CredentialError, EvidenceError
from identity.keys import Identity, verify_signature

ROLES: Final = ("participant", "coordinator", "auditor", "authority")
LIFETIME_LIMIT: Final = 90 * 86400  # seconds
LEEWAY: Final = 60  # seconds
CONTEXT: Final = ("https://www.w3.org/2018/credentials/v1", "urn:fedledger:membership:v1")
TYPES: Final = ("VerifiableCredential", "FederationMembership")

_LATEST: Final = 253402300799  # 9999-12-31T23:59:59Z: the last second that a four-digit year writes
_CLAIMS: Final = {"exp", "iss", "jti", "nbf", "sub", "vc"}
_VC_FIELDS: Final = {
    "@context",
    "credentialSubject",
    "expirationDate",
    "id",
    "issuanceDate",
    "issuer",
    "type",
}
_SUBJECT_FIELDS: Final = {"federation", "id", "organisation", "role"}
_URN: Final = re.compile(r"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ORGANISATION_LIMIT: Final = 200  # characters
_FEDERATION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")


@dataclass(frozen=True, slots=True)
class Membership:
    """What an accepted credential says: `subject` is a member of `federation` in `role`.

    Times are UTC seconds since 1970, both ends of the validity; `digest` is the SHA-256 (hex) of the token,
    which is what the ledger records.
    """

    issuer: str
    subject: str
    role: str
    organisation: str
    federation: str
    not_before: int
    not_after: int
    digest: str
    jti: str


def issue(
    issuer: Identity,
    *,
    subject: str,
    role: str,
    organisation: str,
    federation: str,
    not_before: int,
    not_after: int,
    jti: str | None = None,
) -> str:
    """A membership credential as compact JWS, deterministic: the same arguments give the same token.

    `not_before` and `not_after` are UTC seconds, at most 90 days apart. `jti` is a `urn:uuid:`; None derives
    one from the other arguments. Other verifiers allow no leeway: date `not_before` no later than the
    authority's clock.

    Raises CredentialError with the codes of `verify` for arguments that `verify` would refuse.
    """
    terms = {"federation": federation, "organisation": organisation, "role": role}
    span = {"iss": issuer.did, "nbf": not_before, "exp": not_after, "sub": subject}
    identifier = jti or _derive_id(span | terms)
    payload = span | {
        "jti": identifier,
        "vc": {
            "@context": list(CONTEXT),
            "credentialSubject": terms | {"id": subject},
            "expirationDate": _date(not_after),
            "id": identifier,
            "issuanceDate": _date(not_before),
            "issuer": issuer.did,
            "type": list(TYPES),
        },
    }
    header = {"alg": "EdDSA", "kid": _verification_method(issuer.did), "typ": "JWT"}
    signed = f"{_part(header)}.{_part(payload)}"
    token = f"{signed}.{canonical.b64url_encode(issuer.sign(signed.encode('ascii')))}"
    # What leaves here is what every verifier accepts: bad arguments and a wrong signer end here.
    verify(token, issuers={issuer.did}, federation=federation, now=not_before)
    return token


def verify(token: str, *, issuers: Collection[str], federation: str, now: int, leeway: int = LEEWAY) -> Membership:
    """What the credential says, if our policy accepts it at `now` (UTC seconds) from one of `issuers` (DIDs).

    Raises CredentialError and nothing else, for any token: credential-too-large; credential-format (a JSON-LD
    document, a presentation, an SD-JWT, not a compact JWS); credential-malformed (base64 or JSON, duplicate
    keys, depth); credential-algorithm (not EdDSA); credential-header (`crit`, or any field but alg, kid,
    typ); credential-proof (a `proof` inside `vc`); credential-fields (one missing, unknown or of the wrong
    type); credential-context; credential-type; credential-issuer (iss, vc.issuer and kid do not name one
    Ed25519 did:key); credential-issuer-untrusted; credential-signature; credential-subject (sub and
    credentialSubject.id do not name one Ed25519 did:key); credential-id (jti and vc.id are not one urn:uuid);
    credential-dates (nbf and issuanceDate, exp and expirationDate are not the same second);
    credential-lifetime (empty or beyond 90 days); credential-role; credential-organisation;
    credential-federation; credential-not-yet-valid; credential-expired.
    """
    parts = jws.split(token)
    header, claims = parts.header, parts.claims
    vc = _check_form(header, claims)
    # (1) Who signed: one name in three places, trusted, and its key made the signature.
    issuer = _check_issuer(header, claims, vc)
    if issuer not in issuers:
        _refuse("issuer-untrusted", f"{issuer} is not an issuer for this federation.")
    if not verify_signature(issuer, parts.signed, parts.signature):
        _refuse("signature", f"The credential is not signed by {issuer}.")
    # (2) What it says, each statement in one wording only.
    subject = _check_subject(claims, vc)
    identifier = claims["jti"]
    if not isinstance(identifier, str) or identifier != vc["id"] or _URN.fullmatch(identifier) is None:
        _refuse("id", "jti and vc.id must be the same urn:uuid.")
    not_before, not_after = _check_dates(claims, vc)
    role, organisation = _check_terms(vc["credentialSubject"], federation)
    # (3) Whether it holds now.
    if now < not_before - leeway:
        _refuse("not-yet-valid", f"The credential of {subject} is valid from {_date(not_before)}.")
    if now >= not_after + leeway:
        _refuse("expired", f"The credential of {subject} expired at {_date(not_after)}.")
    digest = hashlib.sha256(token.encode("ascii")).hexdigest()
    return Membership(issuer, subject, role, organisation, federation, not_before, not_after, digest, identifier)


def _check_form(header: dict[str, Any], claims: dict[str, Any]) -> dict[str, Any]:
    """The `vc` claim, once all fields are those that we judge; no others, so that none goes unjudged."""
    if header.get("alg") != "EdDSA":
        _refuse("algorithm", "The algorithm must be EdDSA.")
    if header.keys() - {"typ"} != {"alg", "kid"} or header.get("typ", "JWT") != "JWT":
        _refuse("header", "The header's fields must be alg, kid and typ (JWT), no others; no crit.")
    if "vp" in claims or "vc" not in claims:
        _refuse("format", "The token is not a credential but a presentation or something else.")
    vc = claims["vc"]
    if isinstance(vc, dict) and "proof" in vc:
        # A checker that finds a proof in there may take it for the token's own signature.
        _refuse("proof", "The credential carries a second proof inside vc.")
    _check_fields(claims, _CLAIMS, "payload")
    _check_fields(vc, _VC_FIELDS, "vc")
    _check_fields(vc["credentialSubject"], _SUBJECT_FIELDS, "credentialSubject")
    if vc["@context"] != list(CONTEXT):
        _refuse("context", f"@context must be exactly {list(CONTEXT)}.")
    if vc["type"] != list(TYPES):
        _refuse("type", f"type must be exactly {list(TYPES)}.")
    return dict(vc)


def _check_issuer(header: dict[str, Any], claims: dict[str, Any], vc: dict[str, Any]) -> str:
    issuer = _did(claims["iss"], "issuer")
    if vc["issuer"] != issuer:
        _refuse("issuer", "iss and vc.issuer differ.")
    if header["kid"] != _verification_method(issuer):
        _refuse("issuer", "kid is not the verification method of iss.")
    return issuer


def _check_subject(claims: dict[str, Any], vc: dict[str, Any]) -> str:
    subject = _did(claims["sub"], "subject")
    if vc["credentialSubject"]["id"] != subject:
        _refuse("subject", "sub and credentialSubject.id differ.")
    return subject


def _check_dates(claims: dict[str, Any], vc: dict[str, Any]) -> tuple[int, int]:
    not_before, not_after = _seconds(claims["nbf"], "nbf"), _seconds(claims["exp"], "exp")
    if (vc["issuanceDate"], vc["expirationDate"]) != (_date(not_before), _date(not_after)):
        _refuse("dates", "issuanceDate and expirationDate must be nbf and exp, as YYYY-MM-DDTHH:MM:SSZ.")
    if not 0 < not_after - not_before <= LIFETIME_LIMIT:
        _refuse("lifetime", f"The credential must be valid for 1 to {LIFETIME_LIMIT} seconds (90 days).")
    return not_before, not_after


def _check_terms(subject: dict[str, Any], federation: str) -> tuple[str, str]:
    """Role and organisation, for this federation."""
    role, organisation, stated = subject["role"], subject["organisation"], subject["federation"]
    if role not in ROLES:
        _refuse("role", f"role must be one of {', '.join(ROLES)}.")
    if (
        not isinstance(organisation, str)
        or not 1 <= len(organisation) <= _ORGANISATION_LIMIT
        or not organisation.isprintable()
        or organisation.strip().lower().startswith("did:")  # a name; a DID here may be resolved by others
    ):
        _refuse("organisation", f"organisation must be 1 to {_ORGANISATION_LIMIT} printable characters.")
    if not isinstance(stated, str) or _FEDERATION.fullmatch(stated) is None or stated != federation:
        _refuse("federation", f"The credential is not for the federation {federation}.")
    return role, organisation


def _check_fields(value: Any, names: set[str], where: str) -> None:
    if not isinstance(value, dict) or value.keys() != names:
        _refuse("fields", f"The fields of the {where} must be exactly {', '.join(sorted(names))}.")


def _did(value: Any, who: Literal["issuer", "subject"]) -> str:
    if not isinstance(value, str):
        _refuse(who, f"The {who} must be a DID.")
    try:
        public_key_from_did(value)
    except CredentialError as error:
        raise CredentialError(f"credential-{who}", f"The {who} is not a usable DID: {error}") from error
    return value


def _seconds(value: Any, name: str) -> int:
    """A NumericDate (RFC 7519 section 2) in whole seconds.

    DIDKit writes 1795396604.0: whole floats are accepted.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 <= value <= _LATEST:
        _refuse("dates", f"{name} must be a whole number of seconds since 1970.")
    return value


def _date(seconds: int) -> str:
    if type(seconds) is not int or not 0 <= seconds <= _LATEST:
        _refuse("dates", "A date must be a whole number of seconds since 1970.")
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _verification_method(did: str) -> str:
    """The one verification method of a did:key: its own multibase value as the fragment."""
    return f"{did}#{did.removeprefix('did:key:')}"


def _derive_id(terms: dict[str, Any]) -> str:
    """A urn:uuid of version 8 (RFC 9562 section 5.8):

    the first 128 bits of SHA-256 over the canonical terms.
    """
    number = bytearray(hashlib.sha256(_canonical(terms)).digest()[:16])
    number[6] = number[6] & 0x0F | 0x80
    number[8] = number[8] & 0x3F | 0x80
    return uuid.UUID(bytes=bytes(number)).urn


def _part(value: dict[str, Any]) -> str:
    return canonical.b64url_encode(_canonical(value))


def _canonical(value: dict[str, Any]) -> bytes:
    try:
        return canonical.dumps(value)
    except EvidenceError as error:
        raise CredentialError("credential-malformed", f"The credential cannot be written: {error}") from error


def _refuse(code: str, message: str) -> NoReturn:
    raise CredentialError(f"credential-{code}", message)
