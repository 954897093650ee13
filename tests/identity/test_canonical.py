# SPDX-License-Identifier: Apache-2.0
"""Canonical JSON: equal to RFC 8785, one spelling only, and nothing but EvidenceError for hostile bytes."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from identity import canonical
from identity.errors import EvidenceError

# Keys where UTF-16 order and code-point order differ are rare in random text: both sides of the gap are drawn
# often.
_CHARACTERS = st.one_of(
    st.characters(codec="utf-8"),
    st.sampled_from('"\\/\b\f\n\r\t\x00\x1f\x7f[]{}éߐ\u2028\ufb33\ue000\uffff\U00010000\U0001f600\U0010ffff'),
)
_TEXT = st.text(_CHARACTERS, max_size=8)
_INTEGERS = st.integers(-canonical.INTEGER_LIMIT, canonical.INTEGER_LIMIT)
_VALUES = st.recursive(
    st.none() | st.booleans() | _INTEGERS | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=20,
)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _code(call: Callable[[], object]) -> str:
    with pytest.raises(EvidenceError) as caught:
        call()
    return caught.value.code


@given(_VALUES)
@example({"\ue000": 1, "\U00010000": 2})
@example({"a": {"\uffff": [{"\U0001f600": 1, "\uff61": 2}]}})
def test_writes_what_rfc8785_writes_and_reads_it_back(value: Any) -> None:
    data = canonical.dumps(value, depth=64)
    assert data == rfc8785.dumps(value)
    assert canonical.loads(data, depth=64) == value
    assert canonical.parse_json(data, depth=64) == value


def test_keys_are_sorted_as_the_example_of_rfc8785_section_3_2_3() -> None:
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    written = json.loads(canonical.dumps(dict.fromkeys(names, 0)))
    assert list(written) == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert sorted(names) != list(written)  # code-point order, which is wrong, differs


def test_strings_are_written_as_the_example_of_rfc8785_section_3_2_2() -> None:
    text = '\u20ac$\x0f\nA\'B"\\\\"/'
    assert canonical.dumps(text) == b'"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "json-syntax"),
        (b"\xef\xbb\xbf{}", "json-syntax"),
        (b"{}{}", "json-syntax"),
        (b'{"a":1,}', "json-syntax"),
        (b"{'a':1}", "json-syntax"),
        (b'"\x00"', "json-syntax"),
        (b'"\\', "json-syntax"),
        (b"[[[]]", "json-syntax"),
        (b"+1", "json-syntax"),
        (b"\xff", "json-not-utf8"),
        (b'"\xed\xa0\x80"', "json-not-utf8"),
        (b'"\xc0\x80"', "json-not-utf8"),
        (b'{"a":1,"a":1}', "json-duplicate-key"),
        (b'{"a":1,"\\u0061":2}', "json-duplicate-key"),
        (b'[{"b":{"a":1,"a":2}}]', "json-duplicate-key"),
        (b"1.0", "json-float"),
        (b"1e2", "json-float"),
        (b"-0.0", "json-float"),
        (b"NaN", "json-float"),
        (b"[Infinity]", "json-float"),
        (b"-Infinity", "json-float"),
        (b"9007199254740992", "json-integer-range"),
        (b"-9007199254740992", "json-integer-range"),
        (b"1" * 60000, "json-integer-range"),
        (b'"\\ud800"', "json-lone-surrogate"),
        (b'{"\\udc00":1}', "json-lone-surrogate"),
        (b'"\\ude00\\ud83d"', "json-lone-surrogate"),
        (b"[" * 17 + b"]" * 17, "json-too-deep"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, "json-too-deep"),
        (b"[" * 60000, "json-too-deep"),
        (b'["[[[[[[[[[[[[[[[[[[\\"",' + b"[" * 16 + b"]" * 17, "json-too-deep"),
        (b" " * 65537, "json-too-large"),
        (b" 1", "json-not-canonical"),
        (b'{"b":1,"a":2}', "json-not-canonical"),
        (b'{"a": 1}', "json-not-canonical"),
        (b'"\\u0061"', "json-not-canonical"),
        (b'"\\u00e9"', "json-not-canonical"),
        (b'{"\\u00e9":1,"z":2}', "json-not-canonical"),
        (b'"\\/"', "json-not-canonical"),
        (b'"\\u001F"', "json-not-canonical"),
        (b"-0", "json-not-canonical"),
        ('{"\uff61":1,"\U0001f600":2}'.encode(), "json-not-canonical"),
    ],
)
def test_each_refusal_has_its_code(data: bytes, code: str) -> None:
    assert _code(lambda: canonical.loads(data)) == code
    if code not in {"json-not-canonical", "json-float"}:
        assert _code(lambda: canonical.parse_json(data)) == code


@pytest.mark.parametrize("data", [b"9007199254740991", b"-9007199254740991", b"[" * 16 + b"]" * 16, b"null", b'""'])
def test_the_limits_themselves_are_inside(data: bytes) -> None:
    assert canonical.dumps(canonical.loads(data)) == data


def test_size_limit_is_in_bytes_and_inclusive() -> None:
    data = b'"' + b"a" * 98 + b'"'
    assert canonical.loads(data, limit=100) == "a" * 98
    assert _code(lambda: canonical.loads(data, limit=99)) == "json-too-large"


_FLAT_TEXT = st.text(st.sampled_from('a"\\\\,:{}[]\n\x7f\x1f é0'), max_size=3) | st.text(max_size=3)
_FLAT: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "a": _FLAT_TEXT | _INTEGERS | st.none() | st.lists(_FLAT_TEXT, max_size=3),
        "b-c": st.booleans()
        | _FLAT_TEXT
        | st.lists(_FLAT_TEXT | st.booleans(), max_size=3)
        | st.dictionaries(st.sampled_from("abc"), _FLAT_TEXT),
    }
)


@settings(max_examples=400)
@given(_FLAT, st.data())
@example({"a": 10**15, "b-c": True}, None)
@example({"a": '","b-c":"', "b-c": ""}, None)
def test_what_a_flat_pattern_matches_is_read_as_the_general_way_reads_it(value: Any, data: Any) -> None:
    text = canonical.dumps(value).decode("utf-8")
    if data is not None and data.draw(st.booleans()):
        position = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 2))
        text = (
            text[:position]
            + data.draw(
                st.sampled_from(
                    ["", " ", "0", "-", '"', "1.0", "\\u0061", "e", ",", "c", "a", '","a":"', "{", "}", "[", "]", '","']
                )
            )
            + text[position + length :]
        )
    found = re.fullmatch(canonical.flat_pattern(["b-c", "a"]), text)
    if found is not None:
        try:
            read = dict(zip(["a", "b-c"], map(canonical.flat_value, found.groups()), strict=True))
        except ValueError:
            with pytest.raises(EvidenceError):
                canonical.loads(text.encode("utf-8"))
            return
        assert canonical.loads(text.encode("utf-8")) == read
        assert [type(v) for v in canonical.loads(text.encode("utf-8")).values()] == [type(v) for v in read.values()]


@pytest.mark.parametrize(
    "value",
    [{"a": "text", "b-c": -7}, {"a": None, "b-c": 0}, {"a": True, "b-c": 10**15 - 1}, {"a": [], "b-c": ["", "x,y"]}],
)
def test_a_flat_pattern_matches_plain_values(value: Any) -> None:
    assert re.fullmatch(canonical.flat_pattern(value), canonical.dumps(value).decode("ascii"))


@given(_VALUES)
def test_depth_is_counted_exactly(value: Any) -> None:
    depth = _depth(value)
    data = canonical.dumps(value, depth=depth)
    assert canonical.loads(data, depth=depth) == value
    if depth:
        assert _code(lambda: canonical.loads(data, depth=depth - 1)) == "json-too-deep"
        assert _code(lambda: canonical.parse_json(data, depth=depth - 1)) == "json-too-deep"
        assert _code(lambda: canonical.dumps(value, depth=depth - 1)) == "json-too-deep"


@pytest.mark.parametrize("unit", [b'\\"', b'"', b"[", b'{"a":', b"\\", b'"[', b'"\\[', b"]", b"9", b"-", b"1.", b'{"'])
def test_a_mebibyte_of_hostile_repetition_ends_at_once(unit: bytes) -> None:
    # Anything quadratic would take minutes here.
    for start in (b"", b'"', b"["):
        data = (start + unit * (1 << 20))[: 1 << 20]
        for read in (canonical.loads, canonical.parse_json):
            with pytest.raises(EvidenceError):
                read(data, limit=1 << 20)


_TOKENS = b"""{ } [ ] : , " \\ \\u d800 dc00 1 - .5 e9 NaN true null "a" {"a":1}""".split(b" ")
_JSONISH = st.lists(
    st.sampled_from([*_TOKENS, b" ", b"\xff", b"\xf0\x9f\x98\x80", b"\x00", b"9" * 400]), max_size=40
).map(b"".join)


