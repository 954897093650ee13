# SPDX-License-Identifier: Apache-2.0
"""The whole network: up and down; and kill and start of single nodes, for trials of faults."""

import shutil
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from identity.errors import UsageError
from identity.wording import counted
from ops import output
from ops.fabric import build, channel, material, nodes, package, processes, profile
from ops.fabric import plan as plans
from ops.fabric.existing import Network, Say, add_contract, locked, opened, probe, retire
from ops.fabric.plan import MAKING, READY, Plan
from ops.fabric.tools import side_by_side

_STRANGE = set(',"\\\n\r\t')
"""What separates and quotes values in lists on Fabric's command lines."""
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """What ``up`` is asked for; None is "as it is", for a new network the default."""

    consensus: str | None = None
    organisations: int | None = None
    root: str = ""
    """The installation whose contract is run; this program's own for "". For trials of other contracts."""
    tls: bool = False
    """Whether a new network's peers reach their chaincode servers over TLS with client authentication."""


def up(folder: Path, wanted: Wanted, say: Say) -> Network:
    """Make the network, or start what of it does not run; it is ready when each organisation has committed.

    A network that never became ready (a bring-up that was interrupted) is made anew: nobody has used it.

    Raises:
        UsageError, Unavailable: with the step, the process, the end of its log and the next command.
    """
    processes.need_proc()
    need_packages()
    folder = folder.absolute()
    if strange := sorted(set(str(folder)) & _STRANGE):
        raise UsageError(
            "fabric-folder", f"Fabric's programs take no path with {' '.join(map(repr, strange))}: {folder}"
        )
    plans.load(folder)  # refuses a folder that is something else's before anything is written there
    programs = build.programs(say)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    with locked(folder, say):
        plan = plans.load(folder)
        if plan is not None and plan.state == MAKING:
            say("an earlier start was interrupted: making the network anew")
            wanted = replace(wanted, consensus=wanted.consensus or plan.consensus,
                             organisations=wanted.organisations or len(plan.organisations))  # fmt: skip
            _end_all(folder)
            _clear(folder)
            plan = None
        if plan is None:
            return _made(folder, wanted, programs, say)
        _check(folder, plan, wanted)
        return _resumed(Network(folder, plan, programs), say)


def need_packages() -> None:
    """Raises UsageError(fabric-packages) where the packages are missing that chaincode servers and clients need."""
    if missing := [name for name in ("grpc", "fabric_protos") if find_spec(name) is None]:
        install = f"{output.relative(sys.executable)} -m pip install -c constraints.txt -e '.[fabric]'"
        raise UsageError(
            "fabric-packages", f"The packages for Fabric are not installed ({', '.join(missing)}).", next=install
        )


def _made(folder: Path, wanted: Wanted, programs: Path, say: Say) -> Network:
    source = package.source_digest(wanted.root)
    names = plans.default_names(wanted.organisations or 3)
    for attempt in range(_ATTEMPTS):
        plan = plans.make(wanted.consensus or "raft", names, build.digest())
        network = add_contract(Network(folder, plan, programs), 1, source, wanted.root, tls=wanted.tls)
        try:
            return _bring_up(network, say)
        except BaseException as error:
            _end_all(folder)  # nothing is left behind by an attempt that failed; the logs are
            if getattr(error, "code", "") != "fabric-port-taken" or attempt + 1 == _ATTEMPTS:
                raise
        say("somebody took a port that was free a moment ago: choosing others")
        _clear(folder)
    raise AssertionError("the last attempt raises or returns")


def _bring_up(network: Network, say: Say) -> Network:
    folder, plan, tools, contract = network.folder, network.plan, network.tools, network.plan.contract
    organisations = list(plan.organisations)
    say(f"making keys and certificates for {', '.join(one.name for one in organisations)} and the orderers")
    material.generate(tools, plan.orderers, plan.organisations)
    channel.make_genesis(tools, plan)
    nodes.write_settings(folder, plan)
    say(f"starting {', '.join(node.name for node in network.nodes)}")
    network.start()
    say("joining the channel: orderers, then peers")
    side_by_side(lambda one: channel.join_orderer(tools, one), plan.orderers)
    # One after the other: a peer that joins finds those that are there; two that join at once may miss each other.
    for one in organisations:
        channel.join_peer(tools, one)
    say(f"agreeing on the contract {contract.source[:12]}: installing it, waiting for each organisation's approval")
    network.lifecycle.install(network.package(contract), organisations)
    network.lifecycle.approve(contract, organisations)
    network.lifecycle.commit(contract)
    plan = plan.with_contract(replace(contract, committed=True))
    say("waiting for a first transaction by each organisation, endorsed by all")
    profile.write(folder, plan)
    probe(replace(network, plan=plan))
    return network.keep(replace(plan, state=READY))


