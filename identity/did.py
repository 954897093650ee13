# SPDX-License-Identifier: Apache-2.0
"""did:key for Ed25519: the DID is the public key, so resolving it needs no network and no trust.

Source: W3C CCG did:key method, multicodec 0xed, multibase base58btc; RFC 8032 for the encoding of keys.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from identity.errors import CredentialError

DID_LENGTH: Final = 56
KEY_LENGTH: Final = 32
_PREFIX: Final = "did:key:z"
_ED25519: Final = "did:key:z6Mk"  # how base58 of ed 01 and 32 bytes begins
_MULTICODEC: Final = b"\xed\x01"
_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_DIGITS: Final = {character: value for value, character in enumerate(_ALPHABET)}

_P: Final = 2**255 - 19
_SIGN_BIT: Final = 1 << 255
# The y coordinates of the points of order 1, 2, 4 and 8, with their non-canonical spellings p and p + 1. For
# such a key a fixed signature verifies for every message: whoever owns it can deny everything that it signed.
_SMALL_ORDER: Final = frozenset(
    {
        0,
        1,
        _P - 1,
        _P,
        _P + 1,
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
    }
)


def did_from_public_key(raw32: bytes) -> str:
    """The did:key of a raw Ed25519 public key of 32 bytes: `did:key:z6Mk…`, 56 characters.

    Raises CredentialError: did-malformed (not 32 bytes, or not canonical by RFC 8032), did-small-order.
    """
    _check_key(raw32)
    return _PREFIX + _base58_encode(_MULTICODEC + raw32)


@lru_cache(maxsize=16384)
def public_key_from_did(did: str) -> bytes:
    """The raw Ed25519 public key (32 bytes) that a did:key names.

    Raises CredentialError: did-malformed, did-method (not did:key), did-key-type (not Ed25519),
    did-small-order.
    """
    if not did.startswith("did:"):
        raise CredentialError("did-malformed", f"{did[:64]!r} is not a DID.")
    if not did.startswith("did:key:"):
        raise CredentialError("did-method", f"{did[:64]!r} is not a did:key; no other method is accepted.")
    if not did.startswith(_ED25519) and did.startswith(_PREFIX):
        raise CredentialError("did-key-type", f"{did[:64]!r} does not name an Ed25519 key (did:key:z6Mk…).")
    # The length before base58, which is quadratic.
    if len(did) != DID_LENGTH or not did.startswith(_ED25519):
        raise CredentialError("did-malformed", f"{did[:64]!r} is not an Ed25519 did:key of {DID_LENGTH} characters.")
    decoded = _base58_decode(did[len(_PREFIX) :], len(_MULTICODEC) + KEY_LENGTH)
    if decoded is None or not decoded.startswith(_MULTICODEC):
        raise CredentialError("did-malformed", f"{did!r} is not base58 of an Ed25519 key.")
    raw = decoded[len(_MULTICODEC) :]
    _check_key(raw)
    return raw


def _check_key(raw: bytes) -> None:
    if len(raw) != KEY_LENGTH:
        raise CredentialError("did-malformed", f"An Ed25519 public key has {KEY_LENGTH} bytes, not {len(raw)}.")
    y = int.from_bytes(raw, "little") & ~_SIGN_BIT
    if y in _SMALL_ORDER:
        raise CredentialError("did-small-order", "The key is a point of small order: its signatures prove nothing.")
    if y >= _P:
        raise CredentialError("did-malformed", "The key is not in the canonical form of RFC 8032 section 5.1.3.")


def _base58_encode(data: bytes) -> str:
    """Base58 (Bitcoin alphabet) of bytes that do not start with a zero byte."""
    number = int.from_bytes(data, "big")
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return text


def _base58_decode(text: str, length: int) -> bytes | None:
    """The `length` bytes of a short base58 text, or None if it is not one."""
    number = 0
    for character in text:
        digit = _DIGITS.get(character)
        if digit is None:
            return None
        number = number * 58 + digit
    return number.to_bytes(length, "big") if number < 1 << (8 * length) else None
