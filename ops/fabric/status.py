# SPDX-License-Identifier: Apache-2.0
"""How a network is: each node, the channel's height at each peer, and the contract that is in force."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from identity.errors import Error, Unavailable
from ops.fabric import channel, package, processes
from ops.fabric.existing import Network
from ops.fabric.plan import Organisation
from ops.fabric.tools import side_by_side

COLUMNS = ("node", "state", "port", "process", "memory", "blocks")


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node; ``pid`` is None while it does not run, ``blocks`` None where nobody answers (or it is no peer)."""

    name: str
    port: int
    pid: int | None
    memory: int
    blocks: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """The network. ``own`` is the digest of the contract that this program has."""

    network: Network
    nodes: Sequence[NodeStatus]
    own: str

    @property
    def down(self) -> list[str]:
        return [node.name for node in self.nodes if node.pid is None]

    def facts(self) -> list[tuple[str, object]]:
        """The network in words."""
        plan = self.network.plan
        same = (
            "this program's"
            if self.own == plan.contract.source
            else f"not this program's, which is {self.own[:12] or 'unknown'}"
        )
        return [
            ("folder", self.network.folder),
            (
                "state",
                plan.state if plan.state == "ready" else "never became ready: `fedledger fabric up` makes it anew",
            ),
            ("orderers", f"{len(plan.orderers)} ({plan.consensus})"),
            ("organisations", ", ".join(one.name for one in plan.organisations)),
            ("contract", f"{plan.contract.source[:12]}, version {plan.contract.sequence}: {same}"),
            ("memory", f"{sum(node.memory for node in self.nodes) >> 20} MiB"),
        ]

    def rows(self) -> list[tuple[object, ...]]:
        """The nodes for a table."""
        return [
            (node.name, "running" if node.pid else "NOT RUNNING", node.port, node.pid or "",
             f"{node.memory >> 20} MiB" if node.pid else "", "" if node.blocks is None else node.blocks)
            for node in self.nodes
        ]  # fmt: skip

    def as_json(self) -> dict[str, Any]:
        """The whole for programs."""
        plan = self.network.plan
        return {
            "folder": str(self.network.folder), "state": plan.state, "consensus": plan.consensus,
            "organisations": [one.name for one in plan.organisations], "contract": plan.contract.source,
            "sequence": plan.contract.sequence, "package": plan.contract.package, "own_contract": self.own,
            "nodes": [
                {"name": one.name, "port": one.port, "pid": one.pid, "memory": one.memory, "blocks": one.blocks}
                for one in self.nodes
            ],
        }  # fmt: skip


def look(network: Network) -> Status:
    """Look at every node, and ask the peers that run for the channel's height."""
    organisations = {one.peer: one for one in network.plan.organisations}
    live = {node.name: processes.running(node.folder) for node in network.nodes}
    asked = [one for name, one in organisations.items() if live[name]]
    heights = dict(
        zip([one.peer for one in asked], side_by_side(lambda one: _height(network, one), asked), strict=True)
    )
    found = [
        NodeStatus(
            node.name, node.port, process.pid if (process := live[node.name]) else None,
            processes.resident_bytes(process) if process else 0, heights.get(node.name),
        )
        for node in network.nodes
    ]  # fmt: skip
    try:
        own = package.source_digest()
    except Error:
        own = ""
    return Status(network, found, own)


def _height(network: Network, one: Organisation) -> int | None:
    try:
        return channel.height(network.tools, one)
    except Unavailable:
        return None
