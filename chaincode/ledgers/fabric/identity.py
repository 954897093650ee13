# SPDX-License-Identifier: Apache-2.0
"""A client's identity in its organisation's MSP: a certificate, and a signature with its key (ECDSA P-256 or Ed25519).

This key says which organisation speaks to the network. Who the author of an entry is, its own signature says.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from fabric_protos.msp import identities_pb2

from chaincode.ledgers.fabric.profile import Organisation
from identity.errors import CredentialError

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


PEM = "Name PEM files of a client: its certificate, and its unencrypted key (openssl pkcs8 -topk8 -nocrypt)."


@dataclass(frozen=True, slots=True)
class Member:
    """A client of an organisation: `creator` is its serialised identity, `sign` signs a message as Fabric asks."""

    msp: str
    creator: bytes
    sign: Callable[[bytes], bytes]

    def __repr__(self) -> str:
        """Return the MSP's name, never anything of the key."""
        return f"Member({self.msp})"


def load_member(organisation: Organisation) -> Member:
    """Read the client's certificate and key.

    Raises CredentialError: msp-file, msp-malformed, msp-key-type, msp-key-mismatch (the key is not the certificate's).
    """
    if organisation.certificate is None or organisation.key is None:
        message = f"The profile names no certificate and key of a client of {organisation.name}."
        raise CredentialError("msp-file", message, next="Name both, or act for an organisation that has them.")
    try:
        certificate, key = organisation.certificate.read_bytes(), organisation.key.read_bytes()
    except OSError as error:
        raise CredentialError("msp-file", f"A file of {organisation.name}'s client cannot be read: {error}.") from error
    try:
        return make_member(organisation.msp, certificate, key)
    except CredentialError as error:
        files = f"{error.message} The files: {organisation.certificate}, {organisation.key}."
        raise CredentialError(error.code, files, next=PEM) from error


def make_member(msp: str, certificate: bytes, key: bytes) -> Member:
    """Make a member of PEM bytes. Raises CredentialError: msp-malformed, msp-key-type, msp-key-mismatch."""
    try:
        private = serialization.load_pem_private_key(key, None)
        public = x509.load_pem_x509_certificate(certificate).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        message = f"The certificate or the key of the client of {msp} cannot be read."
        raise CredentialError("msp-malformed", message) from error
    if private.public_key() != public:
        raise CredentialError("msp-key-mismatch", f"The key of the client of {msp} is not that of its certificate.")
    creator = identities_pb2.SerializedIdentity(mspid=msp, id_bytes=certificate).SerializeToString()
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return Member(msp, creator, private.sign)
    if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1):
        return Member(msp, creator, lambda message: _sign_low_s(private, message))
    raise CredentialError("msp-key-type", f"The key of the client of {msp} is neither ECDSA P-256 nor Ed25519.")


def _sign_low_s(private: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """Sign with ECDSA over SHA-256; of the two valid values of s the lower one, which alone Fabric accepts."""
    r, s = decode_dss_signature(private.sign(message, ec.ECDSA(hashes.SHA256())))
    return encode_dss_signature(r, min(s, P256_ORDER - s))
