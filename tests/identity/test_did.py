# SPDX-License-Identifier: Apache-2.0
"""did:key: one DID for one key, and no key that can deny its signatures."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from identity.did import DID_LENGTH, did_from_public_key, public_key_from_did
from identity.errors import CredentialError
from identity.keys import identity_from_seed

P = 2**255 - 19
SMALL_ORDER = [
    *(y.to_bytes(32, "little").hex() for y in (0, 1, P - 1, P, P + 1)),
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
]
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def _base58(data: bytes) -> str:
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return text


def _code(did: str) -> str:
    with pytest.raises(CredentialError) as caught:
        public_key_from_did(did)
    return caught.value.code


@pytest.mark.parametrize(
    ("seed", "did"),
    [  # the method's published test vectors: seeds 0 and 1
        (bytes(32), "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"),
        (bytes(31) + b"\x01", "did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG"),
    ],
)
def test_published_vectors(seed: bytes, did: str) -> None:
    assert identity_from_seed(seed).did == did


@given(st.binary(min_size=32, max_size=32))
def test_round_trip(raw: bytes) -> None:
    try:
        did = did_from_public_key(raw)
    except CredentialError:
        return
    assert len(did) == DID_LENGTH == 56
    assert did.startswith("did:key:z6Mk")
    assert public_key_from_did(did) == raw


@pytest.mark.parametrize("sign", [0, 0x80])
@pytest.mark.parametrize("key", SMALL_ORDER)
def test_keys_of_small_order_are_refused_at_both_doors(key: str, sign: int) -> None:
    raw = bytearray.fromhex(key)
    raw[31] |= sign
    with pytest.raises(CredentialError) as caught:
        did_from_public_key(bytes(raw))
    assert caught.value.code == "did-small-order"
    assert _code("did:key:z" + _base58(b"\xed\x01" + bytes(raw))) == "did-small-order"


def test_the_published_did_whose_signature_fits_every_message() -> None:
    # The reason for the refusal, shown: for this key one signature verifies whatever was said.
    raw = b"\x01" + bytes(31)
    for message in (b"yes", b"no"):
        Ed25519PublicKey.from_public_bytes(raw).verify(raw + bytes(32), message)
    assert _code("did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj") == "did-small-order"


@pytest.mark.parametrize("excess", [2, 3, 18])
def test_second_spellings_of_a_point_are_refused(excess: int) -> None:
    raw = (P + excess).to_bytes(32, "little")
    assert _code("did:key:z" + _base58(b"\xed\x01" + raw)) == "did-malformed"


GOOD = "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp"


@pytest.mark.parametrize(
    ("did", "code"),
    [
        ("", "did-malformed"),
        ("key:z6Mk", "did-malformed"),
        ("DID:KEY:" + GOOD[8:], "did-malformed"),
        ("did:", "did-method"),
        ("did:web:attacker.example", "did-method"),
        ("did:tz:tz1", "did-method"),
        ("did:keyz:abc", "did-method"),
        ("did:key:", "did-malformed"),
        ("did:key:u" + GOOD[9:], "did-malformed"),
        ("did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc", "did-key-type"),
        ("did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme", "did-key-type"),
        ("did:key:zDnaerx9CtbPJ1q36T5Ln5wYt3MQYeGRG5ehnPAmxcf5mDZpv", "did-key-type"),
        (GOOD + "#" + GOOD[8:], "did-malformed"),
        (GOOD + " ", "did-malformed"),
        (GOOD[:-1], "did-malformed"),
        (GOOD[:-1] + "0", "did-malformed"),
        (GOOD[:-1] + "é", "did-malformed"),
        ("did:key:z6Mk" + "z" * 44, "did-malformed"),
        ("did:key:z6Mk" + "1" * (1 << 20), "did-malformed"),
        ("did:key:z" + "z" * (1 << 20), "did-key-type"),
    ],
)
def test_refusals(did: str, code: str) -> None:
    assert _code(did) == code


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_wrong_key_lengths(length: int) -> None:
    with pytest.raises(CredentialError, match="did-malformed"):
        did_from_public_key(b"\x02" * length)


@given(st.text(alphabet=ALPHABET + "0OIl", min_size=44, max_size=44))
def test_only_credential_errors_escape_and_accepted_dids_have_one_spelling(tail: str) -> None:
    did = "did:key:z6Mk" + tail
    try:
        raw = public_key_from_did(did)
    except CredentialError:
        return
    assert did_from_public_key(raw) == did
