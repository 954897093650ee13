# SPDX-License-Identifier: Apache-2.0
"""The audit of a run whose small updates lie in packs, whole and broken ones."""

from pathlib import Path

import pytest

from chaincode.audit import ABSENT, FAIL, INCOMPLETE, PASS
from chaincode.blobs import BlobStore
from tests.chaincode.audit_evidence import Run, claim, found, verdicts, whole_run


def packed(folder: Path) -> tuple[Run, list[Path]]:
    """A run of two rounds, each with a pack of its updates and no files of their own."""
    run = whole_run(folder)
    commits = [entry for entry in run.world.entries if entry.kind == "commit"]
    packs: list[Path] = []
    for number in (1, 2):
        store = BlobStore(folder / "blobs", fsync=False)
        digests = [entry.subjects["update"] for entry in commits if entry.body["round"] == number]
        store.put_small([(digest, run.blobs.path(digest).read_bytes()) for digest in digests])
        for digest in digests:
            run.blobs.path(digest).unlink()
        packs += [path for path in (folder / "blobs" / "packs").iterdir() if path not in packs]
    return run, packs


def test_updates_in_packs_pass(tmp_path: Path) -> None:
    run, packs = packed(tmp_path / "run")
    assert len(packs) == 2
    report = run.audit()
    assert verdicts(report)[7] == verdicts(report)[8] == PASS, found(report)


@pytest.mark.parametrize("twice", [False, True])
def test_a_broken_pack_is_named_and_what_was_only_in_it_is_missing(tmp_path: Path, twice: bool) -> None:
    run, (broken, whole) = packed(tmp_path / "run")
    data = broken.read_bytes()
    if twice:
        first = next(entry.subjects["update"] for entry in run.world.entries if entry.kind == "commit")
        with BlobStore(tmp_path / "run" / "blobs").open(first) as view:
            run.blobs.put(bytes(view), first)
    broken.write_bytes(data[:-1])
    report = run.audit()
    assert report.result == INCOMPLETE
    updates = claim(report, 7)
    assert updates.verdict == ABSENT
    assert len(updates.missing) == (2 if twice else 3)
    (note,) = [note for note in updates.notes if "pack-malformed" in note]
    assert broken.name in note
    assert whole.name not in note
    assert f"{4 if twice else 3} of 6 included updates verified" in updates.summary
    assert verdicts(report)[8] == ABSENT


def test_other_bytes_in_a_pack_are_a_finding(tmp_path: Path) -> None:
    run, (changed, _) = packed(tmp_path / "run")
    data = bytearray(changed.read_bytes())
    data[-1] ^= 1
    changed.write_bytes(data)
    assert verdicts(run.audit())[7] == FAIL
