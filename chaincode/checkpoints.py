# SPDX-License-Identifier: Apache-2.0
"""The log's signed head and offline proofs: C2SP tlog-checkpoint, tlog-cosignature (Ed25519) and tlog-proof
v1.

A checkpoint is a note whose text is origin, size and root. A proof is one file that shows a leaf to be in a
checkpoint's tree. Extension lines are neither written nor read: no monitor could audit them.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from chaincode import notes
from chaincode.log import EMPTY_ROOT, HASH_BYTES, MAX_SIZE, verify_inclusion
from chaincode.notes import COSIGNATURE, ED25519, Cosignature, SignatureLine, Verifier
from identity import canonical
from identity.errors import EvidenceError
from identity.keys import Signer
from identity.wording import counted

MAX_PATH = 63
MAX_EXTRA_CHARACTERS = 65536
MAX_PROOF_BYTES = notes.MAX_NOTE_BYTES + MAX_EXTRA_CHARACTERS + 4096

_TEXT_LINES = 3
_PROOF_HEADER = "c2sp.org/tlog-proof@v1"
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log: its name, its number of entries and the root over them."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The text of the note.

        Raises EvidenceError as `parse_checkpoint` does, for what that could not read.
        """
        written = f"{self.origin}\n{self.size}\n{canonical.b64encode(self.root)}\n"
        if parse_checkpoint(written) != self:
            raise EvidenceError("checkpoint-malformed", "The checkpoint cannot be written.")
        return written


