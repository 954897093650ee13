# SPDX-License-Identifier: Apache-2.0
"""Signatures by the identities of a channel: ECDSA P-256 over SHA-256 with a low s, or Ed25519 over the message.

An identity is an MSP's name and a certificate (``SerializedIdentity``). Whether a channel knows it is not judged here.
"""

import base64
import re
import warnings
from functools import lru_cache
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from fabric_protos.msp import identities_pb2

from chaincode.blocks.wire import Malformed, parse

CERTIFICATE_LIMIT: Final = 1 << 16
P256_HALF_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551 >> 1
_ECDSA: Final = ec.ECDSA(SHA256())
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----\r?\n([A-Za-z0-9+/=\r\n]*)-----END \1-----")
UNREADABLE: Final = (
    ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
)  # fmt: skip
"""What the library raises for a certificate that it cannot read, some of it when a part is asked for."""
Key = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


class Named(NamedTuple):
    """Who somebody says to be: the MSP's name, and the certificate with its key."""

    msp: str
    certificate: x509.Certificate
    key: Key


def certificate_of(pem: bytes) -> x509.Certificate:
    """The certificate of the first PEM block, all of which can be read. Raises Malformed."""
    block = _PEM.search(pem) if len(pem) <= CERTIFICATE_LIMIT else None
    if block is None:
        raise Malformed("no PEM block")
    try:
        der = base64.b64decode(block[2].replace(b"\r", b"").replace(b"\n", b""), validate=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd about a stranger's certificate is not the auditor's doing
            found = x509.load_der_x509_certificate(der)
            _ = found.subject, found.issuer, found.extensions, found.serial_number
            _ = found.not_valid_before_utc, found.not_valid_after_utc
    except UNREADABLE as error:
        raise Malformed("no certificate that can be read") from error
    return found


def key_of(certificate: x509.Certificate) -> Key:
    """The key of a certificate. Raises Malformed for one of another kind than Fabric's."""
    try:
        key = certificate.public_key()
    except UNREADABLE as error:
        raise Malformed("a certificate without a key that can be read") from error
    if isinstance(key, ed25519.Ed25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
    ):
        return key
    raise Malformed("a key that is neither ECDSA P-256 nor Ed25519")


@lru_cache(maxsize=4096)
def named(identity: bytes) -> Named | None:
    """Who a serialised identity says to be, None for bytes that are none."""
    try:
        read = parse(identities_pb2.SerializedIdentity, identity)
        certificate = certificate_of(read.id_bytes)
        return Named(read.mspid, certificate, key_of(certificate))
    except Malformed:
        return None


def verifies(identity: bytes, message: bytes, signature: bytes) -> bool:
    """Whether an identity's key has signed a message."""
    who = named(identity)
    return who is not None and verifies_by(who.key, message, signature)


def verifies_by(key: Key, message: bytes, signature: bytes) -> bool:
    """Whether a key has signed a message, in the one form of the two that Fabric accepts."""
    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
            return True
        if decode_dss_signature(signature)[1] > P256_HALF_ORDER:
            return False
        key.verify(signature, message, _ECDSA)
    except (InvalidSignature, ValueError):
        return False
    return True
