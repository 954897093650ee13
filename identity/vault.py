# SPDX-License-Identifier: Apache-2.0
"""Secrets at rest: private files written atomically, and their encryption under a passphrase.

Argon2id (RFC 9106) turns the passphrase into a key, AES-256-GCM (NIST SP 800-38D) seals the bytes and
authenticates the header. The parameters stand in the file, so they are bounded before Argon2id is run on
them.
"""

from __future__ import annotations

import os
import secrets
import shlex
import stat
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from identity import canonical
from identity.errors import CredentialError, EvidenceError, Unavailable

FILE_LIMIT: Final = 16 << 20  # some 100,000 keys
_TYPE: Final = "urn:fedledger:keystore:v1"
_KDF: Final = "argon2id"
_CIPHER: Final = "aes-256-gcm"
_SALT: Final = 16
_NONCE: Final = 12
_HEADER_FIELDS: Final = frozenset({"cipher", "iterations", "kdf", "lanes", "memory_kib", "nonce", "salt", "type"})


@dataclass(frozen=True, slots=True)
class Cost:
    """What one derivation of Argon2id costs. The default is RFC 9106's second recommended option (section 4).

    Bounds: 8 MiB to 256 MiB, 1 to 16 iterations, 1 to 16 lanes: a hostile file can cost seconds, never the
    machine.
    """

    memory_kib: int = 65536
    iterations: int = 3
    lanes: int = 4

    def __post_init__(self) -> None:
        for name, low, high in (("memory_kib", 8192, 262144), ("iterations", 1, 16), ("lanes", 1, 16)):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise CredentialError("keystore-parameters", f"{name} must be an integer from {low} to {high}.")


class Lock:
    """A key derived once from a passphrase; it seals any number of times, each with a fresh nonce."""

    __slots__ = ("_cost", "_key", "_salt")

    def __init__(self, passphrase: str, cost: Cost, salt: bytes | None = None) -> None:
        """Runs Argon2id once. Raises CredentialError(keystore-passphrase) for an empty passphrase."""
        if not passphrase:
            raise CredentialError("keystore-passphrase", "The passphrase is empty.")
        self._cost = cost
        self._salt = secrets.token_bytes(_SALT) if salt is None else salt
        derivation = Argon2id(
            salt=self._salt,
            length=32,
            iterations=cost.iterations,
            lanes=cost.lanes,
            memory_cost=cost.memory_kib,
        )
        # NFC (RFC 8265 section 4.2.2): the same passphrase typed on another system gives the same bytes.
        self._key = derivation.derive(unicodedata.normalize("NFC", passphrase).encode("utf-8", "surrogatepass"))

    def seal(self, plain: bytes) -> bytes:
        """Canonical JSON of the header and the ciphertext."""
        nonce = secrets.token_bytes(_NONCE)
        header: dict[str, Any] = {
            "cipher": _CIPHER,
            "iterations": self._cost.iterations,
            "kdf": _KDF,
            "lanes": self._cost.lanes,
            "memory_kib": self._cost.memory_kib,
            "nonce": canonical.b64encode(nonce),
            "salt": canonical.b64encode(self._salt),
            "type": _TYPE,
        }
        sealed = AESGCM(self._key).encrypt(nonce, plain, canonical.dumps(header))
        return canonical.dumps(header | {"ciphertext": canonical.b64encode(sealed)})

    @classmethod
    def open(cls, data: bytes, passphrase: str) -> tuple[Lock, bytes]:
        """The lock that sealed `data`, and the plain bytes.

        Raises CredentialError: keystore-malformed, keystore-parameters (beyond the bounds; Argon2id is not
        run), keystore-passphrase (wrong, or the file was changed: authenticated encryption cannot tell
        which).
        """
        header, nonce, salt, ciphertext = _read_header(data)
        lock = cls(passphrase, Cost(header["memory_kib"], header["iterations"], header["lanes"]), salt)
        try:
            plain = AESGCM(lock._key).decrypt(nonce, ciphertext, canonical.dumps(header))
        except InvalidTag:
            raise CredentialError(
                "keystore-passphrase", "The passphrase is wrong, or the keystore was changed."
            ) from None
        return lock, plain


