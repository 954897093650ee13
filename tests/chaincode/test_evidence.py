# SPDX-License-Identifier: Apache-2.0
"""Only bytes that are what their author committed to become a VerifiedUpdate."""

import copy
import pickle
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaincode import evidence
from chaincode.chunks import CHUNK, chunk_root
from chaincode.crew import Crew
from chaincode.evidence import Commitment, VerifiedUpdate, verify_all, verify_update
from chaincode.header import format_header
from identity.errors import EvidenceError
from tests.chaincode.test_update_oracle import commit, header, site_blob, spec

SPECS = [spec("w", 4)]
HEAD = header()
BLOB = site_blob(HEAD, [0.25, -1, 2, 0], SPECS)
COMMITMENT = commit(HEAD, BLOB, 7)


def refusal(commitment: Commitment, data: Any, **options: Any) -> EvidenceError:
    with pytest.raises(EvidenceError) as caught:
        verify_update(commitment, data, **options)
    return caught.value


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_committed_bytes_are_verified_without_a_copy(kind: Any) -> None:
    data = kind(BLOB)
    update = verify_update(COMMITMENT, data)
    assert update.commitment is COMMITMENT
    assert np.frombuffer(update.body, "<i4").tolist() == [2**18, -(2**20), 2**20, 0]
    assert update.body.readonly
    assert np.shares_memory(np.frombuffer(update.body, np.uint8), np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_flipped_bit_anywhere_is_found(threads: int) -> None:
    for index in range(len(BLOB)):
        damaged = bytearray(BLOB)
        damaged[index] ^= 1 << index % 8
        assert refusal(COMMITMENT, damaged, threads=threads).code == "update-digest"


@given(st.integers(0, 2 * CHUNK + 40), st.integers(0, 7))
def test_a_flipped_bit_in_a_blob_of_several_chunks_is_found(index: int, bit: int) -> None:
    big, commitment = LARGE
    damaged = bytearray(big)
    damaged[index % len(damaged)] ^= 1 << bit
    assert refusal(commitment, damaged).code == "update-digest"


def _large() -> tuple[bytes, Commitment]:
    count = 2 * CHUNK // 4
    blob = site_blob(header(length=count), np.linspace(-1, 1, count), [spec("w", count)])
    return blob, commit(header(length=count), blob)


LARGE = _large()


@pytest.mark.parametrize("data", [b"", BLOB[:-1], BLOB + b"\0", BLOB[1:], BLOB * 2])
def test_another_size_is_refused_before_anything_is_read(data: bytes) -> None:
    assert refusal(COMMITMENT, data).code == "update-size"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("federation", "0" * 64), ("agreement", "0" * 64), ("round", 2), ("attempt", 2), ("base", "0" * 64),
        ("member", "did:key:zMallory"), ("encoding", "int64"), ("elements", 5),
    ],
)  # fmt: skip
def test_an_update_made_for_another_place_is_refused(field: str, value: Any) -> None:
    error = refusal(replace(COMMITMENT, **{field: value}), BLOB)
    assert error.code == "update-header"
    assert ("length" if field == "elements" else field) in error.message


def test_a_copied_update_names_its_first_author() -> None:
    thief = replace(COMMITMENT, member="did:key:zMallory")
    error = refusal(thief, BLOB)
    assert (error.code, "zAlice" in error.message, "zMallory" in error.message) == ("update-header", True, True)


@pytest.mark.parametrize("size", [0, 1, 12, 15, 17, 20])
def test_other_than_the_stated_integers_are_refused(size: int) -> None:
    blob = format_header(HEAD) + bytes(size)
    assert refusal(commit(HEAD, blob), blob).code == "update-length"


@pytest.mark.parametrize("blob", [b"", b"\n", b"{}\n", b"\x80\x04.", b"PK\x03\x04" * 400, format_header(HEAD)[:-1]])
def test_committed_rubbish_is_refused(blob: bytes) -> None:
    assert refusal(commit(HEAD, blob), blob).code == "blob-header"


@given(st.binary(max_size=1100))
def test_only_evidence_errors_escape(blob: bytes) -> None:
    assert refusal(commit(HEAD, blob), blob).code in {"blob-header", "update-header", "update-length"}


