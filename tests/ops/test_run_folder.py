# SPDX-License-Identifier: Apache-2.0
"""Run folders: which one a command means, and that one process at a time carries a run out."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from identity.errors import Unavailable, UsageError
from ops.run_folder import RunFolder, resolve


def began(path: Path, at: int) -> Path:
    """A folder in which a run began, whose ledger was written at a second."""
    path.mkdir(parents=True)
    RunFolder(path).ledger.touch()
    os.utime(RunFolder(path).ledger, (at, at))
    return path


def test_the_folder_that_is_named_wins_over_the_current_one_over_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    began(tmp_path / "runs" / "old", 1000)
    began(tmp_path / "runs" / "new", 3000)
    began(tmp_path / "runs" / "middle", 2000)
    (tmp_path / "runs" / "no-run").mkdir()
    (tmp_path / "runs" / "file").touch()
    assert resolve("runs/old").path == Path("runs/old")
    assert resolve().path == Path("runs/new")
    monkeypatch.chdir(tmp_path / "runs" / "old")
    assert resolve().path == Path()
    assert resolve(tmp_path / "runs" / "new").path == tmp_path / "runs" / "new"


def test_a_folder_that_holds_something_else_is_not_written_into(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "work")
    folder.path.mkdir()
    (folder.path / "task.py").write_text("years of work")
    with pytest.raises(UsageError) as refused:
        folder.create()
    assert refused.value.code == "run-folder-taken"
    assert [path.name for path in folder.path.iterdir()] == ["task.py"]
    for ours in (folder.lock_file, folder.ledger):  # a run that was interrupted, or a copy of one
        ours.touch()
        folder.create()
        ours.unlink()
    RunFolder(tmp_path / "new" / "run").create()
    (tmp_path / "empty").mkdir()
    RunFolder(tmp_path / "empty").create()


def test_commits_that_wait_beside_the_ledger_make_it_newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    began(tmp_path / "runs" / "written", 2000)
    began(tmp_path / "runs" / "writing", 1000)
    waiting = tmp_path / "runs" / "writing" / "ledger.sqlite-wal"
    waiting.touch()
    os.utime(waiting, (3000, 3000))
    assert resolve().path == Path("runs/writing")


def test_the_folder_of_runs_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began(tmp_path / "elsewhere" / "x", 1000)
    monkeypatch.setenv("FEDLEDGER_RUNS", str(tmp_path / "elsewhere"))
    assert resolve().path == tmp_path / "elsewhere" / "x"


@pytest.mark.parametrize(("path", "code"), [(None, "run-missing"), ("absent", "run-missing"), (".", "not-a-run")])
def test_where_there_is_no_run(path: str | None, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(path)
    assert caught.value.code == code


def test_a_wrong_folder_is_answered_with_the_newest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    began(tmp_path / "runs" / "demo", 1000)
    with pytest.raises(UsageError) as caught:
        resolve("absent")
    assert caught.value.next is not None
    assert caught.value.next.endswith("status runs/demo")


def test_a_run_folder_has_the_places_of_the_design_and_keys_for_the_owner_alone(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "demo")
    run.create()
    run.create()
    relative = {
        run.federation_file: "federation.toml", run.ledger: "ledger.sqlite", run.key_file: "federation.vkey", run.keys: "keys",
        run.credentials: "credentials", run.blobs: "blobs", run.models: "models", run.model: "release/model.safetensors",
        run.proof: "release/model.proof", run.model_card: "release/model-card.md", run.outbox: "outbox",
    }  # fmt: skip
    for path, name in relative.items():
        assert path == tmp_path / "demo" / name
    assert stat.S_IMODE(run.keys.stat().st_mode) == 0o700
    assert not run.is_run()


HOLD = """
import sys
from pathlib import Path
from ops.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_and_the_lock_ends_with_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.holder() is None
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).resolve().parents[2],
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert run.holder() == other.pid
        with pytest.raises(Unavailable) as caught, run.locked():
            pass
        assert caught.value.code == "run-in-progress"
        assert str(other.pid) in caught.value.message
        other.send_signal(signal.SIGKILL)
    assert run.holder() is None
    with run.locked():
        assert run.holder() == os.getpid()
    with run.locked():
        pass


@pytest.mark.parametrize("name", ["outbox", "blobs", "keys"])
def test_a_folder_that_is_a_link_is_not_written_into(tmp_path: Path, name: str) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter").write_text("dear")
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    (run.path / name).symlink_to(mine)
    run.lock_file.touch()
    with pytest.raises(UsageError) as refused:
        run.create()
    assert refused.value.code == "run-folder-link"
    assert [path.name for path in mine.iterdir()] == ["letter"]


def test_a_file_that_was_kept_is_told_from_another_of_its_name(tmp_path: Path) -> None:
    folder, task = RunFolder(tmp_path / "run"), tmp_path / "task.py"
    folder.create()
    task.write_text("as it was")
    assert not folder.keeps_another(task), "nothing was kept"
    (folder.path / "task.py").write_text("as it was")
    assert not folder.keeps_another(task)
    assert not folder.keeps_another(folder.path / "task.py")
    assert not folder.keeps_another(None)
    task.write_text("changed")
    assert folder.keeps_another(task)
