# SPDX-License-Identifier: Apache-2.0
"""The channel: its first block, and how orderers and peers join it."""

from collections.abc import Mapping
from pathlib import Path

from chaincode.files import write_whole
from ops.fabric import material
from ops.fabric.plan import CHANNEL, Orderer, Organisation, Plan
from ops.fabric.ports import HOST
from ops.fabric.text import fill, indented, quoted
from ops.fabric.tools import Tools, retried

JOIN_SECONDS = 30.0


def folder(network: Path) -> Path:
    return network / "channel"


def genesis(network: Path) -> Path:
    """The channel's first block. Whoever joins, or audits, compares its digest with what the others hold."""
    return folder(network) / "genesis.block"


def organisation_text(network: Path, one: Organisation) -> str:
    """An organisation as configtx.yaml describes it."""
    return fill(
        "configtx-organisation.yaml", name=one.name, msp=one.msp, port=one.port,
        msp_folder=material.organisation(network, one).msp,
    )  # fmt: skip


def configtx(network: Path, plan: Plan) -> str:
    """The whole of configtx.yaml."""
    return fill(
        "configtx.yaml",
        orderer_msp=material.orderers(network).msp,
        endpoints=", ".join(f'"{HOST}:{one.port}"' for one in plan.orderers),
        organisations="\n".join(organisation_text(network, one) for one in plan.organisations),
        orderer_type="BFT" if plan.consensus == "bft" else "etcdraft",
        consenters=consenters(network, plan),
        names=", ".join(f"*{one.name}" for one in plan.organisations),
    )


def consenters(network: Path, plan: Plan) -> str:
    """Who orders, with the certificates by which the orderers know one another."""
    bft = plan.consensus == "bft"
    blocks = []
    for number, one in enumerate(plan.orderers, 1):
        holder = material.orderers(network).node(one.name)
        certificate = quoted(holder.tls / "server.crt")
        lines = [
            f"Host: {HOST}",
            f"Port: {one.port}",
            f"ClientTLSCert: {certificate}",
            f"ServerTLSCert: {certificate}",
        ]
        if bft:
            lines = [f"ID: {number}", *lines, "MSPID: OrdererMSP", f"Identity: {quoted(holder.certificate)}"]
        blocks.append("- " + "\n  ".join(lines))
    name, spaces = ("configtx-bft.yaml", 8) if bft else ("configtx-raft.yaml", 10)
    return fill(name, consenters=indented("\n".join(blocks), spaces))


def make_genesis(tools: Tools, plan: Plan) -> None:
    """Write configtx.yaml and the first block."""
    place = folder(tools.network)
    place.mkdir(exist_ok=True)
    write_whole(place / "configtx.yaml", configtx(tools.network, plan).encode())
    tools.run(
        "making the channel's first block", "configtxgen",
        ["-profile", "Channel", "-channelID", CHANNEL, "-configPath", place, "-outputBlock", genesis(tools.network)],
    )  # fmt: skip


def join_orderer(tools: Tools, orderer: Orderer) -> None:
    """Have an orderer join, as its administrator."""
    authority = material.orderers(tools.network)
    admin = authority.person("Admin")
    command = [
        "channel", "join", "--channelID", CHANNEL, "--config-block", genesis(tools.network),
        "-o", f"{HOST}:{orderer.admin}", "--ca-file", authority.tls_ca,
        "--client-cert", admin.tls / "client.crt", "--client-key", admin.tls / "client.key",
    ]  # fmt: skip
    # osnadmin reports a refusal by its status line, and its exit status is that of a success.
    said = tools.run(f"joining {orderer.name} to the channel", "osnadmin", command)
    if "Status: 201" not in said:
        raise tools.failed(f"joining {orderer.name} to the channel", "osnadmin", said)


def join_peer(tools: Tools, one: Organisation) -> None:
    """Have an organisation's peer join, as its administrator. The peer fetches the blocks itself."""
    retried(
        lambda: tools.run(
            f"joining {one.peer} to the channel", "peer", ["channel", "join", "-b", genesis(tools.network)],
            environment=administrator(tools.network, one),
        ),
        seconds=JOIN_SECONDS,
    )  # fmt: skip


def height(tools: Tools, one: Organisation) -> int:
    """How many blocks an organisation's peer has; 0 where it has not joined.

    Raises Unavailable(fabric-step) where the peer does not answer.
    """
    said = tools.run(
        f"asking {one.peer} for the channel", "peer", ["channel", "list"], environment=administrator(tools.network, one)
    )
    if CHANNEL not in said.splitlines():
        return 0
    said = tools.run(
        f"asking {one.peer} for the channel's height", "peer", ["channel", "getinfo", "-c", CHANNEL],
        environment=administrator(tools.network, one),
    )  # fmt: skip
    return int(said.partition('"height":')[2].partition(",")[0])


def administrator(network: Path, one: Organisation, person: str = "Admin") -> Mapping[str, str]:
    """What tells the peer program that it acts for this organisation, at this organisation's peer."""
    authority = material.organisation(network, one)
    return {
        "FABRIC_CFG_PATH": str(network / "nodes" / one.peer),
        "FABRIC_LOGGING_SPEC": "error",
        "CORE_PEER_LOCALMSPID": one.msp,
        "CORE_PEER_MSPCONFIGPATH": str(authority.person(person).msp),
        "CORE_PEER_ADDRESS": f"{HOST}:{one.port}",
        "CORE_PEER_TLS_ENABLED": "true",
        "CORE_PEER_TLS_ROOTCERT_FILE": str(authority.tls_ca),
    }


def orderer_arguments(network: Path, orderer: Orderer) -> list[object]:
    """What tells the peer program where to send transactions."""
    return ["-o", f"{HOST}:{orderer.port}", "--tls", "--cafile", material.orderers(network).tls_ca]


def peer_arguments(network: Path, organisations: list[Organisation]) -> list[object]:
    """What tells the peer program whose endorsements to gather."""
    arguments: list[object] = []
    for one in organisations:
        arguments += ["--peerAddresses", f"{HOST}:{one.port}"]
        arguments += ["--tlsRootCertFiles", material.organisation(network, one).tls_ca]
    return arguments
