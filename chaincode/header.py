# SPDX-License-Identifier: Apache-2.0
"""The header of an update's blob: one line, canonical JSON and a newline, at most 1024 bytes, before the raw integers.

It says what the update is for, and who made it. Standard library only.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, NoReturn

from chaincode.chunks import is_digest
from identity import canonical
from identity.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Buffer

HEADER_LIMIT: Final = 1024
ITEM_SIZE: Final = {"int32": 4, "int64": 8}

_MEMBER: Final = re.compile(r"did:[!-~]{1,196}")
_SALT_DIGITS: Final = 64
_AFTER_SALT: Final = b'"}\n'
_quoted: Final = json.encoder.encode_basestring_ascii


@dataclass(frozen=True)  # no slots: its fields are taken by ``vars``, where it is sent
class Header:
    """What an update's blob says about itself: its place, its author and its shape.

    `federation`, `agreement`, `base` (the base model's digest) and `salt` are 64 lower-case hex digits; `member`
    is the DID that names the author; `length` counts integers of type `encoding`. The salt keeps the digest,
    which is public for ever, from confirming guessed data.

    Raises EvidenceError(blob-header) for any other value: a Header that exists is well-formed.
    """

    federation: str
    agreement: str
    round: int
    attempt: int
    base: str
    member: str
    encoding: str
    length: int
    salt: str

    def __post_init__(self) -> None:
        for name in ("federation", "agreement", "base", "salt"):
            if not is_digest(getattr(self, name)):
                _refuse(f"{name} is not 64 lower-case hex digits")
        for name in ("round", "attempt", "length"):
            value = getattr(self, name)
            if type(value) is not int or not 0 <= value <= canonical.INTEGER_LIMIT:
                _refuse(f"{name} is not an integer from 0 to 2^53 - 1")
        if not isinstance(self.member, str) or not _MEMBER.fullmatch(self.member):
            _refuse("member is not a DID")
        if not isinstance(self.encoding, str) or self.encoding not in ITEM_SIZE:
            _refuse(f"encoding is not one of {', '.join(ITEM_SIZE)}")


_FIELDS: Final = frozenset(field.name for field in fields(Header))


def format_header(header: Header) -> bytes:
    """The header line: canonical JSON (RFC 8785) and a newline."""
    return _to_salt(vars(header)) + header.salt.encode("ascii") + _AFTER_SALT


def match_header(data: memoryview, place: Mapping[str, Any]) -> int:
    """The length of a blob's header where it is the one for this place, 0 where it is another or none.

    `place` holds all fields of the `Header` but the salt, which is its author's choice. There is one form for a header, and
    the salt is its last field: so the line is compared, and not parsed.
    """
    before = _to_salt(place)
    line = bytes(data[: len(before) + _SALT_DIGITS + len(_AFTER_SALT)])
    salt = line[len(before) : -len(_AFTER_SALT)].decode("ascii", "replace")
    return len(line) if line.startswith(before) and line.endswith(_AFTER_SALT) and is_digest(salt) else 0


def _to_salt(place: Mapping[str, Any]) -> bytes:
    """The header line up to its last field, the salt. Of values that have been checked, only a DID can need an escape."""
    return (
        f'{{"agreement":"{place["agreement"]}","attempt":{place["attempt"]},"base":"{place["base"]}",'
        f'"encoding":"{place["encoding"]}","federation":"{place["federation"]}","length":{place["length"]},'
        f'"member":{_quoted(place["member"])},"round":{place["round"]},"salt":"'
    ).encode()


def parse_header(data: Buffer) -> tuple[Header, int]:
    """The header of a blob, and the offset of its first integer. Reads at most 1024 bytes.

    Raises EvidenceError(blob-header): no newline within 1024 bytes, not canonical JSON, other fields than the
    Header's, or a field out of its range.
    """
    line = bytes(memoryview(data).cast("B")[:HEADER_LIMIT])
    end = line.find(b"\n")
    if end < 0:
        _refuse(f"there is no header line within the first {HEADER_LIMIT} bytes")
    try:
        value = canonical.loads(line[:end], limit=HEADER_LIMIT, depth=1)
    except EvidenceError as error:
        raise EvidenceError("blob-header", f"The blob's header cannot be read: {error}") from error
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        _refuse(f"it must have exactly the fields {', '.join(sorted(_FIELDS))}")
    return Header(**value), end + 1


def _refuse(why: str) -> NoReturn:
    raise EvidenceError("blob-header", f"The blob's header cannot be used: {why}.")
