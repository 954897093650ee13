# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the Fabric ledger, in small: it measures what it says, on a network that is gone afterwards."""

import json
from pathlib import Path

import pytest

from ops.bench import fabric, fabric_network
from ops.bench.limits_measure import Paired
from ops.fabric import network as networks
from ops.fabric import processes
from ops.fabric.existing import Network
from ops.fabric.network import Wanted
from tests.fabric_network import copy_contract, quiet


def test_it_measures_and_takes_its_network_down(
    fabric_ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Network] = []
    contract = copy_contract(tmp_path / "contract")

    def up(folder: Path) -> Network:
        made.append(networks.up(folder, Wanted("raft", 3, root=contract), quiet))
        return made[0]

    monkeypatch.setattr(fabric_network, "up", up)
    assert fabric.main(["--quick", "--results", str(tmp_path / "results")]) == 0
    assert "commitments a second" in capsys.readouterr().out
    found = json.loads((tmp_path / "results" / "fabric.json").read_text())
    rows = {row["what"]: row for row in found["rows"]}
    assert len(rows) == 8
    assert all(row["ratio"] > 0 for row in rows.values())
    measured = found["measured"]
    assert [len(one["fabric"]) for one in measured["rounds"]] == [fabric.QUICK.turns] * 2
    sites = fabric.QUICK.commitments
    # Founding, admissions, two agreements with their signatures, and the rounds of each, of which one is not counted.
    two = (fabric.QUICK.small, fabric.QUICK.large)
    rounds = sum(1 + n + (n + 3) * (fabric.QUICK.turns + 1) for n in two)
    assert measured["verified"]["entries"] == 2 + sites + rounds
    assert {name.partition("-")[0] for name in measured["memory"]} == {"orderer", "peer", "chaincode"}
    assert "fabric.md" in {path.name for path in (tmp_path / "results").iterdir()}
    assert [processes.running(node.folder) for node in made[0].nodes] == [None] * 7
    assert not made[0].folder.exists()


def test_what_fabric_adds_is_the_difference_in_each_turn() -> None:
    one = fabric.Round(10, embedded=[0.1, 0.2, 0.3], fabric=[0.6, 0.6, 0.9], floor=[0.4, 0.4, 0.4])
    assert one.added == pytest.approx(0.5)
    assert Paired(limit=(1.0, 1.0), ours=(2.0,)).ratio == 2.0