@dataclass(frozen=True, slots=True)
class Proof:
    """That leaf number `index` is in the tree of the signed checkpoint.

    `extra` is nobody's word: it is not signed.
    """

    index: int
    path: tuple[bytes, ...]
    checkpoint: str
    extra: bytes | None = None


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint's text (of a note that was opened).

    Raises EvidenceError: checkpoint-malformed (not three lines), checkpoint-extension, checkpoint-origin,
    checkpoint-size, checkpoint-root.
    """
    lines = notes.decode_text(text, notes.MAX_NOTE_BYTES, "checkpoint").split("\n", _TEXT_LINES)
    if len(lines) != _TEXT_LINES + 1:
        raise EvidenceError("checkpoint-malformed", "A checkpoint is the lines origin, size and root.")
    origin, size, encoded, rest = lines
    if rest:
        raise EvidenceError("checkpoint-extension", "The checkpoint has extension lines; none are known.")
    if not 0 < len(origin.encode()) <= notes.MAX_NAME_BYTES:
        raise EvidenceError("checkpoint-origin", f"The origin has not 1 to {notes.MAX_NAME_BYTES} bytes.")
    if _DECIMAL.fullmatch(size) is None or int(size) > MAX_SIZE:
        raise EvidenceError("checkpoint-size", f"{size[:32]!r} is not the size of a log.")
    root = _hash(encoded, "checkpoint-root")
    if size == "0" and root != EMPTY_ROOT:
        raise EvidenceError("checkpoint-root", "The root of a log without entries is the hash of nothing.")
    return Checkpoint(origin, int(size), root)


def stated_head(note: str | bytes) -> Checkpoint:
    """Return what a checkpoint states, of a note or (a channel's, which no key signs) of its text alone. Nothing is verified.

    Raises EvidenceError: note-*, checkpoint-*.
    """
    if is_plain(note):
        return parse_checkpoint(notes.decode_text(note, notes.MAX_NOTE_BYTES, "checkpoint"))
    return parse_checkpoint(notes.parse_note(note).text)


def is_plain(note: str | bytes) -> bool:
    """Return whether a checkpoint is text alone, without the empty line that signatures follow."""
    return "\n\n" not in note if isinstance(note, str) else b"\n\n" not in note


def sign_checkpoint(checkpoint: Checkpoint, public_key: bytes, sign: Signer) -> str:
    """Return the checkpoint as a note signed by the log's key, whose name is the origin.

    Raises EvidenceError.
    """
    return notes.sign_note(checkpoint.text(), checkpoint.origin, public_key, sign)


def cosign(checkpoint: Checkpoint, name: str, public_key: bytes, sign: Signer, time: int) -> SignatureLine:
    """Return a cosignature/v1 of a checkpoint, made at `time` (POSIX seconds), for `notes.add_signature`.

    It says "the largest consistent head that I have seen": whoever signs has checked the consistency and
    stored the head before. Raises EvidenceError: note-name, note-time, vkey-key, checkpoint-*.
    """
    if not 0 <= time <= notes.MAX_TIME:
        raise EvidenceError("note-time", f"{time} is not a POSIX time.")
    key_id = notes.verifier(name, public_key, COSIGNATURE).key_id
    signature = sign(notes.cosignature_message(checkpoint.text(), time))
    return SignatureLine(name, key_id, time.to_bytes(notes.TIME_BYTES, "big") + signature)


def open_checkpoint(
    note: str | bytes,
    log: Verifier | None,
    cosigners: Collection[Verifier] = (),
    *,
    origin: str | None = None,
) -> tuple[Checkpoint, list[Cosignature]]:
    """Verify a checkpoint; return it with one cosignature of each known cosigner that signed it, the latest.

    `log` is the log's key: its name is the origin and it must have signed. A log without a key (None) is
    known by its `origin`, and at least one cosigner must have signed. Whether the cosigners are enough is the
    caller's policy.

    Raises EvidenceError: checkpoint-origin (another log), checkpoint-unsigned (not by the log),
    note-shared-key (one key would count as two), vkey-algorithm (a log or cosigner with a key of the other
    type), note-*, checkpoint-*.
    """
    known = [*([log] if log else []), *cosigners]
    if len({v.public_key for v in known}) != len(known):
        raise EvidenceError("note-shared-key", "Two of the log's and cosigners' keys are the same key.")
    if (log and log.algorithm != ED25519) or any(c.algorithm != COSIGNATURE for c in cosigners):
        raise EvidenceError("vkey-algorithm", "A log has a key of type 1, a cosigner one of type 4.")
    text, times = notes.verify_note(note, known)
    checkpoint = parse_checkpoint(text)
    expected = log.name if log else origin
    if checkpoint.origin != expected:
        raise EvidenceError("checkpoint-origin", f"A checkpoint of {checkpoint.origin!r}, not of {expected!r}.")
    if log and log not in times:
        raise EvidenceError("checkpoint-unsigned", f"The log {log.name} has not signed its checkpoint.")
    return checkpoint, [Cosignature(signer, time) for signer, time in times.items() if signer != log]


def format_proof(proof: Proof) -> str:
    """Write a proof. Raises EvidenceError as `parse_proof` does, for a proof that it could not read."""
    extra = "" if proof.extra is None else f"extra {canonical.b64encode(proof.extra)}\n"
    path = "".join(canonical.b64encode(h) + "\n" for h in proof.path)
    written = f"{_PROOF_HEADER}\n{extra}index {proof.index}\n{path}\n{proof.checkpoint}"
    if parse_proof(written) != proof:
        raise EvidenceError("proof-malformed", "The proof cannot be written.")
    return written


def parse_proof(data: str | bytes) -> Proof:
    """Take a proof apart, without verifying anything.

    Raises EvidenceError: proof-too-large, proof-not-utf8, proof-control-character, proof-malformed (no empty
    line), proof-header, proof-extra, proof-index, proof-hash, proof-path-length (over 63 hashes), note-* and
    checkpoint-* for the checkpoint.
    """
    text = notes.decode_text(data, MAX_PROOF_BYTES, "proof")
    head, separator, checkpoint = text.partition("\n\n")
    if not separator:
        raise EvidenceError("proof-malformed", "The proof has no empty line before its checkpoint.")
    if head.count("\n") > MAX_PATH + 2:
        raise EvidenceError("proof-path-length", f"The proof has more than {MAX_PATH} hashes.")
    header, *lines = head.split("\n")
    if header != _PROOF_HEADER:
        raise EvidenceError("proof-header", f"The proof does not begin with {_PROOF_HEADER}.")
    extra = _parse_extra(lines.pop(0)) if lines and lines[0].startswith("extra ") else None
    label, _, index = lines.pop(0).partition(" ") if lines else ("", "", "")
    if label != "index" or _DECIMAL.fullmatch(index) is None or int(index) >= MAX_SIZE:
        raise EvidenceError("proof-index", "The proof does not say the index of its leaf.")
    if len(lines) > MAX_PATH:
        raise EvidenceError("proof-path-length", f"The proof has more than {MAX_PATH} hashes.")
    parse_checkpoint(notes.parse_note(checkpoint).text)
    return Proof(int(index), tuple(_hash(line, "proof-hash") for line in lines), checkpoint, extra)


def verify_proof(
    proof: Proof,
    leaf: bytes,
    log: Verifier | None,
    cosigners: Collection[Verifier] = (),
    *,
    origin: str | None = None,
) -> tuple[Checkpoint, list[Cosignature]]:
    """Verify that the leaf hash `leaf` is in the log at the proof's index; return the checkpoint that says
    so.

    Raises EvidenceError: as `open_checkpoint` and `log.verify_inclusion` do.
    """
    checkpoint, cosignatures = open_checkpoint(proof.checkpoint, log, cosigners, origin=origin)
    verify_inclusion(leaf, proof.index, checkpoint.size, proof.path, checkpoint.root)
    return checkpoint, cosignatures


def _parse_extra(line: str) -> bytes:
    encoded = line.removeprefix("extra ")
    if not 0 < len(encoded) <= MAX_EXTRA_CHARACTERS:
        raise EvidenceError("proof-extra", f"The extra data has not 1 to {MAX_EXTRA_CHARACTERS} characters.")
    try:
        return canonical.b64decode(encoded)
    except EvidenceError as error:
        raise EvidenceError("proof-extra", "The proof's extra data is not canonical base64.") from error


def _hash(encoded: str, code: str) -> bytes:
    """Decode one base64 line of exactly 32 bytes."""
    try:
        decoded = canonical.b64decode(encoded)
    except EvidenceError as error:
        raise EvidenceError(code, f"{encoded[:64]!r} is not canonical base64.") from error
    if len(decoded) != HASH_BYTES:
        raise EvidenceError(code, f"A hash has {counted(len(decoded), 'byte')}, not {HASH_BYTES}.")
    return decoded
