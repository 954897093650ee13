# SPDX-License-Identifier: Apache-2.0
"""Packs in a store, for a long time: broken ones, left-over ones, many of them, and such as move there whole."""

import errno
import os
import tracemalloc
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from chaincode import packs
from chaincode.blobs import BlobStore
from chaincode.chunks import chunk_root
from chaincode.packs import Packs, read_index, write_packs
from chaincode.place import Place
from identity import canonical
from identity.errors import EvidenceError
from tests.chaincode.test_packs import BLOBS, D, forged


def test_a_pack_that_cannot_be_read_is_named_once_and_the_others_serve(tmp_path: Path) -> None:
    (one, first), *others = BLOBS
    (path,) = write_packs(tmp_path / "packs", [(one, first)], fsync=False)
    write_packs(tmp_path / "packs", others, fsync=False)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    said: list[str] = []
    store = BlobStore(tmp_path, fsync=False, warn=said.append)
    for _ in range(2):
        assert store.find([digest for digest, _ in BLOBS]).keys() == dict(others).keys()
        with pytest.raises(EvidenceError) as missing, store.open(one):
            pass
        assert missing.value.code == "blob-missing"
    (text,) = said
    assert str(path) in text
    assert "pack-malformed" in text
    path.write_bytes(whole)  # restored from a copy
    assert store.find([one])


def test_a_run_is_told_what_to_do_about_a_broken_pack(tmp_path: Path) -> None:
    forged(tmp_path, b"")
    with pytest.warns(RuntimeWarning, match="pack-malformed.*missing.*Next: fedledger audit verify"):
        assert not Packs(tmp_path).find([D])


def test_what_this_process_lacks_is_not_blamed_on_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_packs(tmp_path, BLOBS, fsync=False)

    def none_left(path: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(packs, "mapped", none_left)
    with pytest.raises(OSError, match="Too many"):
        Packs(tmp_path).find([D])


def test_a_blobs_own_file_goes_before_packs_for_every_reader(tmp_path: Path) -> None:
    """So what is stored anew in the place of damaged bytes is what is found."""
    digest, body = BLOBS[2]
    store = BlobStore(tmp_path, fsync=False)
    store.put_small(BLOBS)
    (pack,) = (tmp_path / "packs").iterdir()
    pack.write_bytes(pack.read_bytes().replace(b"three", b"THREE"))
    store.put(body, digest)
    for reader in (store, BlobStore(tmp_path)):
        assert reader.find([digest]) == {digest: Place(str(store.path(digest)))}
        with reader.open(digest) as opened, reader.find([digest])[digest].open() as found:
            assert opened == found == body


def test_all_blobs_of_many_packs_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "_PREFIX", 1)  # many digests begin alike
    blobs = [(chunk_root(b"%d" % n), b"%d" % n) for n in range(200)]
    for first in range(0, 200, 3):
        write_packs(tmp_path, blobs[first : first + 3], fsync=False)
    reader = Packs(tmp_path)
    for digest, blob in [*blobs, *reversed(blobs)]:
        with reader.find([digest])[digest].open() as data:
            assert data == blob
    assert reader.find(dict(blobs)).keys() == dict(blobs).keys()
    assert not reader.find([D])


def test_blobs_are_opened_in_any_order_without_reading_a_pack_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export opens them in the order of their names, which is none of the packs'. And few bytes of each stay in memory."""
    blobs = [(sha256(b"%d" % n).hexdigest(), b"%d" % n) for n in range(20_000)]
    for first in range(0, len(blobs), 1000):
        write_packs(tmp_path / "packs", blobs[first : first + 1000], fsync=False)
    read: list[Path] = []
    listing = packs._listing

    def counting(path: Path) -> tuple[bytes, list[tuple[str, int]]]:
        read.append(path)
        return listing(path)

    monkeypatch.setattr(packs, "_listing", counting)
    tracemalloc.start()
    try:
        store = BlobStore(tmp_path, fsync=False)
        store.find([blobs[0][0]])
        assert tracemalloc.get_traced_memory()[0] < 75 * len(blobs)  # one pack of objects may linger
    finally:
        tracemalloc.stop()
    for digest, blob in sorted(blobs)[::10]:
        with store.open(digest) as data:
            assert data == blob
    assert len(read) == len(set(read)) == 20


