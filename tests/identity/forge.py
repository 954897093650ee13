# SPDX-License-Identifier: Apache-2.0
"""Makes credentials, good and forged, without the code under test's own checks."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from identity import canonical, credentials
from identity.credentials import Membership
from identity.did import public_key_from_did
from identity.errors import CredentialError, Error
from identity.keys import Identity, identity_from_seed

AUTHORITY = identity_from_seed(b"authority".ljust(32))
HOSPITAL = identity_from_seed(b"hospital".ljust(32))
EVE = identity_from_seed(b"eve".ljust(32))
AUTHORITY_SEED = b"authority".ljust(32)
FEDERATION = "f1" * 32
IDENTIFIER = "urn:uuid:7d9f0f0e-0000-4000-8000-0000000000aa"
NOW = 1_800_000_000
DAY = 86400


def method(did: str) -> str:
    """The verification method of a did:key."""
    return f"{did}#{did[8:]}"


def iso(seconds: int) -> str:
    """YYYY-MM-DDTHH:MM:SSZ."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def header(**changes: Any) -> dict[str, Any]:
    """The header that the authority writes; None removes a field."""
    fields = {"alg": "EdDSA", "kid": method(AUTHORITY.did), "typ": "JWT"} | changes
    return {name: value for name, value in fields.items() if value is not None}


def claims(not_before: int = NOW, not_after: int = NOW + 30 * DAY) -> dict[str, Any]:
    """The claims of a good credential of the hospital."""
    return {
        "exp": not_after,
        "iss": AUTHORITY.did,
        "jti": IDENTIFIER,
        "nbf": not_before,
        "sub": HOSPITAL.did,
        "vc": {
            "@context": ["https://www.w3.org/2018/credentials/v1", "urn:fedledger:membership:v1"],
            "credentialSubject": {
                "federation": FEDERATION,
                "id": HOSPITAL.did,
                "organisation": "Hôpital du Lac",
                "role": "participant",
            },
            "expirationDate": iso(not_after),
            "id": IDENTIFIER,
            "issuanceDate": iso(not_before),
            "issuer": AUTHORITY.did,
            "type": ["VerifiableCredential", "FederationMembership"],
        },
    }


def changed(change: Callable[[dict[str, Any]], object], base: dict[str, Any] | None = None) -> dict[str, Any]:
    """The claims after one change in place."""
    fields = copy.deepcopy(claims() if base is None else base)
    change(fields)
    return fields


def compact(head: bytes, payload: bytes, signer: Identity = AUTHORITY) -> str:
    """A compact JWS of any two byte strings, truly signed."""
    signed = f"{canonical.b64url_encode(head)}.{canonical.b64url_encode(payload)}"
    return f"{signed}.{canonical.b64url_encode(signer.sign(signed.encode()))}"


def token(payload: Any, head: Any = None, signer: Identity = AUTHORITY) -> str:
    """A compact JWS of JSON values."""
    return compact(json.dumps(header() if head is None else head).encode(), json.dumps(payload).encode(), signer)


def garbage_signature(signed: str) -> str:
    """The same token with a signature of zeros."""
    return signed.rsplit(".", 1)[0] + "." + "A" * 86


_ISSUE = """
import asyncio, json, os, sys
import didkit
async def issue():
    request = json.load(sys.stdin)
    arguments = [json.dumps(request[name]) for name in ("credential", "options", "key")]
    print(await didkit.issue_credential(*arguments), flush=True)
    os._exit(0)
asyncio.run(issue())
"""


def issued_by_didkit(credential: dict[str, Any], **options: str) -> str:
    """What DIDKit itself issues for the authority's key, in a process of its own."""
    public = canonical.b64url_encode(public_key_from_did(AUTHORITY.did))
    key = {"kty": "OKP", "crv": "Ed25519", "x": public, "d": canonical.b64url_encode(AUTHORITY_SEED)}
    request = json.dumps({"credential": credential, "options": options, "key": key})
    done = subprocess.run(
        [sys.executable, "-c", _ISSUE], input=request, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def put(path: str, value: Any) -> Callable[[dict[str, Any]], object]:
    """Sets the field at a dotted path; the value `...` deletes it."""

    def change(fields: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for name in parents:
            fields = fields[name]
        if value is ...:
            del fields[last]
        else:
            fields[last] = value

    return change


def verify(token: str, *, now: int = NOW + DAY, federation: str = FEDERATION, **more: Any) -> Membership:
    """Our judgement, with the authority as the only issuer."""
    return credentials.verify(token, issuers={AUTHORITY.did}, federation=federation, now=now, **more)


def code(token: str, **more: Any) -> str:
    """The code with which the token is refused."""
    with pytest.raises(Error) as caught:
        verify(token, **more)
    assert type(caught.value) is CredentialError
    return caught.value.code


def fresh(**changes: Any) -> str:
    """A credential that is valid on this machine's clock, its header changed."""
    start = int(time.time()) - 5
    return token(claims(start, start + DAY), header(**changes))


def wrapped(subject: dict[str, Any], proof: dict[str, Any], **more: Any) -> str:
    """A token that leads DIDKit past the JWT, into the JSON-LD proof inside vc."""
    vc = {
        "@context": ["https://www.w3.org/2018/credentials/v1", {"@vocab": "urn:x:"}],
        "type": ["VerifiableCredential"],
        "issuer": AUTHORITY.did,
        "issuanceDate": "2026-01-01T00:00:00Z",
        "credentialSubject": {"id": HOSPITAL.did} | subject,
        "proof": {
            "created": "2026-01-01T00:00:00Z",
            "verificationMethod": method(AUTHORITY.did),
            "proofPurpose": "assertionMethod",
            "jws": "eyJhbGciOiJFZERTQSIsImNyaXQiOlsiYjY0Il0sImI2NCI6ZmFsc2V9.." + "A" * 86,
        }
        | proof,
    }
    return token({"iss": AUTHORITY.did, "nbf": 1, "exp": 2, "vc": vc | more})


def crashing() -> str:
    """Nested objects on which DIDKit overflows its stack."""
    return wrapped(json.loads('{"a":' * 108 + "{}" + "}" * 108), {"type": "Ed25519Signature2018"})


def hanging() -> str:
    """Linked blank nodes whose canonical form DIDKit does not finish computing."""
    nodes = [
        {"id": f"_:b{here}", "p": [{"id": f"_:b{there}"} for there in range(12) if there != here]} for here in range(12)
    ]
    return wrapped({"q": nodes}, {"type": "Ed25519Signature2018"})
