# SPDX-License-Identifier: Apache-2.0
"""Entries: signed statements of a closed kind, and the one door through which bytes become one (DESIGN section 4).

An entry is an in-toto Statement v1 in canonical JSON inside a DSSE envelope with one signature. Its id is the
SHA-256 of the payload; the leaf of the log is the envelope, whose canonical form is the only accepted one.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Entry:
    """A well-formed entry whose signature has been verified. Made by ``open_entry`` alone.

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
    envelope: bytes = field(repr=False)

    @property
    def federation(self) -> str:
        """The federation's id: that of the ``found`` entry, for itself too."""
        return self.subjects.get("federation", self.id)

    @property
    def agreement(self) -> str:
        """The digest of the agreement that the entry belongs to, empty for none."""
        return self.subjects.get("agreement", "")


def make_entry(
    kind: str, *, member: str, at: int, subjects: Mapping[str, str], body: Mapping[str, Any], signer: Identity
) -> bytes:
    """The signed envelope of an entry.

    Raises:
        EvidenceError: ``entry-*`` or ``json-*`` where the statement would not be accepted by ``open_entry``.
    """
    predicate = {**body, "member": member, "did": signer.did, "at": at}
    statement = {
        "_type": STATEMENT_TYPE,
        "predicateType": f"{PREFIX}{kind}{SUFFIX}",
        "predicate": predicate,
        "subject": [{"digest": {"sha256": subjects[name]}, "name": name} for name in sorted(subjects)],
    }
    payload = canonical.dumps(statement)
    _check_statement(statement, len(payload))
    return envelope.seal(payload, PAYLOAD_TYPE, signer)


def open_entry(data: bytes) -> Entry:
    """The entry that an envelope's bytes hold: bounded, canonical, of a closed schema, and signed by its author.

    Raises:
        EvidenceError: ``envelope-*``, ``json-*``, ``entry-*`` or ``signature-invalid``.
    """
    sealed = envelope.parse(data)
    if sealed.payload_type != PAYLOAD_TYPE:
        raise EvidenceError(
            "entry-payload-type", f"The envelope's payload type is {sealed.payload_type!r}, not {PAYLOAD_TYPE!r}."
        )
    statement = canonical.loads(sealed.payload, limit=LARGE_LIMIT, depth=DEPTH)
    kind, subjects = _check_statement(statement, len(sealed.payload))
    predicate = dict(statement["predicate"])
    member, did, at = predicate.pop("member"), predicate.pop("did"), predicate.pop("at")
    if did != sealed.did:
        raise EvidenceError("entry-author", f"The entry says that {did} signs, the envelope that {sealed.did} does.")
    envelope.verify(sealed)
    return Entry(
        id=hashlib.sha256(sealed.payload).hexdigest(), kind=kind.name, member=member, did=did, at=at,
        subjects=subjects, body=predicate, envelope=data,
    )  # fmt: skip


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