@settings(max_examples=400)
@given(st.binary(max_size=200) | _JSONISH)
def test_only_evidence_errors_escape(data: bytes) -> None:
    with suppress(EvidenceError):
        canonical.parse_json(data)
    with suppress(EvidenceError):
        value = canonical.loads(data)
        assert rfc8785.dumps(value) == data


@settings(max_examples=200)
@given(_VALUES, st.data())
def test_one_changed_byte_is_refused_or_changes_the_value(value: Any, data: st.DataObject) -> None:
    good = canonical.dumps(value, depth=64)
    position = data.draw(st.integers(0, len(good) - 1))
    bad = good[:position] + bytes([data.draw(st.integers(0, 255))]) + good[position + 1 :]
    try:
        read = canonical.loads(bad, depth=64)
    except EvidenceError:
        return
    assert (bad == good) == (canonical.dumps(read, depth=64) == good)


def test_lenient_reading_takes_finite_floats_and_any_spelling() -> None:
    assert canonical.parse_json(b' {"exp": 1.5e3, "a": -0.25} ') == {"exp": 1500.0, "a": -0.25}
    for data in (b"1e999", b"-1e999", b"NaN", b"Infinity", b"1" * 5000 + b".5"):
        assert _code(lambda data=data: canonical.parse_json(data)) == "json-float"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (1.0, "json-float"),
        (float("nan"), "json-float"),
        ({"a": [0.5]}, "json-float"),
        (2**53, "json-integer-range"),
        (-(2**53), "json-integer-range"),
        ("\ud800", "json-lone-surrogate"),
        ({"\ud800": 1}, "json-lone-surrogate"),
        ({"é": "\udfff"}, "json-lone-surrogate"),
        (b"bytes", "json-type"),
        ({1: 2}, "json-type"),
        ({None: 2}, "json-type"),
        ({"a": {1, 2}}, "json-type"),
        (object(), "json-type"),
    ],
)
def test_what_cannot_be_written_is_refused(value: Any, code: str) -> None:
    assert _code(lambda: canonical.dumps(value)) == code


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    assert _code(lambda: canonical.dumps(value)) == "json-too-deep"


