# SPDX-License-Identifier: Apache-2.0
"""Proof files of single entries, and the key file that outsiders check them with."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaincode.checkpoints import format_proof, parse_proof
from chaincode.ledgers.sqlite import SqliteLedger
from chaincode.notes import format_vkey, parse_vkey
from chaincode.proofs import ScannedLog, is_proof, make_entry_proof, verify_entry_proof
from chaincode.trust import LIMIT, FederationKey, format_key, parse_key, read_key
from identity.did import public_key_from_did
from identity.errors import EvidenceError
from tests.chaincode.audit_evidence import LOG_KEY, VKEY, Run, head_of, whole_run
from tests.chaincode.contract.memory import key
from tests.chaincode.contract.world import World

STRANGER = public_key_from_did(key("stranger").did)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return whole_run(tmp_path_factory.mktemp("proofs") / "run", rounds=1)


def trusted(run: Run) -> FederationKey:
    return FederationKey(parse_vkey(VKEY), run.world.federation)


def refusal(proof: str | bytes, key_: FederationKey) -> str:
    with pytest.raises(EvidenceError) as caught:
        verify_entry_proof(proof, key_)
    return caught.value.code


def scanned(run: Run) -> ScannedLog:
    return ScannedLog(run.world.envelopes, run.note, lambda *_: True)


def test_each_entry_has_a_proof_from_the_ledger_and_from_the_envelopes_alone(run: Run) -> None:
    with SqliteLedger.open(run.folder / "ledger.sqlite") as ledger:
        for index, entry in enumerate(run.world.entries):
            proof = make_entry_proof(ledger, index)
            assert proof == make_entry_proof(scanned(run), index)
            assert is_proof(proof.encode())
            proven, head = verify_entry_proof(proof, trusted(run))
            assert (proven, head.size) == (entry, len(run.world.entries))
            assert verify_entry_proof(proof.encode(), trusted(run))[0].id == entry.id


def test_every_bit_of_a_proof_counts(run: Run) -> None:
    proof = make_entry_proof(scanned(run), 9).encode()
    for position in range(len(proof)):
        for bit in range(0, 8, 3):
            data = bytearray(proof)
            data[position] ^= 1 << bit
            assert refusal(bytes(data), trusted(run))


def test_what_a_proof_must_be(run: Run) -> None:
    proof = make_entry_proof(scanned(run), 9)
    parsed = parse_proof(proof)
    assert parsed.extra is not None
    other = run.world.envelopes[10]
    rebuilt = {
        "proof-extra": parsed.__class__(parsed.index, parsed.path, parsed.checkpoint, None),
        "envelope-fields": parsed.__class__(parsed.index, parsed.path, parsed.checkpoint, b"{}"),
        "inclusion-root": parsed.__class__(parsed.index, parsed.path, parsed.checkpoint, other),
        "inclusion-path-length": parsed.__class__(parsed.index, parsed.path[:-1], parsed.checkpoint, parsed.extra),
        "inclusion-index": parsed.__class__(10**6, parsed.path, parsed.checkpoint, parsed.extra),
    }
    for code, changed in rebuilt.items():
        assert refusal(format_proof(changed), trusted(run)) == code
    assert refusal(proof, FederationKey(parse_vkey(VKEY), "0" * 64)) == "proof-federation"
    assert (
        refusal(proof, FederationKey(parse_vkey(format_vkey("ledger.example/test", STRANGER)), run.world.federation))
        == "note-unsigned"
    )
    assert refusal("nonsense", trusted(run)) == "proof-malformed"


@given(st.binary(max_size=400))
def test_hostile_bytes_are_refused_with_evidence_errors_only(data: bytes) -> None:
    key_ = FederationKey(parse_vkey(VKEY), "0" * 64)
    refusal(data, key_)
    refusal(b"c2sp.org/tlog-proof@v1\nextra " + data, key_)


def test_a_proof_is_made_only_where_the_head_is_that_of_the_entries(run: Run) -> None:
    envelopes = run.world.envelopes
    for note, wanted, code in (
        (head_of(envelopes[:5]), 7, "inclusion-index"),
        (head_of([*envelopes, b"x"]), 3, "inclusion-index"),
        (head_of([b"x", *envelopes[1:]]), 3, "inclusion-root"),
    ):
        with pytest.raises(EvidenceError) as caught:
            make_entry_proof(ScannedLog(envelopes, note, lambda *_: True), wanted)
        assert caught.value.code == code
    with pytest.raises(EvidenceError):
        ScannedLog(envelopes, run.note, lambda index, _: index == 1).entry(2)


def test_an_entry_that_is_too_large_for_a_proof_says_so() -> None:
    world = World(700).proposed()
    log = ScannedLog(world.envelopes, head_of(world.envelopes), lambda *_: True)
    with pytest.raises(EvidenceError) as caught:
        make_entry_proof(log, len(world.entries) - 1)
    assert caught.value.code == "proof-entry-too-large"


KEY = FederationKey(parse_vkey(VKEY), "0123456789abcdef" * 4)
TEXT = format_key(KEY)


def test_a_key_file_is_two_lines(tmp_path: Path) -> None:
    assert f"{VKEY}\n{'0123456789abcdef' * 4}\n" == TEXT
    (tmp_path / "federation.vkey").write_text(TEXT)
    assert read_key(tmp_path / "federation.vkey") == KEY == parse_key(TEXT.encode())


@pytest.mark.parametrize("data", [
    b"", TEXT[:-1].encode(), TEXT.encode() + b"\n", b"\n" + TEXT.encode(), TEXT.upper().encode(), TEXT.replace("\n", "\r\n").encode(),
    TEXT.encode().replace(b"0123", b"012", 1), TEXT.encode().replace(b"+", b" ", 1), TEXT.encode() + b"x" * LIMIT, "é\n".encode(), b"\xff",
    f"{format_vkey('north', STRANGER, 4)}\n{'0' * 64}\n".encode(), TEXT.replace(TEXT[-66:-1], "\u0660" * 64).encode(),
])  # fmt: skip
def test_any_other_key_file_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(EvidenceError) as caught:
        parse_key(data)
    assert caught.value.code == "federation-key"
    (tmp_path / "k").write_bytes(data)
    with pytest.raises(EvidenceError, match=str(tmp_path / "k")):
        read_key(tmp_path / "k")


@given(st.integers(0, len(TEXT) - 1), st.integers(0, 7))
def test_a_flipped_bit_gives_another_federation_or_none(position: int, bit: int) -> None:
    data = bytearray(TEXT.encode())
    data[position] ^= 1 << bit
    try:
        assert parse_key(bytes(data)).federation != KEY.federation
    except EvidenceError as error:
        assert error.code == "federation-key"  # noqa: PT017 (either is right)


def test_a_key_that_could_not_be_read_is_not_written() -> None:
    for bad in (
        FederationKey(KEY.log, "x"),
        FederationKey(parse_vkey(format_vkey("north", LOG_KEY, 4)), KEY.federation),
    ):
        with pytest.raises(EvidenceError):
            format_key(bad)