def is_sealed(fields: Any) -> bool:
    """Whether the fields of a keystore file are those of a sealed one."""
    return isinstance(fields, dict) and "ciphertext" in fields


def read_private(path: Path) -> bytes:
    """The bytes of a file that only its owner can read, at most 16 MiB.

    Raises CredentialError: keystore-missing, keystore-permissions (group or others may read or write it; the
    next step is the chmod command), keystore-malformed (not a regular file, or too large). Raises
    Unavailable(keystore-unreadable) where the system refuses.
    """
    try:
        # Without O_NONBLOCK a named pipe in the file's place would wait for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        try:
            _check_private(path, os.fstat(descriptor))
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(FILE_LIMIT + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise CredentialError("keystore-missing", f"There is no keystore {path}.") from None
    except OSError as error:
        raise Unavailable("keystore-unreadable", f"{path}: {error.strerror}.") from error
    if len(data) > FILE_LIMIT:
        raise CredentialError("keystore-malformed", f"{path} is larger than {FILE_LIMIT} bytes.")
    return data


def write_private(path: Path, data: bytes, *, replace: bool) -> None:
    """Writes the file whole or not at all, with mode 0600: a temporary file beside it, synced, then renamed
    (or linked).

    Raises CredentialError(keystore-exists) if `replace` is false and the file is there already, and
    Unavailable(keystore-unwritable) where the system refuses (disk full, no such folder).
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            if replace:
                os.replace(temporary, path)
            else:
                os.link(temporary, path)  # unlike a rename it never replaces
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
        _sync_folder(path.parent)
    except FileExistsError:
        raise CredentialError("keystore-exists", f"{path} exists already and is not replaced.") from None
    except OSError as error:
        raise Unavailable("keystore-unwritable", f"{path}: {error.strerror}.") from error


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise CredentialError("keystore-malformed", f"{path} is not a regular file.")
    if os.name == "posix" and status.st_mode & 0o077:
        raise CredentialError(
            "keystore-permissions",
            f"Others than its owner may use {path} (mode {stat.S_IMODE(status.st_mode):04o}).",
            next=f"chmod 600 {shlex.quote(str(path))}",
        )


def _sync_folder(folder: Path) -> None:
    """Makes the new name survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_header(data: bytes) -> tuple[dict[str, Any], bytes, bytes, bytes]:
    """Header, nonce, salt and ciphertext, each checked for form."""
    try:
        header = canonical.loads(data, limit=FILE_LIMIT, depth=1)
        ciphertext = canonical.b64decode(_field(header, "ciphertext"))
        nonce = canonical.b64decode(_field(header, "nonce"))
        salt = canonical.b64decode(_field(header, "salt"))
    except EvidenceError as error:
        raise CredentialError("keystore-malformed", f"The keystore cannot be read: {error}") from error
    del header["ciphertext"]
    fixed = {"type": _TYPE, "kdf": _KDF, "cipher": _CIPHER}
    if header.keys() != _HEADER_FIELDS or any(header[name] != value for name, value in fixed.items()):
        raise CredentialError("keystore-malformed", "The keystore's header is not one that this version writes.")
    if len(nonce) != _NONCE or len(salt) != _SALT:
        raise CredentialError("keystore-malformed", "The keystore's nonce or salt has the wrong length.")
    return header, nonce, salt, ciphertext


def _field(header: Any, name: str) -> str:
    value = header.get(name) if isinstance(header, dict) else None
    if not isinstance(value, str):
        raise CredentialError("keystore-malformed", f"The keystore's field {name} is missing or not a string.")
    return value
