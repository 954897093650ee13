# SPDX-License-Identifier: Apache-2.0
"""A real Fabric network: brought up, hurt, brought back, joined, upgraded and taken down. The tests go on from one another."""

import os
import socket
from pathlib import Path

import pytest

from chaincode.ledgers.fabric.profile import load_profile
from coordinator.processes import PROC, started
from identity.errors import Unavailable, UsageError
from ops.fabric import (
    channel,
    existing,
    joining,
    network,
    package,
    processes,
    readiness,
    status,
    upgrade,
)
from ops.fabric.existing import Network
from ops.fabric.network import Wanted
from tests.fabric_network import MakeNetwork, copy_contract, quiet
from tests.ops.runs import Terminal


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> str:
    return copy_contract(tmp_path_factory.mktemp("contract"))


@pytest.fixture(scope="module")
def folder(make_network: MakeNetwork, contract: str) -> Path:
    return make_network(Wanted(root=contract)).folder


def pids(here: Network) -> dict[str, int]:
    """The processes of the nodes that run."""
    return {node.name: process.pid for node in here.nodes if (process := processes.running(node.folder))}


def blocks(folder: Path) -> int:
    """The height of the channel at the peer that has most of it."""
    return max(node.blocks or 0 for node in status.look(existing.opened(folder)).nodes)


