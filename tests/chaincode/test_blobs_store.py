# SPDX-License-Identifier: Apache-2.0
"""The blob store: whole files under their digests, whoever else writes, and nothing from outside of its folder."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from chaincode.blobs import BlobStore
from chaincode.chunks import CHUNK, chunk_root
from chaincode.files import mapped, replacing
from identity.errors import EvidenceError

BLOB = bytes(range(256)) * 5000
DIGEST = chunk_root(BLOB)


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs", fsync=False)


def files_below(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if not p.is_dir()]


def refused(store: BlobStore, digest: str = DIGEST) -> str:
    with pytest.raises(EvidenceError) as caught, store.open(digest):
        pass
    return caught.value.code


@pytest.mark.parametrize("fsync", [False, True])
def test_what_is_put_is_found_under_its_digest(tmp_path: Path, fsync: bool) -> None:
    store = BlobStore(tmp_path / "deep" / "blobs", fsync=fsync)
    assert not store.find([DIGEST])
    path = store.put(BLOB, DIGEST)
    assert path == store.path(DIGEST) == tmp_path / "deep" / "blobs" / DIGEST[:2] / DIGEST[2:4] / DIGEST
    assert store.find([DIGEST])
    with store.open(DIGEST) as view:
        assert view.readonly
        assert view == BLOB
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_pieces_and_empty_blobs(store: BlobStore) -> None:
    store.put((BLOB[i : i + 999] for i in range(0, len(BLOB), 999)), DIGEST)
    empty = chunk_root(b"")
    store.put(b"", empty)
    store.put([], empty)
    with store.open(DIGEST) as view, store.open(empty) as nothing:
        assert (view, len(nothing)) == (BLOB, 0)


def test_other_bytes_are_not_stored(store: BlobStore) -> None:
    with pytest.raises(EvidenceError) as caught:
        store.put(BLOB + b"!", DIGEST)
    assert caught.value.code == "blob-digest"
    assert not store.find([DIGEST])
    assert files_below(store.folder) == []


def test_a_write_that_fails_half_way_leaves_what_was_there(store: BlobStore) -> None:
    store.put(BLOB, DIGEST)

    def pieces():  # type: ignore[no-untyped-def]
        yield BLOB[:CHUNK]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        store.put(pieces(), DIGEST)
    with store.open(DIGEST) as view:
        assert view == BLOB
    assert files_below(store.folder) == [store.path(DIGEST)]


def test_putting_again_replaces_a_damaged_file_and_spares_its_readers(store: BlobStore) -> None:
    path = store.put(BLOB, DIGEST)
    with store.open(DIGEST) as view:
        store.put(BLOB, DIGEST)
        assert view == BLOB
    path.write_bytes(b"damaged")
    store.put(BLOB, DIGEST)
    with store.open(DIGEST) as view:
        assert view == BLOB


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "a" * 63,
        "A" * 64,
        "a" * 65,
        "a" * 64 + "\n",
        "../" + "a" * 61,
        None,
    ],
)
def test_a_name_that_is_no_digest_never_becomes_a_path(store: BlobStore, name: str, tmp_path: Path) -> None:
    source = tmp_path / "delivered"
    source.write_bytes(b"x")
    for use in (store.path, lambda n: store.find([n]), lambda n: store.put(b"x", n), lambda n: store.adopt(source, n)):
        with pytest.raises(EvidenceError) as caught:
            use(name)
        assert caught.value.code == "blob-name"
    assert refused(store, name) == "blob-name"
    assert source.exists()
    assert not store.folder.exists()


def test_adopting_moves_the_file_and_believes_it(store: BlobStore, tmp_path: Path) -> None:
    delivered = tmp_path / "delivered"
    delivered.write_bytes(b"not those bytes")
    delivered.chmod(0o600)
    inode = delivered.stat().st_ino
    assert store.adopt(delivered, DIGEST).stat().st_ino == inode
    assert not delivered.exists()
    with store.open(DIGEST) as view:  # the reader verifies: adopt says that it does not
        assert chunk_root(view) != DIGEST


MEMORY = Path("/dev/shm")  # noqa: S108 - a second file system, not a place for temporary files


@pytest.mark.skipif(not MEMORY.is_dir(), reason="needs a second file system")
def test_adopting_from_another_file_system_copies(store: BlobStore) -> None:
    delivered = MEMORY / f"fedledger-test-{os.getpid()}"
    delivered.write_bytes(BLOB)
    try:
        store.adopt(delivered, DIGEST)
        assert not delivered.exists()
    finally:
        delivered.unlink(missing_ok=True)
    with store.open(DIGEST) as view:
        assert view == BLOB


def test_what_is_missing_is_named(store: BlobStore) -> None:
    assert refused(store) == "blob-missing"
    store.folder.mkdir()
    assert refused(store) == "blob-missing"


def test_links_folders_pipes_and_sockets_are_refused(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.put(BLOB, DIGEST)
    secret = tmp_path / "secret"
    secret.write_bytes(BLOB)
    path.unlink()
    for make in (path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to(secret)):
        make()
        assert not store.find([DIGEST])
        assert refused(store) == "file-not-regular"
        with pytest.raises(EvidenceError) as caught:
            store.adopt(path, "0" * 64)
        assert caught.value.code == "file-not-regular"
        path.rmdir() if path.is_dir() else path.unlink()
    monkeypatch.chdir(path.parent)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(DIGEST)
        assert refused(store) == "file-not-regular"


@pytest.mark.parametrize("level", [2, 3])
def test_a_linked_folder_does_not_lead_out_of_the_store(store: BlobStore, tmp_path: Path, level: int) -> None:
    path = store.put(BLOB, DIGEST)
    folder = path.parents[level - 2]
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    assert refused(store) == "file-not-regular"
    with pytest.raises(EvidenceError) as caught:
        store.put(BLOB, DIGEST)
    assert caught.value.code == "file-not-regular"


def test_a_view_outlives_its_block(store: BlobStore) -> None:
    store.put(BLOB, DIGEST)
    with store.open(DIGEST) as view:
        part = view[256:512]
    store.path(DIGEST).unlink()
    assert part == BLOB[256:512]


def test_a_mapped_file_may_be_reached_by_a_link_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"bytes")
    (tmp_path / "link").symlink_to("file")
    with mapped(tmp_path / "link", follow_links=True) as view:
        assert view == b"bytes"
    with pytest.raises(EvidenceError), mapped(tmp_path / "link"):
        pass
    with pytest.raises(FileNotFoundError), mapped(tmp_path / "nothing"):
        pass


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupted() -> None:
        with replacing(path, fsync=True) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    with replacing(path, fsync=True) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert files_below(tmp_path) == [path]


PUTTER = """
import sys
from chaincode.blobs import BlobStore
store, blob = BlobStore(sys.argv[1], fsync=False), bytes(range(256)) * 5000
print("ready", flush=True)
for _ in range(200):
    store.put(blob, sys.argv[2])
"""


def test_processes_that_put_the_same_blob_do_not_disturb_readers(store: BlobStore) -> None:
    command = [sys.executable, "-c", PUTTER, str(store.folder), DIGEST]
    root = str(Path(__file__).parents[2])
    putters = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) for _ in range(2)]
    for putter in putters:
        assert putter.stdout is not None
        assert putter.stdout.readline() == b"ready\n"
    store.put(BLOB, DIGEST)
    reads = 0
    while any(putter.poll() is None for putter in putters) or not reads:
        with store.open(DIGEST) as view:
            assert view == BLOB
        reads += 1
    for putter in putters:
        putter.communicate()
        assert putter.returncode == 0
    assert files_below(store.folder) == [store.path(DIGEST)]
