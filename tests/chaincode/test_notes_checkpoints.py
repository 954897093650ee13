# SPDX-License-Identifier: Apache-2.0
"""Checkpoints, cosignatures and offline proofs: golden vectors byte for byte, round trips, quorum traps."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode import checkpoints, log, notes
from chaincode.checkpoints import Checkpoint, Proof
from identity.did import public_key_from_did
from identity.keys import Identity, identity_from_seed
from tests.chaincode.log_oracle import path, refused, roots
from tests.chaincode.test_notes import (
    COSIGNED,
    GOLDEN,
    LOG,
    LOG_KEY,
    LOG_SIGNER,
    NOTE,
    WITNESS,
    WITNESS_KEY,
    WITNESS_SIGNER,
)  # fmt: skip

ORIGIN: str = GOLDEN["origin"]
TIME = int.from_bytes(notes.parse_note(COSIGNED).signatures[1].signature[:8], "big")

hashes = st.binary(min_size=32, max_size=32)
origins = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=60)


def head(size: int) -> Checkpoint:
    return Checkpoint(ORIGIN, size, bytes.fromhex(GOLDEN["roots_by_size"][size]))


def leaf(index: int) -> bytes:
    return log.leaf_hash(GOLDEN["leaves"][index].encode())


def witness(number: int) -> tuple[notes.Verifier, Identity]:
    signer = identity_from_seed(bytes([number]) * 32)
    name = f"witness-{number}.example"
    return notes.verifier(name, public_key_from_did(signer.did), notes.COSIGNATURE), signer


def cosigned(note: str, number: int, time: int) -> str:
    verifier, signer = witness(number)
    checkpoint = checkpoints.parse_checkpoint(notes.parse_note(note).text)
    line = checkpoints.cosign(checkpoint, verifier.name, verifier.public_key, signer.sign, time)
    return notes.add_signature(note, line)


# Checkpoints


def test_checkpoints_equal_the_published_vectors() -> None:
    for case in GOLDEN["checkpoints"]:
        assert checkpoints.sign_checkpoint(head(case["size"]), LOG_KEY, LOG_SIGNER.sign) == case["checkpoint"]
        assert checkpoints.open_checkpoint(case["checkpoint"], LOG) == (head(case["size"]), [])


def test_cosigned_checkpoints_equal_the_published_vectors() -> None:
    for case in GOLDEN["checkpoints"]:
        line = checkpoints.cosign(head(case["size"]), WITNESS.name, WITNESS_KEY, WITNESS_SIGNER.sign, TIME)
        assert notes.add_signature(case["checkpoint"], line) == case["cosigned"]
        opened = checkpoints.open_checkpoint(case["cosigned"], LOG, [WITNESS])
        assert opened == (head(case["size"]), [notes.Cosignature(WITNESS, TIME)])


@settings(deadline=None)
@given(origins, st.integers(0, 2**63 - 1), hashes)
def test_a_checkpoint_survives_its_text(origin: str, size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin, size, root if size else log.EMPTY_ROOT)
    if len(origin.encode()) <= 255:
        assert checkpoints.parse_checkpoint(checkpoint.text()) == checkpoint
    else:
        refused("checkpoint-origin", checkpoint.text)


@pytest.mark.parametrize(
    ("checkpoint", "code"),
    [
        (Checkpoint("", 1, bytes(32)), "checkpoint-origin"),
        (Checkpoint("a\nb", 1, bytes(32)), "checkpoint-extension"),
        (Checkpoint("a", -1, bytes(32)), "checkpoint-size"),
        (Checkpoint("a", 2**63, bytes(32)), "checkpoint-size"),
        (Checkpoint("a", 1, bytes(31)), "checkpoint-root"),
        (Checkpoint("a", 0, bytes(32)), "checkpoint-root"),
        (Checkpoint("a", True, bytes(32)), "checkpoint-size"),
    ],
)
def test_what_cannot_be_read_is_not_signed(checkpoint: Checkpoint, code: str) -> None:
    refused(code, checkpoints.sign_checkpoint, checkpoint, LOG_KEY, LOG_SIGNER.sign)


def test_a_checkpoint_of_another_log_is_refused() -> None:
    """The name of the key that signs and the origin in the text must be one."""
    text = replace(head(7), origin="fedledger.example/other").text()
    note = notes.sign_note(text, LOG.name, LOG_KEY, LOG_SIGNER.sign)
    refused("checkpoint-origin", checkpoints.open_checkpoint, note, LOG)


def test_a_note_that_is_no_checkpoint_is_refused() -> None:
    note = notes.sign_note("hello\n", LOG.name, LOG_KEY, LOG_SIGNER.sign)
    refused("checkpoint-malformed", checkpoints.open_checkpoint, note, LOG)


# Cosignatures


def test_a_cosigner_counts_once_with_its_latest_time() -> None:
    twice = cosigned(NOTE, 9, 100)
    older = notes.parse_note(twice).signatures[-1].text()
    note = cosigned(NOTE, 9, 200) + older
    verifier, _ = witness(9)
    assert checkpoints.open_checkpoint(note, LOG, [verifier])[1] == [notes.Cosignature(verifier, 200)]


def test_a_new_cosignature_replaces_the_older_one() -> None:
    note = cosigned(cosigned(NOTE, 9, 100), 9, 200)
    assert len(notes.parse_note(note).signatures) == 2
    verifier, _ = witness(9)
    assert checkpoints.open_checkpoint(note, LOG, [verifier])[1] == [notes.Cosignature(verifier, 200)]


def test_one_key_under_two_names_is_not_two_cosigners() -> None:
    """An Ed25519 cosignature does not name its cosigner: one key could stand for a whole quorum."""
    verifier, _ = witness(9)
    twin = notes.verifier("twin.example", verifier.public_key, notes.COSIGNATURE)
    operator = notes.verifier("operator.example", LOG_KEY, notes.COSIGNATURE)
    refused("note-shared-key", checkpoints.open_checkpoint, NOTE, LOG, [verifier, twin])
    refused("note-shared-key", checkpoints.open_checkpoint, NOTE, LOG, [operator])


def test_a_key_of_the_wrong_type_is_neither_log_nor_cosigner() -> None:
    refused("vkey-algorithm", checkpoints.open_checkpoint, COSIGNED, WITNESS)
    refused("vkey-algorithm", checkpoints.open_checkpoint, COSIGNED, LOG, [notes.verifier("x", WITNESS_KEY)])


def test_a_log_without_a_key_stands_on_its_cosigners() -> None:
    text = notes.parse_note(NOTE).text
    line = checkpoints.cosign(head(7), WITNESS.name, WITNESS_KEY, WITNESS_SIGNER.sign, TIME)
    note = notes.format_note(notes.Note(text, (line,)))
    opened = checkpoints.open_checkpoint(note, None, [WITNESS], origin=ORIGIN)
    assert opened == (head(7), [notes.Cosignature(WITNESS, TIME)])
    refused("checkpoint-origin", checkpoints.open_checkpoint, note, None, [WITNESS])
    refused("note-unsigned", lambda: checkpoints.open_checkpoint(note, None, [witness(9)[0]], origin=ORIGIN))


def test_strangers_are_no_cosigners() -> None:
    note = cosigned(cosigned(NOTE, 9, 100), 10, 100)
    assert checkpoints.open_checkpoint(note, LOG, [witness(10)[0]])[1] == [notes.Cosignature(witness(10)[0], 100)]
    assert checkpoints.open_checkpoint(note, LOG)[1] == []


@pytest.mark.parametrize("time", [-1, 2**63])
def test_a_cosignature_has_a_posix_time(time: int) -> None:
    refused("note-time", checkpoints.cosign, head(7), WITNESS.name, WITNESS_KEY, WITNESS_SIGNER.sign, time)


# Proofs


def test_proofs_equal_the_published_vectors() -> None:
    for case in GOLDEN["tlog_proofs"]:
        proof = checkpoints.parse_proof(case["proof"])
        assert (proof.index, proof.extra) == (case["index"], None)
        assert checkpoints.format_proof(proof) == case["proof"]
        opened = checkpoints.verify_proof(proof, leaf(case["index"]), LOG, [WITNESS])
        assert opened == (head(case["size"]), [notes.Cosignature(WITNESS, TIME)])


@settings(deadline=None)
@given(st.integers(0, 2**63 - 2), st.lists(hashes, max_size=63), st.none() | st.binary(min_size=1, max_size=100))
def test_a_proof_survives_its_text(index: int, proof_path: list[bytes], extra: bytes | None) -> None:
    proof = Proof(index, tuple(proof_path), COSIGNED, extra)
    assert checkpoints.parse_proof(checkpoints.format_proof(proof).encode()) == proof


@pytest.mark.parametrize(
    ("proof", "code"),
    [
        (Proof(-1, (), NOTE), "proof-index"),
        (Proof(2**63, (), NOTE), "proof-index"),
        (Proof(0, (bytes(31),), NOTE), "proof-hash"),
        (Proof(0, (bytes(32),) * 64, NOTE), "proof-path-length"),
        (Proof(0, (), NOTE, b""), "proof-extra"),
        (Proof(0, (), NOTE, bytes(checkpoints.MAX_EXTRA_CHARACTERS)), "proof-extra"),
        (Proof(0, (), NOTE, bytes(checkpoints.MAX_PROOF_BYTES)), "proof-too-large"),
        (Proof(0, (), "no checkpoint"), "note-unsigned"),
        (Proof(0, (), ""), "note-unsigned"),
    ],
)
def test_what_cannot_be_read_is_not_written(proof: Proof, code: str) -> None:
    refused(code, checkpoints.format_proof, proof)


def test_a_proof_shows_its_own_leaf_only() -> None:
    proof = checkpoints.parse_proof(GOLDEN["tlog_proofs"][1]["proof"])
    sound = leaf(proof.index)
    refused("inclusion-root", checkpoints.verify_proof, proof, leaf(6), LOG)
    refused("inclusion-root", checkpoints.verify_proof, replace(proof, index=4), sound, LOG)
    refused("inclusion-path-length", checkpoints.verify_proof, replace(proof, index=16), sound, LOG)
    refused("inclusion-index", checkpoints.verify_proof, replace(proof, index=17), sound, LOG)
    refused("inclusion-path-length", checkpoints.verify_proof, replace(proof, path=proof.path[:-1]), sound, LOG)
    refused("inclusion-root", checkpoints.verify_proof, replace(proof, path=proof.path[::-1]), sound, LOG)
    refused("note-signature", checkpoints.verify_proof, proof, sound, replace(LOG, public_key=WITNESS_KEY))


def test_a_proof_is_bounded_before_it_is_parsed() -> None:
    refused("proof-too-large", checkpoints.parse_proof, b"\xff" * (checkpoints.MAX_PROOF_BYTES + 1))


def test_the_longest_path_is_read() -> None:
    """A leaf of a tree of 2**63 - 1 entries has at most 63 siblings."""
    assert len(path(0, [b""] * 64)) == 6  # and each doubling adds one
    proof = Proof(0, (roots()[1],) * 63, NOTE)
    assert len(checkpoints.parse_proof(checkpoints.format_proof(proof)).path) == 63