def test_what_others_add_is_looked_for_once_where_that_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker's round costs the same however many packs there are."""
    looked: list[Path] = []
    list_folder = os.listdir

    def counting(folder: Path) -> list[str]:
        looked.append(folder)
        return list_folder(folder)

    monkeypatch.setattr(os, "listdir", counting)
    write_packs(tmp_path, BLOBS, fsync=False)
    reader = Packs(tmp_path)
    for _ in range(3):
        reader.find([D], look=False)
    assert len(looked) == 1
    reader.find([D])
    assert len(looked) == 2


def test_what_a_killed_writer_left_is_removed_and_what_somebody_writes_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "packs"
    folder.mkdir()
    left, young = (folder / f".{D}.pack.{n * 16}" for n in "01")
    for path in (left, young, folder / ".notes", folder / "thesis.pack.old"):
        path.write_bytes(b"half")
        os.utime(path, (1, 1))
    (folder / f".{D}.pack.{'2' * 16}").symlink_to(left)
    os.utime(young)
    BlobStore(tmp_path, fsync=False).put_small(BLOBS)
    assert {path.name for path in folder.iterdir()} - {path.name for path in folder.glob("*.pack")} == {
        young.name, ".notes", "thesis.pack.old", f".{D}.pack.{'2' * 16}",
    }  # fmt: skip


def at(path: Path, places: dict[str, Place]) -> dict[str, Place]:
    """The same places in another file."""
    return {digest: replace(place, path=str(path)) for digest, place in places.items()}


def adopts(store: BlobStore, source: Path, places: dict[str, Place]) -> bool:
    return store.adopt_packs({str(source): places}) == {str(source): store.folder / "packs" / source.name}


@pytest.mark.parametrize("fsync", [True, False])
def test_a_pack_that_is_nothing_but_the_blobs_moves(tmp_path: Path, fsync: bool) -> None:
    (source,) = write_packs(tmp_path / "box", BLOBS, fsync=False)
    whole = source.read_bytes()
    store = BlobStore(tmp_path / "blobs", fsync=fsync)
    digests, places = [digest for digest, _ in BLOBS], read_index(source)
    fewer = {digest: places[digest] for digest in digests[1:]}
    assert not adopts(store, source, fewer), "it holds one that nobody committed to"
    assert not adopts(store, source, {**places, D: Place(str(source))}), "it lacks one"
    assert not adopts(store, source, {**fewer, digests[0]: places[digests[1]]}), "it has one elsewhere"
    other = source.with_name(f"{D}.pack")
    other.write_bytes(whole)
    assert not adopts(store, other, at(other, places)), "its name says something else"
    twice = canonical.dumps([[digest, len(blob)] for digest, blob in [BLOBS[0], *BLOBS]]) + b"\n"
    longer = source.with_name(f"{sha256(twice).hexdigest()}.pack")
    longer.write_bytes(twice + b"two" + b"".join(blob for _, blob in BLOBS))
    assert not adopts(store, longer, read_index(longer)), "it holds bytes that nobody committed to"
    source.write_bytes(whole[:-1])
    assert not adopts(store, source, places)
    nothing = source.with_name("nothing")
    assert not adopts(store, nothing, at(nothing, places))
    assert not store.find(digests)
    source.write_bytes(whole)
    assert adopts(store, source, places)
    assert not source.exists()
    for digest, blob in BLOBS:
        with BlobStore(tmp_path / "blobs").open(digest) as data:
            assert data == blob


MEMORY = Path("/dev/shm")  # noqa: S108 - a second file system, not a place for temporary files


