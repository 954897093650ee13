# SPDX-License-Identifier: Apache-2.0
"""Another version of the contract on a running channel, with the lifecycle's approvals.

The new servers start beside the old ones; each peer's external builder knows their address when the new package is
installed. When the definition is committed the channel runs the new contract from the next block on; a transaction
that was endorsed under the old one becomes invalid, and its client endorses it anew. Then the old servers end. At no
time is there no contract.
"""

from dataclasses import replace
from pathlib import Path

from identity.errors import UsageError
from ops import output
from ops.fabric import nodes, package, processes
from ops.fabric.existing import Network, Say, add_contract, locked, opened, probe, retire
from ops.fabric.plan import READY, Contract


def upgrade(folder: Path, root: str, say: Say) -> Network:
    """Have the organisations agree on the contract in ``root`` (this program's own for ""), and run it.

    Interrupted, it can be called again. Raises UsageError(fabric-not-ready), and as ``network.up``.
    """
    processes.need_proc()
    folder = opened(folder).folder
    with locked(folder, say):
        network = opened(folder)
        plan = network.plan
        check_ready(network)
        source = package.source_digest(root)
        if plan.contract.source == source:
            say(f"the channel runs this contract already: {source[:12]}")
            return network
        network, coming = _coming(network, source, root)
        nodes.write_settings(folder, network.plan)
        servers = [nodes.chaincode_node(folder, one, coming) for one in plan.organisations]
        say(
            f"starting {', '.join(node.name for node in servers)}, beside the servers of version {plan.contract.sequence}"
        )
        network.start([node for node in network.nodes if node.kind != "chaincode"] + servers)
        _agree(network, coming, say)
        network = network.keep(network.plan.with_contract(replace(coming, committed=True)))
        say("waiting for a transaction by each organisation, endorsed by all under the new contract")
        probe(network)
        say(f"ending the servers of version {plan.contract.sequence}")
        return retire(network)


def check_ready(network: Network) -> None:
    """Raises UsageError(fabric-not-ready) for a network that never became ready, or that an upgrade or join left."""
    if network.plan.state != READY:
        up = output.command_line("fabric", "up", "--dir", network.folder)
        raise UsageError("fabric-not-ready", f"The network in {network.folder} never became ready.", next=up)


def _coming(network: Network, source: str, root: str) -> tuple[Network, Contract]:
    """The next version, as an interrupted upgrade left it, or new."""
    sequence = network.plan.contract.sequence + 1
    left = next((one for one in network.plan.contracts if one.sequence == sequence), None)
    if left is None or left.source != source:
        if left is not None:  # of another attempt, for another contract
            for name in left.servers:
                processes.end(nodes.folder(network.folder, left.server(name)), grace=0)
        network = add_contract(network, sequence, source, root, tls=network.plan.contract.tls)
    return network, next(one for one in network.plan.contracts if one.sequence == sequence)


def _agree(network: Network, coming: Contract, say: Say) -> None:
    lifecycle, organisations = network.lifecycle, list(network.plan.organisations)
    if lifecycle.committed(organisations[0]) == (coming.sequence, coming.source):
        return  # by an earlier attempt
    say(f"agreeing on the contract {coming.source[:12]}: installing it, waiting for each organisation's approval")
    lifecycle.install(network.package(coming), organisations)
    lifecycle.approve(coming, organisations)
    lifecycle.commit(coming)
