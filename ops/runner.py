# SPDX-License-Identifier: Apache-2.0
"""A simulated federation from its file to the released model, in one process that signs and a cluster that trains.

Every step looks at the ledger first, so that a run that was interrupted anywhere goes on where it stopped.
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NoReturn

from chaincode.author import Author, demand, read_all
from chaincode.blobs import BlobStore
from chaincode.entries import Entry, open_entry
from chaincode.files import write_whole
from chaincode.ledgers.sqlite import SqliteLedger
from chaincode.models import digest_file
from chaincode.state import Federation, Member, Party, Release, member_key, party_key, release_key
from chaincode.threads import CORES
from coordinator.cluster import Cluster
from coordinator.jobs import Baselines, ClusterSettings, TaskInfo
from coordinator.rounds import Driver
from coordinator.steps import Clock, Event
from identity.errors import Rejected, Unavailable, UsageError
from identity.wording import counted
from ops import output
from ops.attesting import recompute_round
from ops.clock import utc, wait_until
from ops.federation_file import FederationFile, compare, load
from ops.founding import Admission, Founder, Keys, build_agreement, make_keys, propose
from ops.ledger_embedded import Embedded
from ops.ledger_port import Home, RunLedger
from ops.narrator import Narrator
from ops.release import release
from ops.run_folder import RunFolder
from ops.simulate import FAULTS
from ops.sites import SimulatedSites, SiteAgent
from participant.agent import Agent
from participant.outbox import Outbox
from participant.tasks import locate_task


@dataclass(frozen=True, slots=True)
class Options:
    """What a run may be told on the command line; None leaves it to the machine."""

    workers: int | None = None
    ray_address: str | None = None
    dashboard: bool = False
    passphrase: str | None = None
    baselines: bool = True


@dataclass(frozen=True, slots=True)
class Finished:
    """A run at its end: the released model, its held-out metrics and those of the baselines (None for a run that was
    complete before)."""

    folder: RunFolder
    federation: str
    agreement: str
    release: Release
    metrics: Mapping[str, str]
    baselines: Baselines | None


class Run:
    """One run of a federation file in its folder."""

    def __init__(
        self, file: FederationFile, folder: RunFolder, options: Options, narrator: Narrator, *,
        watch: Callable[[Event], None] | None = None, home: Home | None = None,
    ) -> None:  # fmt: skip
        """``home`` is where the ledger is: without one the embedded ledger in the run's folder."""
        self._home = home or Embedded(file.name)
        self._file, self._folder, self._options, self._narrator = file, folder, options, narrator
        self._watch = watch or narrator
        self._outbox = Outbox(folder.outbox.absolute())
        self._models: dict[str, str] = {}  # the digests of stored models, by their names

    def carry_out(self) -> Finished:
        """Found, train, release; or go on with what an earlier call began.

        Raises:
            UsageError: ``run-file-changed``. Rejected, CredentialError, Unavailable, EvidenceError: as their parts.
        """
        self._folder.create()
        with self._folder.locked(), ExitStack() as stack:
            self._keep_file()
            if (finished := self._complete()) is not None:
                return finished
            cluster = stack.enter_context(Cluster(self._cluster_settings(), tell=self._replaced))
            keys = make_keys(self._folder.keystore, self._options.passphrase, self._file.site_names)
            ledger = stack.enter_context(self._home.open(self._folder, keys))
            self._keep_file(ledger)
            federation = self._found(ledger, keys)
            proposal = self._agree(ledger, keys, federation, cluster)
            return self._train(ledger, keys, federation, proposal, cluster)

    def _proposed(self, ledger: RunLedger | None) -> bool:
        """Whether an agreement has been proposed, from which on the file's terms are fixed."""
        if ledger is not None:
            return any(True for _ in ledger.find("propose", limit=1))
        if not self._folder.is_run():
            return False
        with SqliteLedger.open(self._folder.ledger) as replica:
            return any(True for _ in replica.find("propose", limit=1))

    def _complete(self) -> Finished | None:
        """The run's end, if it has come already."""
        if not self._folder.is_run():
            return None
        with SqliteLedger.open(self._folder.ledger) as ledger:
            for logged in ledger.find("release", limit=1):
                entry = open_entry(logged.envelope)
                released = demand(ledger, Release, release_key(entry.agreement, entry.body["round"]))
                record = self._last_record(ledger, entry.agreement)
                if self._home.released(self._folder):
                    if self._folder.keeps_another(self._file.task_file):
                        self._refuse_task()
                    again = f"to run it anew, name another {self._home.elsewhere}"
                    self._narrator.say(f"  complete: its model was released; {again}")
                    return Finished(
                        self._folder, entry.federation, entry.agreement, released, record.body["metrics"], None
                    )
        return None

    def _refuse_task(self) -> NoReturn:
        raise UsageError("run-task-changed", f"The task {self._file.task} changed since its agreement was signed.",
                         next="restore the task's file, or use another --dir")  # fmt: skip

    def _last_record(self, ledger: RunLedger | SqliteLedger, agreement: str) -> Entry:
        return next(open_entry(x.envelope) for x in ledger.find("record", agreement=agreement, round=self._file.rounds))

    def _keep_file(self, ledger: RunLedger | None = None) -> None:
        """Keep the file that the run begins with, and refuse to go on with another one.

        Without the open ledger the folder tells what was proposed, and may be behind a channel: it refuses, and allows nothing.
        """
        kept = self._folder.federation_file
        if not kept.exists():
            self._copy_file()
            return
        proposed, changes = self._proposed(ledger), compare(load(kept), self._file)
        if changes and proposed:
            raise UsageError(
                "run-file-changed",
                f"{self._file.path} changed since the run in {self._folder.path} began:\n" + "\n".join(changes),
                next=output.command_line("run", self._file.path, "--dir", "ANOTHER_FOLDER"),
            )
        if ledger is not None and not proposed:
            self._copy_file()  # nobody has signed anything yet

    def _copy_file(self) -> None:
        """Keep the file, and a task that lies beside it, so that the folder alone can be run on."""
        copies, task = {self._folder.federation_file: self._file.path}, self._file.task_file
        if task is not None and task.parent == self._file.path.parent:
            copies[self._folder.path / task.name] = task
        for copy, source in copies.items():
            data = source.read_bytes()
            if not copy.exists() or copy.read_bytes() != data:
                write_whole(copy, data)

    def _cluster_settings(self) -> ClusterSettings:
        path = self._folder.path.resolve()
        return ClusterSettings(
            task=locate_task(self._file.task, self._file.path.parent), sites=self._file.site_names, seed=self._file.seed,
            models=str(path / "models"), blobs=str(path / "blobs"), processes=str(path / "processes.json"),
            workers=self._options.workers or self._file.workers, address=self._options.ray_address,
            dashboard=self._options.dashboard, labels={"federation": self._file.name},
        )  # fmt: skip

    def _found(self, ledger: RunLedger, keys: Keys) -> Federation:
        say = self._narrator
        say.title("1. The federation")
        founder = Founder(ledger, keys, utc)
        federation = founder.found(self._home.origin, self._home.log_key(keys))
        self._tell("founded")
        key = self._home.founded(self._folder, keys, federation)
        say.say(f"  {self._file.name}: federation {federation.id[:12]}, {key} is in {self._folder.key_file}")
        if self._options.passphrase is None:
            say.say(
                "  keys: unencrypted in a file that only you can read (a simulation; --passphrase-file encrypts it)"
            )
        say.doing("issuing credentials, and asking DIDKit for its second opinion")
        admissions: list[Admission] = []
        say.say("  credentials are judged twice: by our own policy, and by DIDKit as a second opinion")
        founder.admit(federation.id, self._folder.credentials, admissions.append)
        for one in admissions:
            say.say(
                f"  {one.who:<12} {one.role:<12} {one.did[:24]}…  credential: {one.ours}, second opinion: {one.theirs}"
            )
        self._tell("admitted")
        self._narrator.names = {identity.did: site for site, identity in keys.sites.items()}
        return federation

    def _agree(self, ledger: RunLedger, keys: Keys, federation: Federation, cluster: Cluster) -> Entry:
        """The proposal of the run's agreement, which every site has signed."""
        self._narrator.doing("starting Ray and looking at the task")
        task = cluster.describe()
        coordinator = Author(federation.id, keys.coordinator.did, keys.coordinator)
        proposal = self._proposal(ledger, coordinator, keys, task)
        self._tell("proposed")
        agreement = proposal.body["terms"]
        if agreement["task"]["code"] != task.code:
            self._refuse_task()
        self._narrator.title("2. The agreement")
        self._narrator.say(f"  {agreement['title']}: {proposal.agreement[:12]}, {counted(agreement['rounds'], 'round')}, "
                           f"at least {agreement['min_participants']} of {counted(len(agreement['parties']), 'site')}")  # fmt: skip
        return proposal

    def _proposal(self, ledger: RunLedger, coordinator: Author, keys: Keys, task: TaskInfo) -> Entry:
        for logged in ledger.find("propose", limit=1):
            return open_entry(logged.envelope)
        digest = propose(ledger, coordinator, build_agreement(self._file, keys, task, utc()), utc)
        return next(open_entry(logged.envelope) for logged in ledger.find("propose", agreement=digest))

    def _agents(self, ledger: RunLedger, keys: Keys, federation: Federation, proposal: Entry) -> dict[str, Agent]:
        """One agent per site, each with the agreement that it has checked; those that have not signed sign now."""
        token = self._coordinator_token(ledger, keys)
        agents = {}
        for site, identity in keys.sites.items():
            agent = Agent(
                site=site, author=Author(federation.id, identity.did, identity), secret=keys.secrets[site],
                outbox=self._outbox, ledger=ledger, clock=utc, base_model=self._stored_model,
            )  # fmt: skip
            agent.adopt(proposal, token)
            agents[identity.did] = agent
        parties = read_all(ledger, Party, {m: party_key(proposal.agreement, m) for m in agents})
        unsigned = [agents[m] for m, party in parties.items() if party is None or party.state == "proposed"]
        for outcome in ledger.submit([agent.sign() for agent in unsigned]):
            if isinstance(outcome, Rejected):
                raise outcome
        self._tell("signed")
        self._narrator.say(f"  verified and signed by {counted(len(agents), 'site')}")
        return agents

    def _stored_model(self, digest: str) -> str:
        """The digest of the model that is stored under a digest, "" where there is none. Read once: nobody rewrites a model."""
        if digest not in self._models and (path := self._folder.models / f"{digest}.safetensors").is_file():
            self._models[digest] = digest_file(path, threads=CORES)
        return self._models.get(digest, "")

    def _coordinator_token(self, ledger: RunLedger, keys: Keys) -> str:
        member = demand(ledger, Member, member_key(keys.coordinator.did))
        return (self._folder.credentials / f"{member.credential}.jwt").read_text()

    def _train(
        self, ledger: RunLedger, keys: Keys, federation: Federation, proposal: Entry, cluster: Cluster
    ) -> Finished:
        agreement = proposal.body["terms"]
        agents = self._agents(ledger, keys, federation, proposal)
        sites = SimulatedSites(
            self._with_faults(agents), ledger, cluster, outbox=self._outbox, clock=utc,
            recompute=lambda _, round_: recompute_round(ledger, self._folder, proposal, round_),
        )  # fmt: skip
        coordinator = Author(federation.id, keys.coordinator.did, keys.coordinator)
        self._narrator.title("3. The rounds")
        Driver(
            author=coordinator, agreement=agreement, digest=proposal.agreement, ledger=ledger, sites=sites,
            aggregator=cluster, blobs=BlobStore(self._folder.blobs, warn=self._warn), stored=self._stored_model, clock=Clock(utc, wait_until),
            watch=self._watch,
        ).drive()  # fmt: skip
        released = release(ledger, self._folder, coordinator, agreement, sites=sites, clock=utc)
        self._tell("released")
        record = self._last_record(ledger, proposal.agreement)
        baselines = self._baselines(cluster) if self._options.baselines else None
        return Finished(self._folder, federation.id, proposal.agreement, released, record.body["metrics"], baselines)

    def _baselines(self, cluster: Cluster) -> Baselines | None:
        """What each site alone and all data pooled reach; None, and why, where training them fails."""
        self._narrator.doing("training the baselines: each site alone, and all data pooled")
        seconds = self._file.agreement.commit_seconds * self._file.rounds
        try:
            return cluster.baselines(self._file.rounds, seconds=seconds)
        except (UsageError, Unavailable) as why:
            self._narrator.say(f"  no baselines: {why}", "yellow")
            return None

    def _warn(self, text: str) -> None:
        """Say what does not keep the run from going on."""
        self._narrator.say(f"  {text} Next: {output.command_line('audit', 'verify', self._folder.path)}", "yellow")

    def _replaced(self, what: str) -> None:
        """Say that a worker was lost and replaced."""
        self._tell("worker-replaced", message=what)
        self._narrator.say(f"  {what}", "yellow")

    def _tell(self, kind: str, **facts: str) -> None:
        """Tell whoever watches of something outside the rounds."""
        self._watch(Event(kind, 0, 0, facts))

    def _with_faults(self, agents: Mapping[str, Agent]) -> dict[str, SiteAgent]:
        """The agents by member, those of ``[simulate]`` with their faults around them."""
        faulty: dict[str, SiteAgent] = dict(agents)
        for fault in self._file.faults:
            member = next(m for m, agent in agents.items() if agent.site == fault.site)
            faulty[member] = FAULTS[fault.kind](faulty[member], fault.round)
        return faulty
