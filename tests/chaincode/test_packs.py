# SPDX-License-Identifier: Apache-2.0
"""Packs: every blob comes back, and no bytes of a pack do harm."""

import re
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaincode import packs
from chaincode.blobs import BlobStore
from chaincode.chunks import chunk_root
from chaincode.packs import Packs, read_index, write_packs
from identity import canonical
from identity.errors import EvidenceError

BLOBS = [(chunk_root(blob), blob) for blob in (b"one", b"", b"three" * 100, b"four\n")]


@pytest.mark.parametrize("buffer", [2, 100, packs.LARGE_BUFFER])
def test_every_blob_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, buffer: int) -> None:
    monkeypatch.setattr(packs, "MOST", 3)
    monkeypatch.setattr(packs, "LARGE_BUFFER", buffer)
    paths = write_packs(tmp_path / "packs", BLOBS, fsync=True)
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o600, 0o600]
    found = Packs(tmp_path / "packs").find([digest for digest, _ in BLOBS] + ["0" * 64])
    assert found.keys() == dict(BLOBS).keys()
    for digest, blob in BLOBS:
        with found[digest].open() as data:
            assert data == blob


@pytest.mark.parametrize("strange", [("a" * 64, bytes(packs.SMALL + 1)), ("A" * 64, b""), ("../x", b"")])
def test_what_no_reader_would_take_is_not_written(tmp_path: Path, strange: tuple[str, bytes]) -> None:
    with pytest.raises(ValueError, match="a pack holds"):
        write_packs(tmp_path / "packs", [*BLOBS, strange], fsync=False)
    assert not (tmp_path / "packs").exists()


@pytest.mark.parametrize("fsync", [True, False])
def test_a_new_folder_of_packs_outlives_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(packs, "sync", synced.append)
    write_packs(tmp_path / "packs", BLOBS, fsync=fsync)
    assert synced == ([tmp_path] if fsync else [])


def test_packs_that_come_later_are_seen(tmp_path: Path) -> None:
    reader = Packs(tmp_path / "packs")
    for digest, blob in BLOBS:
        assert not reader.find([digest])
        write_packs(tmp_path / "packs", [(digest, blob)], fsync=False)
        assert reader.find([digest])


def test_a_store_finds_files_and_packs(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    (loose, body), *small = BLOBS
    store.put(body, loose)
    store.put_small(small)
    assert store.find([digest for digest, _ in BLOBS]).keys() == dict(BLOBS).keys()
    for digest, blob in BLOBS:
        assert store.find([digest])
        with store.open(digest) as data:
            assert data == blob
    assert not store.find(["0" * 64])
    with pytest.raises(EvidenceError) as refused, store.open("0" * 64):
        pass
    assert refused.value.code == "blob-missing"


def test_a_folder_of_packs_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    write_packs(tmp_path / "elsewhere", BLOBS, fsync=False)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "packs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EvidenceError) as refused:
        BlobStore(tmp_path / "blobs").find([BLOBS[0][0]])
    assert refused.value.code == "file-not-regular"


def forged(folder: Path, data: bytes) -> Path:
    """A pack under the name of its first line, so that it is not refused for that."""
    line = data[: data.find(b"\n") + 1]
    path = folder / f"{sha256(line).hexdigest()}.pack"
    path.write_bytes(data)
    return path


D = "a" * 64
HOSTILE = [
    b"", b"\n", b"{}\n", b"[]", b"null\n", b"[[]]\n", b"[1]\n", b'[["a",1]]\n1',
    f'[["{D}",1]]\n'.encode(), f'[["{D}",1]]\n12'.encode(), f'[["{D}",-1],["{D}",1]]\n'.encode(), f'[["{D}",true]]\n1'.encode(),
    f'[["{D}", 1]]\n1'.encode(), f'[["{D.upper()}",1]]\n1'.encode(), f'[["{D}",1,1]]\n1'.encode(), f'[["{D}",{2**53}]]\n'.encode(),
    f'[["{D}",{packs.SMALL + 1}]]\n'.encode() + bytes(packs.SMALL + 1), b"[" * 600_000, b" " * 600_000 + b"\n",
]  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_packs_are_refused(tmp_path: Path, data: bytes) -> None:
    path = forged(tmp_path, data)
    with pytest.raises(EvidenceError) as refused:
        read_index(path)
    assert refused.value.code == "pack-malformed"
    assert str(path) in refused.value.message


@given(st.binary(max_size=200), st.integers(0, 200))
def test_changed_bytes_are_refused_or_change_a_blob_only(
    tmp_path_factory: pytest.TempPathFactory, new: bytes, at: int
) -> None:
    folder = tmp_path_factory.mktemp("packs")
    (path,) = write_packs(folder, BLOBS, fsync=False)
    honest = path.read_bytes()
    path.write_bytes(honest[:at] + new + honest[at + len(new) :])
    with suppress(EvidenceError):
        for place in read_index(path).values():
            with place.open() as data:
                assert len(data) == place.size


def test_a_pack_under_another_name_is_refused(tmp_path: Path) -> None:
    """A bit that changes a digest in its first line would make one blob missing and another appear, both unseen."""
    (path,) = write_packs(tmp_path, BLOBS, fsync=False)
    data = bytearray(path.read_bytes())
    data[5] = ord("0") if data[5] != ord("0") else ord("1")
    path.write_bytes(data)
    with pytest.raises(EvidenceError) as refused:
        read_index(path)
    assert refused.value.code == "pack-malformed"
    said: list[str] = []
    assert not Packs(tmp_path, warn=said.append).find(dict(BLOBS))
    assert [str(path) in text for text in said] == [True]


def test_a_line_is_canonical_json(tmp_path: Path) -> None:
    (path,) = write_packs(tmp_path, BLOBS, fsync=False)
    line = canonical.dumps([[digest, len(blob)] for digest, blob in BLOBS]) + b"\n"
    assert path.read_bytes() == line + b"".join(blob for _, blob in BLOBS)
    assert path.name == f"{sha256(line).hexdigest()}.pack"


@given(
    st.lists(st.tuples(st.sampled_from([D, "b" * 64, "A" * 64]), st.integers(-1, packs.SMALL + 1)), max_size=4),
    st.data(),
)
def test_a_first_line_is_read_exactly_where_it_is_canonical(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]], data: st.DataObject
) -> None:
    """The pattern and the parser of canonical JSON say the same of every line."""
    line = bytearray(canonical.dumps([list(row) for row in rows]))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(line)))
        line[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b" ", b",", b"[", b"]", b"0", b'"', b"\n"])
        )
    stated = sum(max(0, size) for _, size in rows)
    path = forged(tmp_path_factory.mktemp("packs"), bytes(line) + b"\n" + bytes(stated))
    try:
        value = canonical.loads(bytes(line), limit=packs.LINE_LIMIT, depth=2)
        good = all(type(n) is int and 0 <= n <= packs.SMALL and re.fullmatch("[0-9a-f]{64}", d) for d, n in value)
        good = good and sum(n for _, n in value) == stated
    except (EvidenceError, TypeError, ValueError):
        good = False
    try:
        read_index(path)
    except EvidenceError:
        assert not good
    else:
        assert good
