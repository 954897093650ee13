# SPDX-License-Identifier: Apache-2.0
"""``fedledger verify``: accepts the released model, refuses anything else, and needs nothing heavy to say so."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaincode import models, notes, proofs, trust
from chaincode.ledgers.sqlite import SqliteLedger
from identity.did import public_key_from_did
from ops.run_folder import RunFolder
from tests.chaincode.contract.world import World, key
from tests.ops.runs import ORIGIN, TENSORS, VKEY, Terminal, write_released

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run() -> RunFolder:
    return write_released(Path("run"))[0]


@pytest.fixture
def elsewhere(run: RunFolder) -> Path:
    """The key file as somebody has had it all along."""
    Path("safe").mkdir()
    return Path(shutil.copy(run.key_file, "safe"))


def verdicts(terminal: Terminal, *arguments: object, code: int) -> list[str]:
    return [check["verdict"] for check in terminal.json("verify", *arguments, code=code)["checks"]]


def test_the_released_model_is_accepted(terminal: Terminal, run: RunFolder, elsewhere: Path) -> None:
    said = terminal("verify", run.model, "--key", elsewhere)
    assert said.splitlines()[-1].startswith(f"PASS: {run.model} is a released model")
    assert verdicts(terminal, run.model, "--key", elsewhere, code=0) == ["PASS"] * 5
    answer = terminal.json("verify", run.model, "--key", elsewhere)
    assert answer["result"] == "PASS"
    assert answer["release"]["subjects"]["model"] == models.model_digest(TENSORS)


def test_without_a_key_of_ones_own_it_is_integrity_only(terminal: Terminal, run: RunFolder) -> None:
    said = terminal("verify", run.model)
    assert "PASS, integrity only: the key came with the model" in said
    assert terminal.json("verify", run.model)["result"] == "integrity only: the key came with the model"
    shutil.move(run.key_file, run.release)
    assert "integrity only" in terminal("verify", run.model)


def test_the_key_may_be_a_setting(
    terminal: Terminal, run: RunFolder, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDLEDGER_KEY", str(elsewhere))
    assert terminal.json("verify", run.model)["result"] == "PASS"


def test_a_model_alone_with_no_key_anywhere_is_a_usage_error(terminal: Terminal, run: RunFolder) -> None:
    run.key_file.unlink()
    terminal("verify", run.model, code=2)
    assert "key-missing" in terminal.err


@pytest.mark.parametrize("name", ["model", "proof", "key_file", "model_card"])
def test_any_flipped_bit_is_refused(terminal: Terminal, run: RunFolder, name: str) -> None:
    path = getattr(run, name)
    data = path.read_bytes()
    for position in range(0, len(data), max(1, len(data) // 60)):
        for bit in (1, 128):
            path.write_bytes(data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :])
            assert "FAIL" in verdicts(terminal, run.model, code=1), (name, position)
    path.write_bytes(data)
    terminal("verify", run.model)


def test_the_first_failure_ends_the_checks_and_is_named(terminal: Terminal, run: RunFolder) -> None:
    run.model.write_bytes(b"PK\x03\x04" + bytes(100))
    said = terminal("verify", run.model, code=1)
    assert "it is not so that the file holds the released model" in said
    assert verdicts(terminal, run.model, code=1) == ["PASS", "PASS", "PASS", "FAIL", "not checked"]


def test_another_federations_key_refuses(terminal: Terminal, run: RunFolder, tmp_path: Path) -> None:
    other_log = notes.format_vkey(ORIGIN, public_key_from_did(key("another log").did))
    federation = trust.read_key(run.key_file).federation
    for log, id_ in ((other_log, federation), (VKEY, "0" * 64)):
        (tmp_path / "other").write_text(trust.format_key(trust.FederationKey(notes.parse_vkey(log), id_)))
        assert verdicts(terminal, run.model, "--key", tmp_path / "other", code=1)[:2] == ["PASS", "FAIL"]


def test_the_proof_of_another_entry_is_no_release(terminal: Terminal, run: RunFolder, tmp_path: Path) -> None:
    with SqliteLedger.open(run.ledger) as ledger:
        (tmp_path / "proof").write_text(proofs.make_entry_proof(ledger, 3))
    said = terminal("verify", run.model, "--proof", tmp_path / "proof", code=1)
    assert "not-a-release" in said


def test_another_released_models_proof_refuses(terminal: Terminal, run: RunFolder, tmp_path: Path) -> None:
    models.write_safetensors(tmp_path / "other.safetensors", {"weight": ("float32", (1,), b"\0\0\0\0")})
    said = terminal("verify", tmp_path / "other.safetensors", "--proof", run.proof, "--key", run.key_file, code=1)
    assert "model-mismatch" in said


def test_missing_files(terminal: Terminal, run: RunFolder, elsewhere: Path) -> None:
    terminal("verify", run.model, "--key", "absent.vkey", code=2)
    terminal("verify", run.model, "--proof", "absent.proof", code=2)
    terminal("verify", run.release, code=2)


LOADED = """
import sys
from ops import command_line as cli
code = cli.run(sys.argv[1:])
print(sorted({m.split(".")[0] for m in sys.modules} & {"torch", "numpy", "ray", "fastapi", "safetensors", "sklearn", "didkit", "sqlite3"}))
sys.exit(code)
"""


def test_it_loads_nothing_heavy_and_takes_less_than_a_second(run: RunFolder, elsewhere: Path) -> None:
    command = [sys.executable, "-c", LOADED, "verify", str(run.model.absolute()), "--key", str(elsewhere.absolute())]
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        seconds.append(time.perf_counter() - begun)
        assert done.stdout.splitlines()[-1] == "[]"
    assert min(seconds) < 1


def test_it_needs_the_model_the_proof_and_the_key_alone(terminal: Terminal, tmp_path: Path) -> None:
    run, _ = write_released(tmp_path / "run")
    alone = tmp_path / "alone"
    alone.mkdir()
    for file in (run.model, run.proof, run.key_file):
        shutil.copy(file, alone)
    shutil.rmtree(run.path)
    assert verdicts(terminal, alone / "model.safetensors", "--key", alone / "federation.vkey", code=0) == ["PASS"] * 4


def test_the_world_of_the_tests_releases_what_it_says(tmp_path: Path) -> None:
    run, here = write_released(tmp_path / "run")
    assert isinstance(here, World)
    assert models.digest_file(run.model) == here.result(1).model
