# SPDX-License-Identifier: Apache-2.0
"""Models: the digest over the manifest, and the file that other tools open."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode.models import DTYPES, Tensor, digest_file, model_digest, read_safetensors, write_safetensors
from identity.errors import EvidenceError

WEIGHT = np.arange(6, dtype="<f4").reshape(2, 3)
MODEL = {
    "layer.weight": ("float32", (2, 3), WEIGHT.data),
    "Layer.bias": ("float64", (2,), np.array([0.5, float("nan")], "<f8").data),
    "seen": ("int64", (), np.array(7, "<i8").data),
    "flags": ("bool", (3,), b"\x00\x01\x01"),
    "empty": ("float32", (0, 4), np.zeros((0, 4), "<f4").data),
    "half": ("bfloat16", (1,), b"\x80\x3f"),
}


def test_the_digest_is_over_the_manifest_to_the_byte() -> None:
    sha = hashlib.sha256(WEIGHT.tobytes()).hexdigest()
    seven = hashlib.sha256((7).to_bytes(8, "little")).hexdigest()
    manifest = (
        '[{"dtype":"int64","name":"Seen","sha256":"' + seven + '","shape":[]},'
        '{"dtype":"float32","name":"a","sha256":"' + sha + '","shape":[2,3]}]'
    )
    model = {"a": MODEL["layer.weight"], "Seen": MODEL["seen"]}
    assert model_digest(model) == hashlib.sha256(manifest.encode()).hexdigest()
    assert model_digest({}) == hashlib.sha256(b"[]").hexdigest()


def test_the_digest_does_not_depend_on_order_or_container(tmp_path: Path) -> None:
    digest = model_digest(MODEL)
    assert model_digest(dict(reversed(MODEL.items()))) == digest
    assert model_digest((name, *tensor) for name, tensor in MODEL.items()) == digest
    write_safetensors(tmp_path / "m", MODEL)
    (tmp_path / "link").symlink_to("m")
    assert digest_file(tmp_path / "m") == digest_file(str(tmp_path / "link")) == digest


@pytest.mark.parametrize(
    "change",
    [
        ("float32", (3, 2), WEIGHT.data),
        ("int32", (2, 3), WEIGHT.data),
        ("float32", (2, 3), (WEIGHT + 1).data),
        ("float32", (6,), WEIGHT.data),
    ],
)
def test_every_part_of_a_tensor_is_in_the_digest(change: tuple[str, tuple[int, ...], memoryview]) -> None:
    assert model_digest({**MODEL, "layer.weight": change}) != model_digest(MODEL)
    assert model_digest({"other": MODEL["seen"]}) != model_digest({"seen": MODEL["seen"]})


def test_the_file_is_deterministic_and_the_library_opens_it(tmp_path: Path) -> None:
    model = {name: tensor for name, tensor in MODEL.items() if tensor[0] != "bfloat16"}
    write_safetensors(tmp_path / "a", model)
    write_safetensors(tmp_path / "b", dict(reversed(model.items())), fsync=False)
    data = (tmp_path / "a").read_bytes()
    assert data == (tmp_path / "b").read_bytes()
    opened = safetensors.numpy.load_file(tmp_path / "a")
    assert opened.keys() == model.keys()
    for name, (dtype, shape, buffer) in model.items():
        assert (opened[name].dtype.name, opened[name].shape) == (dtype, shape)
        assert opened[name].tobytes() == bytes(memoryview(buffer).tobytes())


def test_the_layout_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = {"b": ("uint8", (1,), b"\x07"), "z": ("int16", (1,), b"\x01\x02"), "a": ("uint8", (2,), b"\x08\x09")}
    sizes: list[int] = []
    monkeypatch.setattr("chaincode.models.allocate", lambda file, size: sizes.append(size))
    write_safetensors(tmp_path / "m", model)
    header = (
        b'{"a":{"data_offsets":[2,4],"dtype":"U8","shape":[2]},"b":{"data_offsets":[4,5],"dtype":"U8","shape":[1]},'
        b'"z":{"data_offsets":[0,2],"dtype":"I16","shape":[1]}}'
    )
    header += b" " * (-len(header) % 8)
    expected = len(header).to_bytes(8, "little") + header + b"\x01\x02" + b"\x08\x09" + b"\x07"
    assert (tmp_path / "m").read_bytes() == expected
    assert sizes == [len(expected)]


def test_reading_copies_nothing() -> None:
    data = np.frombuffer(model_bytes(MODEL), np.uint8)
    for tensor in read_safetensors(data).values():
        assert isinstance(tensor, Tensor)
        assert tensor.data.readonly
        assert not len(tensor.data) or np.shares_memory(np.frombuffer(tensor.data, np.uint8), data)


def model_bytes(model: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write_safetensors(Path(folder) / "m", model, fsync=False)
        return (Path(folder) / "m").read_bytes()


@st.composite
def models(draw: st.DrawFn) -> dict[str, Tensor]:
    model = {}
    for name in draw(st.sets(st.from_regex(r"[!-~]{1,12}", fullmatch=True), max_size=6)):
        dtype = draw(st.sampled_from(sorted(DTYPES)))
        shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
        size = int(np.prod(shape, dtype=int)) * DTYPES[dtype][1]
        data = draw(st.binary(min_size=size, max_size=size))
        model[name] = Tensor(dtype, shape, memoryview(bytes(b & 1 for b in data) if dtype == "bool" else data))
    return model


@settings(deadline=None)
@given(models())
def test_every_model_survives_its_file(model: dict[str, Tensor]) -> None:
    data = model_bytes(model)
    back = read_safetensors(data)
    assert back == model
    assert list(back) == sorted(model)
    assert model_digest(back) == model_digest(model)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    for name, entry in header.items():  # every tensor is aligned to its items, from the start of the file on
        start = 8 + int.from_bytes(data[:8], "little") + entry["data_offsets"][0]
        assert start % DTYPES[model[name].dtype][1] == 0


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ([("a", "uint8", (1,), b"1"), ("a", "uint8", (1,), b"1")], "model-name"),
        ({"": ("uint8", (1,), b"1")}, "model-name"),
        ({"a b": ("uint8", (1,), b"1")}, "model-name"),
        ({"é": ("uint8", (1,), b"1")}, "model-name"),
        ({"x" * 201: ("uint8", (1,), b"1")}, "model-name"),
        ({"__metadata__": ("uint8", (1,), b"1")}, "model-name"),
        ({"a": ("float8", (1,), b"1")}, "model-dtype"),
        ({"a": ("F32", (1,), b"1234")}, "model-dtype"),
        ({"a": ("uint8", (2,), b"1")}, "model-shape"),
        ({"a": ("uint8", (-1,), b"1")}, "model-shape"),
        ({"a": ("uint8", (1.0,), b"1")}, "model-shape"),
        ({"a": ("uint8", (True,), b"1")}, "model-shape"),
        ({"a": ("uint8", (1,) * 9, b"1")}, "model-shape"),
        ({"a": ("uint8", (2**41, 0), b"")}, "model-shape"),
        ({"a": ("bool", (2,), b"\x01\x02")}, "model-bool"),
    ],
)
def test_what_is_no_model_has_no_digest_and_no_file(model: object, code: str, tmp_path: Path) -> None:
    for use in (model_digest, lambda m: write_safetensors(tmp_path / "m", m)):
        with pytest.raises(EvidenceError) as caught:
            use(model)  # type: ignore[operator]
        assert caught.value.code == code
    assert list(tmp_path.iterdir()) == []
