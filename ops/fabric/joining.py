# SPDX-License-Identifier: Apache-2.0
"""Another organisation on a running channel: a majority of the others signs the change of the channel's configuration.

Then its peer joins from the channel's first block and fetches the rest, its chaincode server starts, and it approves
the contract that the channel runs; from then on it endorses, and counts for the majority.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from chaincode.files import write_whole
from identity.errors import UsageError
from ops import output
from ops.fabric import channel, material, nodes, ports, processes, profile
from ops.fabric.existing import Network, Say, locked, opened, probe
from ops.fabric.lifecycle import Lifecycle
from ops.fabric.plan import CHANNEL, Organisation, Plan, check_names
from ops.fabric.tools import Tools, retried
from ops.fabric.upgrade import check_ready

UPDATE_SECONDS = 30.0
_CONFIG_UPDATE = 2  # the type of an envelope that changes a channel's configuration


def add_organisation(folder: Path, name: str, say: Say) -> Network:
    """Have an organisation join the running channel. Interrupted, it can be called again.

    Raises:
        UsageError: ``fabric-organisations``, ``fabric-joining`` (another one is half-way in), and as ``network.up``.
    """
    processes.need_proc()
    folder = opened(folder).folder
    with locked(folder, say):
        network = opened(folder)
        check_ready(network)
        plan = network.plan
        if any(one.name == name for one in plan.organisations):
            say(f"{name} is in the channel already")
            return network
        if plan.joining is not None and plan.joining.name != name:
            other = output.command_line("fabric", "add-org", plan.joining.name, "--dir", folder)
            raise UsageError("fabric-joining", f"{plan.joining.name} is half-way into the channel.", next=other)
        check_names([*(one.name for one in plan.organisations), name])
        network.start()  # what of the network does not run
        network, newcomer = _planned(network, name)
        _admit(network, newcomer, say)
        return _join(network, newcomer, say)


def _planned(network: Network, name: str) -> tuple[Network, Organisation]:
    """Choose the newcomer's ports, once."""
    plan = network.plan
    if plan.joining is None:
        first, second, third = ports.choose(3, set(plan.ports()))
        network = network.keep(replace(plan, joining=Organisation(name, first, second, third, joined=True)))
    newcomer = network.plan.joining
    if newcomer is None:
        raise AssertionError
    return network, newcomer


def _admit(network: Network, newcomer: Organisation, say: Say) -> None:
    """Have the channel's configuration name the newcomer."""
    tools, plan = network.tools, network.plan
    place = channel.folder(network.folder) / f"join-{newcomer.name}"
    place.mkdir(exist_ok=True)
    config = _config(tools, plan, place)
    groups = config["channel_group"]["groups"]["Application"]["groups"]
    if newcomer.name in groups:
        return  # by an earlier attempt, whose keys are those in the channel
    say(f"making keys and certificates for {newcomer.name}")
    shutil.rmtree(material.organisation(network.folder, newcomer).folder, ignore_errors=True)
    material.generate(tools, (), [newcomer])
    everybody = replace(plan, organisations=(*plan.organisations, newcomer))
    write_whole(place / "configtx.yaml", channel.configtx(network.folder, everybody).encode())
    group = tools.run(
        f"describing {newcomer.name}", "configtxgen", ["-printOrg", newcomer.name, "-configPath", place],
        environment={"FABRIC_LOGGING_SPEC": "error"},
    )  # fmt: skip
    say(f"waiting for the organisations' signatures that admit {newcomer.name}")
    _update(tools, plan, place, config, groups | {newcomer.name: json.loads(group[group.index("{") :])})


