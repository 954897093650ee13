# SPDX-License-Identifier: Apache-2.0
"""Envelopes: one signature, one spelling, and the type is signed with the payload."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import canonical, envelope
from identity.errors import Error, EvidenceError
from identity.keys import Identity, identity_from_seed

ALICE = identity_from_seed(b"a" * 32)
EVE = identity_from_seed(b"e" * 32)
TYPE = "application/vnd.in-toto+json"
SEALED = envelope.Unsigned(b'{"n":1}', TYPE, ALICE).signed()
SMALL_ORDER = "did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj"


def _code(data: bytes, **limits: int) -> str:
    with pytest.raises(Error) as caught:
        envelope.parse(data, **limits)
    assert type(caught.value) is EvidenceError
    return caught.value.code


def _changed(**changes: Any) -> bytes:
    return canonical.dumps(json.loads(SEALED) | changes)


def _signature(**changes: Any) -> bytes:
    return _changed(signatures=[json.loads(SEALED)["signatures"][0] | changes])


def test_pae_equals_the_example_of_the_specification() -> None:
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert envelope.pae("http://example.com/HelloWorld", b"hello world") == expected


@given(st.text(max_size=20), st.binary(max_size=20), st.text(max_size=20), st.binary(max_size=20))
def test_pae_confuses_no_two_pairs(type1: str, payload1: bytes, type2: str, payload2: bytes) -> None:
    same = (type1, payload1) == (type2, payload2)
    assert (envelope.pae(type1, payload1) == envelope.pae(type2, payload2)) == same


def test_pae_keeps_the_border_between_type_and_payload() -> None:
    assert envelope.pae("a", b"1 b 0 ") != envelope.pae("a 6 1 b", b"")
    assert envelope.pae("ab", b"c") != envelope.pae("a", b"bc")
    assert envelope.pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "  # lengths are in bytes


@settings(max_examples=30)
@given(st.binary(max_size=300))
def test_round_trip(payload: bytes) -> None:
    data = envelope.Unsigned(payload, TYPE, ALICE).signed()
    read = envelope.parse(data)
    envelope.verify(read)
    assert (read.payload, read.payload_type, read.did) == (payload, TYPE, ALICE.did)
    assert canonical.dumps(json.loads(data)) == data


def test_sealing_is_deterministic() -> None:
    assert envelope.Unsigned(b'{"n":1}', TYPE, ALICE).signed() == SEALED


@pytest.mark.parametrize(
    "change",
    [
        {"payload": b'{"n":2}'},
        {"payload": b'{"n":1}\n'},
        {"payload_type": "application/vnd.in-toto"},
        {"payload_type": "application/json"},
        {"did": EVE.did},
        {"did": "did:web:attacker.example"},
        {"did": SMALL_ORDER},
        {"did": SMALL_ORDER, "signature": b"\x01" + bytes(63)},
        {"signature": bytes(64)},
        {"signature": b""},
    ],
)
def test_any_change_breaks_the_signature(change: dict[str, Any]) -> None:
    changed = dataclasses.replace(envelope.parse(SEALED), **change)
    with pytest.raises(EvidenceError) as caught:
        envelope.verify(changed)
    assert caught.value.code == "signature-invalid"


def test_a_signature_for_one_type_does_not_serve_another() -> None:
    swapped = envelope.parse(_changed(payloadType="application/json"))
    with pytest.raises(EvidenceError, match="signature-invalid"):
        envelope.verify(swapped)


def test_the_raw_payload_signed_without_pae_is_refused() -> None:
    sig = canonical.b64encode(ALICE.sign(b'{"n":1}'))
    with pytest.raises(EvidenceError, match="signature-invalid"):
        envelope.verify(envelope.parse(_signature(sig=sig)))


_ONE = json.loads(SEALED)["signatures"][0]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (_changed(signatures=[]), "envelope-signatures"),
        (_changed(signatures=[_ONE, _ONE]), "envelope-signatures"),
        (_changed(signatures=_ONE), "envelope-signatures"),
        (_changed(signatures=None), "envelope-signatures"),
        (_changed(signatures=["x"]), "envelope-fields"),
        (_changed(extra=1), "envelope-fields"),
        (_signature(extra=1), "envelope-fields"),
        (_signature(sig=None), "envelope-fields"),
        (_signature(keyid=7), "envelope-fields"),
        (_changed(payload=["eyJuIjoxfQ=="]), "envelope-fields"),
        (_changed(payloadType=1), "envelope-fields"),
        (b"[]", "envelope-fields"),
        (b"{}", "envelope-fields"),
        (b"null", "envelope-fields"),
        (b'{"payload":"","payloadType":"a/b"}', "envelope-fields"),
        (_changed(payloadType=""), "envelope-type"),
        (_changed(payloadType="a b"), "envelope-type"),
        (_changed(payloadType="a/b\n"), "envelope-type"),
        (_changed(payloadType="é"), "envelope-type"),
        (_changed(payloadType="a" * 129), "envelope-type"),
        (_changed(payload="eyJuIjoxfR=="), "base64-not-canonical"),
        (_changed(payload="eyJuIjoxfQ"), "base64-not-canonical"),
        (_changed(payload="-_8="), "base64-not-canonical"),
        (_signature(sig=_ONE["sig"][:-3] + "h=="), "base64-not-canonical"),
        (_signature(sig=canonical.b64encode(bytes(63))), "envelope-signature"),
        (_signature(sig=canonical.b64encode(bytes(65))), "envelope-signature"),
        (_signature(sig=""), "envelope-signature"),
        (_signature(keyid=""), "envelope-keyid"),
        (_signature(keyid=ALICE.did + "#" + ALICE.did[8:]), "envelope-keyid"),
        (_signature(keyid="did:web:attacker.example"), "envelope-keyid"),
        (_signature(keyid=SMALL_ORDER), "envelope-keyid"),
        (SEALED + b"\n", "json-not-canonical"),
        (b" " + SEALED, "json-not-canonical"),
        (json.dumps(json.loads(SEALED)).encode(), "json-not-canonical"),
        (SEALED[:-1] + b',"payload":""}', "json-duplicate-key"),
        (_changed(payload={"a": {"b": {"c": {}}}}), "json-too-deep"),
        (SEALED[:-1], "json-syntax"),
        (b"\xff" + SEALED, "json-not-utf8"),
    ],
)
def test_refusals(data: bytes, code: str) -> None:
    assert _code(data) == code


def test_sizes_are_bounded() -> None:
    largest = bytes(envelope.PAYLOAD_LIMIT)
    assert envelope.parse(envelope.Unsigned(largest, TYPE, ALICE).signed()).payload == largest
    with pytest.raises(EvidenceError, match="envelope-payload"):
        envelope.Unsigned(largest + b"\x00", TYPE, ALICE).signed()
    # The room for a long type also lets a slightly larger payload through the first limit: the second stops
    # it.
    assert _code(_changed(payload=canonical.b64encode(largest + b"\x00"))) == "envelope-payload"
    assert _code(SEALED, limit=len(SEALED) - 1) == "json-too-large"
    assert envelope.parse(SEALED, limit=len(SEALED)).did == ALICE.did


def test_a_signer_that_answers_nonsense_is_refused() -> None:
    with pytest.raises(EvidenceError, match="envelope-signature"):
        envelope.Unsigned(b"", TYPE, Identity(ALICE.did, lambda message: b"short")).signed()
    with pytest.raises(EvidenceError, match="envelope-type"):
        envelope.Unsigned(b"", "no spaces", ALICE).signed()


@settings(max_examples=300)
@given(st.data())
def test_one_changed_byte_never_verifies_and_only_evidence_errors_escape(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(SEALED) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != SEALED[position]))
    with pytest.raises(EvidenceError):
        envelope.verify(envelope.parse(SEALED[:position] + bytes([byte]) + SEALED[position + 1 :]))


@given(st.binary(max_size=100))
def test_hostile_bytes(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        envelope.parse(data)


_NEVER = re.compile(r"(?!)")
_SCRAPS = ["", '"', "=", "==", ",", " ", "\\u0041", "\\", "}", "A", "é", "z" * 130]


def _outcome(data: bytes) -> object:
    try:
        return envelope.parse(data)
    except EvidenceError as error:
        return error.code, error.message


@settings(max_examples=300)
@given(st.data())
def test_the_quick_way_reads_as_the_general_way(data: st.DataObject) -> None:
    """Around the borders of its parts, where the spellings that both ways must agree on differ."""
    text = SEALED.decode("ascii")
    borders = [i for i, c in enumerate(text) if c in '"=:,{}[]']
    at, length = data.draw(st.sampled_from(borders)), data.draw(st.integers(0, 2))
    changed = (text[:at] + data.draw(st.sampled_from(_SCRAPS)) + text[at + length :]).encode("utf-8")
    quick = _outcome(changed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelope, "_PLAIN", _NEVER)
        assert _outcome(changed) == quick


@pytest.mark.parametrize("payload_type", ["a/b", 'quo"ted', "back\\slash", "~" * 128])
@pytest.mark.parametrize("payload", [b"", b"x", b"\xff" * 1000])
def test_both_ways_of_writing_write_the_same(
    payload_type: str, payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = envelope.Unsigned(payload, payload_type, ALICE).signed()
    assert envelope.parse(quick) == envelope.Envelope(payload_type, payload, ALICE.did, envelope.parse(quick).signature)
    monkeypatch.setattr(envelope, "_PLAIN", _NEVER)
    assert envelope.Unsigned(payload, payload_type, ALICE).signed() == quick
