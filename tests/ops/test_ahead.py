# SPDX-License-Identifier: Apache-2.0
"""What is begun before the command line is understood: no more than a guess, and never another verdict."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from chaincode.threads import stand_back
from ops import ahead
from ops.command_line import run as run_command_line
from tests.chaincode.audit_evidence import Run, whole_run
from tests.ops.runs import Terminal

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ahead")
    run: Run = whole_run(folder / "run")
    return run.export(folder / "bundle")


@pytest.mark.parametrize(
    "before", [[], ["--json"], ["--head", "older"], ["--key", "federation.vkey", "--no-recompute"]]
)
def test_the_bundle_that_is_to_be_audited_is_opened(bundle: Path, before: list[str]) -> None:
    with ahead.begun(["audit", "verify", *before, str(bundle), "--json"]) as begun:
        assert list(begun) == [str(bundle)]
        opened = begun[str(bundle)]
        assert not any(opened.altered(file) for file in opened.files.values())


@pytest.mark.parametrize(
    "words", [[], ["audit"], ["audit", "verify"], ["audit", "verify", "--head"], ["audit", "export", "-o"], ["verify"]]
)
def test_for_anything_else_nothing_is_begun(bundle: Path, words: list[str]) -> None:
    given = words if words == ["audit", "verify"] else [*words, str(bundle)]
    with ahead.begun(given) as begun:
        assert begun == {}


@pytest.mark.parametrize("name", ["missing", "text", "folder", "nul\0"])
def test_what_is_no_bundle_is_left_to_the_audit(tmp_path: Path, name: str) -> None:
    (tmp_path / "text").write_text("no bundle")
    (tmp_path / "folder").mkdir()
    with ahead.begun(["audit", "verify", str(tmp_path / name)]) as begun:
        assert begun == {}


def test_what_was_begun_for_another_file_is_not_taken(bundle: Path, tmp_path: Path, terminal: Terminal) -> None:
    damaged = bytearray(bundle.read_bytes())
    damaged[-1] ^= 1
    other = tmp_path / "b"
    other.write_bytes(damaged)
    with ahead.begun(["audit", "verify", str(bundle)]) as begun:
        assert run_command_line(["audit", "verify", str(other)], begun) == 1
        assert run_command_line(["audit", "verify", str(bundle)], begun) == 0


def test_the_program_finds_what_is_wrong_with_a_bundle_that_it_hashed_while_it_loaded(
    bundle: Path, tmp_path: Path
) -> None:
    damaged = bytearray(bundle.read_bytes())
    damaged[-1] ^= 1
    other = tmp_path / "b"
    other.write_bytes(damaged)
    words = [sys.executable, "-m", "ops.cli", "audit", "verify"]
    sound, wrong = (
        subprocess.run([*words, path], cwd=ROOT, capture_output=True, text=True, check=False)
        for path in (bundle, other)
    )
    assert sound.returncode == 0, sound.stderr
    assert sound.stdout.splitlines()[-1].startswith("PASS")
    assert wrong.returncode == 1
    assert "differs: index line, file release/model.safetensors" in wrong.stdout


def loaded(code: str, *modules: str) -> str:
    """Which of the modules a program has loaded at its end."""
    show = f"print(sorted({set(modules)} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{show}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def test_little_is_loaded_before_a_bundle_is_hashed() -> None:
    assert loaded("import ops.ahead", "dataclasses", "logging", "concurrent.futures", "rich", "typer") == "[]"


def test_the_audit_of_a_bundle_loads_nothing_that_is_for_folders_and_terminals(bundle: Path) -> None:
    code = f"from ops.command_line import run; assert run(['audit', 'verify', {str(bundle)!r}]) == 0"
    unneeded = ("chaincode.audit.folder_source", "chaincode.audit.export", "ops.channel_run", "ops.source")
    assert loaded(code, "sqlite3", "rich.progress", "rich.table", *unneeded) == "[]"


@pytest.mark.skipif(sys.platform != "linux", reason="no other system ranks the threads of a process one by one")
def test_a_thread_that_stands_back_does_so_alone() -> None:
    def nice(thread: int) -> int:
        return int(Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[16])

    found = list[int]()
    before = nice(threading.get_native_id())
    thread = threading.Thread(target=lambda: (stand_back(), found.append(nice(threading.get_native_id()))))
    thread.start()
    thread.join()
    assert found == [19]
    assert nice(threading.get_native_id()) == before
