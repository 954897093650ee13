# SPDX-License-Identifier: Apache-2.0
"""An outbox: what is written is found under its digest, what is cleared is its own."""

import os
from pathlib import Path

from chaincode.chunks import chunk_root
from participant.outbox import Outbox


def test_what_is_written_is_found(tmp_path: Path) -> None:
    box, reader = Outbox(tmp_path / "box"), Outbox(tmp_path / "box")
    blobs = {chunk_root(blob): blob for blob in (b"one", b"", b"three", b"alone", b"large")}
    one, empty, three, alone, large = blobs
    assert not reader.find(blobs)
    box.write_small([(digest, blobs[digest]) for digest in (one, empty, three)])
    box.write_small([(alone, blobs[alone])])
    with box.write_large(len(b"large")) as (file, name):
        assert os.stat(file.fileno()).st_blocks
        file.write(b"large")
        assert not reader.find([large])
        name.append(large)
    found = reader.find([*blobs, "0" * 64])
    assert found.keys() == blobs.keys()
    for digest, place in found.items():
        with place.open() as data:
            assert data == blobs[digest]
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "box").iterdir()} == {0o600}
    box.clean()
    assert not list((tmp_path / "box").iterdir())
    assert Outbox(tmp_path / "missing").clean() is None


def test_a_broken_pack_does_not_keep_others_from_delivering(tmp_path: Path) -> None:
    box = Outbox(tmp_path)
    one, two, gone = (chunk_root(blob) for blob in (b"one", b"two", b"gone"))
    box.write_small([(one, b"one"), (two, b"two")])
    (tmp_path / ("0" * 64 + ".pack")).write_bytes(b"")
    (tmp_path / ("f" * 64 + ".pack")).symlink_to(tmp_path / "nowhere")
    assert Outbox(tmp_path).find([one, two, gone]).keys() == {one, two}


def test_a_folder_in_the_place_of_an_update_is_left(tmp_path: Path) -> None:
    (tmp_path / ("a" * 64)).mkdir()
    (tmp_path / ("b" * 64)).write_text("x")
    Outbox(tmp_path).clean()
    assert [path.name for path in tmp_path.iterdir()] == ["a" * 64]


def test_nothing_else_is_deleted(tmp_path: Path) -> None:
    """Blobs by their digests, packs, and what a killed worker left on the way to one."""
    ours = (
        "a" * 64,
        "update-0123456789abcdef",
        "c" * 64 + ".pack",
        "." + "c" * 64 + ".pack.0123",
        "d" * 64 + ".tampered",
    )
    for name in (*ours, "thesis.tex", "b" * 63, "e" * 64 + ".tex"):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder").mkdir()
    Outbox(tmp_path).clean()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b" * 63, "e" * 64 + ".tex", "folder", "thesis.tex"]
