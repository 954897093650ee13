# SPDX-License-Identifier: Apache-2.0
"""Federations on a real Fabric network whose nodes are killed under them: the same model as without a network, nothing that
was acknowledged is lost, and the operator is told which component is away and what to do."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from chaincode.audit import PASS
from chaincode.entries import open_entry
from chaincode.ledgers.fabric.profile import save_profile
from chaincode.ledgers.sqlite import SqliteLedger
from ops.audits import verify_folder
from ops.fabric import existing, processes
from ops.fabric.existing import Network
from ops.fabric.network import Wanted
from tests.fabric_ledgers import fresh
from tests.fabric_network import MakeNetwork, copy_contract

ROOT = Path(__file__).resolve().parent.parent.parent
FILE = """
name = "hurt"
task = "breast-cancer"
sites = 4
rounds = {rounds}
seed = 7

[agreement]
purpose = "Tests"
legal_basis = "Public research data"
min_participants = 4
"""
HURT = (
    "train:1:bounce:chaincode-hospitals-1",
    "train:2:kill:peer-coordinator", "record:2:start:peer-coordinator",
    "train:3:kill:peer-hospitals-2", "record:3:start:peer-hospitals-2",
    "before-seal:4:armed:orderer-1",
)  # fmt: skip
Lines = list[list[str]]


def carry_out(module: str, *arguments: object) -> tuple[int, Lines, str]:
    """The exit code, the printed lines and what was on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.ops.{module}", *map(str, arguments)],
        capture_output=True, text=True, timeout=200, cwd=ROOT, check=False, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    return done.returncode, [line.split() for line in done.stdout.splitlines()], done.stderr


def file_of(folder: Path, rounds: int) -> Path:
    path = folder / "federation.toml"
    path.write_text(FILE.format(rounds=rounds))
    return path


@pytest.fixture(scope="module")
def here(make_network: MakeNetwork, tmp_path_factory: pytest.TempPathFactory) -> Network:
    return make_network(Wanted(root=copy_contract(tmp_path_factory.mktemp("contract"))))


def profile_beside(folder: Path, here: Network) -> Path:
    """The profile of an empty ledger on the network, in a file of its own."""
    made = replace(fresh(here), path=folder / "profile.json")
    save_profile(made)
    return made.path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """The models of an undisturbed run on the embedded ledger, by their round."""
    folder = tmp_path_factory.mktemp("embedded")
    code, _, errors = carry_out("killed_run", file_of(folder, 4), folder / "run")
    assert code == 0, errors
    with SqliteLedger.open(folder / "run" / "ledger.sqlite") as ledger:
        records = [open_entry(logged.envelope) for logged in ledger.find("record")]
    return {record.body["round"]: record.subjects["model"] for record in records}


Run = tuple[Path, Lines, str]


@pytest.fixture(scope="module")
def hurt(here: Network, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of four rounds, in each of which another component is killed."""
    folder = tmp_path_factory.mktemp("hurt")
    arguments = (file_of(folder, 4), folder / "run", profile_beside(folder, here), here.folder, *HURT)
    code, lines, errors = carry_out("hurt_run", *arguments)
    assert code == 0, errors
    return folder / "run", lines, errors


def test_the_model_is_that_of_the_undisturbed_run(hurt: Run, models: dict[int, str]) -> None:
    assert hurt[1][-1] == ["model", models[4]]


def test_the_audit_passes_on_the_kept_blocks(hurt: Run) -> None:
    report = verify_folder(hurt[0])
    assert report.result == PASS, report
    with SqliteLedger.open(hurt[0] / "ledger.sqlite") as replica:
        entries = [open_entry(envelope) for envelope in replica.entries()]
    assert report.size == len(entries)
    assert [e.body["attempt"] for e in entries if e.kind == "record"] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("node", "effect"),
    [
        ("peer-coordinator", "another organisation's peer"),
        ("peer-hospitals-2", "another organisation's peer"),
        ("orderer-1", "waits for the orderers"),
    ],
)
def test_the_operator_is_told_what_is_away_and_that_it_is_back(
    hurt: Run, here: Network, node: str, effect: str
) -> None:
    told = hurt[2].splitlines()
    (line,) = [n for n, text in enumerate(told) if f"{node} does not run" in text]
    assert effect in told[line]
    assert f"fabric up --dir {here.folder}" in told[line + 1]
    assert any(f"{node} runs again" in text for text in told[line:])


def test_everything_is_killed_under_load_and_the_run_goes_on(
    here: Network, models: dict[int, str], tmp_path: Path
) -> None:
    arguments = (file_of(tmp_path, 2), tmp_path / "run", profile_beside(tmp_path, here), here.folder)
    code, lines, errors = carry_out("hurt_run", *arguments, "train:2:everything")
    assert code == -9, errors
    acknowledged = int(lines[-1][1])
    with SqliteLedger.open(tmp_path / "run" / "ledger.sqlite") as replica:
        before = list(replica.entries())
    assert len(before) >= acknowledged
    assert list((tmp_path / "run" / "pending").rglob("*.transaction")), "nothing was under way"
    assert all(processes.running(node.folder) is None for node in existing.opened(here.folder).nodes)

    code, lines, errors = carry_out("hurt_run", *arguments)
    assert code == 0, errors
    assert lines[-1] == ["model", models[2]]
    assert "starting it" in errors
    with SqliteLedger.open(tmp_path / "run" / "ledger.sqlite") as replica:
        after = list(replica.entries())
    assert after[: len(before)] == before, "an entry was lost or changed"
    assert verify_folder(tmp_path / "run").result == PASS


def test_a_second_federation_is_refused_and_leaves_no_run(hurt: Run, here: Network, tmp_path: Path) -> None:
    profile = next(hurt[0].parent.glob("profile.json"))
    folder = tmp_path / "run"
    code, _, errors = carry_out("hurt_run", file_of(tmp_path, 2), folder, profile, here.folder)
    assert code != 0
    assert "already-founded" in errors
    assert not (folder / "fabric.json").exists()
    assert not (folder / "ledger.sqlite").exists(), "it would be shown as this run's"
