# SPDX-License-Identifier: Apache-2.0
"""Many delivered files become evidence at once: bytes first, then names, and durable when the call returns."""

import os
from pathlib import Path

import pytest

from chaincode.blobs import BlobStore
from chaincode.chunks import chunk_root
from chaincode.writeback import forget, start_writing_back
from identity.errors import EvidenceError

BLOB = bytes(range(256)) * 5000
DIGEST = chunk_root(BLOB)


@pytest.mark.parametrize("count", [0, 1, 30])
def test_adopting_many_is_durable_when_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    # A name that outlives a power cut must not stand for bytes that do not: bytes first, then names.
    happened: list[str] = []
    real_sync, real_rename = os.fsync, os.rename

    def fsync(handle: int) -> None:
        real_sync(handle)
        happened.append(os.readlink(f"/proc/self/fd/{handle}"))

    def rename(source: Path, target: Path) -> None:
        real_rename(source, target)
        happened.append(f"to {target}")

    blobs = [bytes([i]) * 3000 for i in range(count)]
    moves: list[tuple[Path | str, str]] = []
    for i, blob in enumerate(blobs):
        (tmp_path / f"update-{i}").write_bytes(blob)
        (tmp_path / f"update-{i}").chmod(0o600)
        moves.append((tmp_path / f"update-{i}", chunk_root(blob)))
    store = BlobStore(tmp_path / "blobs")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    store.adopt_all(moves)
    names = [f"to {store.path(digest)}" for _, digest in moves]
    assert sorted(happened[:count]) == sorted(str(path) for path, _ in moves)
    assert happened[count : 2 * count] == names
    paths = {store.path(digest) for _, digest in moves}
    folders = {p.parent for p in paths} | {p.parent.parent for p in paths} | {store.folder for _ in moves}
    assert sorted(happened[2 * count :]) == sorted(map(str, folders))
    for blob in blobs:
        with store.open(chunk_root(blob)) as data:
            assert data == blob


def test_nothing_moves_where_one_of_many_is_no_file(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", fsync=False)
    good, link = tmp_path / "good", tmp_path / "link"
    good.write_bytes(BLOB)
    link.symlink_to(good)
    with pytest.raises(EvidenceError) as caught:
        store.adopt_all([(good, DIGEST), (link, chunk_root(b""))])
    assert caught.value.code == "file-not-regular"
    assert good.read_bytes() == BLOB
    assert not store.find([DIGEST])


def test_advice_about_files_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(BLOB)
    for there in (path, tmp_path, tmp_path / "missing"):
        for where in ((), (4096, 4096), (1 << 40, 1)):
            start_writing_back(there, *where)
            forget(there, *where)
    assert path.read_bytes() == BLOB


def test_a_second_name_does_not_lead_to_evidence(tmp_path: Path) -> None:
    delivered, other = tmp_path / "update", tmp_path / "other"
    delivered.write_bytes(BLOB)
    delivered.chmod(0o600)
    os.link(delivered, other)
    store = BlobStore(tmp_path / "blobs", fsync=False)
    store.adopt(delivered, DIGEST)
    other.write_bytes(b"changed")
    with store.open(DIGEST) as data:
        assert data == BLOB
    assert not delivered.exists()


def test_a_file_that_others_may_write_is_copied(tmp_path: Path) -> None:
    delivered = tmp_path / "update"
    delivered.write_bytes(BLOB)
    delivered.chmod(0o660)
    with delivered.open("r+b") as held:  # as another user could hold it
        store = BlobStore(tmp_path / "blobs", fsync=False)
        store.adopt(delivered, DIGEST)
        held.write(b"changed")
    with store.open(DIGEST) as data:
        assert data == BLOB
    assert store.path(DIGEST).stat().st_mode & 0o077 == 0
