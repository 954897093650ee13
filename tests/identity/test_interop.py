# SPDX-License-Identifier: Apache-2.0
"""Credentials are what the standards say: other implementations read ours, and we judge theirs."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey

from identity import canonical, credentials, jws
from identity.did import public_key_from_did
from identity.didkit_check import Opinion, second_opinion
from identity.errors import CredentialError
from tests.identity import forge
from tests.identity.forge import AUTHORITY, FEDERATION, HOSPITAL

KEY: dict[str, Any] = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": canonical.b64url_encode(public_key_from_did(AUTHORITY.did)),
}
PRIVATE = KEY | {"d": canonical.b64url_encode(forge.AUTHORITY_SEED)}


def _issue(start: int) -> str:
    return credentials.issue(
        AUTHORITY,
        subject=HOSPITAL.did,
        role="participant",
        organisation="Hôpital du Lac",
        federation=FEDERATION,
        not_before=start,
        not_after=start + 3600,
    )


# joserfc warns that RFC 9864 renames EdDSA; DIDKit knows the old name only.
@pytest.mark.filterwarnings("ignore")
def test_joserfc_verifies_our_token() -> None:
    read = jwt.decode(_issue(forge.NOW), OKPKey.import_key(KEY), algorithms=["EdDSA"])
    assert read.header == forge.header()
    assert read.claims["vc"]["credentialSubject"]["id"] == read.claims["sub"] == HOSPITAL.did


@pytest.mark.filterwarnings("ignore")
def test_we_verify_a_token_of_joserfc() -> None:
    token = jwt.encode(forge.header(), forge.claims(), OKPKey.import_key(PRIVATE), algorithms=["EdDSA"])
    membership = credentials.verify(token, issuers=[AUTHORITY.did], federation=FEDERATION, now=forge.NOW)
    assert membership.subject == HOSPITAL.did


def test_didkit_accepts_our_token() -> None:
    assert second_opinion([_issue(int(time.time()))]) == [Opinion("accepted", "")]


def test_didkits_whole_float_dates_are_accepted_and_fractions_are_not() -> None:
    # Our choice: RFC 7519 allows any number, DIDKit writes 1800000000.0 for whole seconds. A whole float is
    # that second; a fraction is refused, because issuanceDate cannot say the same.
    token = forge.issued_by_didkit(forge.claims()["vc"], proofFormat="jwt")
    written = canonical.b64url_decode(token.split(".")[1])
    assert b'"nbf":1800000000.0' in written
    assert "typ" not in jws.split(token).header
    membership = credentials.verify(token, issuers=[AUTHORITY.did], federation=FEDERATION, now=forge.NOW)
    assert (membership.not_before, type(membership.not_before)) == (forge.NOW, int)
    fraction = forge.compact(json.dumps(forge.header()).encode(), written.replace(b"1800000000.0", b"1800000000.5"))
    with pytest.raises(CredentialError, match="credential-dates"):
        credentials.verify(fraction, issuers=[AUTHORITY.did], federation=FEDERATION, now=forge.NOW + 1)


def test_a_json_ld_credential_of_didkit_is_refused_by_its_format() -> None:
    credential = forge.claims()["vc"]
    credential["@context"] = ["https://www.w3.org/2018/credentials/v1", {"@vocab": "urn:x:"}]
    document = forge.issued_by_didkit(credential)
    assert "proof" in json.loads(document)
    with pytest.raises(CredentialError, match="credential-format"):
        credentials.verify(document, issuers=[AUTHORITY.did], federation=FEDERATION, now=forge.NOW)
