# SPDX-License-Identifier: Apache-2.0
"""Starts that end badly and networks of several orderers, on real processes; and the package for other networks."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from coordinator.processes import started
from ops.fabric import build, existing, network, package, plan, ports, processes, readiness
from ops.fabric.existing import Network
from ops.fabric.network import Wanted
from tests.fabric_network import ROOT, MakeNetwork, copy_contract, owned, quiet
from tests.ops.fabric_files import packaged_source
from tests.ops.runs import Terminal


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> str:
    return copy_contract(tmp_path_factory.mktemp("contract"))


def test_an_up_that_is_killed_leaves_nothing_that_the_next_one_does_not_find(
    fabric_ready: Path, contract: str, tmp_path: Path
) -> None:
    folder = tmp_path / "network"
    command = [sys.executable, "-m", "ops.cli", "fabric", "up", "--dir", str(folder), "--contract", contract]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr
        for line in child.stderr:  # when nodes run, and before anything is committed
            if "joining the channel" in line:
                child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    here = existing.opened(folder)
    left = [process for node in here.nodes if (process := processes.running(node.folder))]
    assert left
    try:
        said: list[str] = []
        network.up(folder, Wanted(root=contract), said.append)
        assert "an earlier start was interrupted: making the network anew" in said
        assert [process for process in left if started(process.pid) == process] == []
    finally:
        network.down(folder, wipe=True, say=quiet)


def test_ports_that_are_taken_while_the_network_is_made_are_chosen_again(
    make_network: MakeNetwork, contract: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose, calls = ports.choose, []
    with socket.create_server(("127.0.0.1", 0)) as other:

        def once_late(count: int, avoid: Collection[int] = ()) -> list[int]:
            calls.append(count)
            return [other.getsockname()[1], *choose(count - 1, avoid)] if len(calls) == 1 else choose(count, avoid)

        monkeypatch.setattr(ports, "choose", once_late)
        here = make_network(Wanted(organisations=1, root=contract))
        assert other.getsockname()[1] not in set(here.plan.ports())
    network.down(here.folder, wipe=True, say=quiet)


@pytest.fixture(params=["raft3", "bft"])
def several(request: pytest.FixtureRequest, make_network: MakeNetwork, contract: str) -> Iterator[Network]:
    here = make_network(Wanted(request.param, root=contract))
    yield here
    network.down(here.folder, wipe=True, say=quiet)


def test_one_of_several_orderers_may_die(several: Network) -> None:
    last = several.plan.orderers[-1].name
    network.kill(several.folder, last)
    for one in several.plan.organisations:
        assert readiness.commit(several.folder / "profile.json", one.name) == several.plan.contract.source
    assert network.start(several.folder, last)
    network.up(several.folder, Wanted(), quiet)


def test_networks_of_killed_test_runs_are_taken_down(
    fabric_ready: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("fabric-left")
    (place / "owner.json").write_text(json.dumps([os.getpid(), 1]))  # a process of that id, and another start
    left = place / "network"
    (left / "nodes" / "peer-x").mkdir(parents=True)
    (left / plan.FILE).write_text("{}")
    assert processes.launch(left / "nodes" / "peer-x", ["sleep", "600"], os.environ, left)
    with owned(tmp_path_factory):
        assert not left.exists()
    shutil.rmtree(place)


def test_the_package_and_its_page_for_operators(terminal: Terminal, tmp_path: Path) -> None:
    terminal("fabric", "package", "-o", str(tmp_path / "fedledger.tar.gz"))
    data = (tmp_path / "fedledger.tar.gz").read_bytes()
    assert packaged_source(data) == package.source_digest()
    assert package.package_id(data) in (tmp_path / "fedledger.tar.gz.md").read_text()
    assert build.RELEASE in (ROOT / "ops" / "fabric" / "go.mod").read_text()
