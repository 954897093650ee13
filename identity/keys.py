# SPDX-License-Identifier: Apache-2.0
"""Ed25519 identities: signing functions, signature checks, and the keystore that holds many keys in one file.

Signing is a function handed in (`Signer`), so a hardware module fits in the place of a keystore. Source: RFC
8032.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from os import PathLike
from pathlib import Path
from typing import Any, Final, NoReturn, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from identity import canonical, vault
from identity.did import did_from_public_key, public_key_from_did
from identity.errors import CredentialError, EvidenceError
from identity.vault import Cost, Lock
from identity.wording import counted

SIGNATURE_LENGTH: Final = 64
SECRET_LENGTH: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_PLAIN_TYPE: Final = "urn:fedledger:keystore-plain:v1"

Signer = Callable[[bytes], bytes]
"""Signs a raw message with Ed25519 (RFC 8032, no pre-hash); answers with 64 bytes."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A DID and the function that signs for it. Holds no key material that `repr` or pickling could show."""

    did: str
    sign: Signer = field(repr=False)


def verify_signature(did: str, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is the DID's Ed25519 signature over the raw message.

    Never raises: a bad DID is False too.
    """
    try:
        _public_key(did).verify(signature, message)
    except (CredentialError, InvalidSignature, ValueError):
        return False
    return True


def identity_from_seed(seed: bytes) -> Identity:
    """The identity whose Ed25519 private key is the 32-byte seed (RFC 8032 section 5.1.5)."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    return Identity(did_from_public_key(key.public_key().public_bytes_raw()), key.sign)


class Keystore:
    """One private file with many named Ed25519 keys and named 32-byte secrets.

    Encrypted under a passphrase (Argon2id, AES-256-GCM), or plain with mode 0600; `kind` says which. Changes
    are in memory until `save`. One derivation opens it, however many keys it holds. Names: 1 to 128 of
    letters, digits and `._:-`, beginning with a letter or a digit.
    """

    def __init__(self, path: Path, lock: Lock | None, body: dict[str, dict[str, bytes]], written: bytes) -> None:
        """For `create` and `open` only."""
        self._path = path
        self._lock = lock
        self._keys = body["keys"]
        self._secrets = body["secrets"]
        self._written = hashlib.sha256(written).digest()

    @classmethod
    def create(cls, path: str | PathLike[str], passphrase: str | None, *, cost: Cost | None = None) -> Self:
        """A new, empty keystore, written at once; None as passphrase keeps it plain.

        Raises CredentialError: keystore-exists, keystore-passphrase (empty); Unavailable:
        keystore-unwritable.
        """
        lock = None if passphrase is None else Lock(passphrase, cost or Cost())
        body: dict[str, dict[str, bytes]] = {"keys": {}, "secrets": {}}
        data = _write(lock, body)
        vault.write_private(Path(path), data, replace=False)
        return cls(Path(path), lock, body, data)

    @classmethod
    def open(cls, path: str | PathLike[str], passphrase: str | None) -> Self:
        """The keystore in the file; None as passphrase for a plain one.

        Raises CredentialError: keystore-missing, keystore-permissions, keystore-malformed,
        keystore-parameters, keystore-passphrase (wrong, missing, or given for a plain keystore); Unavailable:
        keystore-unreadable.
        """
        data = vault.read_private(Path(path))
        with _naming(path):
            sealed = vault.is_sealed(_load(data))
            if sealed and passphrase is None:
                raise CredentialError("keystore-passphrase", "The keystore is encrypted: it needs its passphrase.")
            if not sealed and passphrase is not None:
                raise CredentialError("keystore-passphrase", "The keystore is not encrypted: it takes no passphrase.")
            lock, plain = (None, data) if passphrase is None else Lock.open(data, passphrase)
            return cls(Path(path), lock, _read_body(plain), data)

    @staticmethod
    def is_encrypted(path: str | PathLike[str]) -> bool:
        """Whether the keystore in the file asks for a passphrase.

        Raises CredentialError: keystore-missing, keystore-permissions, keystore-malformed; Unavailable: keystore-unreadable.
        """
        data = vault.read_private(Path(path))
        with _naming(path):
            return vault.is_sealed(_load(data))

    @property
    def kind(self) -> str:
        """`encrypted` or `plain`."""
        return "plain" if self._lock is None else "encrypted"

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._path

    def names(self) -> list[str]:
        """The names of the keys and secrets, sorted."""
        return sorted(self._keys.keys() | self._secrets.keys())

    def identity(self, name: str, *, create: bool = False) -> Identity:
        """The identity of the named key; with `create` a new key is made if there is none.

        Raises CredentialError: keystore-missing-key, keystore-name.
        """
        if create and name not in self._keys:
            return self.create_key(name)
        return identity_from_seed(self._find(self._keys, name, "key"))

    def create_key(self, name: str) -> Identity:
        """A new key under a new name. Raises CredentialError: keystore-key-exists, keystore-name."""
        self._check_new(name)
        seed = secrets.token_bytes(32)
        identity = identity_from_seed(seed)
        self._keys[name] = seed
        return identity

    def secret(self, name: str, *, create: bool = False) -> bytes:
        """The named 32-byte secret; with `create` a random one is made if there is none.

        Raises CredentialError: keystore-missing-key, keystore-key-exists (the name is a key's),
        keystore-name.
        """
        if create and name not in self._secrets:
            self._check_new(name)
            self._secrets[name] = secrets.token_bytes(SECRET_LENGTH)
        return self._find(self._secrets, name, "secret")

    def rename(self, old: str, new: str) -> None:
        """Gives a key a new name, for instance after a rotation. Nothing is ever overwritten.

        Raises CredentialError: keystore-missing-key, keystore-key-exists, keystore-name.
        """
        seed = self._find(self._keys, old, "key")
        self._check_new(new)
        self._keys[new] = seed
        del self._keys[old]

    def save(self) -> None:
        """Writes the file whole or not at all (temporary file, sync, rename), mode 0600.

        Raises CredentialError: keystore-changed if another process has written the file since it was read
        (its keys would be lost); Unavailable: keystore-unwritable; and what `open` raises if the file has
        become unreadable.
        """
        if hashlib.sha256(vault.read_private(self._path)).digest() != self._written:
            raise CredentialError("keystore-changed", f"{self._path} was written by another process since it was read.")
        data = _write(self._lock, {"keys": self._keys, "secrets": self._secrets})
        vault.write_private(self._path, data, replace=True)
        self._written = hashlib.sha256(data).digest()

    def __repr__(self) -> str:
        return f"Keystore({str(self._path)!r}, {self.kind}, {counted(len(self.names()), 'entry')})"

    def __reduce__(self) -> NoReturn:
        # R6: keys never enter another process, least of all one that runs training code.
        raise TypeError("a keystore cannot be pickled")

    def _find(self, entries: dict[str, bytes], name: str, what: str) -> bytes:
        try:
            return entries[name]
        except KeyError:
            raise CredentialError(
                "keystore-missing-key", f"{self._path} holds no {what} named {name[:128]!r}."
            ) from None

    def _check_new(self, name: str) -> None:
        if _NAME.fullmatch(name) is None:
            raise CredentialError("keystore-name", f"{name[:128]!r} is not a name for a key.")
        if name in self._keys or name in self._secrets:
            raise CredentialError("keystore-key-exists", f"{self._path} already holds something named {name!r}.")


@lru_cache(maxsize=16384)
def _public_key(did: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public_key_from_did(did))


def _write(lock: Lock | None, body: dict[str, dict[str, bytes]]) -> bytes:
    fields: dict[str, Any] = {
        kind: {name: canonical.b64encode(value) for name, value in entries.items()} for kind, entries in body.items()
    }
    plain = canonical.dumps(fields | {"type": _PLAIN_TYPE})
    data = plain if lock is None else lock.seal(plain)
    if len(data) > vault.FILE_LIMIT:
        raise CredentialError("keystore-too-large", f"The keystore would exceed {vault.FILE_LIMIT} bytes.")
    return data


@contextmanager
def _naming(path: str | PathLike[str]) -> Iterator[None]:
    """Put the file's name before what is wrong with its bytes."""
    try:
        yield
    except CredentialError as error:
        raise CredentialError(error.code, f"{path}: {error.message}", next=error.next) from error


def _load(data: bytes) -> Any:
    try:
        return canonical.loads(data, limit=vault.FILE_LIMIT, depth=2)
    except EvidenceError as error:
        raise CredentialError("keystore-malformed", f"The keystore cannot be read: {error}") from error


def _read_body(plain: bytes) -> dict[str, dict[str, bytes]]:
    fields = _load(plain)
    if not isinstance(fields, dict) or fields.keys() != {"keys", "secrets", "type"} or fields["type"] != _PLAIN_TYPE:
        raise CredentialError("keystore-malformed", "The keystore's content is not one that this version writes.")
    body = {kind: _read_entries(fields[kind]) for kind in ("keys", "secrets")}
    if body["keys"].keys() & body["secrets"].keys():
        raise CredentialError("keystore-malformed", "The keystore gives one name to a key and to a secret.")
    return body


def _read_entries(entries: Any) -> dict[str, bytes]:
    if not isinstance(entries, dict) or not all(isinstance(value, str) for value in entries.values()):
        raise CredentialError("keystore-malformed", "The keystore's entries are not texts by name.")
    try:
        body = {name: canonical.b64decode(value) for name, value in entries.items()}
    except EvidenceError as error:
        raise CredentialError("keystore-malformed", f"The keystore's entries cannot be read: {error}") from error
    if any(_NAME.fullmatch(name) is None or len(value) != SECRET_LENGTH for name, value in body.items()):
        raise CredentialError("keystore-malformed", "The keystore holds a bad name or an entry that is not 32 bytes.")
    return body
