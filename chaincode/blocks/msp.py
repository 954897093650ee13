# SPDX-License-Identifier: Apache-2.0
"""An organisation's membership service (MSP), as the channel's configuration states it: which certificates are its members'.

It follows Fabric's X.509 MSP from capability V2_0 on: a chain to the organisation's roots, one role by organisational unit,
revocation lists. Certificates are held to the time at which they began, as Fabric does: that one has ended since then does
not make a block invalid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtensionOID, NameOID
from fabric_protos.msp import msp_config_pb2

from chaincode.blocks.signatures import UNREADABLE, certificate_of, named
from chaincode.blocks.wire import Malformed, strict, unsupported

FABRIC: Final = 0
"""The only type of an MSP that is judged here: X.509."""
MEMBER, ADMIN, CLIENT, PEER, ORDERER = range(5)
ROLES: Final = ("member", "administrator", "client", "peer", "orderer")
_LONGEST: Final = 8
_KNOWN: Final = {
    ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.SUBJECT_KEY_IDENTIFIER, ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody of an organisation. ``why`` says why the organisation's MSP does not count it as a member, empty where it does.

    ``key`` is one for all certificates of the same content, so that nobody counts twice; ``roles`` are those of ``ROLES``.
    """

    msp: str
    subject: str
    key: bytes
    certificate: x509.Certificate
    roles: frozenset[int]
    units: frozenset[str]
    why: str

    def __str__(self) -> str:
        return f"{self.subject} of {self.msp}"


class Msp:
    """One organisation's membership service."""

    def __init__(self, config: Any, *, ed25519_allowed: bool) -> None:
        """Of a ``FabricMSPConfig``. Raises Malformed, EvidenceError(fabric-unsupported)."""
        self.name: str = config.name
        family = config.crypto_config.signature_hash_family
        if family not in ("", "SHA2"):
            unsupported(f"{self.name} signs over {family[:20]}")
        self.roots = [certificate_of(data) for data in config.root_certs]
        self.intermediates = [certificate_of(data) for data in config.intermediate_certs]
        self._admins = {certificate_of(data).tbs_certificate_bytes for data in config.admins}
        self._revoked = [_revocation_list(data) for data in config.revocation_list]
        self._ed25519 = ed25519_allowed
        nodes = config.fabric_node_ous
        self._enforced: bool = nodes.enable
        self._units = [
            (role, *_unit(one)) for role, one in (
                (CLIENT, nodes.client_ou_identifier), (PEER, nodes.peer_ou_identifier),
                (ADMIN, nodes.admin_ou_identifier), (ORDERER, nodes.orderer_ou_identifier),
            ) if one.organizational_unit_identifier
        ]  # fmt: skip
        self._demanded = [_unit(one) for one in config.organizational_unit_identifiers]
        # Where a root has intermediates, it issues to them alone.
        self._inner = {
            one.tbs_certificate_bytes for one in self.roots + self.intermediates if any(_issued(i, one) for i in self.intermediates)
        }  # fmt: skip

    def identity(self, certificate: x509.Certificate) -> Identity:
        """Whom a certificate names; the MSP's judgement is in it."""
        units = {
            str(a.value) for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        }  # fmt: skip
        why, roles = "", set[int]()
        try:
            issuer = self._issuer(certificate)
            self._check_revoked(certificate, issuer)
            roles = self._roles(units, issuer)
        except (Malformed, *UNREADABLE) as error:
            why = str(error) or "a certificate that cannot be read"
        tbs = certificate.tbs_certificate_bytes
        if tbs in self._admins:
            roles.add(ADMIN)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        subject = str(names[0].value)[:100] if names else "somebody"
        return Identity(self.name, subject, sha256(tbs).digest(), certificate, frozenset(roles), frozenset(units), why)

    def _issuer(self, certificate: x509.Certificate) -> x509.Certificate:
        """Who issued a member's certificate, once the chain to a root holds. Raises Malformed."""
        if isinstance(certificate.public_key(), ed25519.Ed25519PublicKey) and not self._ed25519:
            raise Malformed("an Ed25519 key, which the channel's capabilities do not allow")
        if _is_authority(certificate):
            raise Malformed("an authority's certificate used as a member's")
        _check_extensions(certificate)
        chain = self._chain(certificate)
        if chain[0].tbs_certificate_bytes in self._inner:
            raise Malformed("issued by an authority that issues to intermediate ones alone")
        return chain[0]

    def _chain(self, certificate: x509.Certificate) -> list[x509.Certificate]:
        """The authorities above a certificate up to a root, which all held when it began. Raises Malformed."""
        began = certificate.not_valid_before_utc + timedelta(seconds=1)
        chain: list[x509.Certificate] = []
        current = certificate
        while len(chain) < _LONGEST:
            root = next((one for one in self.roots if _issued(current, one)), None)
            issuer = root or next((one for one in self.intermediates if _issued(current, one)), None)
            if issuer is None:
                raise Malformed(f"a certificate that no authority of {self.name} issued")
            _check_authority(issuer, below=len(chain))
            if not issuer.not_valid_before_utc <= began <= issuer.not_valid_after_utc:
                raise Malformed("issued by an authority out of its time")
            chain.append(issuer)
            if root is not None:
                return chain
            current = issuer
        raise Malformed("a chain of authorities without end")

    def _check_revoked(self, certificate: x509.Certificate, issuer: x509.Certificate) -> None:
        for revoked in self._revoked:
            if revoked.issuer == issuer.subject and revoked.get_revoked_certificate_by_serial_number(
                certificate.serial_number
            ):
                if not revoked.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]
                    continue
                raise Malformed("a revoked certificate")

    def _roles(self, units: set[str], issuer: x509.Certificate) -> set[int]:
        """The roles that the organisational units give. Raises Malformed where they are not what the MSP asks for."""
        if self._demanded and not any(
            unit in units and by in (b"", issuer.tbs_certificate_bytes) for unit, by in self._demanded
        ):
            raise Malformed(f"none of the organisational units that {self.name} asks for")
        if not self._enforced:
            return {MEMBER}
        found = [(role, by) for role, unit, by in self._units if unit in units]
        if len(found) != 1:
            raise Malformed(f"{len(found)} of the roles client, peer, administrator and orderer")
        if found[0][1] not in (b"", issuer.tbs_certificate_bytes):
            raise Malformed("a role that another authority was to give")
        return {MEMBER, found[0][0]}


