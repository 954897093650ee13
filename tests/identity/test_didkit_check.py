# SPDX-License-Identifier: Apache-2.0
"""DIDKit's second opinion:

real crashes and hangs of the real library, none of which ends as an acceptance.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from identity import didkit_check
from identity.didkit_check import Opinion, combine, judge, read_result, screen, second_opinion, verify_both
from tests.identity import forge
from tests.identity.forge import (
    AUTHORITY,
    DAY,
    EVE,
    FEDERATION,
    HOSPITAL,
    changed,
    claims,
    crashing,
    fresh,
    hanging,
    put,
)

ROOT = str(Path(didkit_check.__file__).parents[1])
ACCEPTED = Opinion("accepted", "")
GIB = 1 << 30


# In the parent


def test_the_parent_never_loads_didkit() -> None:
    script = """
import sys
from identity import didkit_check
assert didkit_check.second_opinion(sys.argv[1:])[0].verdict == "accepted"
assert not [name for name in sys.modules if name.startswith("didkit")]
"""
    subprocess.run([sys.executable, "-c", script, fresh()], check=True, timeout=60)


def test_an_empty_batch_starts_no_child() -> None:
    assert judge([], timeout=0, memory=1) == []
    assert verify_both([], issuers=[], federation=FEDERATION, now=0) == []


def test_a_batch_keeps_its_order() -> None:
    good, forged = fresh(), forge.garbage_signature(fresh())
    expired = forge.token(claims(forge.NOW - 1000 * DAY, forge.NOW - 999 * DAY))
    opinions = second_opinion([good, forged, "not a token", good, expired, fresh(typ=None)])
    assert [opinion.verdict for opinion in opinions] == [
        *("accepted", "refused", "refused", "accepted", "refused", "accepted"),
    ]
    assert "signature error" in opinions[1].detail
    assert "not shown to DIDKit" in opinions[2].detail


# What DIDKit answers


@pytest.mark.parametrize(
    ("checks", "errors", "verdict"),
    [
        (["JWS"], [], "accepted"),
        (["JWS"], ["something"], "refused"),
        (["proof"], [], "refused"),
        (["proof"], ["something"], "refused"),
        ([], [], "refused"),
        (["JWS", "proof"], [], "accepted"),
    ],
)
def test_checks_are_also_named_when_there_are_errors(checks: list[str], errors: Any, verdict: str) -> None:
    result = json.dumps({"checks": checks, "warnings": [], "errors": errors})
    assert read_result(result).verdict == verdict


def test_no_option_switches_the_issuer_binding_off() -> None:
    assert json.loads(didkit_check.OPTIONS) == {"proofFormat": "jwt", "proofPurpose": "assertionMethod"}


def test_a_proof_inside_vc_never_stands_in_for_the_tokens_signature() -> None:
    # DIDKit accepts this one, by the inner proof: the token's own signature is zeros and its exp is past.
    expired = claims(1_700_000_000, 1_700_000_100)
    context = ["https://www.w3.org/2018/credentials/v1", {"@vocab": "urn:x:"}]
    inner = json.loads(forge.issued_by_didkit(expired["vc"] | {"@context": context}))
    token = forge.garbage_signature(forge.token(expired | {"vc": inner}))
    opinion = judge([token], timeout=10, memory=GIB)[0]
    assert opinion == Opinion("refused", "DIDKit checked ['proof'], not the token's signature")
    assert screen(token) is not None


# What never reaches it


@pytest.mark.parametrize(
    "token",
    [
        "",
        "{}",
        fresh(alg="none"),
        fresh(alg="ES256"),
        fresh(jwk={}),
        fresh(crit=["b64"]),
        fresh(kid="did:web:attacker.example#key"),
        fresh(kid="https://attacker.example/key"),
        fresh(kid=None),
        fresh(kid="did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj"),
        forge.token(changed(put("iss", "did:web:attacker.example"))),
        forge.token(changed(put("iss", "did:tz:tz1YwA1FwpgLtc1G8DKbbZ6e6PTb1dQMRn5x"))),
        forge.token(changed(put("iss", ...))),
        forge.token(changed(put("vc.issuer", "did:web:attacker.example"))),
        forge.token(changed(put("vc.issuer", {"id": "did:web:attacker.example"}))),
        forge.token(changed(put("vc.issuer", {"id": "did:key:z6Mk" + "1" * 30000}))),
        forge.token(changed(put("vc.holder", "did:web:attacker.example"))),
        forge.token(changed(put("vc.credentialSubject.knows", [{"id": " DID:web:attacker.example"}]))),
        forge.token(changed(put("vc.credentialSubject", {"did:web:attacker.example": 1}))),
        forge.token(changed(put("sub", "did:ion:x"))),
        forge.token(changed(put("vp", {}))),
        forge.token(changed(put("vc", "text"))),
        crashing(),
        hanging(),
    ],
)
def test_screening(token: str) -> None:
    reason = screen(token)
    assert reason is not None
    assert second_opinion([token], memory=1) == [Opinion("refused", f"not shown to DIDKit: {reason}")]


def test_what_we_accept_is_always_shown() -> None:
    assert screen(fresh()) is None
    assert screen(forge.token(changed(put("vc.issuer", {"id": AUTHORITY.did})))) is None


# Both judgements


def test_a_credential_that_both_accept() -> None:
    row = verify_both([fresh()], issuers=[AUTHORITY.did], federation=FEDERATION, now=int(time.time()))[0]
    assert row.membership is not None
    assert (row.membership.subject, row.ours, row.theirs, row.error) == (
        HOSPITAL.did,
        "accepted",
        ACCEPTED,
        None,
    )


def test_that_we_refuse_what_didkit_accepts_is_normal_and_shown() -> None:
    now = int(time.time())
    rows = verify_both([fresh(), "x", fresh()], issuers=[EVE.did], federation=FEDERATION, now=now)
    assert [row.theirs.verdict for row in rows] == ["accepted", "refused", "accepted"]
    assert [row.error.code if row.error else "" for row in rows] == [
        *("credential-issuer-untrusted", "credential-format", "credential-issuer-untrusted"),
    ]
    assert all(row.membership is None and row.ours == str(row.error) for row in rows)


def test_that_didkit_refuses_what_we_accept_is_an_error() -> None:
    # Valid in a minute: inside our leeway; DIDKit has none.
    now = int(time.time())
    early = forge.token(claims(now + 59, now + DAY))
    row = verify_both([early], issuers=[AUTHORITY.did], federation=FEDERATION, now=now)[0]
    assert (row.membership, row.ours, row.theirs.verdict) == (None, "accepted", "refused")
    assert row.error is not None
    assert row.error.code == "second-opinion-disagrees"
    assert HOSPITAL.did in str(row.error)


@pytest.mark.parametrize("verdict", ["accepted", "not-available"])
def test_membership_needs_our_acceptance_whatever_didkit_says(verdict: Any) -> None:
    terms: dict[str, Any] = {"issuers": [AUTHORITY.did], "federation": FEDERATION, "now": forge.NOW}
    good = combine(forge.token(claims()), Opinion(verdict, ""), **terms)
    assert good.membership is not None
    assert good.error is None
    forged = combine(forge.garbage_signature(forge.token(claims())), Opinion(verdict, ""), **terms)
    assert forged.membership is None
    assert forged.error is not None
