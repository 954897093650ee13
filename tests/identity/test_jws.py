# SPDX-License-Identifier: Apache-2.0
"""Tokens: their form, their header and their size, and nothing but CredentialError for hostile text."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import canonical
from identity.errors import CredentialError
from tests.identity import forge
from tests.identity.forge import (
    AUTHORITY,
    EVE,
    HOSPITAL,
    NOW,
    changed,
    claims,
    code,
    header,
    put,
    verify,
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c.d",
        "a.b.c.d.e",
        "a.b.c~d",
        "é.b.c",
        "a.b.c\n",
        " a.b.c",
        "a..c",
        "a.b.",
        "a=.b.c",
    ],
)
def test_what_is_not_a_compact_jws(text: str) -> None:
    assert code(text) == "credential-format"


def test_sd_jwt_and_whitespace_are_refused_by_format() -> None:
    good = forge.token(claims())
    for text in (
        good + "~",
        good + "~WyJ4Il0~",
        good + "\n",
        "\t" + good,
        good + ".",
        good.replace(".", ".."),
    ):
        assert code(text) == "credential-format"


def _raw(head: str | None = None, payload: str | None = None) -> str:
    good_head, good_payload = json.dumps(header()), json.dumps(claims())
    return forge.compact((head or good_head).encode(), (payload or good_payload).encode())


@pytest.mark.parametrize(
    "token",
    [
        _raw(head='{"alg":"none",' + json.dumps(header())[1:]),
        _raw(payload='{"sub":"x",' + json.dumps(claims())[1:]),
        _raw(payload=json.dumps(claims()).replace('"role":', '"role":"auditor","role":')),
        _raw(head="[]"),
        _raw(payload="[]"),
        _raw(payload='"text"'),
        _raw(head="{"),
        _raw(payload=json.dumps(changed(put("vc.deep", json.loads("[" * 17 + "]" * 17))))),
        _raw(payload=json.dumps(changed(put("nbf", 2**53)))),
        _raw(payload=json.dumps(claims()).replace(str(NOW), "NaN", 1)),
        _raw(payload=json.dumps(changed(put("vc.extra", "\ud800")))),
        _raw(head=json.dumps(header(typ="x" * 1100))),
        forge.compact(b"\xff", b"{}"),
        "A" + _raw(),
        _raw() + "AAA",
    ],
)
def test_malformed_parts(token: str) -> None:
    assert code(token) == "credential-malformed"


def test_a_signature_with_unused_bits_is_refused() -> None:
    good = forge.token(claims())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = good[:-1] + alphabet[alphabet.index(good[-1]) + 1]
    assert code(other) == "credential-malformed"


def test_size() -> None:
    padded = changed(put("vc.extra", "x" * 60000))
    assert code(forge.token(padded)) == "credential-too-large"
    assert code("a" * 65537) == "credential-too-large"
    assert code("a" * 65536) == "credential-format"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (header(alg="none"), "credential-algorithm"),
        (header(alg="HS256"), "credential-algorithm"),
        (header(alg="ES256"), "credential-algorithm"),
        (header(alg="Ed25519"), "credential-algorithm"),
        (header(alg="eddsa"), "credential-algorithm"),
        (header(alg=["EdDSA"]), "credential-algorithm"),
        (header(alg=None), "credential-algorithm"),
        (header(crit=["b64"], b64=False), "credential-header"),
        (header(crit=[]), "credential-header"),
        (header(b64=False), "credential-header"),
        (header(jwk={"kty": "OKP"}), "credential-header"),
        (header(x5u="https://attacker.example"), "credential-header"),
        (header(jku="https://attacker.example"), "credential-header"),
        (header(cty="JWT"), "credential-header"),
        (header(typ="vc+sd-jwt"), "credential-header"),
        (header(typ="jwt"), "credential-header"),
        (header(kid=None), "credential-header"),
        (header(kid=AUTHORITY.did), "credential-issuer"),
        (header(kid=forge.method(EVE.did)), "credential-issuer"),
        (header(kid=AUTHORITY.did + "#" + EVE.did[8:]), "credential-issuer"),
        (header(kid="did:web:attacker.example#key"), "credential-issuer"),
        (header(kid=[forge.method(AUTHORITY.did)]), "credential-issuer"),
    ],
)
def test_header(head: dict[str, Any], expected: str) -> None:
    assert code(forge.token(claims(), head)) == expected


# Hostile input


@settings(max_examples=300)
@given(st.data())
def test_one_changed_character_is_never_accepted(data: st.DataObject) -> None:
    good = forge.token(claims())
    position = data.draw(st.integers(0, len(good) - 1))
    other = data.draw(st.characters().filter(lambda character: character != good[position]))
    code(good[:position] + other + good[position + 1 :])


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from([AUTHORITY.did, "vc", NOW, ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def _paths(fields: dict[str, Any], prefix: str = "") -> list[str]:
    own = [prefix + name for name in fields]
    return own + [
        path for name, value in fields.items() if isinstance(value, dict) for path in _paths(value, f"{prefix}{name}.")
    ]


@settings(max_examples=300)
@given(st.sampled_from(_paths(claims())), _JSON)
def test_any_value_in_any_field_raises_credential_errors_only(path: str, value: Any) -> None:
    token = forge.token(changed(put(path, value)))
    with suppress(CredentialError):
        membership = verify(token)
        # Drawn was another spelling of what was there, such as 1800000000.0.
        assert (membership.not_before, membership.subject) == (NOW, HOSPITAL.did)


@given(st.text(max_size=60) | st.binary(max_size=60).map(canonical.b64url_encode))
def test_any_text_raises_credential_errors_only(text: str) -> None:
    code(text)
    code(f"{text}.{text}.{text}")
