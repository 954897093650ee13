# SPDX-License-Identifier: Apache-2.0
"""The one door: what is a well-formed, signed entry of a kind comes in, in one form, and nothing else does."""

import hashlib
from typing import Any

import pytest

from chaincode.entries import PAYLOAD_TYPE, make_entry, open_entry
from chaincode.kinds import KINDS
from chaincode.statements import RECEIPT_TYPE
from identity import canonical, envelope
from identity.errors import EvidenceError
from identity.keys import Identity
from tests.chaincode.contract.samples import SIGNERS, changed, code_of, every_kind, places, signed, statement_of
from tests.chaincode.contract.world import key

SAMPLES = every_kind()
# Where a name is free, so that a field more or less is another valid value; and what may be null.
FREE = {("commit", "metrics"), ("record", "metrics"), ("propose", "terms", "aggregation", "parameters")}
NULLABLE = {("found", "log_key"), ("propose", "continues"), ("commit", "metrics"), ("claim", "receipt")}
# What may be negative, and what may be as large as an integer can be.
NEGATIVE = {"clip_exponent"}
LARGE = {"seed", "budget", "reservation", "examples"}


def refused(statement: Any, kind: str) -> None:
    with pytest.raises(EvidenceError):
        open_entry(signed(statement, SIGNERS[SAMPLES[kind].did]))


def test_there_is_a_sample_of_every_kind() -> None:
    assert SAMPLES.keys() == KINDS.keys()
    for kind, entry in SAMPLES.items():
        assert set(entry.subjects) == {*KINDS[kind].subjects, *KINDS[kind].optional}


