# SPDX-License-Identifier: Apache-2.0
"""Export: what the ledger names, verified, and nothing else; the same run gives the same bytes."""

import os
import shutil
import stat
import threading
from pathlib import Path

import pytest

from chaincode import artefacts
from chaincode.audit import audit
from chaincode.audit.export import export
from chaincode.audit.folder_source import folder_source
from chaincode.bundle import open_bundle
from chaincode.ledgers.sqlite import SqliteLedger
from chaincode.trust import KEY_FILE
from identity.errors import EvidenceError, Unavailable
from tests.chaincode.audit_evidence import LOG, Run, audit_bundle, verdicts, whole_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return whole_run(tmp_path_factory.mktemp("export") / "run")


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Path:
    shutil.copytree(run.folder, tmp_path / "run")
    return tmp_path / "run"


def exported(folder: Path, out: Path) -> Path:
    with folder_source(folder) as source:
        export(source, out)
    return out


def refusal(folder: Path, tmp_path: Path) -> EvidenceError:
    with pytest.raises(EvidenceError) as caught:
        exported(folder, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    return caught.value


def test_exporting_twice_gives_the_same_bytes_also_from_a_copy(run: Run, copy: Path, tmp_path: Path) -> None:
    first, again = exported(run.folder, tmp_path / "one"), exported(copy, tmp_path / "two")
    assert first.read_bytes() == again.read_bytes()
    assert stat.S_IMODE(first.stat().st_mode) == 0o600


def test_everything_that_an_audit_reads_is_in_it(run: Run, tmp_path: Path) -> None:
    with open_bundle(exported(run.folder, tmp_path / "b")) as bundle:
        names = set(bundle.files)
    kinds = {
        name.partition("/")[0]: sum(n.partition("/")[0] == name.partition("/")[0] for n in names) for name in names
    }
    assert kinds == {
        "checkpoint": 1, "entries.jsonl": 1, "federation.vkey": 1, "credentials": 5, "models": 3, "release": 3,
        "blobs": 6 + 2,  # updates and optimiser states
    }  # fmt: skip


def test_nothing_else_is_in_it(copy: Path, tmp_path: Path) -> None:
    secret = (copy / "keys" / "keystore").read_bytes()
    (copy / "blobs" / "aa" / "aa").mkdir(parents=True, exist_ok=True)
    for name in (
        "blobs/aa/aa/" + "a" * 64,
        "credentials/" + "b" * 64 + ".jwt",
        "models/" + "c" * 64 + ".safetensors",
        "release/x",
    ):
        (copy / name).write_bytes(secret)
    data = exported(copy, tmp_path / "b").read_bytes()
    assert secret not in data
    assert b"keys/" not in data


def test_a_secret_under_the_name_of_evidence_stops_the_export(run: Run, copy: Path, tmp_path: Path) -> None:
    """Every name that an export takes from a folder: its bytes must be what the ledger means by it."""
    with open_bundle(exported(run.folder, tmp_path / "honest")) as bundle:
        names = sorted(set(bundle.files) - {artefacts.CHECKPOINT, artefacts.ENTRIES})
    secret = (copy / "keys" / "keystore").read_bytes()
    for name in names:
        path = copy / name if not name.startswith("blobs/") else copy / "blobs" / name[6:8] / name[8:10] / name[6:]
        before = path.read_bytes()
        path.write_bytes(secret)
        error = refusal(copy, tmp_path)
        assert (error.code, error.next) == ("export-differs", "fedledger audit verify")
        assert name in error.message
        path.write_bytes(before)


def test_links_are_not_followed_out_of_the_folder(copy: Path, tmp_path: Path) -> None:
    card = copy / artefacts.RELEASED_CARD
    shutil.move(card, tmp_path / "card")
    card.symlink_to(tmp_path / "card")
    assert refusal(copy, tmp_path).code == "file-not-regular"


def test_a_folder_without_a_key_file_cannot_be_exported(copy: Path, tmp_path: Path) -> None:
    (copy / KEY_FILE).unlink()
    assert refusal(copy, tmp_path).code == "export-missing"


def test_what_was_deleted_is_left_out(copy: Path, run: Run, tmp_path: Path) -> None:
    digest = run.world.entries[run.index("commit")].subjects["update"]
    (copy / "blobs" / digest[:2] / digest[2:4] / digest).unlink()
    with open_bundle(exported(copy, tmp_path / "b")) as bundle:
        assert artefacts.blob(digest) not in bundle.files


def test_a_full_disk_leaves_the_older_bundle(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = exported(copy, tmp_path / "b")
    before = out.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        exported(copy, out)
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("b", "run")] == []


def test_a_run_that_goes_on_is_exported_and_audited_as_of_one_moment(tmp_path: Path) -> None:
    """A writer appends while the snapshot is held: nothing of it is seen, and nothing fails."""
    run = Run(tmp_path / "run").rounds(1).write()
    size, now = len(run.world.entries), [run.world.now]
    writer = SqliteLedger.open(run.folder / "ledger.sqlite", sign=LOG.sign, clock=lambda: now[0])
    with writer:
        run.opened()
        now[0] = run.world.now
        writer.submit([run.world.envelopes[-1]])  # from now on commits wait in the write-ahead log
        with folder_source(run.folder) as source:
            run.commit()
            now[0] = run.world.now
            worker = threading.Thread(target=writer.submit, args=(run.world.envelopes[-3:],))
            worker.start()
            worker.join()
            export(source, tmp_path / "b")
            report = audit(source)
            with pytest.raises(Unavailable) as caught:
                source.check_still()
    assert caught.value.code == "evidence-changing"
    assert not report.failed
    assert report.size == size + 1
    bundled = audit_bundle(tmp_path / "b")
    assert (bundled.size, bundled.failed) == (size + 1, False)
    assert verdicts(run.audit())[1] == "PASS"


def test_a_folder_that_stands_still_says_so(run: Run) -> None:
    with folder_source(run.folder) as source:
        source.check_still()


@pytest.mark.parametrize(
    "name", ["keys/keystore", "../x", "checkpoint", "entries.jsonl", "federation.toml", "blobs/x", "ledger.sqlite"]
)
def test_a_source_opens_evidence_only(run: Run, name: str) -> None:
    with folder_source(run.folder) as source, pytest.raises(EvidenceError) as caught, source.open(name):
        pass
    assert caught.value.code == "artefact-name"


def test_a_folder_without_a_ledger_is_no_evidence(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError) as caught, folder_source(tmp_path):
        pass
    assert caught.value.code == "ledger-missing"
    (tmp_path / "ledger.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(EvidenceError) as caught, folder_source(tmp_path):
        pass
    assert caught.value.code == "ledger-not-a-ledger"
