# SPDX-License-Identifier: Apache-2.0
"""Takes a compact JWS apart: bounded, strict, and without judging what it says.

Source: RFC 7515 section 7.1 (compact serialisation), RFC 8725 (best current practices for JWT).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from identity import canonical
from identity.errors import CredentialError, EvidenceError

TOKEN_LIMIT: Final = 65536  # characters
_HEADER_LIMIT: Final = 1024  # bytes
_DEPTH: Final = 16
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a compact JWS whose payload is a JSON object. Nothing in them is verified."""

    header: dict[str, Any]
    claims: dict[str, Any]
    signature: bytes
    signed: bytes  # what the signature is over


def split(token: str) -> Parts:
    """The parts of `token`, at most 65,536 characters.

    Raises CredentialError and nothing else, for any text: credential-too-large; credential-format (a JSON
    document, or not three parts of base64url); credential-malformed (non-canonical base64url, not JSON
    objects, duplicate keys, nested more than 16 deep, integers beyond 2^53 - 1, numbers that are not finite,
    lone surrogates).
    """
    if len(token) > TOKEN_LIMIT:
        raise CredentialError(
            "credential-too-large",
            f"A credential of {len(token)} characters; at most {TOKEN_LIMIT} are read.",
        )
    if token.lstrip()[:1] in {"{", "["}:
        raise CredentialError(
            "credential-format",
            "A JSON document (JSON-LD proof, presentation) is not accepted: only a JWT is.",
        )
    if _COMPACT.fullmatch(token) is None:
        raise CredentialError("credential-format", "The credential is not a compact JWS: three parts of base64url.")
    header, claims, signature = token.split(".")
    try:
        return Parts(
            _object(canonical.b64url_decode(header), _HEADER_LIMIT),
            _object(canonical.b64url_decode(claims), TOKEN_LIMIT),
            canonical.b64url_decode(signature),
            f"{header}.{claims}".encode("ascii"),
        )
    except EvidenceError as error:
        raise CredentialError("credential-malformed", f"The credential cannot be read: {error}") from error


def _object(data: bytes, limit: int) -> dict[str, Any]:
    value = canonical.parse_json(data, limit=limit, depth=_DEPTH)
    if not isinstance(value, dict):
        raise CredentialError("credential-malformed", "A part of the credential is not a JSON object.")
    return value
