# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the Fabric ledger, in small: it measures what it says, on a network that is gone afterwards."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from ops.bench import fabric, fabric_costs, fabric_network
from ops.bench.fabric_blocks import verification
from ops.bench.limits_measure import Paired
from ops.fabric import network as networks
from ops.fabric import processes
from ops.fabric.existing import Network
from ops.fabric.network import Wanted
from tests.chaincode.blocks.recordings import recording
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
    assert len(rows) == 9
    assert all(row["ratio"] > 0 for row in rows.values())
    measured = found["measured"]
    assert [len(one["fabric"]) for one in measured["rounds"]] == [fabric.QUICK.turns] * 2
    sites = fabric.QUICK.commitments
    # Founding, admissions, two agreements with their signatures and first opening, and the rounds of each, of which one is
    # not counted; each round opens the next one.
    two = (fabric.QUICK.small, fabric.QUICK.large)
    rounds = sum(2 + n + (n + 3) * (fabric.QUICK.turns + 1) for n in two)
    assert measured["verified"]["entries"] == 2 + sites + rounds
    assert {name.partition("-")[0] for name in measured["memory"]} == {"orderer", "peer", "chaincode"}
    # The longer channel: what was stored at once as well (in one turn that is not counted, one that is, and a burst).
    assert measured["everywhere"]["entries"] >= measured["verified"]["entries"] + 1 + sites + 3 * (sites + 3)
    page = (tmp_path / "results" / "fabric.md").read_text()
    assert page.count("### ") == 3
    assert "processor time of the peers" in page
    assert [processes.running(node.folder) for node in made[0].nodes] == [None] * 7
    assert not made[0].folder.exists()


def test_the_parts_of_a_verification_are_all_of_it() -> None:
    channel = recording("raft")
    found = verification(channel.blocks, channel.trust, turns=3)
    assert (found.blocks, found.entries) == (len(channel.blocks), 27)
    assert found.signatures > 2 * found.blocks  # orderer, client and endorsers
    assert min(asdict(found.parts).values()) > 0
    assert found.parts.whole == pytest.approx(min(found.taken.ours), rel=0.5)
    assert found.parts.authors < found.parts.network < found.parts.whole  # as many signatures as entries, and more


def test_blocks_that_do_not_verify_are_no_measurement() -> None:
    channel = recording("raft")
    with pytest.raises(RuntimeError, match="do not verify"):
        verification([*channel.blocks[:3], *channel.blocks[4:]], channel.trust, turns=1)


def test_what_is_attainable_is_the_floor_and_the_signatures() -> None:
    assert fabric_costs.attainable(0.2, 1000, 20_000) == pytest.approx(0.2 / 0.3)  # each verified by two organisations


def test_what_fabric_adds_is_the_difference_in_each_turn() -> None:
    one = fabric.Round(10, embedded=[0.1, 0.2, 0.3], fabric=[0.6, 0.6, 0.9], floor=[0.4, 0.4, 0.4])
    assert one.added == pytest.approx(0.5)
    assert Paired(limit=(1.0, 1.0), ours=(2.0,)).ratio == 2.0
