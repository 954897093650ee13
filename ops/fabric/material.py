# SPDX-License-Identifier: Apache-2.0
"""Keys and certificates of every organisation, by cryptogen, and where each lies.

cryptogen is for trials: it knows every organisation's private keys. See crypto-config.yaml for what to use instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chaincode.files import write_whole
from ops.fabric.plan import Orderer, Organisation
from ops.fabric.text import fill
from ops.fabric.tools import Tools

DOMAIN = "fedledger.example"
ORDERERS = f"orderers.{DOMAIN}"


@dataclass(frozen=True, slots=True)
class Holder:
    """Where a node's or a person's material lies: ``msp`` signs, ``tls`` serves or (a person's) connects."""

    msp: Path
    tls: Path

    @property
    def certificate(self) -> Path:
        return next((self.msp / "signcerts").iterdir())

    @property
    def key(self) -> Path:
        return self.msp / "keystore" / "priv_sk"


@dataclass(frozen=True, slots=True)
class Authority:
    """An organisation's folder of cryptogen's: its two certificate authorities, and those they issued to."""

    folder: Path
    domain: str
    nodes: str

    @property
    def msp(self) -> Path:
        """What the others need to know of the organisation; no private key."""
        return self.folder / "msp"

    @property
    def tls_ca(self) -> Path:
        return self.folder / "tlsca" / f"tlsca.{self.domain}-cert.pem"

    def node(self, host: str) -> Holder:
        place = self.folder / self.nodes / f"{host}.{self.domain}"
        return Holder(place / "msp", place / "tls")

    def person(self, name: str) -> Holder:
        """``Admin``, or ``User1``, who connects as a client."""
        place = self.folder / "users" / f"{name}@{self.domain}"
        return Holder(place / "msp", place / "tls")


def organisation(network: Path, one: Organisation) -> Authority:
    """An organisation's material; its one peer is the host ``peer``."""
    domain = f"{one.name}.{DOMAIN}"
    return Authority(network / "material" / "peerOrganizations" / domain, domain, "peers")


def orderers(network: Path) -> Authority:
    """The orderers' material."""
    return Authority(network / "material" / "ordererOrganizations" / ORDERERS, ORDERERS, "orderers")


def crypto_config(orderers_: Sequence[Orderer], organisations: Sequence[Organisation]) -> str:
    """cryptogen's instructions."""
    sans = "SANS: [localhost, 127.0.0.1]"
    peers = [
        f"  - {{Name: {one.name}, Domain: {one.name}.{DOMAIN}, EnableNodeOUs: true,\n"
        f"     Specs: [{{Hostname: peer, {sans}}}], Users: {{Count: 1}}}}"
        for one in organisations
    ]
    hosts = ", ".join(f"{{Hostname: {one.name}, {sans}}}" for one in orderers_)
    first = f"OrdererOrgs:\n  - {{Name: orderers, Domain: {ORDERERS}, EnableNodeOUs: true,\n     Specs: [{hosts}]}}\n"
    return fill("crypto-config.yaml", orderers=first if orderers_ else "", organisations="\n".join(peers))


def generate(tools: Tools, orderers_: Sequence[Orderer], organisations: Sequence[Organisation]) -> None:
    """Make the material of these; what is there for others stays as it is."""
    config = tools.network / "material" / f"crypto-config-{organisations[0].name}.yaml"
    config.parent.mkdir(exist_ok=True)
    write_whole(config, crypto_config(orderers_, organisations).encode())
    tools.run(
        "making keys and certificates", "cryptogen",
        ["generate", f"--config={config}", f"--output={config.parent}"],
    )  # fmt: skip