def _config(tools: Tools, plan: Plan, place: Path) -> dict[str, Any]:
    """The channel's configuration in force."""
    block, text = place / "config.block", place / "config-block.json"
    lifecycle = Lifecycle(tools, plan)
    tools.run(
        "fetching the channel's configuration", "peer",
        ["channel", "fetch", "config", block, "-c", CHANNEL, *channel.orderer_arguments(tools.network, lifecycle.orderer())],
        environment=channel.administrator(tools.network, plan.organisations[0]),
    )  # fmt: skip
    _translate(tools, "proto_decode", "common.Block", block, text)
    found: dict[str, Any] = json.loads(text.read_bytes())["data"]["data"][0]["payload"]["data"]["config"]
    return found


def _translate(tools: Tools, how: str, what: str, source: Path, target: Path) -> None:
    """Turn Fabric's bytes into JSON, or back."""
    tools.run(
        "reading the channel's configuration", "configtxlator",
        [how, "--type", what, "--input", source, "--output", target],
    )  # fmt: skip


def _update(tools: Tools, plan: Plan, place: Path, config: dict[str, Any], groups: dict[str, Any]) -> None:
    """Change the application's organisations: compute the difference, have each administrator sign it, submit it."""
    old, new = place / "config", place / "config-new"
    for path in (old, new):
        write_whole(path.with_suffix(".json"), json.dumps(config).encode())
        _translate(tools, "proto_encode", "common.Config", path.with_suffix(".json"), path)
        config["channel_group"]["groups"]["Application"]["groups"] = groups
    step, update = "computing the change of the configuration", place / "update"
    tools.run(
        step, "configtxlator",
        ["compute_update", "--channel_id", CHANNEL, "--original", old, "--updated", new, "--output", update],
    )  # fmt: skip
    _translate(tools, "proto_decode", "common.ConfigUpdate", update, place / "update.json")
    header = {"channel_header": {"channel_id": CHANNEL, "type": _CONFIG_UPDATE}}
    data = {"config_update": json.loads((place / "update.json").read_bytes())}
    write_whole(place / "envelope.json", json.dumps({"payload": {"header": header, "data": data}}).encode())
    envelope = place / "envelope"
    _translate(tools, "proto_encode", "common.Envelope", place / "envelope.json", envelope)
    first, *others = plan.organisations
    for one in others:
        tools.run(
            f"signing the change for {one.name}", "peer", ["channel", "signconfigtx", "-f", envelope],
            environment=channel.administrator(tools.network, one),
        )  # fmt: skip
    orderer = channel.orderer_arguments(tools.network, Lifecycle(tools, plan).orderer())
    tools.run(
        "changing the channel's configuration", "peer", ["channel", "update", "-f", envelope, "-c", CHANNEL, *orderer],
        environment=channel.administrator(tools.network, first),
    )  # fmt: skip


def _join(network: Network, newcomer: Organisation, say: Say) -> Network:
    """Start the newcomer's nodes, have them join and agree, and enter it into the plan."""
    contract, folder = network.plan.contract, network.folder
    if newcomer.name not in contract.servers:
        port = ports.choose(1, set(network.plan.ports()))[0]
        contract = replace(contract, servers=contract.servers | {newcomer.name: port})
        network = network.keep(network.plan.with_contract(contract))
    plan = replace(network.plan, organisations=(*network.plan.organisations, newcomer), joining=None)
    everybody = replace(network, plan=plan)
    nodes.write_settings(folder, plan)
    say(f"starting {contract.server(newcomer.name)}, {newcomer.peer}")
    everybody.start()
    if not channel.height(network.tools, newcomer):
        channel.join_peer(network.tools, newcomer)
    say(f"waiting for {newcomer.name} to fetch the channel and to approve the contract {contract.source[:12]}")
    everybody.lifecycle.install(network.package(contract), [newcomer])
    # The newcomer's peer learns of its own membership with the block that says so.
    retried(
        lambda: everybody.lifecycle.approve(contract, [newcomer]), seconds=UPDATE_SECONDS, also="creator org unknown"
    )
    say("waiting for a transaction by each organisation, endorsed by all")
    profile.write(folder, plan)
    probe(everybody)
    return everybody.keep(plan)
