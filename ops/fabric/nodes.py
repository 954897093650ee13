# SPDX-License-Identifier: Apache-2.0
"""The nodes of a network: orderers, peers and chaincode servers, with their settings and how each is started."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chaincode.files import write_whole
from chaincode.ledgers.fabric.pauses import Pauses
from identity.errors import Unavailable
from ops import output, settings
from ops.fabric import builder, material, ports, processes
from ops.fabric.package import HERE as OWN_ROOT
from ops.fabric.plan import Contract, Orderer, Organisation, Plan
from ops.fabric.ports import HOST
from ops.fabric.text import fill

LISTEN_SECONDS = 30.0
GO_MEMORY = {"orderer": "128MiB", "peer": "192MiB"}
"""What Go's collector keeps a process below, softly. Without it a busy peer grows to half a gigabyte."""
_LOGGING = {
    # Nothing for each transaction, nor for each client that hangs up.
    "FABRIC_LOGGING_SPEC": "warning:grpc=error:lifecycle=info:orderer.common.broadcast=error:common.deliver=error",
    "FABRIC_LOGGING_FORMAT": "%{time:2006-01-02T15:04:05.000Z07:00} %{level:.4s} [%{module}] %{message}",
}
_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Node:
    """A process of the network: the port at which it answers, all ports that it needs, and how it is started."""

    name: str
    kind: str
    port: int
    needs: tuple[int, ...]
    folder: Path
    command: tuple[str, ...]
    environment: Mapping[str, str]
    cwd: Path

    @property
    def log(self) -> Path:
        return processes.log_file(self.folder)


def all_nodes(network: Path, plan: Plan, programs: Path) -> list[Node]:
    """Every node, in the order in which they are started: a peer finds its orderers and its chaincode server there."""
    servers = [chaincode_node(network, one, contract) for contract in plan.in_force() for one in plan.organisations]
    orderers = [orderer_node(network, one, programs) for one in plan.orderers]
    return [*servers, *orderers, *(peer_node(network, one, programs) for one in plan.organisations)]


def folder(network: Path, name: str) -> Path:
    return network / "nodes" / name


def orderer_node(network: Path, one: Orderer, programs: Path) -> Node:
    """An orderer."""
    place = folder(network, one.name)
    environment = {"FABRIC_CFG_PATH": str(place), "GOMEMLIMIT": GO_MEMORY["orderer"]} | _LOGGING
    needs = (one.port, one.admin, one.operations)
    return Node(one.name, "orderer", one.port, needs, place, (str(programs / "orderer"),), environment, place)


def peer_node(network: Path, one: Organisation, programs: Path) -> Node:
    """An organisation's peer."""
    place = folder(network, one.peer)
    environment = {"FABRIC_CFG_PATH": str(place), "GOMEMLIMIT": GO_MEMORY["peer"]} | _LOGGING
    needs = (one.port, one.chaincode, one.operations)
    command = (str(programs / "peer"), "node", "start")
    return Node(one.peer, "peer", one.port, needs, place, command, environment, place)


def chaincode_node(network: Path, one: Organisation, contract: Contract) -> Node:
    """An organisation's chaincode server. It refuses to start if its source is not the one that was agreed."""
    name, port = contract.server(one.name), contract.servers[one.name]
    command: tuple[str, ...] = (
        sys.executable, "-m", "chaincode.fabric_service", "--listen", f"{HOST}:{port}",
        "--package-id", contract.package, "--source", contract.source,
    )  # fmt: skip
    if contract.tls:
        tls = material.organisation(network, one).node("peer").tls
        files = {
            "--tls-certificate": tls / "server.crt",
            "--tls-key": tls / "server.key",
            "--client-ca": tls / "ca.crt",
        }
        command += tuple(text for option, file in files.items() for text in (option, str(file)))
    root = Path(contract.root) if contract.root else OWN_ROOT
    return Node(name, "chaincode", port, (port,), folder(network, name), command, {"PYTHONUNBUFFERED": "1"}, root)