def read_msp(value: bytes, *, ed25519_allowed: bool) -> Msp:
    """The MSP of a configuration's value. Raises Malformed, EvidenceError(fabric-unsupported)."""
    outer = strict(msp_config_pb2.MSPConfig, value)
    if outer.type != FABRIC:
        unsupported(f"an MSP of type {outer.type}")
    return Msp(strict(msp_config_pb2.FabricMSPConfig, outer.config), ed25519_allowed=ed25519_allowed)


def identity_of(serialised: bytes, msps: dict[str, Msp]) -> Identity | None:
    """Whom a serialised identity names in a channel, None where the channel has no such organisation or nobody is named."""
    who = named(serialised)
    msp = msps.get(who.msp) if who else None
    return None if who is None or msp is None else msp.identity(who.certificate)


def _unit(config: Any) -> tuple[str, bytes]:
    """An organisational unit, and the authority that must have given it; empty for any."""
    given = config.certificate
    by = certificate_of(given).tbs_certificate_bytes if given else b""
    return config.organizational_unit_identifier, by


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if certificate.issuer != issuer.subject or certificate.tbs_certificate_bytes == issuer.tbs_certificate_bytes:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _check_authority(certificate: x509.Certificate, *, below: int) -> None:
    """Raise Malformed for a certificate that may not issue, with so many authorities below it."""
    _check_extensions(certificate)
    if not _is_authority(certificate):
        raise Malformed("issued by a certificate that is no authority's")
    longest = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    if longest is not None and below > longest:
        raise Malformed("a chain that is longer than an authority allows")
    try:
        if not certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
            raise Malformed("issued by a key that is not for certificates")
    except x509.ExtensionNotFound:
        pass


def _check_extensions(certificate: x509.Certificate) -> None:
    for extension in certificate.extensions:
        if extension.oid == ExtensionOID.NAME_CONSTRAINTS or (extension.critical and extension.oid not in _KNOWN):
            raise Malformed("an extension of a certificate that is not judged here")


def _revocation_list(data: bytes) -> x509.CertificateRevocationList:
    try:
        found = x509.load_pem_x509_crl(data)
        _ = found.issuer, found.extensions
    except UNREADABLE as error:
        raise Malformed("a revocation list that cannot be read") from error
    return found


def distinct(identities: Sequence[tuple[Identity | None, bool]]) -> list[Identity]:
    """Those who signed, each once, in order: of (identity, whether its signature verifies)."""
    found: dict[bytes, Identity] = {}
    for identity, signed in identities:
        if identity is not None and signed:
            found.setdefault(identity.msp.encode() + b"\0" + identity.key, identity)
    return list(found.values())
