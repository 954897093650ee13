# SPDX-License-Identifier: Apache-2.0
"""Entries: signed statements of a closed kind, and the one door through which bytes become one (FORMAT.md, section 3).

An entry is an in-toto Statement v1 in canonical JSON inside a DSSE envelope with one signature. Its id is the
SHA-256 of the payload; the leaf of the log is the envelope, whose canonical form is the only accepted one.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, NamedTuple

from chaincode import schema
from chaincode.kinds import KINDS, Kind
from identity import canonical, envelope
from identity.errors import EvidenceError
from identity.keys import Identity

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREFIX, SUFFIX = "urn:fedledger:", ":v1"
LIMIT = 64 * 1024
LARGE_LIMIT = 1024 * 1024
DEPTH = 12
_REMEMBERED = 1 << 10  # spellings of a field
_UNREAD, _SHORT = 512, 4096  # payloads, and the bytes of one: more than the commitments that are submitted at once
_FEW = 64  # entries of a kind whose reading takes as long as compiling the kind's pattern, and so does without it
_BEFORE_NAME = f'"predicateType":"{PREFIX}'


class Entry(NamedTuple):
    """A well-formed entry whose signature has been verified. Made only of fields whose envelope ``open_fields`` or a
    batch's opening has verified, here or in a child process of ours.

    ``member`` is the author's name, ``did`` the key that signed, ``at`` the author's UTC second; ``subjects`` maps names
    to SHA-256 hex; ``body`` holds the kind's own fields.
    """

    id: str
    kind: str
    member: str
    did: str
    at: int
    subjects: Mapping[str, str]
    body: Mapping[str, Any]
    envelope: bytes

    @property
    def federation(self) -> str:
        """The federation's id: that of the ``found`` entry, for itself too."""
        return self.subjects.get("federation", self.id)

    @property
    def agreement(self) -> str:
        """The digest of the agreement that the entry belongs to, empty for none."""
        return self.subjects.get("agreement", "")


Fields = tuple[str, str, str, str, int, dict[str, str], dict[str, Any]]
"""id, kind, member, did, at, subjects, body: an entry but for its envelope."""
_Parts = tuple[Kind, dict[str, str], dict[str, Any]]
"""The kind, the subjects and the predicate of a payload. Whoever is given them may change them."""


def make_entry(
    kind: str, *, member: str, at: int, subjects: Mapping[str, str], body: Mapping[str, Any], signer: Identity
) -> bytes:
    """The signed envelope of an entry. Raises as ``write_entry``, and EvidenceError(envelope-signature)."""
    return write_entry(kind, member=member, at=at, subjects=subjects, body=body, signer=signer).signed()


def write_entry(
    kind: str, *, member: str, at: int, subjects: Mapping[str, str], body: Mapping[str, Any], signer: Identity
) -> envelope.Unsigned:
    """An entry that is still to be signed.

    Raises:
        EvidenceError: ``entry-*`` or ``json-*`` where the statement would not be accepted by ``open_entry``.
    """
    predicate = {**body, "member": member, "did": signer.did, "at": at}
    payload = _write_flat(kind, predicate, subjects)
    if payload is None:
        statement = {
            "_type": STATEMENT_TYPE,
            "predicateType": f"{PREFIX}{kind}{SUFFIX}",
            "predicate": predicate,
            "subject": [{"digest": {"sha256": subjects[name]}, "name": name} for name in sorted(subjects)],
        }
        payload = canonical.dumps(statement)
        _check_statement(statement, len(payload))
    return envelope.Unsigned(payload, PAYLOAD_TYPE, signer)


def open_entry(data: bytes) -> Entry:
    """The entry that an envelope's bytes hold: bounded, canonical, of a closed schema, and signed by its author.

    Raises:
        EvidenceError: ``envelope-*``, ``json-*``, ``entry-*`` or ``signature-invalid``.
    """
    return Entry(*open_fields(data), data)