def _check(folder: Path, plan: Plan, wanted: Wanted) -> None:
    """Refuse to go on with a network that is not the one that is meant, or was made by another version."""
    here = f"{plan.consensus} with {counted(len(plan.organisations), 'organisation')}"
    wipe = output.command_line("fabric", "down", "--dir", folder, "--wipe")
    began = sum(not one.joined for one in plan.organisations)
    counts = (None, began, len(plan.organisations))
    if wanted.consensus not in (None, plan.consensus) or wanted.organisations not in counts:
        raise UsageError(
            "fabric-other-network", f"The network in {folder} is {here}; it stays what it was made.",
            next=f"the same command with another --dir; or, if its ledger is to go: {wipe}",
        )  # fmt: skip
    if plan.build != build.digest():
        message = f"The network in {folder} was made with another build of Hyperledger Fabric ({plan.build[:12]}, now {build.digest()[:12]})."
        raise UsageError("fabric-other-version", message, next=wipe)
    root = wanted.root or plan.contract.root
    if (source := package.source_digest(root)) != plan.contract.source:
        message = (
            f"The network in {folder} runs the contract {plan.contract.source[:12]}; the one in {root or package.HERE} is {source[:12]}.\n"
            "The organisations have to approve another contract before it is run."
        )
        raise UsageError(
            "fabric-other-contract", message, next=output.command_line("fabric", "upgrade", "--dir", folder)
        )


def _resumed(network: Network, say: Say) -> Network:
    nodes.write_settings(network.folder, network.plan)
    profile.write(network.folder, network.plan)
    missing = [node.name for node in network.nodes if processes.running(node.folder) is None]
    if missing:
        say(f"starting {', '.join(missing)}")
        network.start()
    say("waiting for a transaction by each organisation, endorsed by all")
    probe(network)
    return retire(network)


def down(folder: Path, *, wipe: bool, say: Say) -> list[str]:
    """End every process that was started here, and no other; with ``wipe`` remove the folder. Who was ended.

    It needs no readable plan: each node's folder holds the record of its process.
    """
    folder = folder.absolute()
    if not (folder / plans.FILE).exists():
        plans.load(folder)  # refuses what is no network's folder
        if wipe and folder.is_dir():
            shutil.rmtree(folder)
        return []
    with locked(folder, say):
        ended = _end_all(folder)
        if wipe:
            _clear(folder)
    if wipe:
        shutil.rmtree(folder)
    return ended


def _end_all(folder: Path) -> list[str]:
    places = sorted((folder / "nodes").iterdir()) if (folder / "nodes").is_dir() else []
    outcomes = side_by_side(processes.end, places)
    return [place.name for place, ended in zip(places, outcomes, strict=True) if ended]


def _clear(folder: Path) -> None:
    """Remove what a network's folder holds; the plan last, because it says that the folder is one."""
    for place in sorted(folder.iterdir(), key=lambda one: one.name == plans.FILE):
        if place.name == "lock":
            continue
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()


def kill(folder: Path, name: str) -> bool:
    """Kill a node at once (SIGKILL), for trials of faults; whether it ran."""
    return processes.end(opened(folder).node(name).folder, grace=0)


def start(folder: Path, name: str, *, wait: bool = True, impostor: str = "") -> bool:
    """Start a node that was killed, and wait until it listens; whether it was started.

    ``impostor`` is for trials with a chaincode server: the installation whose contract it runs under the agreed
    package's id, as a dishonest organisation can.
    """
    here = opened(folder)
    node = here.node(name)
    if impostor:
        found = [(one, contract) for contract in here.plan.in_force() for one in here.plan.organisations
                 if contract.server(one.name) == name]  # fmt: skip
        one, contract = found[0]
        other = replace(contract, root=impostor, source=package.source_digest(impostor))
        node = nodes.chaincode_node(here.folder, one, other)
    started = nodes.start(node)
    if wait:
        nodes.wait_listening(node)
    return started
