# SPDX-License-Identifier: Apache-2.0
"""The short way of reading and writing a statement, held to the general one: the same entry, or the same refusal."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode import entries
from chaincode.entries import PAYLOAD_TYPE, make_entry, open_entry, write_entry
from identity import envelope
from identity.errors import EvidenceError
from tests.chaincode.contract.samples import SIGNERS, every_kind, places

SAMPLES = every_kind()
FLAT = [
    kind
    for kind, entry in SAMPLES.items()
    if not any(
        isinstance(v, dict) or (isinstance(v, list) and not {str} >= set(map(type, v))) for v in entry.body.values()
    )
]
_SCRAPS = [
    "",
    '"',
    ",",
    " ",
    "null",
    "true",
    "0",
    "-1",
    "1.0",
    "1e3",
    "9" * 16,
    "\\u0061",
    "é",
    "[]",
    "{}",
    '{"a":"1","a":"2"}',
    '{"b":"1","a":"2"}',
    '{"a":"1",}',
    '{"a":1}',
    '{"a":{"b":"1"}}',
    '{"a":"\\u0062"}',
    '["a","b"]',
    '["b","a"]',
    '["a",]',
    '["a",1]',
    "zz",
    "A" * 70_000,
]


class Forgotten(dict[Any, Any]):
    """Keeps nothing: whoever reads reads the bytes."""

    def __setitem__(self, key: Any, value: Any) -> None:
        pass


@pytest.fixture(scope="module", autouse=True)
def _from_the_first_entry_on() -> Iterator[None]:
    """The short way is otherwise taken when a process has met many entries of a kind, and not for what it has just written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, "_FEW", 0)
        patch.setattr(entries, "_written", Forgotten())
        yield


def outcome(call: Any, *arguments: Any, **named: Any) -> object:
    try:
        return call(*arguments, **named)
    except EvidenceError as error:
        return error.code, error.message


