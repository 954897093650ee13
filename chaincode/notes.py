# SPDX-License-Identifier: Apache-2.0
"""Signed notes and verifier keys: C2SP signed-note v1, with Ed25519 (type 01) and cosignatures (type 04).

A note is text, an empty line and signature lines. What is read is bounded before it is parsed, and every byte
is accounted for: base64 must equal its re-encoding, a key id must be the hash of its key.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import NoReturn

from identity import canonical
from identity.did import did_from_public_key
from identity.errors import CredentialError, EvidenceError
from identity.keys import Signer, verify_signature
from identity.limits import NOTE_LIMIT

ED25519 = 1
COSIGNATURE = 4

MAX_NOTE_BYTES = NOTE_LIMIT
MAX_SIGNATURES = 256  # a verifier must accept 16
MAX_LINE_CHARACTERS = 8192  # an ML-DSA-44 signature, which we do not know and pass over, takes 3.3 kB
MAX_NAME_BYTES = 255
MAX_TIME = 2**63 - 1

_ID_BYTES = 4
_SIGNATURE_BYTES = 64
TIME_BYTES = 8
_DASH = "\u2014 "
_COSIGNED = "cosignature/v1\n"
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key that signs notes under a name. Made by `verifier` or `parse_vkey`, which check it."""

    name: str
    key_id: bytes
    algorithm: int
    public_key: bytes


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One line below a note's text.

    `signature` is what follows the key id; for type 04 it begins with the time.
    """

    name: str
    key_id: bytes
    signature: bytes

    def text(self) -> str:
        """The line as it is written, newline included."""
        return f"{_DASH}{self.name} {canonical.b64encode(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A note in its parts, nothing of it verified."""

    text: str
    signatures: tuple[SignatureLine, ...]


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A verified cosignature. `time` is in POSIX seconds, as the cosigner states it."""

    cosigner: Verifier
    time: int


@lru_cache(maxsize=256)  # a ledger asks for its own with every checkpoint that it signs
def verifier(name: str, public_key: bytes, algorithm: int = ED25519) -> Verifier:
    """Return the verifier of a raw Ed25519 key for notes (1) or cosignatures (4).

    Raises EvidenceError: note-name, vkey-algorithm, vkey-key (not a sound Ed25519 key).
    """
    check_name(name)
    if algorithm not in (ED25519, COSIGNATURE):
        raise EvidenceError("vkey-algorithm", f"{name} has a key of type {algorithm}; known are 1 and 4.")
    try:
        did_from_public_key(public_key)
    except CredentialError as error:
        raise EvidenceError("vkey-key", f"The key of {name} cannot be trusted: {error.message}") from error
    key_id = sha256(name.encode() + b"\n" + bytes([algorithm]) + public_key).digest()[:_ID_BYTES]
    return Verifier(name, key_id, algorithm, public_key)


def format_vkey(name: str, public_key: bytes, algorithm: int = ED25519) -> str:
    """Return the verifier key NAME+ID+KEY of a raw Ed25519 key. Raises as `verifier` does."""
    key_id = verifier(name, public_key, algorithm).key_id
    return f"{name}+{key_id.hex()}+{canonical.b64encode(bytes([algorithm]) + public_key)}"


def parse_vkey(text: str) -> Verifier:
    """Read a verifier key. Raises EvidenceError: vkey-malformed, vkey-key-id, and as `verifier` does."""
    if len(text) > MAX_LINE_CHARACTERS or text.count("+") < 2:
        raise EvidenceError("vkey-malformed", "A verifier key reads NAME+ID+KEY.")
    name, key_id, encoded = text.split("+", 2)
    key = _decode(encoded, "vkey-malformed", f"The verifier key of {name[:64]!r} is not canonical base64.")
    if len(key) < 2:
        raise EvidenceError("vkey-malformed", f"The verifier key of {name[:64]!r} holds no key.")
    parsed = verifier(name, key[1:], key[0])
    if key_id != parsed.key_id.hex():
        raise EvidenceError("vkey-key-id", f"The verifier key of {name} states another id than its key has.")
    return parsed


def sign_note(text: str, name: str, public_key: bytes, sign: Signer) -> str:
    """Return the note of `text` with one Ed25519 signature.

    Raises EvidenceError: note-text, note-name, vkey-key.
    """
    check_text(text)
    key_id = verifier(name, public_key).key_id
    return format_note(Note(text, (SignatureLine(name, key_id, sign(text.encode())),)))


def add_signature(note: str, line: SignatureLine) -> str:
    """Return the note with one more signature line; an older line of the same key is replaced."""
    parsed = parse_note(note)
    others = [s for s in parsed.signatures if (s.name, s.key_id) != (line.name, line.key_id)]
    return format_note(Note(parsed.text, (*others, line)))


def format_note(note: Note) -> str:
    """Write a note. Raises EvidenceError as `parse_note` does, for a note that it could not read."""
    written = note.text + "\n" + "".join(line.text() for line in note.signatures)
    if parse_note(written) != note:
        raise EvidenceError("note-text", "The text of a note cannot be told from its signatures.")
    return written


def parse_note(note: str | bytes) -> Note:
    """Take a note apart, without verifying anything.

    Raises EvidenceError: note-too-large, note-not-utf8, note-control-character, note-unsigned (no signature
    block), note-too-many-signatures, note-signature-line, note-name.
    """
    content = decode_text(note, MAX_NOTE_BYTES, "note")
    split = content.rfind("\n\n")
    if split < 0:
        raise EvidenceError("note-unsigned", "The note has no empty line before its signatures.")
    text, block = content[: split + 1], content[split + 2 :]
    if not block.endswith("\n"):
        raise EvidenceError("note-signature-line", "The note does not end with a complete signature line.")
    if block.count("\n") > MAX_SIGNATURES:
        raise EvidenceError("note-too-many-signatures", f"More than {MAX_SIGNATURES} signatures.")
    return Note(text, tuple(_parse_line(line) for line in block[:-1].split("\n")))


def open_note(note: str | bytes, verifiers: Collection[Verifier]) -> tuple[str, list[Verifier]]:
    """Verify a note; return its text and those of the verifiers that signed it, each once.

    Raises EvidenceError: note-signature (a known key's signature is false), note-unsigned (no known key
    signed), note-ambiguous-key (two verifiers of one name and id), and as `parse_note` does.
    """
    text, times = verify_note(note, verifiers)
    return text, list(times)


def verify_note(note: str | bytes, verifiers: Collection[Verifier]) -> tuple[str, dict[Verifier, int]]:
    """Verify as `open_note` does; return the text and, for each verifier that signed, the latest time that it
    states.

    The time is 0 where the signature has none (type 01). Every line of a known key must verify, yet a key
    counts once, however often it signed.
    """
    known = {(v.name, v.key_id): v for v in verifiers}
    if len(known) != len(verifiers):
        raise EvidenceError("note-ambiguous-key", "Two of the verifiers have the same name and key id.")
    parsed = parse_note(note)
    times: dict[Verifier, int] = {}
    for line in parsed.signatures:
        signer = known.get((line.name, line.key_id))
        if signer is not None:
            times[signer] = max(times.get(signer, 0), _verify_line(line, signer, parsed.text))
    if not times:
        names = ", ".join(sorted({line.name for line in parsed.signatures})) or "nobody"
        raise EvidenceError("note-unsigned", f"No known key has signed the note; signed by {names}, with other keys.")
    return parsed.text, times


def cosignature_message(text: str, time: int) -> bytes:
    """Return what a cosignature signs (C2SP tlog-cosignature, "Ed25519 signed message")."""
    return f"{_COSIGNED}time {time}\n{text}".encode()


def decode_text(data: str | bytes, limit: int, what: str) -> str:
    """Return `data` as text of at most `limit` bytes, with no control character but newline.

    Raises EvidenceError `what`-too-large, `what`-not-utf8 or `what`-control-character.
    """
    if len(data) > limit:  # characters are never more than bytes: what is too long is not encoded first
        _too_large(what, limit)
    try:
        raw = data.encode() if isinstance(data, str) else bytes(data)
        text = raw.decode()
    except UnicodeError as error:
        raise EvidenceError(f"{what}-not-utf8", f"The {what} is not UTF-8.") from error
    if len(raw) > limit:
        _too_large(what, limit)
    if _CONTROL.search(raw):
        raise EvidenceError(f"{what}-control-character", f"The {what} holds a control character.")
    return text


def check_name(name: str) -> None:
    """Refuse a key name that is empty or over 255 bytes, or holds a space, a plus or a control character
    (note-name).
    """
    try:
        length = len(name.encode())
    except UnicodeError:
        length = 0  # half of a surrogate pair
    if not 0 < length <= MAX_NAME_BYTES or any(c == "+" or c.isspace() or c < " " for c in name):
        raise EvidenceError("note-name", f"{name[:64]!r} cannot name a key: 1 to 255 bytes, no space or plus.")


def check_text(text: str) -> None:
    """Refuse a text that cannot be signed as a note (note-text)."""
    try:
        decode_text(text, MAX_NOTE_BYTES, "note")
    except EvidenceError as error:
        raise EvidenceError("note-text", f"The text cannot be a note: {error.message}") from error
    if not text.endswith("\n"):
        raise EvidenceError("note-text", "The text of a note ends with a newline.")
    if text.startswith(_COSIGNED):  # or, where one key serves for both, a note would be a cosignature
        raise EvidenceError("note-text", "The text of a note may not begin like a cosignature's message.")


def _parse_line(line: str) -> SignatureLine:
    parts = line.removeprefix(_DASH).split(" ")
    if not line.startswith(_DASH) or len(parts) != 2 or len(line) > MAX_LINE_CHARACTERS:
        raise EvidenceError("note-signature-line", f"{line[:64]!r} is not a signature line of a note.")
    name, encoded = parts
    check_name(name)
    signature = _decode(encoded, "note-signature-line", f"A signature of {name[:64]} is not canonical base64.")
    if len(signature) <= _ID_BYTES:
        raise EvidenceError("note-signature-line", f"The signature of {name[:64]} is empty.")
    return SignatureLine(name, signature[:_ID_BYTES], signature[_ID_BYTES:])


def _verify_line(line: SignatureLine, signer: Verifier, text: str) -> int:
    """Verify one signature of a known key and return the time that it states, 0 for none."""
    time, signature, message = 0, line.signature, text.encode()
    if signer.algorithm == COSIGNATURE:
        time = int.from_bytes(signature[:TIME_BYTES], "big")
        signature, message = signature[TIME_BYTES:], cosignature_message(text, time)
    sound = len(signature) == _SIGNATURE_BYTES and time <= MAX_TIME
    if not sound or not verify_signature(did_from_public_key(signer.public_key), message, signature):
        raise EvidenceError("note-signature", f"The signature of {signer.name} on the note is false.")
    return time


def _decode(text: str, code: str, message: str) -> bytes:
    try:
        return canonical.b64decode(text)
    except EvidenceError as error:
        raise EvidenceError(code, message) from error


def _too_large(what: str, limit: int) -> NoReturn:
    raise EvidenceError(f"{what}-too-large", f"The {what} is larger than {limit} bytes.")
