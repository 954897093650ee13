# SPDX-License-Identifier: Apache-2.0
"""All the hosts of the conformance suite: each with the stream that its door lets in, and how to make a fresh ledger."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaincode.entries import open_entry
from chaincode.ledgers import Door, Ledger
from chaincode.ledgers.fabric.ledger import FabricLedger
from chaincode.ledgers.fabric.profile import Profile
from chaincode.notes import format_vkey
from ops.fabric.existing import Network
from tests import fabric_ledgers
from tests.chaincode.ledgers.hosts import FACTORIES, Clock, embedded
from tests.chaincode.ledgers.stream import ORIGIN, VKEY, Stream
from tests.fakes.fabric_double import CHANNEL
from tests.fakes.fabric_world import double
from tests.fakes.memory_ledger import MemoryLedger

CHAINCODE = "fedledger"
DOUBLE_ORIGIN = f"{ORIGIN}/{CHANNEL}/{CHAINCODE}"
"""What founds a ledger on the double network: a log of this channel and chaincode, signed by nobody."""


@dataclass
class Hosted:
    """A fresh ledger, its clock, and the entries of a federation that it accepts."""

    ledger: Ledger
    clock: Clock
    stream: Stream
    whole: list[bytes]
    strangers: list[tuple[str, str | None]]
    """(origin, log key) of foundings that are for other ledgers."""

    @property
    def ids(self) -> list[str]:
        return [open_entry(envelope).id for envelope in self.whole]


Host = Callable[[Path], AbstractContextManager[Hosted]]
STRANGER = format_vkey(ORIGIN, bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"))
EMBEDDED_STREAM = Stream()
EMBEDDED_WHOLE = EMBEDDED_STREAM.whole(rounds=2)
FABRIC_STREAM = Stream(origin=DOUBLE_ORIGIN, log_key=None)
FABRIC_WHOLE = FABRIC_STREAM.whole(rounds=2)


def local(name: str) -> Host:
    @contextmanager
    def host(folder: Path) -> Iterator[Hosted]:
        clock = Clock()
        ledger: Any = FACTORIES[name](folder, clock)
        yield Hosted(ledger, clock, EMBEDDED_STREAM, EMBEDDED_WHOLE,
                     [(ORIGIN, STRANGER), ("elsewhere.example", VKEY), (ORIGIN, None)])  # fmt: skip
        getattr(ledger, "close", lambda: None)()

    return host


@contextmanager
def on_double(folder: Path) -> Iterator[Hosted]:
    """Two organisations on the double network."""
    clock = Clock()
    with double(folder, organisations=2) as network, fabric(network.profile, clock) as ledger:
        yield Hosted(ledger, clock, FABRIC_STREAM, FABRIC_WHOLE, strangers_on_fabric(DOUBLE_ORIGIN))


def fabric(profile: Profile, clock: Clock) -> FabricLedger:
    return FabricLedger.open(profile, profile.organisations[0].name, clock=clock)


def strangers_on_fabric(origin: str) -> list[tuple[str, str | None]]:
    place = origin.removeprefix(ORIGIN)
    return [(origin, VKEY), (ORIGIN, None), (f"{ORIGIN}/other{place}", VKEY), (f"{origin}/other", None),
            (f"{ORIGIN}/x{place[1:]}", None)]  # fmt: skip


@contextmanager
def on_network(network: Network) -> Iterator[Hosted]:
    """A fresh ledger on a real network; its entries are of now."""
    profile = fabric_ledgers.fresh(network)
    stream = fabric_ledgers.stream_of(profile)
    clock = Clock(now=stream.at)
    with fabric(profile, clock) as ledger:
        yield Hosted(ledger, clock, stream, stream.whole(rounds=2), strangers_on_fabric(stream.origin))


NETWORK = "fabric-network"
HOSTS: dict[str, Host] = {"memory": local("memory"), "embedded": local("embedded"), "fabric-double": on_double}


@contextmanager
def all_alike(folder: Path) -> Iterator[list[Ledger]]:
    """A fresh ledger of each kind that accept the very same founding: the embedded one's door is that of a channel."""
    door = Door(DOUBLE_ORIGIN, None)
    memory = MemoryLedger(origin=door.origin, log_key=None, clock=Clock())
    with on_double(folder) as hosted, embedded(folder, Clock()) as stored:
        assert stored._writer is not None
        stored._writer._door = door
        yield [memory, stored, hosted.ledger]
