# SPDX-License-Identifier: Apache-2.0
"""Canonical JSON (RFC 8785) and strict base64: the one form in which evidence is written and read.

Same value, same bytes, on every machine: no floats, integers within 2^53 - 1, keys sorted by UTF-16 code
units. What is read must equal its re-encoding, so a second spelling of a signed value cannot exist.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Collection
from contextlib import suppress
from itertools import pairwise
from typing import Any, Final, NoReturn

import rfc8785

from identity.errors import EvidenceError

INTEGER_LIMIT: Final = 2**53 - 1  # RFC 8785 section 3.2.2.3: what an IEEE 754 double holds exactly
_INTEGER_DIGITS: Final = len(f"-{INTEGER_LIMIT}")
SIZE_LIMIT: Final = 65536
DEPTH_LIMIT: Final = 16

# A JSON string, closed or not: matching the unclosed one too keeps the scan linear in hostile bytes.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_BRACKETS: Final = b"[]{}"
_NOT_BRACKETS: Final = bytes(sorted(set(range(256)) - set(_BRACKETS)))

# The C encoder writes strings as RFC 8785 section 3.2.2.2 asks. It sorts keys by code points, which equals
# UTF-16 order for ASCII keys; other keys take the slow path through rfc8785. What it is given has been bounded in
# depth, so it need not look for a value that holds itself.
_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"), check_circular=False
)

# How canonical JSON spells a value that needs no second look: an integer of up to 15 digits, printable ASCII without
# an escape, and lists and objects of such texts. It is a part of what canonical JSON allows; everything else is for `loads`.
_TEXT: Final = r'"[ !#-\[\]-~]*+"'
_TEXTS: Final = rf"\{{(?:{_TEXT}:{_TEXT}(?:,(?=\")|(?=\}})))*+\}}"
_LIST: Final = rf"\[(?:{_TEXT}(?:,(?=\")|(?=\])))*+\]"
_FLAT: Final = rf"null|true|false|0|-?[1-9][0-9]{{0,14}}|{_TEXT}|{_LIST}|{_TEXTS}"
_PAIRS: Final = re.compile(r'"([^"]*)":"([^"]*)"')
_WORDS: Final = {"null": None, "true": True, "false": False}


def dumps(value: Any, *, depth: int = DEPTH_LIMIT) -> bytes:
    """The canonical bytes (RFC 8785) of `value`: dict with str keys, list, tuple, str, int, bool or None.

    Raises EvidenceError: json-float, json-integer-range, json-lone-surrogate, json-too-deep (more than
    `depth` nested containers), json-type (anything else). What this writes, `loads` reads.
    """
    return _encode(value, _check(value, depth))


def loads(data: bytes, *, limit: int = SIZE_LIMIT, depth: int = DEPTH_LIMIT) -> Any:
    """The value of canonical JSON bytes: at most `limit` bytes and `depth` nested containers.

    Raises EvidenceError: json-too-large, json-not-utf8, json-syntax, json-duplicate-key, json-float (NaN and
    Infinity too), json-integer-range, json-lone-surrogate, json-too-deep, json-not-canonical; nothing else,
    for any bytes.
    """
    _bound(data, limit, depth)
    # Quick: without the hook that looks for a key named twice. Such an object is written with one of the two, so the
    # comparison refuses it too; whatever is refused here, the strict way refuses again and names.
    # Canonical ASCII bytes hold ASCII keys only (a key with an escape such as \\u00e9 is refused by the comparison).
    if data.isascii():
        with suppress(ValueError, EvidenceError):
            value = _QUICK.decode(data.decode("ascii"))
            if _ENCODER.encode(value).encode("ascii") == data:
                return value
    value = _parse(data, _STRICT)
    if _encode(value, data.isascii() or _check(value, depth)) != data:
        raise EvidenceError("json-not-canonical", "The bytes are not the canonical form (RFC 8785) of their value.")
    return value


def flat_pattern(names: Collection[str]) -> str:
    """A regular expression for an object with exactly these ASCII keys, whose values are plain scalars, or lists or objects
    of plain texts, as `loads` would read it.

    One group for each key, in ascending order of the keys; `flat_value` reads a group. What matches, and has groups that
    can all be read, is canonical by its shape: one match does what parsing, writing and comparing do. The rest is for `loads`.
    """
    return r"\{" + ",".join(f"{re.escape(_ENCODER.encode(name))}:({_FLAT})" for name in sorted(names)) + r"\}"


def flat_value(text: str) -> str | int | bool | list[str] | dict[str, str] | None:
    """The value that a group of `flat_pattern` holds. Raises ValueError where an object's keys do not ascend."""
    if text[0] == '"':
        return text[1:-1]
    if text[0] == "[":
        return text[2:-2].split('","') if len(text) > 2 else []
    if text[0] == "{":
        pairs = _PAIRS.findall(text)
        if any(before >= after for (before, _), (after, _) in pairwise(pairs)):
            raise ValueError("not canonical")
        return dict(pairs)
    return _WORDS[text] if text in _WORDS else int(text)


def parse_json(data: bytes, *, limit: int = SIZE_LIMIT, depth: int = DEPTH_LIMIT) -> Any:
    """The value of JSON bytes written by others: as `loads`, but finite floats and any spelling are accepted.

    For the parts of a JWT. Raises the same EvidenceError codes, json-not-canonical excepted.
    """
    _bound(data, limit, depth)
    value = _parse(data, _LENIENT)
    if b"\\u" in data:  # the only way to a lone surrogate: UTF-8 has none
        _utf8(_ENCODER.encode(value))
    return value


