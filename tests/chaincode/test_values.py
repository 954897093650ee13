# SPDX-License-Identifier: Apache-2.0
"""Values as canonical JSON: the short way writes and reads what the general way does, and refuses nothing else."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chaincode import values
from chaincode.values import Codec
from identity import canonical
from identity.errors import EvidenceError


@dataclass(frozen=True, slots=True)
class Thing:
    """Texts and numbers alone."""

    name: str
    size: int
    about: str = ""


@dataclass(frozen=True, slots=True)
class Texts:
    """As many texts as it takes to hide one in another."""

    a: str
    b: str
    c: str
    d: str


@dataclass(frozen=True, slots=True)
class Many:
    """What the short way does not know."""

    names: tuple[str, ...]
    sure: bool


_TEXT = st.text(st.sampled_from('a",:{}\\\n\x7fé\U0001f600'), max_size=4) | st.text(max_size=4)
_NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.integers(-3, 3)


def generally(value: Thing) -> bytes:
    return canonical.dumps({"name": value.name, "size": value.size, "about": value.about})


@given(st.builds(Thing, _TEXT, _NUMBERS, _TEXT))
@example(Thing('","size":5,"x":"', 1))
@example(Thing("", 10**15))
@example(Thing("", -(10**15)))
@example(Thing("", 0, "%s %d"))
def test_a_value_is_written_and_read_as_the_general_way_does(value: Thing) -> None:
    data = Codec(Thing).encode(value)
    assert data == generally(value)
    assert Codec(Thing).decode(data) == value  # another codec, which has not seen it written


def test_texts_that_spell_an_object_and_the_next_field_are_texts() -> None:
    value = Texts('x","b":{"k":"v', "w", 'w"},"c":"z', "d")
    data = Codec(Texts).encode(value)
    assert data == canonical.dumps({name: getattr(value, name) for name in "abcd"})
    assert Codec(Texts).decode(data) == value


_STRANGE: list[tuple[Any, Any]] = [("a", True), ("a", None), (5, 5), ("\ud800", 1), ("a", 2**53)]


@pytest.mark.parametrize("value", [Thing(name, size) for name, size in _STRANGE])
def test_a_value_of_other_types_is_written_or_refused_as_the_general_way_does(value: Thing) -> None:
    def outcome(write: Any) -> object:
        try:
            return write(value)
        except EvidenceError as error:
            return error.code

    assert outcome(Codec(Thing).encode) == outcome(generally)


@settings(max_examples=300)
@given(st.builds(Thing, _TEXT, _NUMBERS), st.data())
def test_changed_bytes_are_refused_or_another_value(value: Thing, data: st.DataObject) -> None:
    good = Codec(Thing).encode(value)
    at = data.draw(st.integers(0, len(good)))
    bad = good[:at] + data.draw(st.sampled_from([b"", b" ", b"0", b"-", b'"', b",", b"\xff", b"1.5"])) + good[at + 1 :]
    try:
        read = Codec(Thing).decode(bad)
    except EvidenceError:
        return
    assert Codec(Thing).encode(read) == bad


@pytest.mark.parametrize("data", [
    b'{"about":"","name":"a"}', b'{"about":"","name":"a","size":"1"}', b'{"about":"","name":"a","size":true}',
    b'{"about":"","name":"a","size":1,"x":1}', b'{"about":"","name":null,"size":1}', b"[]", b"null",
])  # fmt: skip
def test_bytes_of_another_shape_are_malformed(data: bytes) -> None:
    with pytest.raises(EvidenceError, match="state-malformed"):
        Codec(Thing).decode(data)


@pytest.mark.parametrize(
    ("about", "code"),
    [
        ('{"b":"","a":""}', "json-not-canonical"),
        ('{"a":"","a":""}', "json-duplicate-key"),
        (f'"{"a" * values._LIMIT}"', "json-too-large"),
    ],
)
def test_an_object_in_the_place_of_a_text_or_too_much_is_refused(about: str, code: str) -> None:
    with pytest.raises(EvidenceError, match=code):
        Codec(Thing).decode(f'{{"about":{about},"name":"a","size":1}}'.encode())


def test_tuples_and_truth_take_the_general_way() -> None:
    value = Many(("b", "a"), True)
    assert Codec(Many).encode(value) == b'{"names":["b","a"],"sure":true}'
    assert Codec(Many).decode(b'{"names":["b","a"],"sure":true}') == value


def test_no_more_values_are_remembered_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "_REMEMBERED", 10)
    codec = Codec(Thing)
    for number in range(100):
        assert codec.decode(codec.encode(Thing("a", number))) == Thing("a", number)
        assert len(codec._known) <= 10
