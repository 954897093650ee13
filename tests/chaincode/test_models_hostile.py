# SPDX-License-Identifier: Apache-2.0
"""Files that claim to be models: nothing is unpickled, nothing is unpacked, only EvidenceError escapes."""

import io
import json
import pickle
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode.models import HEADER_LIMIT, digest_file, model_digest, read_safetensors
from identity.errors import EvidenceError
from tests.chaincode.test_models import model_bytes

GOOD = model_bytes({"a": ("float32", (2,), b"\x00" * 8), "b": ("bool", (2,), b"\x00\x01")})


def framed(header: bytes, body: bytes = b"", *, length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header + body


def stated(body: bytes = b"\x00" * 8, *, pad: bool = True, **tensors: Any) -> bytes:
    text = json.dumps(tensors, separators=(",", ":"), sort_keys=True).encode()
    return framed(text + b" " * (-len(text) % 8 if pad else 0), body)


def entry(offsets: Any = (0, 8), dtype: Any = "F32", shape: Any = (2,)) -> dict[str, Any]:
    return {"data_offsets": offsets, "dtype": dtype, "shape": shape}


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2))
    return buffer.getvalue()


ZERO_LENGTH_IN_MIDDLE = stated(a=entry((0, 8)), b=entry((8, 8), shape=(0,)))
HOSTILE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "model-truncated"),
    "seven bytes": (b"\x00" * 7, "model-truncated"),
    "pickle": (pickle.dumps({"a": [1.0] * 10}), "model-not-safetensors"),
    "old pickle": (pickle.dumps({"a": [1.0] * 10}, 2), "model-not-safetensors"),
    "zip bomb": (zip_bomb(), "model-not-safetensors"),
    "npz": (npz(), "model-not-safetensors"),
    "npy": (b"\x93NUMPY\x01\x00\x76\x00", "model-not-safetensors"),
    "text": (b"this is not a model at all", "model-header-size"),
    "huge header length": (b"\xff" * 8 + b"{}", "model-header-size"),
    "header just too large": (framed(b"{}" + b" " * (HEADER_LIMIT - 1)), "model-header-size"),
    "header beyond the file": (framed(b"{}", length=3), "model-truncated"),
    "cut in the header": (GOOD[:40], "model-truncated"),
    "cut in the body": (GOOD[:-1], "model-truncated"),
    "bytes behind": (GOOD + b"\x00", "model-trailing-bytes"),
    "empty header": (framed(b""), "model-header"),
    "only spaces": (framed(b" " * 8), "model-header"),
    "no object": (framed(b"[]      "), "model-header"),
    "not UTF-8": (framed(b'{"\xff":1}'), "model-header"),
    "not JSON": (framed(b"{a:1}   "), "model-header"),
    "NaN": (stated().replace(b"{}      ", b'{"a":NaN}').replace(b"\x08", b"\x09", 1), "model-header"),
    "float": (stated(a=entry(shape=(2.0,))), "model-header"),
    "huge integer": (stated(a=entry(shape=(10**400,))), "model-header"),
    "integer beyond 2^53": (stated(a=entry(shape=(2**53,))), "model-header"),
    "deep": (framed(b"[" * 4096), "model-header"),
    "duplicate names": (
        framed(
            b'{"a":{"data_offsets":[0,8],"dtype":"F32","shape":[2]},"a":{"data_offsets":[0,8],"dtype":"F32","shape":[2]}}',
            bytes(8),
        ),
        "model-header",
    ),
    "tensor is no object": (stated(a=[0, 8]), "model-header"),
    "missing field": (stated(a={"dtype": "F32", "shape": [2]}), "model-header"),
    "additional field": (stated(a={**entry(), "x": 1}), "model-header"),
    "metadata": (stated(__metadata__={"format": "pt"}, a=entry()), "model-metadata"),
    "empty name": (stated(**{"": entry()}), "model-name"),
    "a space in a name": (stated(**{"a b": entry()}), "model-name"),
    "not ASCII": (framed('{"é":{"data_offsets":[0,8],"dtype":"F32","shape":[2]}}'.encode(), bytes(8)), "model-name"),
    "unknown dtype": (stated(a=entry(dtype="F8_E4M3")), "model-dtype"),
    "our dtype's name": (stated(a=entry(dtype="float32")), "model-dtype"),
    "dtype is no text": (stated(a=entry(dtype=["F32"])), "model-dtype"),
    "shape is no list": (stated(a=entry(shape=2)), "model-shape"),
    "negative dimension": (stated(a=entry(shape=(-2, -1))), "model-shape"),
    "dimension is true": (stated(a=entry(shape=(True, 2))), "model-shape"),
    "nine dimensions": (stated(a=entry(shape=(1, 1, 1, 1, 1, 1, 1, 1, 2))), "model-shape"),
    "product overflows": (stated(a=entry(shape=(2**32, 2**32, 2))), "model-shape"),
    "product wraps to the size": (stated(a=entry(shape=(2**33, 2**31, 2))), "model-shape"),
    "product hidden by a zero": (stated(b"", a=entry((0, 0), shape=(2**32, 2**32, 0))), "model-shape"),
    "shape and offsets differ": (stated(a=entry(shape=(3,))), "model-offsets"),
    "offsets overlap": (stated(bytes(12), a=entry((0, 8)), b=entry((4, 12))), "model-offsets"),
    "offsets leave a gap": (stated(bytes(12), a=entry((4, 12))), "model-offsets"),
    "offsets in another order": (stated(bytes(16), a=entry((8, 16)), b=entry((0, 8))), "model-offsets"),
    "offsets backwards": (stated(a=entry((8, 0))), "model-offsets"),
    "offsets negative": (stated(a=entry((-8, 0))), "model-offsets"),
    "offsets true": (stated(bytes(1), a=entry((False, 1, 1), "U8", (1,))), "model-offsets"),
    "offsets text": (stated(a=entry("0-8")), "model-offsets"),
    "offsets beyond the file": (stated(a=entry((0, 2**40), "U8", (2**40,))), "model-truncated"),
    "no padding": (stated(pad=False, aa=entry()), "model-not-canonical"),
    "more padding": (framed(GOOD[8:-10] + b" " * 8, GOOD[-10:]), "model-not-canonical"),
    "spaces within": (
        framed(b'{"a": {"data_offsets":[0,8],"dtype":"F32","shape":[2]}} ', bytes(8)),
        "model-not-canonical",
    ),
    "unsorted keys": (
        framed(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  ', bytes(8)),
        "model-not-canonical",
    ),
    "escaped name": (
        framed(b'{"\\u0061":{"data_offsets":[0,8],"dtype":"F32","shape":[2]}}', bytes(8)),
        "model-not-canonical",
    ),
    "offsets as floats in disguise": (stated(a=entry((0, True + 7.0))), "model-header"),
    "a bool of two": (stated(b"\x02", a=entry((0, 1), "BOOL", (1,))), "model-bool"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str, tmp_path: Path) -> None:
    data, code = HOSTILE[name]
    with pytest.raises(EvidenceError) as caught:
        read_safetensors(data)
    assert caught.value.code == code
    (tmp_path / "m").write_bytes(data)
    with pytest.raises(EvidenceError) as caught:
        digest_file(tmp_path / "m")
    assert caught.value.code == code


def test_offsets_equal_to_ours_in_value_but_not_in_bytes_are_refused() -> None:
    with pytest.raises(EvidenceError) as caught:
        read_safetensors(stated(bytes(1), a=entry((False, True), "U8", (1,))))  # False == 0 and True == 1
    assert caught.value.code == "model-not-canonical"


def test_an_empty_tensor_may_stand_between_others() -> None:
    assert list(read_safetensors(ZERO_LENGTH_IN_MIDDLE)) == ["a", "b"]


def test_a_file_of_the_library_is_refused_unless_it_is_in_our_form(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a": np.zeros(2, np.float32)}, tmp_path / "m", metadata={"who": "else"})
    with pytest.raises(EvidenceError):
        digest_file(tmp_path / "m")


def test_a_claim_of_size_allocates_nothing() -> None:
    claims = [HOSTILE[n][0] for n in ("huge header length", "offsets beyond the file", "zip bomb", "product overflows")]
    tracemalloc.start()
    try:
        for data in claims:
            with pytest.raises(EvidenceError):
                read_safetensors(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        digest_file(tmp_path / "none")
    with pytest.raises(EvidenceError) as caught:
        digest_file(tmp_path)
    assert caught.value.code == "file-not-regular"


def _read(data: bytes) -> None:
    """Whatever is read is, to the byte, what we would have written."""
    try:
        model = read_safetensors(data)
    except EvidenceError as error:
        refused = error.code
    else:
        refused = "model-"
        assert model_bytes(model) == data
        assert len(model_digest(model)) == 64
    assert refused.startswith("model-")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.integers(0, len(GOOD)), st.binary(max_size=3))
def test_damaged_files_are_refused_or_are_other_models(index: int, byte: int, cut: int, tail: bytes) -> None:
    _read(GOOD[:index] + bytes([byte]) + GOOD[index + 1 :])
    _read(GOOD[:cut] + tail + GOOD[cut:])
    _read(GOOD[:cut])


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**64), 2**64), st.floats(), st.text(max_size=4),
              st.sampled_from(["F32", "BOOL", "a", "dtype", "shape", "data_offsets"])),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)  # fmt: skip
ENTRY = st.fixed_dictionaries({"data_offsets": JSON, "dtype": st.sampled_from(["F32", "U8", "BOOL", 4]), "shape": JSON})


@settings(max_examples=300, deadline=None)
@given(st.one_of(JSON, st.dictionaries(st.text(max_size=3), ENTRY, max_size=3)), st.binary(max_size=16))
def test_arbitrary_headers_are_refused_or_canonical(header: Any, body: bytes) -> None:
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    _read(framed(text + b" " * (-len(text) % 8), body))


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_refused_or_canonical(data: bytes) -> None:
    _read(data)
    _read(framed(data[:32], data[32:]))
