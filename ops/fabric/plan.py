# SPDX-License-Identifier: Apache-2.0
"""The plan of a network: its organisations, nodes and ports, and the contract's versions. It is kept in network.json.

Everything else in the folder follows from it. Ports never change: the channel's configuration names them.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from chaincode.files import write_whole
from identity.errors import UsageError
from ops import output
from ops.fabric import ports

FORMAT = 1
FILE = "network.json"
CHANNEL, CHAINCODE = "fedledger", "fedledger"
CONSENSUS = {"raft": 1, "raft3": 3, "bft": 4}
"""How the orderers agree, and how many there are: Raft bears the crash of 0 of 1 or 1 of 3; BFT 1 of 4 that lies."""
MAKING, READY = "making", "ready"
MOST_ORGANISATIONS = 9
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_NAME_LENGTH = 24


@dataclass(frozen=True, slots=True)
class Orderer:
    """An orderer and its ports: for clients and other orderers, for osnadmin, for metrics and health."""

    name: str
    port: int
    admin: int
    operations: int


@dataclass(frozen=True, slots=True)
class Organisation:
    """An organisation with one peer, and the peer's ports; ``joined`` if it came when the channel was there already."""

    name: str
    port: int
    chaincode: int
    operations: int
    joined: bool = False

    @property
    def msp(self) -> str:
        """The organisation's name in the channel: hospitals-1 is Hospitals1MSP."""
        return "".join(part.capitalize() for part in self.name.split("-")) + "MSP"

    @property
    def peer(self) -> str:
        return f"peer-{self.name}"


@dataclass(frozen=True, slots=True)
class Contract:
    """A version of the contract: the lifecycle's sequence number, the package's id, the source's digest (SHA-256,
    hex), the folder that it is run from, the port of each organisation's chaincode server, and whether peers reach
    them over TLS."""

    sequence: int
    package: str
    source: str
    root: str
    servers: dict[str, int]
    committed: bool = False
    tls: bool = False

    def server(self, organisation: str) -> str:
        """The name of an organisation's chaincode server."""
        return f"chaincode-{organisation}" + ("" if self.sequence == 1 else f"-{self.sequence}")


@dataclass(frozen=True, slots=True)
class Plan:
    """A network. ``state`` is ``making`` until each organisation has committed a first transaction.

    ``joining`` is an organisation that is on its way into the channel.
    """

    consensus: str
    build: str
    orderers: tuple[Orderer, ...]
    organisations: tuple[Organisation, ...]
    contracts: tuple[Contract, ...] = ()
    state: str = MAKING
    joining: Organisation | None = None

    @property
    def contract(self) -> Contract:
        """The contract that the channel runs: the newest committed one, before the first commit the first."""
        return next((one for one in reversed(self.contracts) if one.committed), self.contracts[0])

    def in_force(self) -> list[Contract]:
        """The contracts whose servers run: the committed ones, before the first commit the first."""
        return [one for one in self.contracts if one.committed] or list(self.contracts[:1])

    def organisation(self, name: str) -> Organisation:
        return next(one for one in self.organisations if one.name == name)

    def ports(self) -> Iterator[int]:
        """Every port of the network."""
        for orderer in self.orderers:
            yield from (orderer.port, orderer.admin, orderer.operations)
        for one in (*self.organisations, *([self.joining] if self.joining else [])):
            yield from (one.port, one.chaincode, one.operations)
        for contract in self.contracts:
            yield from contract.servers.values()

    def with_contract(self, contract: Contract) -> Self:
        """The plan with this contract in the place of the one with its sequence number, or added."""
        kept = [one for one in self.contracts if one.sequence != contract.sequence]
        return replace(self, contracts=tuple(sorted([*kept, contract], key=lambda one: one.sequence)))


