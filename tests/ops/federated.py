# SPDX-License-Identifier: Apache-2.0
"""A simulated federation for tests: real contract, keys, credentials, training and aggregation; a ledger in memory and a
clock that is moved, so that deadlines cost nothing."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chaincode import notes, state
from chaincode.author import Author, demand
from chaincode.blobs import BlobStore
from chaincode.entries import Entry, open_entry
from chaincode.models import digest_file
from chaincode.state import Result
from coordinator.rounds import Driver
from coordinator.steps import Clock, Event
from identity.did import public_key_from_did
from identity.errors import Rejected
from ops.attesting import recompute_round
from ops.federation_file import FederationFile, load
from ops.founding import Founder, Keys, build_agreement, make_keys, propose
from ops.run_folder import RunFolder
from ops.sites import SimulatedSites, SiteAgent
from participant.agent import Agent
from participant.outbox import Outbox
from tests.fakes.local_cluster import LocalCluster
from tests.fakes.memory_ledger import MemoryLedger

ORIGIN = "fedledger/test"
FILE = """
name = "test"
task = "breast-cancer"
sites = {sites}
rounds = 2
seed = 7

[agreement]
purpose = "Tests"
legal_basis = "Public research data"
min_participants = {least}
{more}
"""


Make = Callable[..., "Federated"]
"""The fixture ``make``: federations one after the other, whose worker process stays warm."""


class Federated:
    """Founded and signed; ``drive`` carries out the rounds. ``agents`` are by site name and may be replaced."""

    def __init__(self, folder: Path, cluster: LocalCluster, *, sites: int = 3, least: int = 2, more: str = "") -> None:
        self.folder, self.cluster, self.moved = folder, cluster, 0
        self.file = self._file(sites, least, more)
        self.keys: Keys = make_keys(folder / "keystore.json", None, self.file.site_names)
        vkey = notes.format_vkey(ORIGIN, public_key_from_did(self.keys.log.did))
        self.ledger = MemoryLedger(origin=ORIGIN, log_key=vkey, clock=self.now)
        founder = Founder(self.ledger, self.keys, self.now)
        self.federation = founder.found(ORIGIN, vkey).id
        founder.admit(self.federation, folder, lambda _: None)
        info = cluster.describe()
        self.coordinator = Author(self.federation, self.keys.coordinator.did, self.keys.coordinator)
        self.agreement = build_agreement(self.file, self.keys, info, self.now())
        self.digest = propose(self.ledger, self.coordinator, self.agreement, self.now)
        self.proposal: Entry = self.entries("propose")[-1]
        self.events: list[Event] = []
        self.restart()
        for agent in self.agents.values():
            self.accept(agent.sign())

    def restart(self) -> None:
        """Know what a new process would: keys, ledger and files."""
        self.blobs = BlobStore(self.folder / "blobs", fsync=False)
        self.outbox = Outbox(self.folder / "outbox")
        self.agents: dict[str, SiteAgent] = {site: self.agent(site) for site in self.keys.sites}

    def _file(self, sites: int, least: int, more: str) -> FederationFile:
        path = self.folder / "federation.toml"
        path.write_text(FILE.format(sites=sites, least=least, more=more))
        return load(path)

    def agent(self, site: str, **changes: Any) -> Agent:
        """A site's agent that has adopted the agreement."""
        identity = self.keys.sites[site]
        made = Agent(**{
            "site": site, "author": Author(self.federation, identity.did, identity), "secret": self.keys.secrets[site],
            "outbox": self.outbox, "ledger": self.ledger, "clock": self.now, "base_model": self.base_model, **changes,
        })  # fmt: skip
        made.adopt(self.proposal, self.token("coordinator"))
        return made

    def now(self) -> int:
        return int(time.time()) + self.moved

    def base_model(self, digest: str) -> str:
        path = self.folder / "models" / f"{digest}.safetensors"
        return digest_file(path) if path.is_file() else ""

    def token(self, who: str) -> str:
        """The credential of an organisation."""
        for entry in self.entries("admit"):
            if entry.body["organisation"] == who:
                return (self.folder / f"{entry.subjects['credential']}.jwt").read_text()
        raise KeyError(who)

    def accept(self, envelope: bytes) -> None:
        outcome = self.ledger.submit([envelope])[0]
        assert not isinstance(outcome, Rejected), outcome

    def entries(self, kind: str) -> list[Entry]:
        return [entry for entry in map(open_entry, self.ledger.entries()) if entry.kind == kind]

    def member(self, site: str) -> str:
        return self.keys.sites[site].did

    def site(self, member: str) -> str:
        return next(site for site, identity in self.keys.sites.items() if identity.did == member)

    def sites(self, recompute: Callable[[str, int], tuple[str, str]] | None = None) -> SimulatedSites:
        agents: Mapping[str, SiteAgent] = {self.member(site): agent for site, agent in self.agents.items()}
        return SimulatedSites(
            agents, self.ledger, self.cluster, recompute=recompute or self._recomputed,
            clock=self.now, outbox=self.outbox,
        )  # fmt: skip

    def _recomputed(self, _: str, round_: int) -> tuple[str, str]:
        return recompute_round(self.ledger, RunFolder(self.folder), self.proposal, round_)  # type: ignore[arg-type]

    def driver(self, sites: SimulatedSites | None = None, **changes: Any) -> Driver:
        def wait_until(second: int) -> None:
            self.moved += max(0, second - self.now())

        return Driver(**{
            "author": self.coordinator, "agreement": self.agreement, "digest": self.digest, "ledger": self.ledger,
            "sites": sites or self.sites(), "aggregator": self.cluster, "blobs": self.blobs, "stored": self.base_model,
            "clock": Clock(self.now, wait_until), "watch": self.events.append, **changes,
        })  # fmt: skip

    def drive(self) -> list[Entry]:
        """The records of all rounds."""
        self.driver().drive()
        return self.entries("record")

    def result(self, round_: int) -> Result:
        return demand(self.ledger, Result, state.result_key(self.digest, round_))


def with_fault(agent: SiteAgent, fault: type[Any], round_: int) -> SiteAgent:
    """A site with a fault around it."""
    made: SiteAgent = fault(agent, round_)
    return made


class Killed(BaseException):
    """The coordinator's process is gone."""


def dying(kind: str, round_: int) -> Callable[[Event], None]:
    """Watches a driver, and kills it at the first such event."""

    def watch(event: Event) -> None:
        if (event.kind, event.round) == (kind, round_):
            raise Killed

    return watch