@pytest.mark.parametrize("crew", [None, Crew(0), Crew(2)])
def test_many_are_verified_as_each_is_alone(crew: Crew | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "_WORTH_THREADS", 0)
    damaged = bytes([*BLOB[:-1], BLOB[-1] ^ 1])
    elsewhere = site_blob(replace(HEAD, round=HEAD.round + 1), [0.25, -1, 2, 0], SPECS)
    pairs = [(COMMITMENT, BLOB), (COMMITMENT, damaged), (COMMITMENT, BLOB[:-1]), (COMMITMENT, b""),
             (commit(HEAD, elsewhere, 7), elsewhere), (commit(HEAD, b"rubbish", 7), b"rubbish")]  # fmt: skip
    hashed = list[int]()
    if crew is not None:
        map_ = crew.map
        monkeypatch.setattr(
            crew, "map", lambda work, items, each: (hashed.append(len(items)), map_(work, items, each))[1]
        )
    many = verify_all([(commitment, memoryview(data)) for commitment, data in pairs * 3], crew)
    assert hashed == ([] if crew is None else [18])
    for (commitment, data), found in zip(pairs * 3, many, strict=True):
        if isinstance(found, EvidenceError):
            alone = refusal(commitment, data)
            assert (found.code, found.message) == (alone.code, alone.message)
        else:
            assert (found.commitment, found.body) == (commitment, verify_update(commitment, data).body)
    assert [isinstance(found, VerifiedUpdate) for found in many] == [True, *[False] * 5] * 3
    assert verify_all([], crew) == []


def test_the_message_names_member_and_round() -> None:
    message = str(refusal(COMMITMENT, BLOB[:-1]))
    assert message.startswith("The update of did:key:zAlice for round 1, attempt 1, has ")
    assert message.endswith("[update-size]")


def test_a_verified_update_cannot_be_made_changed_copied_or_pickled() -> None:
    update = verify_update(COMMITMENT, BLOB)
    body = memoryview(b"")
    for make in (
        VerifiedUpdate,
        lambda: VerifiedUpdate(None, COMMITMENT, body),
        lambda: VerifiedUpdate(object(), COMMITMENT, body),
        lambda: VerifiedUpdate.__new__(VerifiedUpdate),
        lambda: type("Forged", (VerifiedUpdate,), {}),
        lambda: copy.copy(update),
        lambda: copy.deepcopy(update),
        lambda: update.__setstate__({}),
        *(lambda p=p: pickle.dumps(update, p) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
    ):
        with pytest.raises(TypeError):
            make()  # type: ignore[operator]
    for change in (
        lambda: setattr(update, "body", body),
        lambda: delattr(update, "body"),
        lambda: setattr(update, "x", 1),
    ):
        with pytest.raises(AttributeError):
            change()
    assert "zAlice" in repr(update)


def test_no_crafted_pickle_makes_one() -> None:
    name = b"cchaincode.evidence\nVerifiedUpdate\n"
    state = b"N}(Vbody\nVx\nVcommitment\nVy\nu\x86b."  # (None, {slots}): how pickle fills slots
    new = name + b")\x81" + state
    reconstructed = b"ccopyreg\n_reconstructor\n(" + name + b"c__builtin__\nobject\nNtR" + state
    for crafted in (new, reconstructed, name + b")R."):
        with pytest.raises(TypeError):
            pickle.loads(b"\x80\x02" + crafted)


def test_the_auditors_path_loads_without_numpy() -> None:
    script = "import sys, chaincode.evidence, chaincode.models; print('numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout == "False\n"


def test_commitments_of_random_blobs_verify_only_themselves() -> None:
    rng = random.Random(2)
    blobs = {}
    for number in range(5):
        head = header(f"did:key:z{number}", salt=rng.randbytes(32).hex())
        blob = site_blob(head, [rng.uniform(-1, 1) for _ in range(4)], SPECS)
        blobs[blob] = commit(head, blob)
    assert len({c.digest for c in blobs.values()}) == len(blobs)
    for blob, own in blobs.items():
        assert chunk_root(blob) == own.digest
        for commitment in blobs.values():
            if commitment is own:
                assert verify_update(commitment, blob).commitment is own
            else:
                assert refusal(commitment, blob).code == "update-digest"
