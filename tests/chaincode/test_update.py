# SPDX-License-Identifier: Apache-2.0
"""Encoding: the fast version gives the plain version's integers, to the bit, for every hostile number."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from chaincode.agreement import TensorSpec
from chaincode.chunks import CHUNK, chunk_root
from chaincode.files import replacing
from chaincode.header import format_header, parse_header
from chaincode.update import (
    PIECE,
    SLICE,
    blob_size,
    check_range,
    encode,
    encode_tensors,
    encode_to,
    runs,
    slices,
    tensor_at,
    vector_length,
)
from identity.errors import EvidenceError
from tests.chaincode.test_update_oracle import (
    header,
    hostile_floats,
    plain_encode,
    plain_root,
    site_blob,
    spec,
    tensor_specs,
)


def _vector(data: st.DataObject, specs: list[TensorSpec], finite: bool) -> list[float]:
    return [v for one in specs if one.rule == "mean" for v in
            data.draw(st.lists(hostile_floats(one, finite=finite), min_size=one.elements, max_size=one.elements))]  # fmt: skip


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from([("int32", 30), ("int64", 52)]), st.booleans(), st.booleans())
def test_integers_equal_the_plain_version(
    data: st.DataObject, kind: tuple[str, int], based: bool, finite: bool
) -> None:
    encoding, limit = kind
    specs = data.draw(tensor_specs(limit))
    new = _vector(data, specs, finite)
    base = [data.draw(st.sampled_from([v, -v, 0.0, 1.0, 2.0**-149])) for v in new] if based else None
    arrays = np.array(new, np.float32), None if base is None else np.array(base, np.float32)
    try:
        expected = plain_encode(new, base, specs)
    except ValueError as refused:
        with pytest.raises(EvidenceError, match=f"tensor {refused} ") as caught:
            encode(*arrays, specs, encoding)
        assert caught.value.code == "update-not-finite"
    else:
        actual = encode(*arrays, specs, encoding)
        assert actual.tolist() == expected
        assert actual.dtype == np.dtype({"int32": "<i4", "int64": "<i8"}[encoding])


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from([("int32", 30), ("int64", 52)]), st.booleans())
def test_tensors_give_the_bytes_of_their_vectors(data: st.DataObject, kind: tuple[str, int], finite: bool) -> None:
    encoding, limit = kind
    specs = data.draw(tensor_specs(limit))
    mean = [one for one in specs if one.rule == "mean"]
    new = np.array(_vector(data, specs, finite), np.float32)
    base = np.array([data.draw(st.sampled_from([v, -v, 0.0, 1.0, 2.0**-149])) for v in new.tolist()], np.float32)
    ends = np.cumsum([one.elements for one in mean], dtype=int)
    head = header(length=len(new), encoding=encoding)

    def outcome(encoder: Any, *arrays: Any) -> tuple[Any, bytes]:
        written = bytearray()
        try:
            return encoder(head, *arrays, specs, written.extend), bytes(written)
        except EvidenceError as error:
            return (error.code, error.message), b""

    parts = [
        [v[end - one.elements : end].reshape(one.shape) for end, one in zip(ends, mean, strict=True)]
        for v in (new, base)
    ]
    assert outcome(encode_tensors, *parts) == outcome(encode_to, new, base)


def test_tensors_longer_and_shorter_than_a_slice_share_slices() -> None:
    shapes = [(3,), (2 * SLICE + 5,), (7, 11), (), (SLICE - 9,)]
    specs = [spec(f"t{i}", *shape, clip=i % 3 - 4, bits=20) for i, shape in enumerate(shapes)]
    rng = np.random.default_rng(5)
    new, base = ([rng.normal(0, 0.1, s).astype(np.float32) for s in shapes] for _ in range(2))
    vectors = [np.concatenate([t.reshape(-1) for t in tensors]) for tensors in (new, base)]
    pieces, whole = bytearray(), bytearray()
    head = header(length=vector_length(specs))
    assert encode_tensors(head, new, base, specs, pieces.extend) == encode_to(head, *vectors, specs, whole.extend)
    assert pieces == whole
    start = parse_header(whole)[1]
    assert bytes(whole[start:]) == encode(*vectors, specs, "int32").tobytes()


@pytest.mark.parametrize("wrong", [
    lambda a: [a[0].astype(np.float64), a[1]],
    lambda a: [a[0].T, a[1]],
    lambda a: [a[0][:1], a[1]],
    lambda a: [a[0]],
    lambda a: [*a, a[1]],
])  # fmt: skip
def test_other_tensors_are_refused(wrong: Any) -> None:
    specs, right = [spec("a", 2, 3), spec("b", 4)], [np.zeros((2, 3), np.float32), np.zeros(4, np.float32)]
    for new, base in ((wrong(right), right), (right, wrong(right))):
        with pytest.raises(ValueError):  # noqa: PT011 (zip has its own words)
            encode_tensors(header(length=10), new, base, specs, bytearray().extend)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("index", [0, SLICE - 1, SLICE, 2 * SLICE + 4])
def test_nan_and_infinity_name_their_tensor(bad: float, index: int) -> None:
    specs = [spec("first", SLICE), spec("skipped", 9, rule="keep"), spec("empty", 0), spec("second", SLICE + 5)]
    vector = np.zeros(vector_length(specs), np.float32)
    vector[index] = bad
    name = "first" if index < SLICE else "second"
    for new, base in ((vector, None), (vector, np.ones_like(vector)), (np.ones_like(vector), vector)):
        with pytest.raises(EvidenceError, match=f"tensor {name} .*element {index} ") as caught:
            encode(new, base, specs, "int32")
        assert caught.value.code == "update-not-finite"


def test_a_difference_beyond_float32_is_refused_not_clipped() -> None:
    new, base = np.array([3e38], np.float32), np.array([-3e38], np.float32)
    with pytest.raises(EvidenceError) as caught:
        encode(new, base, [spec("w", 1)], "int32")
    assert caught.value.code == "update-not-finite"


def test_many_slices_equal_binary64_arithmetic() -> None:
    # Different clips meet inside slices, and runs are longer than a slice.
    specs = [
        spec("a", 3 * SLICE + 17, clip=-3, bits=24),
        spec("b", 5, clip=2, bits=20),
        spec("c", SLICE, clip=2, bits=20),
    ]
    rng = np.random.default_rng(1)
    base = rng.normal(0, 1, vector_length(specs)).astype(np.float32)
    new = (base + rng.normal(0, 0.1, len(base)).astype(np.float32)).astype(np.float32)
    delta, expected = (new - base).astype(np.float64), np.empty(len(base), np.int32)
    for low, high, clip, bits in ((0, 3 * SLICE + 17, -3, 24), (3 * SLICE + 17, len(base), 2, 20)):
        part = np.clip(delta[low:high], -(2.0**clip), 2.0**clip)
        assert low or (np.abs(delta[low:high]) > 2.0**clip).any()
        expected[low:high] = np.rint(part * 2.0**bits)
    assert np.array_equal(encode(new, base, specs, "int32"), expected)


def test_runs_join_equal_neighbours_and_slices_cover_a_shard_once() -> None:
    specs = [spec("a", 2), spec("b", SLICE + 1), spec("gap", 7, rule="local"), spec("c", 3), spec("d", 4, clip=1)]
    parts = runs(specs, "int32")
    assert [(p.start, p.stop, p.bound) for p in parts] == [(0, SLICE + 6, 2**20), (SLICE + 6, SLICE + 10, 2**21)]
    pieces = list(slices(parts, 1, SLICE + 8))
    assert [(p.start, p.stop) for p in pieces] == [(1, SLICE + 1), (SLICE + 1, SLICE + 6), (SLICE + 6, SLICE + 8)]
    assert [tensor_at(specs, i).name for i in (0, 1, 2, SLICE + 3, SLICE + 6)] == ["a", "a", "b", "c", "d"]
    with pytest.raises(IndexError):
        tensor_at(specs, SLICE + 10)


@pytest.mark.parametrize(
    ("encoding", "clip", "bits"),
    [("int32", 0, 31), ("int32", 11, 20), ("int64", 0, 53), ("int32", -3, 2), ("int64", -20, 61), ("int32", 5, -1)],
)
def test_a_scale_that_does_not_fit_is_refused(encoding: str, clip: int, bits: int) -> None:
    with pytest.raises(EvidenceError) as caught:
        encode(np.zeros(1, np.float32), None, [spec("w", 1, clip=clip, bits=bits)], encoding)
    assert caught.value.code == "update-scale"


@pytest.mark.parametrize(("encoding", "bits"), [("int32", 30), ("int64", 52)])
def test_the_largest_scale_reaches_its_bound_exactly(encoding: str, bits: int) -> None:
    vector = np.array([1, -1, 2, -np.float32(2**-24)], np.float32)
    values = encode(vector, None, [spec("w", 4, bits=bits)], encoding)
    assert values.tolist() == [2**bits, -(2**bits), 2**bits, -(2 ** (bits - 24))]


@pytest.mark.parametrize(
    "bad",
    [np.zeros(3, np.float32), np.zeros(4, np.float64), np.zeros((2, 2), np.float32), np.zeros(8, np.float32)[::2]],
)
def test_other_vectors_are_refused(bad: np.ndarray) -> None:
    good = np.zeros(4, np.float32)
    for new, base in ((bad, good), (good, bad), (bad, None)):
        with pytest.raises(ValueError, match="contiguous float32 vector of 4"):
            encode(new, base, [spec("w", 4)], "int32")


@pytest.mark.parametrize("encoding", ["int32", "int64"])
def test_a_blob_is_its_header_and_its_integers(tmp_path: Path, encoding: str) -> None:
    specs = [spec("a", CHUNK // 4), spec("b", 3, 5, clip=1), spec("c")]  # a chunk ends inside an integer of a
    vector = np.linspace(-2, 2, vector_length(specs), dtype=np.float32)
    head = header(length=len(vector), encoding=encoding)
    with replacing(tmp_path / "u", fsync=False) as file:
        digest, size = encode_to(head, vector, np.zeros_like(vector), specs, file.write)
    data = (tmp_path / "u").read_bytes()
    assert data == format_header(head) + encode(vector, None, specs, encoding).tobytes()
    assert (digest, size) == (plain_root(data), len(data)) == (chunk_root(data), len(data))
    assert (tmp_path / "u").stat().st_mode & 0o777 == 0o600
    assert parse_header(data) == (head, len(format_header(head)))
    assert blob_size(head, specs) == size
    with pytest.raises(EvidenceError, match="model has"):
        blob_size(head, specs[1:])


def test_a_refused_update_leaves_no_file(tmp_path: Path) -> None:
    vector = np.zeros(SLICE + 1, np.float32)
    vector[-1] = np.nan
    with pytest.raises(EvidenceError), replacing(tmp_path / "u", fsync=False) as file:
        encode_to(header(length=len(vector)), vector, None, [spec("w", len(vector))], file.write)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_told_by_the_name_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "none" / "u", fsync=False):
        pass
    assert caught.value.filename == str(tmp_path / "none" / "u")


def test_an_empty_vector_has_a_blob_of_its_header_alone() -> None:
    head = header(length=0)
    assert site_blob(head, np.zeros(0), [spec("w", 3, 0)]) == format_header(head)


def test_the_header_must_count_the_elements() -> None:
    with pytest.raises(EvidenceError) as caught:
        site_blob(header(length=3), np.zeros(4), [spec("w", 4)])
    assert caught.value.code == "update-length"


def test_encoding_needs_a_constant_amount_of_memory() -> None:
    length = 40 * SLICE
    new, base, specs = np.ones(length, np.float32), np.zeros(length, np.float32), [spec("w", length)]
    tracemalloc.start()
    try:
        encode_to(header(length=length), new, base, specs, len)
        assert tracemalloc.get_traced_memory()[1] < (PIECE + 3 * SLICE) * 4 < new.nbytes
    finally:
        tracemalloc.stop()


@given(st.lists(st.integers(-20, 20), min_size=6, max_size=6), st.sampled_from(["int32", "int64"]), st.integers(0, 9))
@example([8, -8, 16, -16, 16, 16], "int32", 3)
@example([8, -9, 0, 0, 0, 0], "int32", 1)
def test_the_range_check_finds_every_value_beyond_its_own_clip(values: list[int], encoding: str, offset: int) -> None:
    specs = [spec("a", 2, bits=3), spec("no", 5, rule="keep"), spec("b", 2, 2, bits=4)]
    bounds = [8, 8, 16, 16, 16, 16]
    raw = bytes(offset) + np.array(values, encoding).tobytes()
    body = memoryview(raw)[offset:]
    beyond = [i for i in range(6) if abs(values[i]) > bounds[i]]
    if not beyond:
        check_range(body, specs, encoding)
        return
    with pytest.raises(
        EvidenceError, match=f"tensor {'a' if beyond[0] < 2 else 'b'}, .*element {beyond[0]} "
    ) as caught:
        check_range(body, specs, encoding)
    assert caught.value.code == "update-beyond-clip"


def test_the_smallest_integers_are_beyond_every_clip() -> None:
    for encoding, bits in (("int32", 30), ("int64", 52)):
        body = np.array([np.iinfo(encoding).min], encoding).tobytes()
        with pytest.raises(EvidenceError) as caught:
            check_range(body, [spec("w", 1, bits=bits)], encoding)
        assert caught.value.code == "update-beyond-clip"


@pytest.mark.parametrize("size", [0, 15, 17, 20])
def test_a_body_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(EvidenceError) as caught:
        check_range(bytes(size), [spec("w", 4)], "int32")
    assert caught.value.code == "update-length"