# One form


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_reads_as_it_was_written(kind: str) -> None:
    entry = SAMPLES[kind]
    again = make_entry(
        kind, member=entry.member, at=entry.at, subjects=entry.subjects, body=entry.body, signer=SIGNERS[entry.did]
    )
    assert again == entry.envelope
    assert open_entry(again) == entry
    assert entry.id == hashlib.sha256(envelope.parse(again).payload).hexdigest()
    assert entry.federation == SAMPLES["found"].id
    assert entry.agreement == entry.subjects.get("agreement", "")


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_is_closed(kind: str) -> None:
    statement = statement_of(SAMPLES[kind])
    for path, value in places(statement):
        if isinstance(value, dict) and (kind, *path[1:]) not in FREE:
            refused(changed(statement, path, {**value, "zz": 1}), kind)
            refused(changed(statement, path, {**value, "": None}), kind)
            for name in value:
                refused(changed(statement, path, {n: v for n, v in value.items() if n != name}), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_no_value_may_have_another_type(kind: str) -> None:
    statement = statement_of(SAMPLES[kind])
    for path, value in places(statement):
        for other in (None, True, False, 0, 1, "", "x", [], {}, [None], {"x": 1}):
            same = type(other) is type(value)
            free = (kind, *path[1:]) in FREE and isinstance(other, dict)
            if not (same or free or (other is None and (kind, *path[1:]) in NULLABLE)):
                refused(changed(statement, path, other), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_and_texts_are_bounded(kind: str) -> None:
    statement = statement_of(SAMPLES[kind])
    for path, value in places(statement):
        if type(value) is int:
            if path[-1] not in NEGATIVE:
                refused(changed(statement, path, -1), kind)
            if path[-1] not in LARGE:
                refused(changed(statement, path, 2**53 - 1), kind)
        elif isinstance(value, str):
            for bad in ("", " " + value, value + "\n", "\x00", "\u202e" + value, value * 4096):
                refused(changed(statement, path, bad), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_lists_of_members_are_ascending_and_distinct(kind: str) -> None:
    statement = statement_of(SAMPLES[kind])
    for path, value in places(statement):
        named = isinstance(value, list) and value and (path == ("subject",) or path[-1] in LISTS)
        if named:
            refused(changed(statement, path, [*value, value[-1]]), kind)
            if len(value) > 1:
                refused(changed(statement, path, value[::-1]), kind)


LISTS = ("authority", "parties", "roster", "absent", "attestations", "cohort", "out", "included", "omitted")


@pytest.mark.parametrize("kind", KINDS)
def test_a_subject_is_neither_missing_nor_strange(kind: str) -> None:
    statement = statement_of(SAMPLES[kind])
    subjects = statement["subject"]
    for subject in subjects:
        rest = [s for s in subjects if s != subject]
        if subject["name"] in KINDS[kind].optional:
            open_entry(signed({**statement, "subject": rest}, SIGNERS[SAMPLES[kind].did]))
        else:
            refused({**statement, "subject": rest}, kind)
    refused({**statement, "subject": [*subjects, {"digest": {"sha256": "0" * 64}, "name": "zz"}]}, kind)
    refused(
        {**statement, "subject": [{**s, "digest": {"sha256": s["digest"]["sha256"].upper() + "F"}} for s in subjects]},
        kind,
    )


# Kinds and authors are not confused


def test_a_statement_of_one_kind_is_none_of_another() -> None:
    taken = set()
    for kind, entry in SAMPLES.items():
        for other in KINDS.keys() - {kind}:
            statement = {**statement_of(entry), "predicateType": f"urn:fedledger:{other}:v1"}
            try:
                opened = open_entry(signed(statement, SIGNERS[entry.did]))
            except EvidenceError:
                continue
            assert (opened.kind, opened.id != entry.id) == (other, True)
            taken.add((kind, other))
    assert taken == {("sign", "withdraw"), ("withdraw", "sign")}, (
        "only what says the same may be re-signed as the other"
    )


@pytest.mark.parametrize("predicate_type", ["urn:fedledger:commit:v2", "urn:fedledger:commit", "urn:fedledger::v1", "urn:fedledger:v1", "commit", "", "urn:fedledger:Commit:v1", "urn:fedledger:commit:v1 ", "x" * 60_000])  # fmt: skip
def test_an_unknown_predicate_type_is_no_entry(predicate_type: str) -> None:
    with pytest.raises(EvidenceError) as refusal:
        open_entry(
            signed({**statement_of(SAMPLES["commit"]), "predicateType": predicate_type}, SIGNERS[SAMPLES["commit"].did])
        )
    assert refusal.value.code == "entry-kind"
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize("kind", KINDS)
def test_who_signs_is_who_the_entry_says(kind: str) -> None:
    entry, stranger = SAMPLES[kind], key("stranger")
    payload = envelope.parse(entry.envelope).payload
    assert code_of(envelope.Unsigned(payload, PAYLOAD_TYPE, stranger).signed()) == "entry-author"
    assert (
        code_of(envelope.Unsigned(payload, PAYLOAD_TYPE, Identity(entry.did, stranger.sign)).signed())
        == "signature-invalid"
    )
    statement = statement_of(entry)
    assert code_of(signed(changed(statement, ("predicate", "did"), stranger.did), SIGNERS[entry.did])) == "entry-author"


def test_another_payload_type_is_refused_though_it_is_signed() -> None:
    entry = SAMPLES["commit"]
    payload = envelope.parse(entry.envelope).payload
    for other in ("application/json", RECEIPT_TYPE, PAYLOAD_TYPE + ";v=1", PAYLOAD_TYPE.upper()):
        assert code_of(envelope.Unsigned(payload, other, SIGNERS[entry.did]).signed()) == "entry-payload-type"
        swapped = canonical.loads(envelope.Unsigned(payload, other, SIGNERS[entry.did]).signed()) | {
            "payloadType": PAYLOAD_TYPE
        }
        assert code_of(canonical.dumps(swapped)) == "signature-invalid"


@pytest.mark.parametrize("change", [
    lambda p: p.replace(b",", b", ", 1),
    lambda p: p + b"\n",
    lambda p: b"\xef\xbb\xbf" + p,
    lambda p: p.replace(b'"attempt":2', b'"attempt":2.0', 1),
    lambda p: p.replace(b'"attempt":2', b'"attempt":2e0', 1),
    lambda p: p.replace(b'"attempt":2', b'"attempt":02', 1),
    lambda p: p.replace(b'"attempt":2', b'"attempt":2,"attempt":2', 1),
    lambda p: p.replace(b'"update"', b'"\\u0075pdate"', 1),
    lambda p: p.replace(b"/v1", b"\\/v1", 1),
    lambda p: b"{" + p[p.index(b'"predicate"'):-1].rpartition(b',"subject"')[0] + b"}",
    lambda p: b"[" * 5000 + b"]" * 5000,
    lambda p: b"",
    lambda p: b"null",
    lambda p: b"[]",
])  # fmt: skip
def test_a_payload_has_one_form(change: Any) -> None:
    entry = SAMPLES["commit"]
    payload = envelope.parse(entry.envelope).payload
    again = change(payload)
    assert again != payload
    code_of(envelope.Unsigned(again, PAYLOAD_TYPE, SIGNERS[entry.did]).signed())
