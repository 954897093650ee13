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

from identity import canonical, limits
from identity.did import public_key_from_did
from identity.errors import CredentialError, EvidenceError
from identity.keys import SIGNATURE_LENGTH, Identity, verify_signature
from identity.wording import counted

PAYLOAD_LIMIT: Final = limits.PAYLOAD_LIMIT
ENVELOPE_LIMIT: Final = limits.ENVELOPE_LIMIT
_TYPE: Final = re.compile(r"[\x21-\x7e]{1,128}")
_DEPTH: Final = 3

# The canonical spelling of an envelope whose texts need no escape, which is every envelope that is an entry: what is
# around the payload, which is base64 and so has no quote. It is read without parsing, writing and comparing; what is
# spelled otherwise, or is not sound in any way, is read the general way, which says what is wrong with it.
_BEFORE: Final = '{"payload":"'
_PLAIN: Final = re.compile(
    r'","payloadType":"([!#-\[\]-~]{1,128})","signatures":\[\{"keyid":"([!#-\[\]-~]*+)","sig":"([A-Za-z0-9+/=]*+)"\}\]\}'
)


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


@dataclass(frozen=True, slots=True)
class Unsigned:
    """What an envelope is to hold, and who is to sign it.

    Raises EvidenceError: envelope-type, envelope-payload (beyond 1 MiB).
    """

    payload: bytes
    payload_type: str
    signer: Identity

    def __post_init__(self) -> None:
        _check_type(self.payload_type)
        if len(self.payload) > PAYLOAD_LIMIT:
            message = f"A payload of {len(self.payload)} bytes; at most {PAYLOAD_LIMIT}."
            raise EvidenceError("envelope-payload", message)

    def sign(self) -> bytes:
        """The signer's signature. Raises EvidenceError(envelope-signature): the signer did not answer with 64 bytes."""
        signature = self.signer.sign(pae(self.payload_type, self.payload))
        if len(signature) != SIGNATURE_LENGTH:
            message = f"The signer of {self.signer.did} answered with {counted(len(signature), 'byte')}."
            raise EvidenceError("envelope-signature", message)
        return signature

    def signed(self) -> bytes:
        """The canonical bytes of the signed envelope. Raises as ``sign``."""
        return self.with_signature(self.sign())

    def with_signature(self, signature: bytes) -> bytes:
        """The canonical bytes of the envelope with a signature that ``sign`` has made."""
        body, sig, did = canonical.b64encode(self.payload), canonical.b64encode(signature), self.signer.did
        plain = f'{{"payload":"{body}","payloadType":"{self.payload_type}","signatures":[{{"keyid":"{did}","sig":"{sig}"}}]}}'
        if _PLAIN.fullmatch(plain, len(_BEFORE) + len(body)):
            return plain.encode("ascii")
        signatures = [{"keyid": did, "sig": sig}]
        return canonical.dumps({"payload": body, "payloadType": self.payload_type, "signatures": signatures})


def parse(data: bytes, *, limit: int = ENVELOPE_LIMIT) -> Envelope:
    """Reads an envelope of at most `limit` bytes. Says nothing about its signature.

    Raises EvidenceError and nothing else: the json-* codes of `canonical.loads`, base64-not-canonical,
    envelope-fields, envelope-type, envelope-payload, envelope-signatures (not exactly one), envelope-keyid,
    envelope-signature.
    """
    plain = _read_plain(data.decode("ascii")) if len(data) <= limit and data.isascii() else None
    if plain is not None:
        return plain
    payload64, payload_type, did, signature64 = _fields(data, limit)
    try:
        public_key_from_did(did)
    except CredentialError as error:
        raise EvidenceError("envelope-keyid", f"The keyid is not a usable DID: {error}") from error
    signature = canonical.b64decode(_text(signature64))
    if len(signature) != SIGNATURE_LENGTH:
        raise EvidenceError("envelope-signature", f"A signature has {SIGNATURE_LENGTH} bytes, not {len(signature)}.")
    payload = canonical.b64decode(_text(payload64))
    if len(payload) > PAYLOAD_LIMIT:
        raise EvidenceError("envelope-payload", f"A payload of {len(payload)} bytes; at most {PAYLOAD_LIMIT}.")
    return Envelope(payload_type, payload, did, signature)


def _read_plain(text: str) -> Envelope | None:
    """The envelope of its plain spelling; None for any other, and for what is no sound envelope."""
    after = _PLAIN.fullmatch(text, end := text.find('"', len(_BEFORE)))
    if after is None or not text.startswith(_BEFORE):
        return None
    payload_type, did, signature64 = after.groups()
    try:
        public_key_from_did(did)
        signature, payload = canonical.b64decode(signature64), canonical.b64decode(text[len(_BEFORE) : end])
    except (CredentialError, EvidenceError):
        return None
    if len(signature) != SIGNATURE_LENGTH or len(payload) > PAYLOAD_LIMIT:
        return None
    return Envelope(payload_type, payload, did, signature)


def verify(envelope: Envelope) -> None:
    """Checks the signature against the key that the keyid names. Raises EvidenceError(signature-invalid)."""
    if not verify_signature(envelope.did, pae(envelope.payload_type, envelope.payload), envelope.signature):
        raise EvidenceError("signature-invalid", f"The envelope is not signed by {envelope.did}.")


def _fields(data: bytes, limit: int) -> tuple[Any, str, str, Any]:
    """Payload, type, keyid and signature of any canonical envelope; the first and the last may still be of any type."""
    fields = canonical.loads(data, limit=limit, depth=_DEPTH)
    _check_fields(fields, {"payload", "payloadType", "signatures"})
    payload_type = _text(fields["payloadType"])
    _check_type(payload_type)
    signatures = fields["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise EvidenceError("envelope-signatures", "An envelope has exactly one signature.")
    _check_fields(signatures[0], {"keyid", "sig"})
    return fields["payload"], payload_type, _text(signatures[0]["keyid"]), signatures[0]["sig"]


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