def make(consensus: str, organisations: list[str], build: str) -> Plan:
    """A new network's plan, with free ports. Raises UsageError for names or numbers that cannot be."""
    names = check_names(organisations)
    count = CONSENSUS[consensus]
    free = iter(ports.choose(3 * count + 3 * len(names)))
    orderers = tuple(Orderer(f"orderer-{n}", next(free), next(free), next(free)) for n in range(1, count + 1))
    return Plan(
        consensus, build, orderers, tuple(Organisation(name, next(free), next(free), next(free)) for name in names)
    )


def default_names(count: int) -> list[str]:
    """The coordinator's organisation and groups of hospitals. Raises UsageError for a number that cannot be."""
    if not 1 <= count <= MOST_ORGANISATIONS:
        raise UsageError("fabric-organisations", f"A local network has 1 to {MOST_ORGANISATIONS} organisations.")
    return ["coordinator", *(f"hospitals-{n}" for n in range(1, count))]


def check_names(names: list[str]) -> list[str]:
    """The names, if each can name a folder, a host and a node, and no two are one organisation.

    Raises:
        UsageError: ``fabric-organisations``.
    """
    for name in names:
        if len(name) > _NAME_LENGTH or not _NAME.fullmatch(name) or name == "orderer":
            message = f"{name[:40]!r} cannot name an organisation.\nallowed: small letters, digits and single dashes, such as hospitals-3; at most {_NAME_LENGTH}"
            raise UsageError("fabric-organisations", message)
    if len({Organisation(name, 0, 0, 0).msp for name in names}) != len(names):
        raise UsageError("fabric-organisations", f"Two organisations have one name: {', '.join(names)}.")
    if not 1 <= len(names) <= MOST_ORGANISATIONS:
        raise UsageError("fabric-organisations", f"A local network has 1 to {MOST_ORGANISATIONS} organisations.")
    return names


def save(folder: Path, plan: Plan) -> None:
    """Write the plan, whole or not at all."""
    value = {"format": FORMAT, "channel": CHANNEL, "chaincode": CHAINCODE, **asdict(plan)}
    write_whole(folder / FILE, json.dumps(value, indent=2).encode() + b"\n")


def load(folder: Path) -> Plan | None:
    """The plan of the network in a folder, None where there is no folder, or nothing in it.

    Raises:
        UsageError: ``fabric-folder``: the folder holds something else; ``fabric-format``: a network that another
            version of this program made, or a plan that was damaged.
    """
    try:
        data = (folder / FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        if folder.is_dir() and any(one.name != "lock" for one in folder.iterdir()):
            message = f"{folder} holds something, but no Fabric network."
            raise UsageError("fabric-folder", message, next="the same command with --dir and an empty folder") from None
        return None
    wipe = output.command_line("fabric", "down", "--dir", folder, "--wipe")
    try:
        value = json.loads(data)
        if value["format"] != FORMAT:
            raise UsageError(
                "fabric-format",
                f"{folder / FILE} has format {value['format']!r}; this program reads {FORMAT}.",
                next=wipe,
            )
        return _parse(value)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError("fabric-format", f"{folder / FILE} cannot be read as a network's plan.", next=wipe) from error


def _parse(value: dict[str, Any]) -> Plan:
    plan = Plan(
        value["consensus"], value["build"],
        tuple(Orderer(**one) for one in value["orderers"]),
        tuple(Organisation(**one) for one in value["organisations"]),
        tuple(Contract(**one) for one in value["contracts"]),
        value["state"],
        Organisation(**value["joining"]) if value["joining"] else None,
    )  # fmt: skip
    numbers = list(plan.ports())
    if plan.consensus not in CONSENSUS or plan.state not in (MAKING, READY) or set(map(type, numbers)) != {int}:
        raise ValueError
    # Names become paths: they are checked again, because the file may have been edited.
    check_names([one.name for one in plan.organisations])
    if any(not re.fullmatch(r"orderer-[1-9]", one.name) for one in plan.orderers):
        raise ValueError
    return plan