def generally(call: Any, *arguments: Any, **named: Any) -> object:
    """What comes of it without the short way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entries, "_read_flat", lambda payload, least=0: None)
        return outcome(call, *arguments, **named)


def test_most_kinds_take_the_short_way() -> None:
    assert {"sign", "withdraw", "decline", "revoke", "abort", "attest", "admit", "rotate"} <= set(FLAT)
    for kind in FLAT:
        assert entries._read_flat(envelope.parse(SAMPLES[kind].envelope).payload) is not None
    commit = SAMPLES["commit"]
    for metrics in (None, {}, {"loss": "0.5"}, {"accuracy": "0.9", "loss": "0.5"}):
        measured = make_entry(
            "commit",
            member=commit.member,
            at=1,
            subjects=commit.subjects,
            body={**commit.body, "metrics": metrics},
            signer=SIGNERS[commit.did],
        )
        assert entries._read_flat(envelope.parse(measured).payload) is not None
        assert open_entry(measured).body["metrics"] == metrics
    plain = {**commit.body, "metrics": None}
    for subjects in (commit.subjects, {n: d for n, d in commit.subjects.items() if n != "environment"}):
        data = make_entry(
            "commit", member=commit.member, at=1, subjects=subjects, body=plain, signer=SIGNERS[commit.did]
        )
        assert entries._read_flat(envelope.parse(data).payload) is not None
        assert open_entry(data).subjects == subjects


@pytest.mark.parametrize("kind", SAMPLES)
def test_both_ways_read_and_write_every_kind_alike(kind: str) -> None:
    entry = SAMPLES[kind]
    assert generally(open_entry, entry.envelope) == entry
    fields = {"member": entry.member, "at": entry.at, "subjects": entry.subjects, "body": entry.body, "signer": SIGNERS[entry.did]}  # fmt: skip
    assert generally(make_entry, kind, **fields) == entry.envelope


@pytest.mark.parametrize("kind", FLAT)
def test_what_was_just_written_is_read_once_from_memory_and_the_same(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = SAMPLES[kind]
    fields = {"member": entry.member, "at": entry.at, "subjects": entry.subjects, "body": entry.body, "signer": SIGNERS[entry.did]}  # fmt: skip
    written: dict[bytes, Any] = {}
    monkeypatch.setattr(entries, "_written", written)
    data = make_entry(kind, **fields)
    assert [*written] == [envelope.parse(data).payload]
    first = open_entry(data)
    assert not written
    assert first == open_entry(data) == entry
    monkeypatch.setattr(entries, "_UNREAD", 2)
    for at in range(1, 6):
        make_entry(kind, **{**fields, "at": at})
        assert len(written) <= 2, "what nobody reads is forgotten"


def test_what_was_just_written_is_not_thereby_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "_written", {})
    entry = SAMPLES["sign"]
    one = write_entry("sign", member=entry.member, at=1, subjects=entry.subjects, body={}, signer=SIGNERS[entry.did])
    other = replace(one, payload=one.payload.replace(b'"at":1', b'"at":2'))
    forged = one.with_signature(other.sign())
    assert outcome(open_entry, forged)[0] == "signature-invalid"  # type: ignore[index]
    monkeypatch.setattr(entries, "_written", {one.payload: entries._read_flat(one.payload)})
    stranger = next(signer for did, signer in SIGNERS.items() if did != entry.did)
    assert outcome(open_entry, replace(one, signer=stranger).signed())[0] == "entry-author"  # type: ignore[index]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(["commit", "sign", "decline", "claim", "admit", "attest", "open", "seal", "record"]), st.data())
def test_a_changed_payload_has_the_same_outcome_both_ways(kind: str, data: st.DataObject) -> None:
    entry = SAMPLES[kind]
    text = envelope.parse(entry.envelope).payload.decode("utf-8")
    borders = [i for i, c in enumerate(text) if c in '":,{}[]']
    at, length = data.draw(st.sampled_from(borders)), data.draw(st.integers(0, 3))
    changed = text[:at] + data.draw(st.sampled_from(_SCRAPS)) + text[at + length :]
    sealed = envelope.Unsigned(changed.encode("utf-8"), PAYLOAD_TYPE, SIGNERS[entry.did]).signed()
    assert outcome(open_entry, sealed) == generally(open_entry, sealed)


@pytest.mark.parametrize("kind", ["commit", "sign", "decline", "admit", "attest", "seal"])
def test_what_cannot_be_written_is_refused_alike_both_ways(kind: str) -> None:
    entry = SAMPLES[kind]
    signer = SIGNERS[entry.did]
    strange: tuple[Any, ...] = (1.5, "\ud800", "é", '"', True, None, 2**53, -1, [], {}, {1: 2}, object(), "x" * 70_000)
    for path, _ in places({**entry.body, "at": entry.at}):
        for value in strange if path else ():
            fields: dict[Any, Any] = {"at": entry.at, **entry.body, path[0]: value}
            at = fields.pop("at")
            named = {"member": entry.member, "at": at, "subjects": entry.subjects, "body": fields, "signer": signer}
            assert outcome(make_entry, kind, **named) == generally(make_entry, kind, **named)
    for name in ["more", *entry.subjects]:
        for digest in ("0" * 63, '0"', "\ud800", "é", 5, None, "A" * 64):
            subjects = {**entry.subjects, name: digest}
            named = {"member": entry.member, "at": entry.at, "subjects": subjects, "body": entry.body, "signer": signer}
            assert outcome(make_entry, kind, **named) == generally(make_entry, kind, **named)
    for other in ("nothing", "", '"', "\ud800", "open"):
        named = {"member": entry.member, "at": 1, "subjects": entry.subjects, "body": entry.body, "signer": signer}
        assert outcome(make_entry, other, **named) == generally(make_entry, other, **named)


def test_a_pattern_is_made_for_a_kind_that_is_read_often(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[str]()
    form = entries._form
    monkeypatch.setattr(entries, "_form", lambda name: (made.append(name), form(name))[1])
    monkeypatch.setattr(entries, "_FEW", 3)
    monkeypatch.setattr(entries, "_met", dict.fromkeys(entries._met, 0))
    entry = SAMPLES["sign"]
    for number in range(5):
        assert open_entry(entry.envelope) == entry
        assert len(made) == max(0, number - 2)
