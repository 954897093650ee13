# SPDX-License-Identifier: Apache-2.0
"""DSSE v1 envelopes with exactly one Ed25519 signature, in one canonical spelling.

Source: Dead Simple Signing Envelope v1 (envelope.md, protocol.md). Narrower than DSSE on purpose: canonical
JSON, standard base64 only, one signature, a did:key as keyid, no other fields. So an envelope has one form,
and its bytes can be a log's leaf.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from identity import canonical
from identity.did import public_key_from_did
from identity.errors import CredentialError, EvidenceError
from identity.keys import SIGNATURE_LENGTH, Identity, verify_signature

PAYLOAD_LIMIT: Final = 1 << 20
# The largest payload in base64, and room for the type, the keyid, the signature and the punctuation.
ENVELOPE_LIMIT: Final = (PAYLOAD_LIMIT + 2) // 3 * 4 + 1024
_TYPE: Final = re.compile(r"[\x21-\x7e]{1,128}")
_DEPTH: Final = 3


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed envelope. Its signature is NOT yet verified: call `verify`."""

    payload_type: str
    payload: bytes
    did: str  # the keyid
    signature: bytes  # 64 bytes, Ed25519 over pae(payload_type, payload)


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding, which is what is signed:

    type and payload with their lengths (DSSE v1).
    """
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def seal(payload: bytes, payload_type: str, signer: Identity) -> bytes:
    """The canonical bytes of an envelope over `payload`, signed by `signer`.

    Raises EvidenceError: envelope-type, envelope-payload (beyond 1 MiB), envelope-signature (the signer did
    not answer with 64 bytes).
    """
    _check_type(payload_type)
    if len(payload) > PAYLOAD_LIMIT:
        raise EvidenceError("envelope-payload", f"A payload of {len(payload)} bytes; at most {PAYLOAD_LIMIT}.")
    signature = signer.sign(pae(payload_type, payload))
    if len(signature) != SIGNATURE_LENGTH:
        raise EvidenceError("envelope-signature", f"The signer of {signer.did} answered with {len(signature)} bytes.")
    return canonical.dumps(
        {
            "payload": canonical.b64encode(payload),
            "payloadType": payload_type,
            "signatures": [{"keyid": signer.did, "sig": canonical.b64encode(signature)}],
        }
    )


def parse(data: bytes, *, limit: int = ENVELOPE_LIMIT) -> Envelope:
    """Reads an envelope of at most `limit` bytes. Says nothing about its signature.

    Raises EvidenceError and nothing else: the json-* codes of `canonical.loads`, base64-not-canonical,
    envelope-fields, envelope-type, envelope-payload, envelope-signatures (not exactly one), envelope-keyid,
    envelope-signature.
    """
    fields = canonical.loads(data, limit=limit, depth=_DEPTH)
    _check_fields(fields, {"payload", "payloadType", "signatures"})
    payload_type = _text(fields["payloadType"])
    _check_type(payload_type)
    signatures = fields["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise EvidenceError("envelope-signatures", "An envelope has exactly one signature.")
    _check_fields(signatures[0], {"keyid", "sig"})
    did = _text(signatures[0]["keyid"])
    try:
        public_key_from_did(did)
    except CredentialError as error:
        raise EvidenceError("envelope-keyid", f"The keyid is not a usable DID: {error}") from error
    signature = canonical.b64decode(_text(signatures[0]["sig"]))
    if len(signature) != SIGNATURE_LENGTH:
        raise EvidenceError("envelope-signature", f"A signature has {SIGNATURE_LENGTH} bytes, not {len(signature)}.")
    payload = canonical.b64decode(_text(fields["payload"]))
    if len(payload) > PAYLOAD_LIMIT:
        raise EvidenceError("envelope-payload", f"A payload of {len(payload)} bytes; at most {PAYLOAD_LIMIT}.")
    return Envelope(payload_type, payload, did, signature)


def verify(envelope: Envelope) -> None:
    """Checks the signature against the key that the keyid names. Raises EvidenceError(signature-invalid)."""
    if not verify_signature(envelope.did, pae(envelope.payload_type, envelope.payload), envelope.signature):
        raise EvidenceError("signature-invalid", f"The envelope is not signed by {envelope.did}.")


def _check_type(payload_type: str) -> None:
    if _TYPE.fullmatch(payload_type) is None:
        raise EvidenceError("envelope-type", "The payload type is not 1 to 128 visible ASCII characters.")


def _check_fields(value: Any, names: set[str]) -> None:
    if not isinstance(value, dict) or value.keys() != names:
        raise EvidenceError("envelope-fields", f"The fields must be exactly {', '.join(sorted(names))}.")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise EvidenceError("envelope-fields", f"A field is a {type(value).__name__}, not a string.")
    return value
