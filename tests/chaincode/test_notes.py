# SPDX-License-Identifier: Apache-2.0
"""Signed notes and verifier keys: golden vectors byte for byte, round trips, bounds and hostile bytes."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode import checkpoints, notes
from identity.did import public_key_from_did
from identity.errors import EvidenceError
from identity.keys import identity_from_seed
from tests.chaincode.log_oracle import refused

VECTORS = Path(__file__).parent.parent / "vectors"
GOLDEN: dict[str, Any] = json.loads((VECTORS / "log.json").read_text(encoding="utf-8"))
MALFORMED: list[dict[str, str]] = json.loads((VECTORS / "notes_malformed.json").read_text(encoding="utf-8"))

LOG_SIGNER = identity_from_seed(bytes.fromhex(GOLDEN["log_seed_hex"]))
WITNESS_SIGNER = identity_from_seed(bytes.fromhex(GOLDEN["witness_seed_hex"]))
LOG_KEY, WITNESS_KEY = (public_key_from_did(s.did) for s in (LOG_SIGNER, WITNESS_SIGNER))
LOG, WITNESS = notes.parse_vkey(GOLDEN["log_vkey"]), notes.parse_vkey(GOLDEN["witness_vkey"])
NOTE: str = GOLDEN["checkpoints"][2]["checkpoint"]
COSIGNED: str = GOLDEN["checkpoints"][2]["cosigned"]

READERS: dict[str, Callable[[Any], object]] = {
    "vkey": notes.parse_vkey,
    "note": notes.parse_note,
    "checkpoint note": lambda note: checkpoints.open_checkpoint(note, LOG, [WITNESS]),
    "checkpoint": checkpoints.parse_checkpoint,
    "proof": checkpoints.parse_proof,
}

names = st.text(st.characters(exclude_characters="+", exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=40)
lines = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40)
texts = st.lists(lines, max_size=6).map(lambda parts: "\n".join(parts) + "\n")


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: f"{case['reader']}: {case['what']}")
def test_malformed_input_is_refused_with_its_code(case: dict[str, str]) -> None:
    data = bytes.fromhex(case["hex"]) if "hex" in case else case["input"]
    refused(case["code"], READERS[case["reader"]], data)


def test_the_table_has_every_reader_and_no_case_twice() -> None:
    assert {case["reader"] for case in MALFORMED} == READERS.keys()
    assert len({(case["reader"], case.get("input", case.get("hex"))) for case in MALFORMED}) == len(MALFORMED)


def test_verifier_keys_equal_the_published_vectors() -> None:
    assert notes.format_vkey(GOLDEN["origin"], LOG_KEY) == GOLDEN["log_vkey"]
    assert notes.format_vkey(WITNESS.name, WITNESS_KEY, notes.COSIGNATURE) == GOLDEN["witness_vkey"]
    assert notes.verifier(GOLDEN["origin"], LOG_KEY) == LOG
    assert (WITNESS.algorithm, WITNESS.public_key) == (notes.COSIGNATURE, WITNESS_KEY)


def test_the_example_of_the_specification_verifies() -> None:
    """C2SP signed-note, section "Verifier keys"."""
    vkey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
    signature = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
    note = f"This is an example message.\n\n\u2014 example.com/foo {signature}\n"
    verifier = notes.parse_vkey(vkey)
    assert notes.open_note(note, [verifier]) == ("This is an example message.\n", [verifier])


@settings(deadline=None)
@given(names, st.binary(min_size=32, max_size=32), st.sampled_from([notes.ED25519, notes.COSIGNATURE]))
def test_a_verifier_key_survives_its_text(name: str, seed: bytes, algorithm: int) -> None:
    key = public_key_from_did(identity_from_seed(seed).did)
    parsed = notes.parse_vkey(notes.format_vkey(name, key, algorithm))
    assert parsed == notes.verifier(name, key, algorithm)


@settings(deadline=None)
@given(texts, names)
def test_a_signed_note_opens_to_its_text(text: str, name: str) -> None:
    verifier = notes.verifier(name, LOG_KEY)
    note = notes.sign_note(text, name, LOG_KEY, LOG_SIGNER.sign)
    assert notes.open_note(note, [verifier]) == (text, [verifier])
    assert notes.open_note(note.encode(), [verifier, WITNESS]) == (text, [verifier])
    assert notes.format_note(notes.parse_note(note)) == note


@settings(deadline=None)
@given(texts, st.lists(st.builds(notes.SignatureLine, names, st.binary(min_size=4, max_size=4),
                                 st.binary(min_size=1, max_size=80)), min_size=1, max_size=20))  # fmt: skip
def test_a_note_survives_its_text(text: str, signatures: list[notes.SignatureLine]) -> None:
    note = notes.Note(text, tuple(signatures))
    assert notes.parse_note(notes.format_note(note)) == note


def test_the_last_empty_line_separates() -> None:
    text = "one\n\ntwo\n\n\n"
    note = notes.sign_note(text, LOG.name, LOG_KEY, LOG_SIGNER.sign)
    assert notes.open_note(note, [LOG])[0] == text


def test_a_signature_of_an_unknown_key_is_passed_over() -> None:
    known = replace(WITNESS, key_id=b"none")
    assert notes.open_note(COSIGNED, [LOG, known])[1] == [LOG]
    assert notes.open_note(COSIGNED, [LOG, replace(WITNESS, name="other")])[1] == [LOG]
    assert notes.open_note(COSIGNED, [WITNESS])[1] == [WITNESS]


def test_a_false_signature_of_a_known_key_spoils_the_note() -> None:
    other = replace(LOG, public_key=WITNESS_KEY)
    refused("note-signature", notes.open_note, COSIGNED, [other])
    refused("note-signature", notes.open_note, COSIGNED, [WITNESS, other])


def test_two_verifiers_of_one_name_and_id_are_refused() -> None:
    refused("note-ambiguous-key", notes.open_note, NOTE, [LOG, replace(LOG, public_key=WITNESS_KEY)])
    refused("note-ambiguous-key", notes.open_note, NOTE, [LOG, LOG])


def test_no_known_key_is_no_signature() -> None:
    refused("note-unsigned", notes.open_note, NOTE, [])
    refused("note-unsigned", notes.open_note, NOTE, [WITNESS])


def test_sixteen_signatures_are_read_and_a_key_counts_once() -> None:
    line = notes.parse_note(NOTE).signatures[0]
    strangers = tuple(notes.SignatureLine(f"stranger-{i}", b"0000", bytes(2432)) for i in range(15))
    note = notes.format_note(notes.Note(notes.parse_note(NOTE).text, (line, *strangers, line)))
    assert notes.open_note(note, [LOG])[1] == [LOG]


def test_a_note_is_bounded_before_it_is_parsed() -> None:
    line = notes.parse_note(NOTE).signatures[0].text()
    text = notes.parse_note(NOTE).text
    most = text + "\n" + line * notes.MAX_SIGNATURES
    assert notes.open_note(most, [LOG])[1] == [LOG]
    refused("note-too-many-signatures", notes.open_note, most + line, [LOG])
    refused("note-too-large", notes.open_note, "x" * notes.MAX_NOTE_BYTES + "\n" + NOTE, [LOG])
    refused("note-too-large", notes.open_note, b"\xff" * (notes.MAX_NOTE_BYTES + 1), [LOG])
    refused("note-too-large", notes.parse_note, "\u2014" * (notes.MAX_NOTE_BYTES // 2))
    long = notes.SignatureLine("stranger", b"0000", bytes(notes.MAX_LINE_CHARACTERS)).text()
    refused("note-signature-line", notes.open_note, NOTE + long, [LOG])
    refused("note-name", notes.open_note, NOTE.replace(LOG.name, "n" * 256), [LOG])
    refused("vkey-malformed", notes.parse_vkey, "a" * notes.MAX_LINE_CHARACTERS + GOLDEN["log_vkey"])


@pytest.mark.parametrize("text", ["", "no newline", "tab\t\n", "half \ud800\n", "x" * notes.MAX_NOTE_BYTES + "\n"])
def test_what_cannot_be_a_note_is_not_signed(text: str) -> None:
    refused("note-text", notes.sign_note, text, LOG.name, LOG_KEY, LOG_SIGNER.sign)


def test_a_note_cannot_be_made_to_look_like_a_cosignature() -> None:
    """One key of both types: what it signs as a note must not verify as what it saw at a time."""
    message = notes.cosignature_message(notes.parse_note(NOTE).text, 5).decode()
    refused("note-text", notes.sign_note, message, WITNESS.name, WITNESS_KEY, WITNESS_SIGNER.sign)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b", "a\ud800", "n" * 256])
def test_a_bad_name_signs_nothing(name: str) -> None:
    refused("note-name", notes.sign_note, "text\n", name, LOG_KEY, LOG_SIGNER.sign)
    refused("note-name", notes.format_vkey, name, LOG_KEY)


def test_a_key_that_proves_nothing_is_no_verifier() -> None:
    refused("vkey-key", notes.verifier, "name", bytes(32))
    refused("vkey-key", notes.verifier, "name", LOG_KEY[:31])
    refused("vkey-algorithm", notes.verifier, "name", LOG_KEY, 2)


def test_a_note_without_signatures_is_not_written() -> None:
    refused("note-signature-line", notes.format_note, notes.Note("text\n", ()))
    refused("note-unsigned", notes.format_note, notes.Note("text", notes.parse_note(NOTE).signatures))
    refused(
        "note-text",
        notes.format_note,
        notes.Note("a\n\n\u2014 b AAAAAAA=", notes.parse_note(NOTE).signatures),
    )


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)), st.sampled_from(sorted(READERS)))
def test_of_hostile_bytes_only_evidence_errors_escape(data: bytes | str, reader: str) -> None:
    if reader == "vkey" and isinstance(data, bytes):
        data = data.decode("latin-1")
    with suppress(EvidenceError):
        READERS[reader](data)


@settings(deadline=None)
@given(st.sampled_from([NOTE, COSIGNED, *(case["proof"] for case in GOLDEN["tlog_proofs"])]), st.data())
def test_of_damaged_notes_only_evidence_errors_escape(sound: str, draw: st.DataObject) -> None:
    """Cut, repeat or overwrite a piece of a sound note or proof: it is refused or reads as the same thing."""
    raw = sound.encode()
    start = draw.draw(st.integers(0, len(raw)))
    end = draw.draw(st.integers(start, min(len(raw), start + 40)))
    damaged = raw[:start] + draw.draw(st.one_of(st.binary(max_size=8), st.just(raw[start:end] * 2))) + raw[end:]
    for read in (READERS["note"], READERS["checkpoint note"], READERS["proof"]):
        with suppress(EvidenceError):
            read(damaged)
