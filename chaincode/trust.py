# SPDX-License-Identifier: Apache-2.0
"""The file ``federation.vkey``: what an outsider keeps to check a federation's evidence, and where trust begins.

Two lines: the verifier key of the federation's log (C2SP vkey, Ed25519), and the federation's id, the SHA-256 of the
payload of its ``found`` entry in 64 hex digits.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from chaincode import artefacts, notes
from chaincode.files import read_bounded
from chaincode.notes import Verifier
from identity.errors import EvidenceError

KEY_FILE = artefacts.KEY_FILE
LIMIT = 1024
"""Bytes of a key file at most: a log's name has 255, its key and the id 120."""

_FEDERATION = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class FederationKey:
    """The key of a federation's log, and the federation's id (64 lower-case hex digits)."""

    log: Verifier
    federation: str


def format_key(key: FederationKey) -> str:
    """The text of a key file. Raises EvidenceError(federation-key) for a key that could not be read again."""
    written = f"{notes.format_vkey(key.log.name, key.log.public_key, key.log.algorithm)}\n{key.federation}\n"
    if parse_key(written.encode()) != key:
        raise EvidenceError("federation-key", "The federation's key cannot be written.")
    return written


def parse_key(data: bytes) -> FederationKey:
    """Read a key file's bytes.

    Raises EvidenceError(federation-key) for anything but exactly what ``format_key`` writes.
    """
    try:
        lines = data.decode("ascii").split("\n") if len(data) <= LIMIT else []
        if len(lines) != 3 or lines[2] or _FEDERATION.fullmatch(lines[1]) is None:
            raise EvidenceError("federation-key", "It must have two lines: the log's key and the federation's id.")
        log = notes.parse_vkey(lines[0])
        if log.algorithm != notes.ED25519:
            raise EvidenceError("federation-key", "The first line is not the key of a log (type 1).")
    except UnicodeDecodeError as error:
        raise EvidenceError("federation-key", "This is not a federation's key file: it is not ASCII.") from error
    except EvidenceError as error:
        raise EvidenceError("federation-key", f"This is not a federation's key file. {error.message}") from error
    return FederationKey(log, lines[1])


def read_key(path: Path) -> FederationKey:
    """Read a key file. Raises EvidenceError: federation-key, file-not-regular; OSError where it cannot be read."""
    data = read_bounded(path, LIMIT)
    try:
        return parse_key(data)
    except EvidenceError as error:
        raise EvidenceError(error.code, f"{path}: {error.message}") from error