def b64encode(data: bytes) -> str:
    """Base64, standard alphabet, padded (RFC 4648 section 4)."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def b64decode(text: str) -> bytes:
    """The bytes of standard base64. Raises EvidenceError(base64-not-canonical) unless it equals its
    re-encoding.

    The strict mode lets unused bits pass, in the last four characters; the comparison does not.
    """
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        _refuse_base64()
    whole = len(data) // 3
    # So many characters for so many bytes: none but the last four can be anything else than six bits of them.
    if b64encode(data[3 * whole :]) != text[4 * whole :]:
        _refuse_base64()
    return data


def b64url_encode(data: bytes) -> str:
    """Base64, URL alphabet, without padding (RFC 7515 appendix C)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def b64url_decode(text: str) -> bytes:
    """The bytes of unpadded base64url.

    Raises EvidenceError(base64-not-canonical) unless it equals its re-encoding.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        _refuse_base64()
    if b64url_encode(data) != text:
        _refuse_base64()
    return data


def _refuse_base64() -> NoReturn:
    raise EvidenceError("base64-not-canonical", "The text is not base64 in its one canonical spelling.")


def _encode(value: Any, ascii_keys: bool) -> bytes:
    """The bytes of a checked value."""
    if ascii_keys:
        return _utf8(_ENCODER.encode(value))
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        # The value was checked before: only a surrogate, in a key or in a string, is left to refuse.
        raise EvidenceError("json-lone-surrogate", "A string holds half of a surrogate pair.") from error


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EvidenceError("json-lone-surrogate", "A string holds half of a surrogate pair.") from error


def _check(value: Any, depth: int) -> bool:
    """Refuses what cannot be written; says whether all keys are ASCII."""
    if value is None or isinstance(value, str | bool):
        return True
    if isinstance(value, int):
        if not -INTEGER_LIMIT <= value <= INTEGER_LIMIT:
            raise EvidenceError("json-integer-range", "An integer lies beyond 2^53 - 1.")
        return True
    if isinstance(value, float):
        raise EvidenceError("json-float", "A float cannot be evidence: write it as a decimal string.")
    if not isinstance(value, dict | list | tuple):
        raise EvidenceError("json-type", f"A {type(value).__name__} has no canonical form.")
    if depth < 1:
        raise EvidenceError("json-too-deep", "The value is nested too deeply.")
    ascii_keys = True
    if isinstance(value, dict):
        ascii_keys = _check_keys(value)
        value = value.values()
    for item in value:
        if type(item) is not str:  # as most are: a call for each would cost more than writing them
            ascii_keys &= _check(item, depth - 1)
    return ascii_keys


def _check_keys(value: dict[Any, Any]) -> bool:
    """Refuses keys that are no strings; says whether all are ASCII."""
    try:
        return all(list(map(str.isascii, value)))  # a list, so that each key is looked at
    except TypeError:
        strange = next(key for key in value if not isinstance(key, str))
        raise EvidenceError("json-type", f"A key is a {type(strange).__name__}, not a string.") from None


def _bound(data: bytes, limit: int, depth: int) -> None:
    if len(data) > limit:
        raise EvidenceError("json-too-large", f"{len(data)} bytes of JSON; at most {limit} are read.")
    _check_depth(data, depth)


def _parse(data: bytes, decoder: json.JSONDecoder) -> Any:
    """The value of bytes that `_bound` has let through."""
    try:
        return decoder.decode(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise EvidenceError("json-not-utf8", f"The bytes are not UTF-8 at offset {error.start}.") from error
    except json.JSONDecodeError as error:
        raise EvidenceError("json-syntax", f"The bytes are not JSON: {error.msg} at offset {error.pos}.") from error


def _check_depth(data: bytes, depth: int) -> None:
    """Bounds the nesting before the recursive parser sees it.

    Up to the first syntax error this reads strings exactly as the parser does; after it the parser has
    stopped.
    """
    if data.count(b"[") + data.count(b"{") <= depth:
        return
    level = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        level += 1 if bracket in b"[{" else -1
        if level > depth:
            raise EvidenceError("json-too-deep", f"JSON nested more than {depth} deep.")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise EvidenceError("json-duplicate-key", "An object names the same key twice.")
    return value


def _integer(lexeme: str) -> int:
    # The length first: Python's int() is quadratic, and refuses 4300 digits with an error of its own.
    if len(lexeme) > _INTEGER_DIGITS or abs(number := int(lexeme)) > INTEGER_LIMIT:
        raise EvidenceError("json-integer-range", "An integer lies beyond 2^53 - 1.")
    return number


def _no_float(lexeme: str) -> NoReturn:
    raise EvidenceError("json-float", f"A float ({lexeme[:32]}) cannot be evidence.")


def _finite(lexeme: str) -> float:
    number = float(lexeme)
    if not math.isfinite(number):
        raise EvidenceError("json-float", f"The number {lexeme[:32]} is not finite.")
    return number


_QUICK: Final = json.JSONDecoder(parse_int=_integer, parse_float=_no_float, parse_constant=_no_float)
_STRICT: Final = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_no_float, parse_constant=_no_float
)
_LENIENT: Final = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_finite, parse_constant=_no_float
)
