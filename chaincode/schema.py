# SPDX-License-Identifier: Apache-2.0
"""Closed schemas: small checks that are combined into the shape of an entry.

A check takes a parsed JSON value and the path to it, returns nothing, and raises ``EvidenceError("entry-schema")``
that names the path. Every object is closed: a missing or an additional field is refused, so that a signed
statement can never carry something that its reader does not look at.
"""

import re
from collections.abc import Callable
from itertools import islice
from operator import lt
from typing import Any, NoReturn

from chaincode.notes import parse_vkey
from identity.did import public_key_from_did
from identity.errors import CredentialError, EvidenceError

Path = str | tuple["Path", str | int]
"""Where a value stands: a name, or where its container stands and its field or position in it. Written out on a refusal
only, for most values are never refused."""

Check = Callable[[Any, Path], None]

MAX_MEMBERS = 10_000
SECONDS_MAX = 253_402_300_799  # 9999-12-31T23:59:59Z

# Control characters, line separators, and what makes text look like another text: directional embeddings, overrides
# and isolates, zero-width spaces. Fixed ranges, so that no Unicode version changes what the contract accepts.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u2028-\u202e\u2060\u2066-\u2069\ufeff]")
_SPACE = " \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"


def refuse(path: Path, why: str) -> NoReturn:
    """Raise ``EvidenceError("entry-schema")`` for the value at ``path``."""
    raise EvidenceError("entry-schema", f"{_written(path)}: {why}")


def _written(path: Path) -> str:
    if isinstance(path, str):
        return path
    container, part = path
    return f"{_written(container)}[{part}]" if isinstance(part, int) else f"{_written(container)}.{part}"


def obj(**fields: Check) -> Check:
    """A JSON object with exactly these fields."""

    def check(value: Any, path: Path) -> None:
        if not isinstance(value, dict):
            refuse(path, "must be an object")
        if value.keys() != fields.keys():
            extra, missing = sorted(value.keys() - fields.keys()), sorted(fields.keys() - value.keys())
            refuse(path, f"unknown fields {extra[:5]}, missing fields {missing[:5]}")
        for name, field in fields.items():
            field(value[name], (path, name))

    return check


def array(item: Check, *, least: int = 0, most: int = MAX_MEMBERS) -> Check:
    """A JSON array of ``least`` to ``most`` items of one shape."""

    def check(value: Any, path: Path) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            refuse(path, f"must be an array of {least} to {most} items")
        for position, element in enumerate(value):
            item(element, (path, position))

    return check


def mapping(item: Check, *, most: int) -> Check:
    """A JSON object with free, slug-shaped names and values of one shape."""

    def check(value: Any, path: Path) -> None:
        if not isinstance(value, dict) or len(value) > most:
            refuse(path, f"must be an object of at most {most} names")
        for name, element in value.items():
            slug(name, (path, "name"))
            item(element, (path, name))

    return check


def integer(least: int, most: int) -> Check:
    """An integer between the bounds, both included."""

    def check(value: Any, path: Path) -> None:
        if type(value) is not int or not least <= value <= most:
            refuse(path, f"must be an integer from {least} to {most}")

    return check


def text(most: int) -> Check:
    """Non-empty text of at most ``most`` characters without control or hidden characters or surrounding space."""

    def check(value: Any, path: Path) -> None:
        if not isinstance(value, str) or not 0 < len(value) <= most or value != value.strip(_SPACE):
            refuse(path, f"must be text of 1 to {most} characters without surrounding space")
        if _HIDDEN.search(value):
            refuse(path, "must not contain control characters, or characters that hide or reorder text")

    return check


def one_of(*allowed: str) -> Check:
    """One of the listed words: a closed vocabulary."""

    def check(value: Any, path: Path) -> None:
        if not isinstance(value, str) or value not in allowed:
            refuse(path, f"must be one of {', '.join(allowed)}")

    return check


def nullable(inner: Check) -> Check:
    """The inner shape, or null."""

    def check(value: Any, path: Path) -> None:
        if value is not None:
            inner(value, path)

    return check


def pattern(expression: str, what: str) -> Check:
    """Text that matches the whole expression."""
    compiled = re.compile(expression)

    def check(value: Any, path: Path) -> None:
        if not isinstance(value, str) or compiled.fullmatch(value) is None:
            refuse(path, f"must be {what}")

    return check


def did(value: Any, path: Path) -> None:
    """A did:key of a sound Ed25519 key."""
    if not isinstance(value, str):
        refuse(path, "must be a did:key")
    try:
        public_key_from_did(value)
    except CredentialError as error:
        refuse(path, str(error))


def vkey(algorithm: int) -> Check:
    """A C2SP verifier key (NAME+ID+KEY) of one signature type, with a name as a log has it."""
    shape = pattern(
        r"[!-*,-~]{1,128}\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}", f"a verifier key (NAME+ID+KEY) of type {algorithm}"
    )

    def check(value: Any, path: Path) -> None:
        shape(value, path)
        try:
            parsed = parse_vkey(value)
        except EvidenceError as error:
            refuse(path, str(error))
        if parsed.algorithm != algorithm:
            refuse(path, f"must be a verifier key of type {algorithm}, not {parsed.algorithm}")

    return check


def ascending(inner: Check, key: str | None = None) -> Check:
    """An array in strictly ascending order (by one field, if named): distinct items, and one encoding per list."""

    def check(value: Any, path: Path) -> None:
        inner(value, path)
        names = value if key is None else [item[key] for item in value]
        if not all(map(lt, names, islice(names, 1, None))):
            refuse(path, "must be in strictly ascending order, each once")

    return check


def distinct_dids(*, least: int = 0, most: int = MAX_MEMBERS) -> Check:
    """DIDs in strictly ascending order."""
    one_by_one = array(did, least=least, most=most)

    def check(value: Any, path: Path) -> None:
        # A round's entries name all its sites: together, unless one of them is to be refused by its place.
        if not isinstance(value, list) or not least <= len(value) <= most or not _all_dids(value):
            one_by_one(value, path)

    return ascending(check)


def _all_dids(values: list[Any]) -> bool:
    try:
        return set(map(type, values)) <= {str} and all(map(public_key_from_did, values))
    except CredentialError:
        return False


def boolean(value: Any, path: Path) -> None:
    """true or false."""
    if not isinstance(value, bool):
        refuse(path, "must be true or false")


digest = pattern(r"[0-9a-f]{64}", "a SHA-256 digest of 64 lower-case hex digits")
slug = pattern(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?", "a name of 1 to 64 characters out of a-z 0-9 . _ -")
decimal = pattern(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?(e-?[1-9][0-9]{0,2})?", "a decimal number as text")
seconds = integer(0, SECONDS_MAX)