def open_fields(data: bytes) -> Fields:
    """The fields of the entry, in their order, without the envelope. Raises as ``open_entry``, whose work this does."""
    fields, sealed = read_fields(data)
    envelope.verify(sealed)
    return fields


def read_fields(data: bytes) -> tuple[Fields, envelope.Envelope]:
    """As ``open_fields``, but that the signature of the envelope is still to be verified: nothing of it is to be believed.

    Raises EvidenceError: ``envelope-*``, ``json-*``, ``entry-*``.
    """
    sealed = envelope.parse(data)
    if sealed.payload_type != PAYLOAD_TYPE:
        raise EvidenceError(
            "entry-payload-type", f"The envelope's payload type is {sealed.payload_type!r}, not {PAYLOAD_TYPE!r}."
        )
    read = _written.pop(sealed.payload, None) or _read_flat(sealed.payload, least=_FEW) or _read(sealed.payload)
    kind, subjects, predicate = read
    member, did, at = predicate.pop("member"), predicate.pop("did"), predicate.pop("at")
    if did != sealed.did:
        raise EvidenceError("entry-author", f"The entry says that {did} signs, the envelope that {sealed.did} does.")
    return (hashlib.sha256(sealed.payload).hexdigest(), kind.name, member, did, at, subjects, predicate), sealed


def _read(payload: bytes) -> _Parts:
    """The kind, the subjects and the predicate of a payload."""
    statement = canonical.loads(payload, limit=LARGE_LIMIT, depth=DEPTH)
    kind, subjects = _check_statement(statement, len(payload))
    _met[kind.name] += 1
    return kind, subjects, statement["predicate"]


def _read_flat(payload: bytes, *, least: int = 0) -> _Parts | None:
    """As ``_read``, at a third of its cost, for a payload whose predicate has plain values only, and lists and objects of
    texts: a commitment and most others.

    None where the bytes are not of that form, whatever they are, or ``_read`` has read fewer than ``least`` entries of the
    kind: then ``_read`` says.
    """
    if len(payload) > LARGE_LIMIT or not payload.isascii():
        return None
    text = payload.decode("ascii")
    start = text.find(_BEFORE_NAME) + len(_BEFORE_NAME)
    kind = KINDS.get(text[start : text.find(":", start)])
    if kind is None or (len(payload) > LIMIT and not kind.large) or _met[kind.name] < least:
        return None
    form = _form(kind.name)
    found = form.pattern.fullmatch(text)
    if found is None:
        return None
    groups = found.groups()
    try:
        # Whoever is given a list may change it, so none is remembered.
        predicate = {
            name: (read if spelled[0] in "[{" else remembered)(spelled)
            for (name, read, remembered), spelled in zip(form.fields, groups, strict=False)
        }
    except (ValueError, EvidenceError):
        return None
    digests = zip(form.subjects, groups[len(form.fields) :], strict=True)
    return kind, {name: digest for name, digest in digests if digest is not None}, predicate


def _write_flat(kind: str, predicate: dict[str, Any], subjects: Mapping[str, str]) -> bytes | None:
    """The payload of a statement that ``_read_flat`` reads, and thereby checks; None for any other, sound or not.

    What it has read is kept for ``read_fields``: most entries are read by the process that has just written them.
    """
    if kind not in KINDS:
        return None
    written = canonical.dumps(predicate).decode("utf-8")
    listed = ",".join(f'{{"digest":{{"sha256":"{subjects[name]}"}},"name":"{name}"}}' for name in sorted(subjects))
    text = f'{{"_type":"{STATEMENT_TYPE}","predicate":{written},{_BEFORE_NAME}{kind}{SUFFIX}","subject":[{listed}]}}'
    payload = text.encode("ascii") if text.isascii() else b""
    read = _read_flat(payload)
    if read is None:
        return None
    if len(payload) <= _SHORT:
        if len(_written) >= _UNREAD:
            _written.clear()
        _written[payload] = read
    return payload


# What was read of a payload when it was written, for its next reader, who takes it away: it may change what it is given.
_written: dict[bytes, _Parts] = {}
_Read = Callable[[str], Any]
_met = dict.fromkeys(KINDS, 0)  # how many entries of a kind this process has read without a pattern