def listening(pid: int) -> list[str]:
    """The addresses (in the kernel's hex) at which a process listens for TCP."""
    own = {os.readlink(link) for link in (PROC / str(pid) / "fd").iterdir() if link.exists() or link.is_symlink()}
    found = []
    for table in ("tcp", "tcp6"):
        for line in (PROC / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                found.append(fields[1].partition(":")[0])
    return found


def test_the_network_is_up(folder: Path, contract: str) -> None:
    here = existing.opened(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(pids(here)) == [
        "chaincode-coordinator", "chaincode-hospitals-1", "chaincode-hospitals-2", "orderer-1",
        "peer-coordinator", "peer-hospitals-1", "peer-hospitals-2",
    ]  # fmt: skip
    # The definition, and a transaction by each organisation.
    assert blocks(folder) >= 3
    assert here.plan.contract.source == package.source_digest(contract)
    for one in here.plan.organisations:
        assert here.lifecycle.committed(one) == (1, here.plan.contract.source)


def test_every_process_listens_on_loopback_only(folder: Path) -> None:
    for name, pid in pids(existing.opened(folder)).items():
        addresses = listening(pid)
        assert addresses, name
        assert set(addresses) <= {"0100007F", "0" * 24 + "01000000", "0000000000000000FFFF00000100007F"}, name


def test_the_profile_is_what_a_client_reads(folder: Path) -> None:
    profile, here = load_profile(folder / "profile.json"), existing.opened(folder).plan
    assert (profile.channel, profile.chaincode) == ("fedledger", "fedledger")
    assert [one.msp for one in profile.organisations] == ["CoordinatorMSP", "Hospitals1MSP", "Hospitals2MSP"]
    assert [node.address for one in profile.organisations for node in one.peers] == [
        f"127.0.0.1:{one.port}" for one in here.organisations
    ]  # fmt: skip
    for one in profile.organisations:
        assert all(path is not None and path.is_file() for path in (one.certificate, one.key))
    assert profile.genesis.is_file()


def test_up_on_a_running_network_starts_nothing(folder: Path, terminal: Terminal) -> None:
    before = pids(existing.opened(folder))
    assert "profile.json" in terminal("fabric", "up", "--dir", folder)
    assert "starting" not in terminal.err
    assert "ready" in terminal.err
    assert pids(existing.opened(folder)) == before


def test_status_and_logs(folder: Path, terminal: Terminal) -> None:
    found = terminal.json("fabric", "status", "--dir", folder)
    assert found["state"] == "ready"
    assert {one["name"] for one in found["nodes"] if one["blocks"]} == {
        "peer-coordinator",
        "peer-hospitals-1",
        "peer-hospitals-2",
    }
    assert sum(one["memory"] for one in found["nodes"]) < 1500 << 20
    assert "ready 127.0.0.1:" in terminal("fabric", "logs", "chaincode-coordinator", "--dir", folder)
    terminal("fabric", "logs", "nobody", "--dir", folder, code=2)
    assert "allowed: chaincode-coordinator" in terminal.err


def test_killed_nodes_are_named_and_up_starts_them_again(folder: Path, terminal: Terminal) -> None:
    before, height = pids(existing.opened(folder)), blocks(folder)
    killed = ["chaincode-hospitals-1", "peer-hospitals-2"]
    assert [network.kill(folder, name) for name in killed] == [True, True]
    assert not network.kill(folder, killed[0])
    terminal("fabric", "status", "--dir", folder, code=3)
    assert "Not running: chaincode-hospitals-1, peer-hospitals-2." in terminal.err
    terminal("fabric", "up", "--dir", folder)
    after = pids(existing.opened(folder))
    assert {name for name in before if before[name] != after[name]} == set(killed)
    assert blocks(folder) > height


def test_a_single_node_can_be_started(folder: Path) -> None:
    network.kill(folder, "chaincode-coordinator")
    assert network.start(folder, "chaincode-coordinator")
    assert not network.start(folder, "chaincode-coordinator")
    existing.probe(existing.opened(folder))


def test_everything_killed_comes_back_with_all_that_was_committed(folder: Path) -> None:
    here, height = existing.opened(folder), blocks(folder)
    for node in here.nodes:
        processes.end(node.folder, grace=0)
    assert pids(here) == {}
    network.up(folder, Wanted(), quiet)
    assert blocks(folder) > height


def test_a_port_that_somebody_took_meanwhile(folder: Path) -> None:
    here = existing.opened(folder)
    peer = here.node("peer-coordinator")
    assert sorted(network.down(folder, wipe=False, say=quiet)) == sorted(node.name for node in here.nodes)
    with (
        socket.create_server(("127.0.0.1", peer.port)),
        pytest.raises(Unavailable, match=f"peer-coordinator needs port {peer.port}"),
    ):
        network.up(folder, Wanted(), quiet)
    network.up(folder, Wanted(), quiet)


def test_a_moved_folder_is_still_the_network(folder: Path) -> None:
    network.down(folder, wipe=False, say=quiet)
    moved = folder.with_name("another place")
    folder.rename(moved)
    try:
        network.up(moved, Wanted(), quiet)
        network.down(moved, wipe=False, say=quiet)
    finally:
        moved.rename(folder)
    network.up(folder, Wanted(), quiet)


def test_a_contract_that_was_edited_is_not_run(folder: Path, contract: str) -> None:
    file = Path(contract) / "chaincode" / "contract.py"
    approved = file.read_text()
    network.kill(folder, "chaincode-hospitals-2")
    file.write_text(approved + "# a small improvement\n")
    try:
        with pytest.raises(UsageError, match="have to approve") as caught:
            network.up(folder, Wanted(), quiet)
        assert caught.value.code == "fabric-other-contract"
        # The server itself refuses as well, whoever starts it.
        with pytest.raises(Unavailable, match="approved package is for the source"):
            network.start(folder, "chaincode-hospitals-2")
    finally:
        file.write_text(approved)
    network.up(folder, Wanted(), quiet)


def test_an_organisation_that_runs_another_contract_is_found_out(folder: Path, tmp_path: Path) -> None:
    other = copy_contract(tmp_path / "other", comment="with a back door")
    network.kill(folder, "chaincode-hospitals-2")
    network.start(folder, "chaincode-hospitals-2", impostor=other)
    try:
        # Its answer is not the others', so that no transaction can bear all three endorsements.
        with pytest.raises(Unavailable, match="ProposalResponsePayloads do not match") as caught:
            readiness.commit(folder / "profile.json", "coordinator", seconds=0)
        assert caught.value.code == "fabric-not-ready"
    finally:
        network.kill(folder, "chaincode-hospitals-2")
    network.up(folder, Wanted(), quiet)


def test_another_organisation_joins(folder: Path, terminal: Terminal) -> None:
    terminal("fabric", "add-org", "hospitals-3", "--dir", folder)
    here = existing.opened(folder)
    newcomer = here.plan.organisation("hospitals-3")
    assert newcomer.joined
    assert channel.height(here.tools, newcomer) == blocks(folder)
    assert here.lifecycle.committed(newcomer)[0] == 1
    assert [one.name for one in load_profile(folder / "profile.json").organisations][-1] == "hospitals-3"
    before = pids(here)
    joining.add_organisation(folder, "hospitals-3", quiet)
    assert pids(existing.opened(folder)) == before
    with pytest.raises(UsageError):
        joining.add_organisation(folder, "../x", quiet)


def test_another_contract_needs_the_approvals_and_then_runs(folder: Path, tmp_path: Path) -> None:
    other = copy_contract(tmp_path / "other", comment="another version")
    before = existing.opened(folder)
    after = upgrade.upgrade(folder, other, quiet)
    assert after.plan.contract.source == package.source_digest(other) != before.plan.contract.source
    assert [one.sequence for one in after.plan.contracts] == [2]
    for one in after.plan.organisations:
        assert after.lifecycle.committed(one) == (2, after.plan.contract.source)
        assert readiness.commit(folder / "profile.json", one.name) == after.plan.contract.source
    assert not any("chaincode" in name for name in pids(before))
    running = pids(after)
    assert running.keys() >= {"chaincode-coordinator-2", "chaincode-hospitals-3-2"}
    upgrade.upgrade(folder, other, quiet)
    assert pids(existing.opened(folder)) == running
    network.down(folder, wipe=False, say=quiet)
    network.up(folder, Wanted(), quiet)


def test_down_ends_everything_and_wipe_removes_it(folder: Path, terminal: Terminal) -> None:
    running = pids(existing.opened(folder))
    assert "ended: chaincode-coordinator-2, " in terminal("fabric", "down", "--dir", folder)
    assert [name for name, pid in running.items() if started(pid)] == []
    assert "nothing was running" in terminal("fabric", "down", "--dir", folder)
    assert folder.is_dir()
    terminal("fabric", "down", "--dir", folder, "--wipe")
    assert not folder.exists()
