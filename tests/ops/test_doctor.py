# SPDX-License-Identifier: Apache-2.0
"""``fedledger doctor``: what is here, what is missing, and what is in the way."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ops.commands import doctor
from tests.ops.runs import Terminal

ROOT = Path(__file__).resolve().parents[2]


def findings(terminal: Terminal, code: int = 0) -> dict[str, dict[str, str]]:
    return {one["what"]: one for one in terminal.json("doctor", code=code)["findings"]}


def test_a_sound_machine(terminal: Terminal) -> None:
    found = findings(terminal)
    assert found["Python"]["state"] == "ok"
    assert found["torch"]["found"] == metadata.version("torch")
    assert found["torch"]["needed_for"] == "training"
    assert found["package ops"]["found"] == str(ROOT / "ops")
    assert found["FEDLEDGER_RUNS"]["found"] == "runs (built in)"
    if found["didkit"]["state"] == "ok":
        assert found["DIDKit's judgement"]["found"] == "accepted"
    assert "no problems" in terminal("doctor")


def test_a_missing_package_is_named_with_what_it_is_missing_for(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(doctor.NEEDED, "training", ("no-such-package",))
    assert findings(terminal, code=1)["no-such-package"] == {
        "what": "no-such-package", "found": "missing", "needed_for": "training", "state": "PROBLEM",
    }  # fmt: skip
    assert "1 problem\n" in terminal("doctor", code=1)


def test_without_didkit_the_second_opinion_is_not_available_and_no_problem(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "didkit":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    assert findings(terminal)["didkit"]["state"] == "not available"


def test_settings_that_are_wrong_or_unknown(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDLEDGER_WORKERS", "many")
    monkeypatch.setenv("FEDLEDGER_RUN", "x")
    found = findings(terminal, code=1)
    assert found["FEDLEDGER_WORKERS"]["state"] == "PROBLEM"
    assert found["FEDLEDGER_RUN"]["found"] == "means nothing; did you mean FEDLEDGER_RUNS?"


def test_another_package_of_our_name_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "coordinator").mkdir()
    (tmp_path / "coordinator" / "__init__.py").touch()
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; from ops import command_line as cli; sys.path[:0] = [{str(tmp_path)!r}]; sys.exit(cli.run(['doctor']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd="/", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert f"{tmp_path / 'coordinator'} is found first" in done.stdout


def test_it_imports_none_of_what_it_looks_for() -> None:
    code = (
        "import sys; from ops import command_line as cli; cli.run(['doctor']);"
        "print(sorted({'torch', 'ray', 'numpy', 'sklearn', 'didkit'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_go_there_is_no_fabric_and_no_problem(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FEDLEDGER_FABRIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = [one for what, one in findings(terminal).items() if what.startswith("Hyperledger Fabric")]
    assert found["state"] == "not available"
    assert "there is no Go" in found["found"]
