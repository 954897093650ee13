# SPDX-License-Identifier: Apache-2.0
"""The header line of an update's blob: one form, read strictly, and compared where the place is known."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaincode.header import HEADER_LIMIT, Header, format_header, match_header, parse_header
from identity import canonical
from identity.errors import EvidenceError
from tests.chaincode.test_update_oracle import header

GOOD = header()


def test_a_header_line_is_this_to_the_byte() -> None:
    line = format_header(GOOD)
    assert line == (
        b'{"agreement":"' + b"a" * 64 + b'","attempt":1,"base":"' + b"b" * 64 + b'","encoding":"int32","federation":"'
        + b"f" * 64 + b'","length":4,"member":"did:key:zAlice","round":1,"salt":"' + b"5" * 64 + b'"}\n'
    )  # fmt: skip
    assert parse_header(line + b"\n\n") == (GOOD, len(line))


NUMBERS = st.integers(0, 2**53 - 1)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)


HEADERS = st.builds(
    Header, federation=DIGESTS, agreement=DIGESTS, round=NUMBERS, attempt=NUMBERS, base=DIGESTS, salt=DIGESTS,
    member=st.from_regex(r"did:key:z[1-9A-HJ-NP-Za-km-z]{1,80}|did:[!-~]{1,90}", fullmatch=True),
    encoding=st.sampled_from(["int32", "int64"]), length=NUMBERS,
)  # fmt: skip


@given(HEADERS, st.binary(max_size=20))
def test_headers_survive_a_round_trip(head: Header, body: bytes) -> None:
    line = format_header(head)
    assert len(line) <= HEADER_LIMIT
    assert parse_header(memoryview(line + body)) == (head, len(line))


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=196), NUMBERS)
def test_a_header_line_is_canonical_json_whatever_the_did(text: str, number: int) -> None:
    head = header(member=f"did:{text}", length=number)
    assert format_header(head) == canonical.dumps(asdict(head)) + b"\n"


BAD_FIELDS: list[tuple[str, Any]] = [
    *(("federation", v) for v in ("F" * 64, "f" * 63, "f" * 65, "", None, 5, "../" + "f" * 61, "f" * 64 + "\n")),
    ("agreement", "g" * 64), ("base", "0x" + "b" * 62), ("salt", "5" * 62),
    *(("round", v) for v in (-1, 2**53, True, "1", None, 1.0, [1])),
    ("attempt", -1), ("length", True),
    *(("member", v) for v in ("", "alice", "did:key:z A", "did:\n", "did:" + "x" * 400, None, 7, "did:key:zé")),
    *(("encoding", v) for v in ("float32", "int16", "", None, 4, ["int32"], {"int32": 1})),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), BAD_FIELDS)
def test_a_header_with_a_wrong_field_cannot_exist_or_be_read(field: str, value: Any) -> None:
    with pytest.raises(EvidenceError) as caught:
        replace(GOOD, **{field: value})
    assert caught.value.code == "blob-header"
    line = json.dumps({**asdict(GOOD), field: value}, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    with pytest.raises(EvidenceError) as caught:
        parse_header(line)
    assert caught.value.code == "blob-header"


LINE = format_header(GOOD)
BAD_LINES = {
    "empty": b"",
    "no newline": LINE[:-1],
    "newline beyond the limit": b'{"a":"' + b"x" * HEADER_LIMIT + b'"}\n',
    "not JSON": b"header\n",
    "not an object": b"[]\n",
    "NaN": LINE.replace(b":4", b":NaN"),
    "float": LINE.replace(b":4", b":4.0"),
    "leading zero": LINE.replace(b":4", b":04"),
    "space": LINE.replace(b'"length":4', b'"length": 4'),
    "carriage return": LINE.replace(b"\n", b"\r\n"),
    "duplicate": LINE.replace(b'"round":1', b'"round":1,"round":1'),
    "missing": LINE.replace(b',"round":1', b""),
    "additional": LINE.replace(b',"salt"', b',"s":1,"salt"'),
    "other order": LINE.replace(b'"round":1,', b"").replace(b"{", b'{"round":1,'),
    "escaped": LINE.replace(b"zAlice", b"z\\u0041lice"),
    "deep": b"[" * 900 + b"\n",
    "not UTF-8": LINE.replace(b"Alice", b"Al\xffce"),
    "huge integer": LINE.replace(b":4", b":" + b"9" * 600),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_other_header_lines_are_refused(name: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        parse_header(BAD_LINES[name] + b"rest")
    assert caught.value.code == "blob-header"


@given(st.one_of(st.binary(max_size=1200), st.builds(
    lambda i, b: LINE[:i] + bytes([b]) + LINE[i + 1 :], st.integers(0, len(LINE) - 1), st.integers(0, 255))))  # fmt: skip
def test_arbitrary_bytes_are_a_header_or_an_evidence_error(data: bytes) -> None:
    try:
        head, offset = parse_header(data)
    except EvidenceError as error:
        refused, line = error.code, b""
    else:
        refused, line = "", format_header(head)
        assert line == data[:offset]
    assert refused == ("" if line else "blob-header")


def matched(data: bytes, place: Header) -> int:
    """What ``match_header`` says of bytes, for a place."""
    return match_header(memoryview(data), {name: value for name, value in vars(place).items() if name != "salt"})


@given(HEADERS, HEADERS, st.binary(max_size=20))
def test_a_header_matches_its_own_place_whatever_its_salt(head: Header, other: Header, body: bytes) -> None:
    line = format_header(head)
    assert matched(line + body, replace(head, salt=other.salt)) == len(line)
    for field in asdict(head).keys() - {"salt"}:
        elsewhere = replace(head, **{field: getattr(other, field)})
        assert matched(line + body, elsewhere) == (len(line) if elsewhere == head else 0)


def place_read(data: bytes) -> tuple[Header, int] | None:
    """The place that is read from bytes, and where the integers begin; None where there is no header."""
    try:
        head, start = parse_header(data)
    except EvidenceError:
        return None
    return replace(head, salt=GOOD.salt), start


@given(st.integers(0, len(LINE) - 1), st.integers(0, 255), st.integers(0, len(LINE)))
def test_what_matches_is_what_would_be_read(index: int, byte: int, end: int) -> None:
    for data in (LINE[:index] + bytes([byte]) + LINE[index + 1 :], LINE[:end]):
        read = place_read(data)
        assert matched(data, GOOD) == (read[1] if read is not None and read[0] == GOOD else 0)
