# SPDX-License-Identifier: Apache-2.0
"""A Ray of our own: who gets in, what its workers hold, and what is left of it. Drivers run in processes of their own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from coordinator import processes
from coordinator.processes import (
    PREFIX,
    Process,
    cluster_processes,
    end_orphans,
    make_folder,
    record_processes,
    started,
)
from identity import canonical

ROOT = Path(__file__).resolve().parent.parent.parent
SLEEPER = "import sys; print('up', flush=True); sys.stdin.read()"


def drive(folder: Path, what: str) -> tuple[dict[str, Any], int]:
    """The report of ``own_cluster``, and its exit status."""
    command = [sys.executable, "-m", "tests.coordinator.own_cluster", str(folder), what]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    return json.loads(ran.stdout), ran.returncode


def alive(pairs: list[list[int]]) -> list[list[int]]:
    return [[pid, at] for pid, at in pairs if started(pid) == Process(pid, at)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("own")
    made, status = drive(folder, "round")
    assert status == 0
    return made, folder


def test_nothing_of_it_is_left(report: tuple[dict[str, Any], Path]) -> None:
    made, folder = report
    assert len(made["recorded"]) >= 6
    assert {tuple(p) for p in made["recorded"]} >= {tuple(p) for p in made["processes"]}
    assert alive(made["recorded"]) == []
    assert not Path(made["folder"]).exists()
    assert not (folder / "processes.json").exists()
    assert (folder / "models" / f"{made['model']}.safetensors").exists()


def test_a_stranger_is_refused(report: tuple[dict[str, Any], Path]) -> None:
    """A wrong token, and none; with the right one, so that the refusals mean something."""
    assert report[0]["strangers"] == ["refused", "refused"]
    assert report[0]["friend"] == "joined"
    assert report[0]["mode"] == 0o700


def test_its_workers_take_lines_in_its_own_folder(report: tuple[dict[str, Any], Path]) -> None:
    assert [Path(line).parent for line in report[0]["lines"]] == [Path(report[0]["folder"])] * 2


def test_nothing_is_reported_and_no_dashboard_listens(report: tuple[dict[str, Any], Path]) -> None:
    assert (report[0]["usage"], report[0]["dashboard"]) == (False, "")


def test_the_driver_stays_free_of_torch_and_of_the_task(report: tuple[dict[str, Any], Path]) -> None:
    assert report[0]["loaded"] == []


def test_a_worker_holds_no_key(report: tuple[dict[str, Any], Path]) -> None:
    """R6: while the driver holds its keystore open, a worker has neither the file nor what opens it."""
    made, folder = report
    seen = json.loads((folder / "seen.json").read_text())
    assert not [path for path in seen["files"] if "keystore" in path]
    assert made["held"].endswith("keystore.json")
    assert made["passphrase"] not in json.dumps(seen)


def test_a_worker_computes_reproducibly(report: tuple[dict[str, Any], Path]) -> None:
    seen = json.loads((report[1] / "seen.json").read_text())
    assert (seen["threads"], seen["deterministic"]) == (1, True)


def test_what_a_killed_driver_leaves_is_ended(tmp_path: Path) -> None:
    made, status = drive(tmp_path, "killed")
    assert status == -signal.SIGKILL
    assert alive(made["recorded"])  # otherwise there is nothing to test
    ended = end_orphans(tmp_path / "processes.json")
    assert {p.pid for p in ended} <= {pid for pid, _ in made["recorded"]}
    assert alive(made["recorded"]) == []
    assert not Path(made["folder"]).exists()
    assert end_orphans(tmp_path / "processes.json") == []


@contextmanager
def sleeper(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs until it is ended, and is up."""
    command = [sys.executable, "-c", SLEEPER, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def write(path: Path, folder: str, pairs: list[list[int]], **changes: Any) -> Path:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    value = {"boot": boot, "driver": [], "folder": folder, "processes": pairs, **changes}
    path.write_bytes(canonical.dumps(value))
    return path


def test_a_processs_start_tells_it_from_others_with_its_id(tmp_path: Path) -> None:
    with sleeper() as process:
        was = started(process.pid)
        assert was is not None
        record = write(tmp_path / "p", make_folder(), [[was.pid, was.started + 1]])
        assert end_orphans(record) == []
        assert process.poll() is None
        record = write(tmp_path / "p", make_folder(), [[was.pid, was.started]])
        assert end_orphans(record) == [was]
        assert process.wait() == -signal.SIGKILL
        assert started(process.pid) is None


def test_only_what_mentions_the_folder_is_recorded(tmp_path: Path) -> None:
    folder = make_folder()
    with sleeper(folder) as ours, sleeper() as other:
        assert [p.pid for p in cluster_processes(folder)] == [ours.pid]
        record_processes(tmp_path / "p", folder)
        end_orphans(tmp_path / "p")  # this process is the driver, and may
        assert ours.wait() == -signal.SIGKILL
        assert other.poll() is None
    assert not Path(folder).exists()


def test_a_living_drivers_cluster_is_left_alone(tmp_path: Path) -> None:
    with sleeper() as driver, sleeper() as process:
        at = {p.pid: started(p.pid) for p in (driver, process)}
        folder = make_folder()
        pairs = {pid: [pid, p.started] for pid, p in at.items() if p is not None}
        record = write(tmp_path / "p", folder, [pairs[process.pid]], driver=pairs[driver.pid])
        assert end_orphans(record) == []
        assert process.poll() is None
        assert Path(folder).exists()
        driver.kill()
        driver.wait()
        assert [p.pid for p in end_orphans(record)] == [process.pid]


@pytest.mark.parametrize(
    "changes",
    [
        {"boot": "another"},
        {"folder": "/tmp"},  # noqa: S108
        {"folder": f"{PREFIX}relative"},
        {"folder": 7},
        {"processes": [[1, 1]]},
        {"processes": [["1", 1]]},
        {"processes": [[7]]},
        {"processes": 3},
        {"driver": 5},
    ],
)
def test_a_record_that_is_not_ours_ends_nothing(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = make_folder()
    with sleeper() as process:
        was = started(process.pid)
        assert was is not None
        record = write(tmp_path / "p", folder, [[was.pid, was.started]])
        value = canonical.loads(record.read_bytes()) | changes
        record.write_bytes(canonical.dumps(value))
        assert end_orphans(record) == []
        assert process.poll() is None
    os.rmdir(folder)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff" * 100, b"{" * 70_000])
def test_hostile_records_end_nothing(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(data)
    assert end_orphans(tmp_path / "p") == []
    assert end_orphans(tmp_path / "absent") == []


def test_without_proc_nothing_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "BOOT", tmp_path / "absent")
    record_processes(tmp_path / "p", "/nowhere")
    assert not (tmp_path / "p").exists()