@dataclass(frozen=True, slots=True)
class _Form:
    """The one canonical spelling of a kind's statements, as far as their predicate is flat: the groups are the values of
    ``fields``, each with what reads it and what does so from memory, and the digests of ``subjects``."""

    fields: tuple[tuple[str, _Read, _Read], ...]
    subjects: tuple[str, ...]
    pattern: re.Pattern[str]


def _reader(check: schema.Check) -> _Read:
    """Reads and checks a field's spelling. Raises ValueError or EvidenceError."""

    def read(text: str) -> Any:
        value = canonical.flat_value(text)
        check(value, "")
        return value

    return read


@cache  # compiled when an entry of the kind is first read
def _form(name: str) -> _Form:
    kind = KINDS[name]
    subjects = tuple(sorted(kind.subjects + kind.optional))
    # Each subject, where it is there, and the comma to a next one.
    listed = "".join(
        rf'(?:\{{"digest":\{{"sha256":"([0-9a-f]{{64}})"\}},"name":"{re.escape(subject)}"\}}(?:,(?=\{{)|(?=\])))'
        + ("?" if subject in kind.optional else "")
        for subject in subjects
    )
    head, middle = re.escape(f'{{"_type":"{STATEMENT_TYPE}","predicate":'), re.escape(_BEFORE_NAME + name + SUFFIX)
    pattern = rf'{head}{canonical.flat_pattern(kind.fields)},{middle}","subject":\[{listed}\]\}}'
    readers = ((name, _reader(kind.fields[name])) for name in sorted(kind.fields))
    # Most spellings are met again: the same author, round or second.
    fields = tuple((name, read, lru_cache(_REMEMBERED)(read)) for name, read in readers)
    return _Form(fields, subjects, re.compile(pattern))


def _check_statement(statement: Any, size: int) -> tuple[Kind, dict[str, str]]:
    """The kind and the subjects of a parsed statement of ``size`` payload bytes."""
    if not isinstance(statement, dict) or statement.keys() != {"_type", "predicateType", "predicate", "subject"}:
        raise EvidenceError("entry-statement", "The payload is not an in-toto Statement with exactly its four fields.")
    if statement["_type"] != STATEMENT_TYPE:
        raise EvidenceError("entry-statement", f"The statement's _type is not {STATEMENT_TYPE}.")
    kind = KINDS.get(_kind_name(statement["predicateType"]))
    if kind is None:
        raise EvidenceError(
            "entry-kind", f"No entry kind {str(statement['predicateType'])[:80]!r}. Known: {', '.join(KINDS)}."
        )
    limit = LARGE_LIMIT if kind.large else LIMIT
    if size > limit:
        raise EvidenceError("entry-too-large", f"{kind.name}: {size} bytes, at most {limit} are allowed.")
    kind.check(statement["predicate"], kind.name)
    return kind, _subjects(kind, statement["subject"])


def _kind_name(predicate_type: Any) -> str:
    if (
        not isinstance(predicate_type, str)
        or not predicate_type.startswith(PREFIX)
        or not predicate_type.endswith(SUFFIX)
    ):
        return ""
    return predicate_type[len(PREFIX) : -len(SUFFIX)]


_SUBJECT = schema.array(schema.obj(digest=schema.obj(sha256=schema.digest), name=schema.slug), least=1, most=8)


def _subjects(kind: Kind, value: Any) -> dict[str, str]:
    _SUBJECT(value, f"{kind.name}.subject")
    names = [s["name"] for s in value]
    if names != sorted(set(names)) or not set(kind.subjects) <= set(names) <= set(kind.subjects + kind.optional):
        raise EvidenceError("entry-schema", f"{kind.name}: subjects are {names}, must be {sorted(kind.subjects)} in order"
                            + (f", optionally {sorted(kind.optional)}." if kind.optional else "."))  # fmt: skip
    return {s["name"]: s["digest"]["sha256"] for s in value}
