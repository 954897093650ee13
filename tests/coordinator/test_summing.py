# SPDX-License-Identifier: Apache-2.0
"""What becomes of packs that are delivered: moved where nothing else is in them, and found again whoever asks."""

import errno
import os
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from queue import SimpleQueue

import pytest

from chaincode.blobs import BlobStore
from chaincode.chunks import chunk_root
from chaincode.packs import read_index, write_packs
from coordinator.ports import Delivery
from coordinator.summing import Summing
from coordinator.worker import Worker
from identity import canonical
from tests.coordinator.worker_round import Round


@pytest.fixture
def first(tmp_path: Path) -> Round:
    return Round(tmp_path)


def packed(of: Round) -> tuple[Path, list[Delivery]]:
    """The round's deliveries, all of them in one pack and nothing else in it."""
    blobs = [(d.commitment.digest, Path(d.place.path).read_bytes()) for d in of.deliveries]
    (pack,) = write_packs(of.folder / "shared", blobs, fsync=False)
    index = read_index(pack)
    return pack, [Delivery(d.commitment, index[d.commitment.digest]) for d in of.deliveries]


def kept(of: Round) -> list[Path]:
    return sorted(path for path in (of.folder / "blobs").rglob("*") if path.is_file())


def test_a_pack_of_nothing_but_verified_updates_moves_into_the_store(first: Round) -> None:
    pack, deliveries = packed(first)
    inode, whole = pack.stat().st_ino, pack.read_bytes()
    verdicts, total = first.worker.sum(deliveries)
    assert set(verdicts.values()) == {""}
    assert total is not None
    (moved,) = kept(first)
    assert (moved.stat().st_ino, moved.name, moved.read_bytes()) == (inode, pack.name, whole)
    assert not pack.exists()
    for worker in (first.worker, Worker(first.settings)):  # asked for again
        verdicts, again = worker.sum(deliveries)
        assert set(verdicts.values()) == {""}
        assert again is not None
        assert again.tobytes() == total.tobytes()
    assert kept(first) == [moved]


def test_a_pack_that_lists_its_updates_elsewhere_is_copied(first: Round) -> None:
    """Each verifies where it was delivered; by the pack's own line the first two lie where the other begins."""
    honest, deliveries = packed(first)
    places = [delivery.place for delivery in deliveries]
    size, whole = min(place.offset for place in places), honest.read_bytes()
    rows = [[delivery.commitment.digest, delivery.place.size] for delivery in deliveries]
    line = canonical.dumps([rows[1], rows[0], *rows[2:]]) + b"\n"
    assert len(line) == size
    pack = honest.with_name(f"{sha256(line).hexdigest()}.pack")
    pack.write_bytes(line + whole[size:])
    pack.chmod(0o600)
    moved = [replace(d, place=replace(d.place, path=str(pack))) for d in deliveries]
    for _ in range(2):  # asked for again
        assert set(first.worker.sum(moved)[0].values()) == {""}
        assert pack.exists()
    store = BlobStore(first.folder / "blobs")
    for delivery in deliveries:
        with store.open(delivery.commitment.digest) as data:
            assert chunk_root(data) == delivery.commitment.digest


def test_a_site_cannot_change_what_was_summed(first: Round) -> None:
    pack, deliveries = packed(first)
    pack.chmod(0o666)
    (first.folder / "mine").hardlink_to(pack)
    assert set(first.worker.sum(deliveries)[0].values()) == {""}
    with (first.folder / "mine").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    store = BlobStore(first.folder / "blobs")
    for delivery in deliveries:
        with store.open(delivery.commitment.digest) as data:
            assert chunk_root(data) == delivery.commitment.digest


def test_packs_in_a_folder_that_may_only_be_read_are_copied(first: Round, monkeypatch: pytest.MonkeyPatch) -> None:
    pack, deliveries = packed(first)
    rename = os.rename

    def read_only(old: Path, new: Path) -> None:
        if Path(old).parent == pack.parent:
            raise PermissionError(errno.EACCES, "Permission denied")
        rename(old, new)

    monkeypatch.setattr(os, "rename", read_only)
    assert set(first.worker.sum(deliveries)[0].values()) == {""}
    assert pack.exists()
    digests = [delivery.commitment.digest for delivery in deliveries]
    assert BlobStore(first.folder / "blobs").find(digests).keys() == set(digests)