@pytest.mark.skipif(not MEMORY.is_dir(), reason="needs a second file system")
def test_a_pack_on_another_file_system_stays(tmp_path: Path) -> None:
    with TemporaryDirectory(dir=MEMORY) as box:
        (source,) = write_packs(Path(box), BLOBS, fsync=False)
        assert not adopts(BlobStore(tmp_path), source, read_index(source))
        assert source.exists()


@pytest.mark.parametrize("error", [errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_pack_that_cannot_be_moved_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """The folder may be one that others may only read, and who runs as root is refused nothing that a test can set up."""
    (source,) = write_packs(tmp_path / "box", BLOBS, fsync=False)
    places, refused = read_index(source), OSError(error, os.strerror(error))

    def refusing(old: Path, new: Path) -> None:
        raise refused

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refusing)
        assert not adopts(BlobStore(tmp_path / "blobs"), source, places)
        refused = OSError(errno.EIO, "I/O error")
        with pytest.raises(OSError, match="I/O"):
            adopts(BlobStore(tmp_path / "blobs"), source, places)
    assert adopts(BlobStore(tmp_path / "blobs"), source, places)


@pytest.mark.parametrize("how", ["group", "others", "link", "owner"])
def test_a_pack_that_others_can_still_change_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    (source,) = write_packs(tmp_path / "box", BLOBS, fsync=False)
    places, store = read_index(source), BlobStore(tmp_path / "blobs")
    if how == "link":
        (tmp_path / "mine").hardlink_to(source)
    elif how == "owner":
        monkeypatch.setattr(os, "geteuid", lambda: source.stat().st_uid + 1)
    else:
        source.chmod(0o640 if how == "group" else 0o602)
    assert not adopts(store, source, places)
    assert source.exists()
    assert not store.find(list(places))


def test_an_adopted_pack_outlives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes before the name, and the name before anybody is told; the folder's own name once."""
    synced: list[Path] = []
    monkeypatch.setattr(packs, "sync", synced.append)
    monkeypatch.setattr("chaincode.blobs.sync", synced.append)
    store = BlobStore(tmp_path / "blobs")
    for blobs in (BLOBS[:1], BLOBS[1:]):
        sources = [write_packs(tmp_path / "box", [blob], fsync=False)[0] for blob in blobs]
        given = {str(source): read_index(source) for source in sources}
        assert store.adopt_packs({**given, str(tmp_path / "gone"): {}}).keys() == given.keys()
        assert synced[-len(sources) - 1 :] == [*sources, tmp_path / "blobs" / "packs"]
    assert synced.count(tmp_path / "blobs") == 1
    synced.clear()
    assert store.adopt_packs({str(tmp_path / "gone"): {}}) == {}
    assert not synced


def test_packs_that_moved_before_one_failed_are_kept_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, synced, rename = BlobStore(tmp_path / "blobs"), list[Path](), os.rename
    first, second = (write_packs(tmp_path / "box", [blob], fsync=False)[0] for blob in BLOBS[:2])

    def failing(old: Path, new: Path) -> None:
        if old == second:
            raise OSError(errno.EIO, "I/O error")
        rename(old, new)

    monkeypatch.setattr(packs, "sync", synced.append)
    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="I/O"):
        store.adopt_packs({str(source): read_index(source) for source in (first, second)})
    assert synced[-1] == tmp_path / "blobs" / "packs"
    assert store.find([digest for digest, _ in BLOBS[:2]], look=False).keys() == {BLOBS[0][0]}


@pytest.mark.parametrize("first", ["good", "bad"])
def test_of_two_packs_that_list_a_blob_the_one_with_its_bytes_counts(tmp_path: Path, first: str) -> None:
    (digest, blob), other = BLOBS[0], BLOBS[2]
    written = {"good": [(digest, blob)], "bad": [(digest, b"0" * len(blob)), other]}
    known = Packs(tmp_path)
    for name in sorted(written, key=lambda name: name != first):
        known.read(write_packs(tmp_path, written[name], fsync=False)[0].name)
    for reader in (known, Packs(tmp_path)):
        with reader.find([digest])[digest].open() as data:
            assert data == blob
