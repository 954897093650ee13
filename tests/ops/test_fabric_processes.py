# SPDX-License-Identifier: Apache-2.0
"""The processes, ports and steps of a Fabric network: what is started, found, ended, left alone and tried again."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.processes import started
from identity.errors import Unavailable, UsageError
from ops.fabric import existing, network, nodes, ports, processes
from ops.fabric.nodes import Node
from ops.fabric.tools import Tools, retried
from tests.ops.fabric_files import SLEEP, quiet, ready_plan, script, sleeping


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Path]:
    with sleeping(tmp_path / "nodes" / "sleeper") as place:
        yield place


def test_a_process_that_runs_is_ended_by_id_and_start_time(sleeper: Path) -> None:
    process = processes.running(sleeper)
    assert process == started(process.pid if process else 0)
    assert processes.end(sleeper)
    assert processes.running(sleeper) is None
    assert process
    assert started(process.pid) is None
    assert not processes.end(sleeper)


def test_down_leaves_a_process_alone_whose_id_was_given_to_another(tmp_path: Path) -> None:
    folder = tmp_path / "network"
    ready_plan(folder)
    me = started(os.getpid())
    assert me
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with subprocess.Popen(SLEEP) as other:
        process = started(other.pid)
        assert process
        for name, record in {
            "later": {"boot": boot, "pid": process.pid, "started": process.started - 1},
            "before-a-restart": {"boot": "0" * 36, "pid": process.pid, "started": process.started},
            "init": {"boot": boot, "pid": 1, "started": 0},
            "group": {"boot": boot, "pid": -other.pid, "started": process.started},
            "text": {"boot": boot, "pid": str(other.pid), "started": process.started},
            "damaged": [],
        }.items():
            (folder / "nodes" / name).mkdir(parents=True)
            (folder / "nodes" / name / "process.json").write_text(json.dumps(record))
        assert network.down(folder, wipe=False, say=quiet) == []
        assert other.poll() is None
        other.kill()


def test_one_that_does_not_end_when_asked_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    process = processes.launch(
        tmp_path, ["sh", "-c", f"trap '' TERM; : > {ready}; while :; do sleep 1; done"], os.environ, tmp_path
    )
    assert process
    while not ready.exists():
        os.sched_yield()
    assert processes.end(tmp_path, grace=0.2)
    assert started(process.pid) is None


def a_node(tmp_path: Path, command: list[str], port: int) -> Node:
    return Node("peer-x", "peer", port, (port,), tmp_path / "nodes" / "peer-x", tuple(command), {}, tmp_path)


def test_a_port_that_is_taken_is_named_with_the_node(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Unavailable, match=rf"peer-x needs port {port}") as caught:
            nodes.start(a_node(tmp_path, SLEEP, port))
    assert caught.value.code == "fabric-port-taken"
    assert not (tmp_path / "nodes").exists()


def test_a_node_that_ends_at_once_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    node = a_node(tmp_path, ["sh", "-c", "echo the disk is on fire; exit 1"], ports.choose(1)[0])
    nodes.start(node)
    with pytest.raises(Unavailable, match="the disk is on fire") as caught:
        nodes.wait_listening(node)
    assert caught.value.code == "fabric-node"
    assert "fabric logs peer-x" in str(caught.value.next)


def test_a_node_that_never_listens_is_named(tmp_path: Path) -> None:
    node = a_node(tmp_path, SLEEP, ports.choose(1)[0])
    nodes.start(node)
    try:
        with pytest.raises(Unavailable, match="does not listen"):
            nodes.wait_listening(node, seconds=0.2)
    finally:
        processes.end(node.folder, grace=0)


def test_nodes_get_no_setting_of_ours_and_none_of_fabrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDLEDGER_PASSPHRASE_FILE", "/secret")
    monkeypatch.setenv("CORE_PEER_ADDRESS", "elsewhere:7051")
    node = a_node(tmp_path, ["env"], ports.choose(1)[0])
    nodes.start(node)
    with pytest.raises(Unavailable) as caught:
        nodes.wait_listening(node)
    assert "secret" not in caught.value.message
    assert "elsewhere" not in caught.value.message
    assert "PATH=" in caught.value.message


def test_a_step_is_tried_again_only_while_what_fails_may_pass(tmp_path: Path) -> None:
    tools = Tools(tmp_path, tmp_path)
    script(
        tmp_path / "peer",
        f"echo x >> {tmp_path}/calls; [ $(wc -l < {tmp_path}/calls) -ge 3 ] || {{ echo 'no Raft leader'; exit 1; }}; echo done",
    )
    assert retried(lambda: tools.run("a step", "peer", []), seconds=20) == "done\n"
    script(tmp_path / "peer", "echo 'access denied'; exit 1")
    with pytest.raises(Unavailable, match="a step: peer failed:\naccess denied"):
        retried(lambda: tools.run("a step", "peer", []), seconds=20)


def test_what_a_program_says_about_its_usage_is_left_out(tmp_path: Path) -> None:
    script(
        tmp_path / "peer",
        "printf 'Error: \\033[31mthe reason\\033[0m\\nUsage:\\n  peer [flags]\\n\\nFlags:\\n  -h, --help\\n'; exit 1",
    )
    with pytest.raises(Unavailable) as caught:
        Tools(tmp_path, tmp_path).run("a step", "peer", [])
    assert caught.value.message.splitlines()[1:] == ["Error: the reason"]


def test_a_node_that_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "network"
    ready_plan(folder)
    with pytest.raises(UsageError, match=r"allowed: chaincode-coordinator, .*peer-hospitals-1"):
        existing.opened(folder).node("../../etc/passwd")