def test_one_bad_update_keeps_its_pack_out_of_the_store(first: Round) -> None:
    pack, deliveries = packed(first)
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    verdicts, _ = first.worker.sum(deliveries)
    assert sorted(verdicts.values()) == ["", "", "", "", "update-digest"]
    assert pack.exists()
    store = BlobStore(first.folder / "blobs")
    assert [bool(store.find([d.commitment.digest])) for d in deliveries] == [
        not verdicts[d.commitment.member] for d in deliveries
    ]


def test_damaged_bytes_in_a_stored_pack_are_hidden_by_good_ones(first: Round) -> None:
    pack, deliveries = packed(first)
    whole = pack.read_bytes()
    first.worker.sum(deliveries)
    (moved,) = kept(first)
    data = bytearray(whole)
    data[-1] ^= 1
    moved.write_bytes(data)
    pack.write_bytes(whole)  # the site delivers once more, to whoever started meanwhile
    last = max(deliveries, key=lambda delivery: delivery.place.offset)
    assert Worker(first.settings).sum([last])[0] == {last.commitment.member: ""}
    store = BlobStore(first.folder / "blobs")
    digest, place = last.commitment.digest, store.find([last.commitment.digest])
    with store.open(digest) as opened, place[digest].open() as found:
        assert opened == found == whole[last.place.offset :]


def test_a_copied_update_is_kept_once(first: Round) -> None:
    """A digest is public: another member may commit to it too, and name the same bytes."""
    _, deliveries = packed(first)
    thief = replace(deliveries[0].commitment, member="did:key:thief")
    verdicts, _ = first.worker.sum([*deliveries, Delivery(thief, deliveries[0].place)])
    assert verdicts.pop("did:key:thief") == "update-header"
    assert set(verdicts.values()) == {""}
    (moved,) = kept(first)
    assert len(read_index(moved)) == len(deliveries)


def test_a_round_does_not_list_the_packs_of_those_before(first: Round, monkeypatch: pytest.MonkeyPatch) -> None:
    _, deliveries = packed(first)
    first.worker.sum(deliveries[:1])
    listed, list_folder = [], os.listdir

    def counting(folder: str) -> list[str]:
        listed.append(Path(folder).name)
        return list_folder(folder)

    monkeypatch.setattr(os, "listdir", counting)
    first.worker.sum(deliveries[1:3])
    first.worker.sum(deliveries[3:])
    assert "packs" not in listed


def test_a_pack_that_moved_is_forgotten_when_nobody_reads_it_any_more(
    first: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: SimpleQueue[tuple[Path, bool]] = SimpleQueue()

    def forgetting(path: Path) -> None:
        asked.put((path, str(path) in Path("/proc/self/maps").read_text()))

    monkeypatch.setattr("coordinator.summing.forget", forgetting)
    _, deliveries = packed(first)
    first.worker.sum(deliveries)
    assert asked.get(timeout=60) == (kept(first)[0], False)  # a page that is mapped would stay
    first.worker.sum(deliveries)
    first.worker.sum([])  # what it keeps, which is nothing, comes after what the one before lets go of
    assert asked.empty()


def test_the_shards_of_all_workers_are_all_that_is_written_and_forgotten(
    first: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, list[tuple[str, int, int]]] = {"forget": [], "start_writing_back": []}
    for name, calls in asked.items():
        monkeypatch.setattr(
            f"coordinator.summing.{name}", lambda path, *at, calls=calls: calls.append((str(path), *at))
        )
    store, commitment = BlobStore(first.folder / "blobs"), first.deliveries[0].commitment
    summing, cuts = Summing((), store), [(0, 5), (5, commitment.elements)]
    for cut in cuts:
        summing.start_writing_back(first.deliveries[:1], cut)
        summing.forget(first.deliveries[:1], cut)
    where = [(low * 4, (high - low) * 4) for low, high in cuts]
    assert asked["start_writing_back"] == [(first.deliveries[0].place.path, *at) for at in where]
    assert asked["forget"] == [(str(store.path(commitment.digest)), *at) for at in where]
