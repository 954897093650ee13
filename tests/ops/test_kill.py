# SPDX-License-Identifier: Apache-2.0
"""The coordinator killed with SIGKILL at every step, and started again: the same final model, no gap, nothing lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from chaincode.checkpoints import parse_checkpoint
from chaincode.entries import open_entry
from chaincode.ledgers.sqlite import SqliteLedger
from chaincode.log import leaf_hash, root
from chaincode.notes import parse_note

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = """
name = "killed"
task = "breast-cancer"
sites = 3
rounds = 2
seed = 7

[agreement]
purpose = "Tests"
legal_basis = "Public research data"
min_participants = 3
"""
OUTSIDE = ["founded", "admitted", "proposed", "signed", "released"]
INSIDE = [
    "before-open", "open", "train", "site-committed", "before-seal", "seal", "delivered", "before-record", "record",
]  # fmt: skip
MOMENTS = [(kind, 0) for kind in OUTSIDE] + [(kind, 2) for kind in INSIDE] + [("open", 1), ("record", 1)]


def run(folder: Path, file: Path, *deadly: str) -> tuple[int, list[list[str]], str]:
    """The exit code, the printed lines and what was on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.ops.killed_run", str(file), str(folder), *deadly],
        capture_output=True, text=True, timeout=240, cwd=ROOT, check=False,
    )  # fmt: skip
    return done.returncode, [line.split() for line in done.stdout.splitlines()], done.stderr


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("file") / "federation.toml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def undisturbed(file: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    code, lines, errors = run(tmp_path_factory.mktemp("run") / "undisturbed", file)
    assert code == 0, errors
    assert {(kind, int(number)) for _, _, kind, number in lines[:-1]} >= set(MOMENTS), "a moment that never comes"
    return lines[-1][1]


@pytest.mark.parametrize(("kind", "number"), MOMENTS)
def test_killed_and_started_again(kind: str, number: int, file: Path, undisturbed: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    code, lines, errors = run(folder, file, kind, str(number))
    assert code == -9, errors
    acknowledged = int(lines[-1][1])
    with SqliteLedger.open(folder / "ledger.sqlite") as ledger:
        before = list(ledger.entries())
        assert len(before) >= acknowledged

    code, lines, errors = run(folder, file)
    assert code == 0, errors
    assert lines[-1] == ["model", undisturbed]

    with SqliteLedger.open(folder / "ledger.sqlite") as ledger:
        after = list(ledger.entries())
        head = parse_checkpoint(parse_note(ledger.checkpoint()).text)
    assert after[: len(before)] == before, "an entry was lost or changed"
    assert (head.size, head.root) == (len(after), root([leaf_hash(e) for e in after]))
    recorded = [e.body["round"] for e in map(open_entry, after) if e.kind == "record"]
    assert recorded == [1, 2]