def write_settings(network: Path, plan: Plan) -> None:
    """Write every node's settings afresh: they follow from the plan and from where the network's folder is.

    A running node takes them up when it is started the next time, but for its external builder's.
    """
    for orderer in plan.orderers:
        holder = material.orderers(network).node(orderer.name)
        _write(folder(network, orderer.name), "orderer.yaml", port=orderer.port, admin=orderer.admin,
               operations=orderer.operations, msp_folder=holder.msp, tls=holder.tls)  # fmt: skip
    for one in plan.organisations:
        write_peer_settings(network, plan, one)


def write_peer_settings(network: Path, plan: Plan, one: Organisation) -> None:
    """Write one peer's settings and its external builder."""
    holder, place = material.organisation(network, one).node("peer"), folder(network, one.peer)
    roots = place / "tls-roots.pem"
    _write(place, "core.yaml", name=one.peer, roots=roots, port=one.port, chaincode=one.chaincode, operations=one.operations,
           msp=one.msp, msp_folder=holder.msp, tls=holder.tls, builder=place / "builder")  # fmt: skip
    write_whole(
        roots, b"".join(material.organisation(network, other).tls_ca.read_bytes() for other in plan.organisations)
    )
    newest = plan.contracts[-1]
    builder.prepare(place / "builder", newest.servers[one.name], _client_pair(network, one) if newest.tls else {})


def _client_pair(network: Path, one: Organisation) -> dict[str, str]:
    """What a peer shows to its chaincode server, and whom it takes for one: the peer's own pair serves for both."""
    tls, ca = material.organisation(network, one).node("peer").tls, material.organisation(network, one).tls_ca
    files = {"root_cert": ca, "client_cert": tls / "server.crt", "client_key": tls / "server.key"}
    return {name: file.read_text(encoding="ascii") for name, file in files.items()}


def _write(place: Path, template: str, **values: object) -> None:
    (place / "data").mkdir(parents=True, exist_ok=True)
    write_whole(place / template, fill(template, data=place / "data", **values).encode())


def start(node: Node) -> bool:
    """Start a node unless it runs; whether it was started. It does not wait for the node to listen.

    Raises:
        Unavailable: ``fabric-port-taken``: somebody else listens on a port of this node.
    """
    if processes.running(node.folder) is not None:
        return False
    for port in node.needs:
        if not ports.is_free(port):
            message = (
                f"{node.name} needs port {port} of {HOST}, and another process listens on it.\n"
                "The channel's configuration names the port, so it cannot be another one: end that process, or make the network anew."
            )
            network = node.folder.parents[1]
            raise Unavailable(
                "fabric-port-taken", message, next=output.command_line("fabric", "down", "--dir", network, "--wipe")
            )
    node.folder.mkdir(parents=True, exist_ok=True)
    processes.launch(node.folder, node.command, settings.node_environment(node.environment), node.cwd)
    return True


def wait_listening(node: Node, seconds: float = LISTEN_SECONDS) -> None:
    """Wait until a node answers on its port.

    Raises:
        Unavailable: ``fabric-node``: it ended, or did not listen in time.
    """
    for _ in Pauses(_PAUSE_SECONDS, _PAUSE_SECONDS).until(time.monotonic() + seconds):
        if ports.accepts(node.port):
            return
        if processes.running(node.folder) is None:
            raise failed(node, "ended while it was starting")
    raise failed(node, f"does not listen on port {node.port} after {seconds:.0f} s")


def failed(node: Node, how: str) -> Unavailable:
    """The error of a node, with the end of its log."""
    last = "\n".join(processes.tail(node.log)) or "(nothing)"
    network = node.folder.parents[1]
    return Unavailable(
        "fabric-node", f"{node.name} {how}. Its log {node.log} ends with:\n{last}",
        next=output.command_line("fabric", "logs", node.name, "--dir", network),
    )  # fmt: skip
