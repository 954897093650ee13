# SPDX-License-Identifier: Apache-2.0
"""A network that exists: what every command that acts on it needs."""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Self

from identity.errors import Unavailable, UsageError
from ops import output
from ops.fabric import build, nodes, package, ports, processes, profile
from ops.fabric import plan as plans
from ops.fabric.lifecycle import Lifecycle
from ops.fabric.nodes import Node
from ops.fabric.plan import Contract, Plan
from ops.fabric.tools import Tools, side_by_side

Say = Callable[[str], None]
PACKAGES = "package"


@dataclass(frozen=True, slots=True)
class Network:
    """A network that exists: its folder and its plan, and what acts on it."""

    folder: Path
    plan: Plan
    programs: Path

    @property
    def tools(self) -> Tools:
        return Tools(self.programs, self.folder)

    @property
    def lifecycle(self) -> Lifecycle:
        return Lifecycle(self.tools, self.plan)

    @property
    def nodes(self) -> list[Node]:
        return nodes.all_nodes(self.folder, self.plan, self.programs)

    def node(self, name: str) -> Node:
        """The node of that name. Raises UsageError(fabric-no-node)."""
        found = {node.name: node for node in self.nodes}
        if name not in found:
            raise UsageError("fabric-no-node", f"The network has no node {name[:60]!r}.\nallowed: {', '.join(found)}")
        return found[name]

    def package(self, contract: Contract) -> Path:
        """The file of a contract's package."""
        return self.folder / PACKAGES / f"{contract.package.replace(':', '-')}.tar.gz"

    def start(self, some: Sequence[Node] | None = None) -> None:
        """Start the nodes that do not run, of these or of all, and wait until each listens."""
        wanted = self.nodes if some is None else some
        for node in wanted:
            nodes.start(node)
        side_by_side(nodes.wait_listening, wanted)

    def keep(self, plan: Plan) -> Self:
        """Write down another plan for this network, and go on with it."""
        plans.save(self.folder, plan)
        return replace(self, plan=plan)


@contextmanager
def locked(folder: Path, say: Say) -> Iterator[None]:
    """Keep other commands from changing the network meanwhile; the system ends the lock with the process."""
    with open(os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another command that is changing this network")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def opened(folder: Path) -> Network:
    """The network in a folder, as it is.

    Raises:
        UsageError: ``fabric-missing``: there is none; and as ``plan.load`` and ``build.programs``.
    """
    folder = folder.absolute()
    plan = plans.load(folder)
    if plan is None:
        up_ = output.command_line("fabric", "up", "--dir", folder)
        raise UsageError("fabric-missing", f"There is no Fabric network in {folder}.", next=up_)
    return Network(folder, plan, build.found() or build.folder() / "bin")


def add_contract(network: Network, sequence: int, source: str, root: str, *, tls: bool) -> Network:
    """Write a contract's package and enter it into the plan, with free ports for its servers."""
    data = package.make(source, tls=tls)
    plan = network.plan
    names = [one.name for one in plan.organisations]
    free = ports.choose(len(names), set(plan.ports()))
    contract = Contract(sequence, package.package_id(data), source, root, dict(zip(names, free, strict=True)), tls=tls)
    network = network.keep(plan.with_contract(contract))
    network.package(contract).parent.mkdir(exist_ok=True)
    network.package(contract).write_bytes(data)
    return network


def probe(network: Network) -> None:
    """Have each organisation commit a transaction that every organisation's contract answers. The profile is there.

    Raises:
        Unavailable: ``fabric-contract-differs`` if a contract answers with another source than was agreed;
            ``fabric-node`` for a process that ended meanwhile, ``fabric-not-ready`` for other failures.
    """
    contract, names = network.plan.contract, [one.name for one in network.plan.organisations]
    readiness = import_module("ops.fabric.readiness")  # which loads what only clients need
    try:
        found = side_by_side(lambda name: readiness.commit(network.folder / profile.FILE, name), names)
    except Unavailable:
        for node in network.nodes:
            if processes.running(node.folder) is None:
                raise nodes.failed(node, "has ended") from None
        raise
    if strange := [source for source in found if source != contract.source]:
        message = f"The channel's contract answers that its source is {strange[0][:12]}, and {contract.source[:12]} was agreed."
        upgrade = output.command_line("fabric", "upgrade", "--dir", network.folder)
        raise Unavailable("fabric-contract-differs", message, next=upgrade)


def retire(network: Network) -> Network:
    """End the servers of contracts that the channel runs no more."""
    plan, contract = network.plan, network.plan.contract
    for old in plan.in_force():
        if old != contract:
            # No transaction that these answer could still become valid: they need no time to take leave.
            folders = [nodes.folder(network.folder, old.server(name)) for name in old.servers]
            side_by_side(lambda place: processes.end(place, grace=0), folders)
            plan = replace(plan, contracts=tuple(one for one in plan.contracts if one != old))
    return network if plan is network.plan else network.keep(plan)