@given(st.binary(max_size=64))
def test_base64_round_trip_equals_the_standard_library(data: bytes) -> None:
    assert canonical.b64encode(data) == base64.b64encode(data).decode()
    assert canonical.b64decode(canonical.b64encode(data)) == data
    assert canonical.b64url_decode(canonical.b64url_encode(data)) == data
    assert "=" not in canonical.b64url_encode(data)


@pytest.mark.parametrize("text", ["QQ", "QR==", "QQ==\n", "Q Q=", "QQ=", "QQ===", "=", "-_8=", "QUI=QUI=", "é===", "A"])
def test_second_spellings_of_base64_are_refused(text: str) -> None:
    assert _code(lambda: canonical.b64decode(text)) == "base64-not-canonical"


@pytest.mark.parametrize("text", ["QR", "QQ==", "QQ\n", "+/8", "Q", "Q.Q", "é", "QUI=", " QQ", "\ud800"])
def test_second_spellings_of_base64url_are_refused(text: str) -> None:
    assert _code(lambda: canonical.b64url_decode(text)) == "base64-not-canonical"


@given(st.text(max_size=12))
def test_base64_refuses_or_accepts_one_spelling(text: str) -> None:
    for decode, encode in (
        (canonical.b64decode, canonical.b64encode),
        (canonical.b64url_decode, canonical.b64url_encode),
    ):
        with suppress(EvidenceError):
            assert encode(decode(text)) == text
