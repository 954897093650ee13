# SPDX-License-Identifier: Apache-2.0
"""A run on a Fabric channel: each organisation's client submits what its own members signed; reading goes to the replica.

Nothing else of a run knows of it. What an entry's author signed is the same as on the embedded ledger; the organisation's
key says only who brought it. Loaded when a run is on Fabric, because it needs the packages of a Fabric client.
"""

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Unpack

from chaincode import artefacts, state
from chaincode.author import read
from chaincode.blocks.chain import Trust
from chaincode.channel_key import ChannelKey, read_any_key
from chaincode.ledgers import Receipt
from chaincode.ledgers.fabric.gateway import Peer
from chaincode.ledgers.fabric.identity import load_member
from chaincode.ledgers.fabric.ledger import FabricLedger, genesis_hash
from chaincode.ledgers.fabric.profile import Organisation, Profile, load_profile
from chaincode.ledgers.queries import Logged
from chaincode.ledgers.replica import Replica
from chaincode.ledgers.search import Sought
from chaincode.state import Federation
from identity import envelope
from identity.errors import OutcomeUnknown, Rejected, Unavailable, UsageError
from identity.wording import counted
from ops import channel_run
from ops.channel_run import ChannelRun
from ops.founding import Keys
from ops.ledger_blocks import Feed, first_hash
from ops.ledger_network import Channel, Say, Trouble
from ops.run_folder import RunFolder

SECONDS = 60.0
"""How long a run tries on while the network is away."""
Outcome = Receipt | Rejected
Place = tuple[int, bytes]


class ChannelLedger:
    """The ledger of a run on a channel, as the clients of its organisations. ``homes`` gives an author's organisation."""

    whole = True

    def __init__(
        self, clients: Mapping[str, FabricLedger], first: str, homes: Mapping[str, str], feed: Feed, replica: Replica, *,
        trouble: Trouble,
    ) -> None:  # fmt: skip
        """``first`` is the organisation that submits for authors who have none."""
        self._clients, self._first, self._homes = clients, first, homes
        self._feed, self._replica, self._trouble = feed, replica, trouble

    def submit(self, envelopes: Sequence[bytes]) -> list[Outcome]:
        """Judge entries, as the port says; those of several organisations' sites go out side by side."""
        outcomes: dict[int, Outcome] = {}
        try:
            for group in grouped(envelopes, self._homes, self._first):
                outcomes.update(self._send(group))
        except Unavailable as error:
            raise self._trouble.explained(error) from error
        received = [one.index + 1 for one in outcomes.values() if isinstance(one, Receipt)]
        self._catch_up(max(received, default=0))
        self._trouble.passed()
        return [outcomes[place] for place in range(len(envelopes))]

    def get(self, keys: Collection[str]) -> dict[str, bytes | None]:
        """The state under each key, as the contract makes it of the verified blocks up to the newest."""
        self._catch_up(0)
        return self._replica.get(keys)

    def entries(self, start: int = 0) -> Iterator[bytes]:
        """The envelopes from number ``start`` to the newest now."""
        self._catch_up(0)
        return self._replica.entries(start)

    def entry(self, which: int | str) -> Logged:
        """The entry of an index, or of the beginning of an id. Raises UsageError: entry-*."""
        return self._replica.entry(which)

    def find(self, kind: str | None = None, **sought: Unpack[Sought]) -> Iterator[Logged]:
        """The entries that have all of these."""
        return self._replica.find(kind, **sought)

    def prove(self, entry: str) -> None:
        """The channel's blocks are the proof; a single entry has none of its own."""

    def recover(self) -> None:
        """Settle what an earlier process sent and did not hear of, so that nothing is signed a second time."""
        try:
            for client in self._clients.values():
                client.recover()
        except Unavailable as error:
            raise self._trouble.explained(error) from error
        self._catch_up(0)

    def _catch_up(self, size: int) -> None:
        try:
            self._feed.catch_up(size)
        except Unavailable as error:
            raise self._trouble.explained(error) from error

    def _send(self, group: Mapping[str, list[Place]]) -> dict[int, Outcome]:
        """Submit each organisation's entries by its client, side by side."""
        if len(group) == 1:
            ((home, places),) = group.items()
            return _numbered(places, self._clients[home].submit([data for _, data in places]))
        with ThreadPoolExecutor(len(group)) as pool:
            under_way = [
                (places, pool.submit(self._clients[home].submit, [data for _, data in places]))
                for home, places in group.items()
            ]
        failed = [error for _, future in under_way if (error := future.exception())]
        if failed and len(failed) < len(under_way) and type(failed[0]) is Unavailable:
            first = failed[0]
            raise OutcomeUnknown(first.code, f"A part of the entries is stored. {first.message}", next=first.next)
        return {place: one for places, future in under_way for place, one in _numbered(places, future.result()).items()}


def grouped(envelopes: Sequence[bytes], homes: Mapping[str, str], first: str) -> list[dict[str, list[Place]]]:
    """What goes out together, by organisation, one group after the other: what one organisation has in a row, or sites' own
    entries, each of another author, which cannot meet.

    ``homes`` gives the organisation of each site, ``first`` is that of everybody else.
    """
    groups: list[dict[str, list[Place]]] = []
    authors: set[str] = set()  # those of the last group, as long as nothing in it can meet
    for place, data in enumerate(envelopes):
        author = envelope.parse(data).did
        home, apart = homes.get(author, first), author in homes and author not in authors
        if not groups or not (groups[-1].keys() == {home} or (apart and authors)):
            groups.append({})
            authors, apart = set(), author in homes
        authors = {*authors, author} if apart and (authors or not groups[-1]) else set()
        groups[-1].setdefault(home, []).append((place, data))
    return groups


def _numbered(places: Sequence[Place], outcomes: Sequence[Outcome]) -> dict[int, Outcome]:
    return dict(zip([place for place, _ in places], outcomes, strict=True))


@dataclass(frozen=True, slots=True)
class OnChannel:
    """The ``Home`` of a run on a channel; ``name`` is the federation's."""

    name: str
    channel: Channel
    say: Say

    @property
    def profile(self) -> Profile:
        """The connection profile, as it is now."""
        return load_profile(self.channel.profile)

    @property
    def origin(self) -> str:
        """The log's name: it ends in the channel and the chaincode that hold it."""
        profile = self.profile
        return f"fedledger/{self.name}/{profile.channel}/{profile.chaincode}"

    def log_key(self, _keys: Keys) -> None:
        """Nobody signs the log: the orderers sign blocks, and organisations endorse what is in them."""

    @contextmanager
    def open(self, folder: RunFolder, keys: Keys) -> Iterator[ChannelLedger]:
        """The ledger, with the network started where it is a local one, and everything from before settled.

        Raises:
            Rejected: ``already-founded``: the channel's contract holds another federation.
        """
        self.channel.start(self.say)
        profile, trouble = self.profile, Trouble(self.channel, self.say)
        usable = [one for one in profile.organisations if one.ours]
        if not usable:
            message = f"{profile.path} has no organisation with a peer, a client's certificate and its key."
            raise UsageError("profile-organisation", message, next="Name the files of a client of your organisation.")
        homes = _homes(usable, keys)
        channel_run.write_place(ChannelRun(folder.path, self.channel.profile, usable[0].name))
        self._introduce(profile, usable, homes)
        with ExitStack() as stack:
            _forget_other(folder)
            replica = stack.enter_context(Replica.open(folder.ledger, origin=self.origin))
            feed = _feed(stack, folder, profile, usable[0], replica, trouble=trouble)
            clients = {}
            for one in usable:
                pending = folder.pending / one.msp
                client = FabricLedger.open(profile, one.name, pending=pending, notice=trouble, numbers=feed)
                clients[one.name] = stack.enter_context(client)
            ledger = ChannelLedger(clients, usable[0].name, homes, feed, replica, trouble=trouble)
            ledger.recover()
            if (taken := self._taken(ledger, keys)) is None:
                yield ledger
                return
        # What was read is another federation's, and would be shown as this run's.
        _forget_other(folder)
        if not folder.key_file.exists():
            (folder.path / channel_run.FILE).unlink(missing_ok=True)
        raise taken

    def founded(self, folder: RunFolder, keys: Keys, federation: Federation) -> str:
        """Write what pins the channel: its first block's hash, its organisations' roots, the federation's id."""
        del keys
        if not folder.key_file.exists():
            place = channel_run.read_run(folder.path)
            if place is None:
                raise UsageError("run-malformed", f"{folder.path / channel_run.FILE} is gone.")
            genesis = (folder.path / artefacts.FIRST_BLOCK).read_bytes()
            channel_run.write_run(place, genesis, self.origin, federation.id)
        return "the key that pins its channel"

    def released(self, folder: RunFolder) -> bool:
        """The model is written last."""
        return folder.model.exists()

    @property
    def elsewhere(self) -> str:
        """One channel holds one federation."""
        return "--dir and --fabric-dir"

    def _introduce(self, profile: Profile, usable: Sequence[Organisation], homes: Mapping[str, str]) -> None:
        names = ", ".join(one.name for one in profile.organisations)
        orderers = counted(len(profile.orderers), "orderer")
        self.say(f"  ledger: the Fabric channel {profile.channel} of {names}; {orderers}")
        sites = list(homes.values())
        shares = ", ".join(
            f"{counted(sites.count(one.name), 'site')} of {one.name}" for one in usable if one.name in sites
        )
        self.say(f"  clients: the coordinator's of {usable[0].name}; {shares}")

    def _taken(self, ledger: ChannelLedger, keys: Keys) -> Rejected | None:
        """Why the channel cannot be this run's, None where it can."""
        federation = read(ledger, Federation, state.FEDERATION)
        if federation is None or federation.authority == (keys.authority.did,):
            return None
        return Rejected(
            "already-founded",
            f"The channel holds the federation {federation.id[:12]} of {federation.origin} already, and one channel holds one.",
            next=_ANOTHER_NETWORK if self.channel.folder else _ANOTHER_NAME,
        )


_ANOTHER_NETWORK = "the same command with --fabric-dir ANOTHER_FOLDER, where a network of its own is started"
_ANOTHER_NAME = (
    "the same command with the --dir of the run that founded it; or have the package approved and committed under another "
    "--name, and name that as the profile's chaincode"
)


def _forget_other(folder: RunFolder) -> None:
    """Before its founding a run has nothing of its own on a channel: what was read may be of another one."""
    if not folder.key_file.exists():
        for suffix in ("", "-wal", "-shm"):
            folder.ledger.with_name(f"{folder.ledger.name}{suffix}").unlink(missing_ok=True)
        shutil.rmtree(folder.blocks, ignore_errors=True)


def _homes(usable: Sequence[Organisation], keys: Keys) -> dict[str, str]:
    """Which organisation each site belongs to: dealt out in order over all but the coordinator's."""
    hospitals = usable[1:] or usable[:1]
    return {site.did: hospitals[n % len(hospitals)].name for n, site in enumerate(keys.sites.values())}


def _feed(
    stack: ExitStack, folder: RunFolder, profile: Profile, own: Organisation, replica: Replica, *, trouble: Trouble
) -> Feed:
    """The channel's blocks, from the coordinator's peers, and from others where those are away."""
    others = [one for one in profile.organisations if one.msp != own.msp]
    peers = [Peer(node) for one in (own, *others) for node in one.peers]
    for peer in peers:
        stack.callback(peer.close)
    member = load_member(own)
    trust = _trust(folder, profile)
    if trust is None:
        trust = Trust(profile.channel, profile.chaincode, first_hash(peers, member, profile.channel, trouble))
    feed = Feed(folder.path, trust, replica, peers, member, notice=trouble, seconds=SECONDS)
    feed.resume()
    return feed


def _trust(folder: RunFolder, profile: Profile) -> Trust | None:
    """What pins the channel: the run's own key from its founding on, before that the profile's first block."""
    if folder.key_file.exists() and isinstance(key := read_any_key(folder.key_file), ChannelKey):
        return Trust(key.channel, key.chaincode, bytes.fromhex(key.genesis), key.roots_of())
    first = genesis_hash(profile.genesis)
    return None if first is None else Trust(profile.channel, profile.chaincode, first)
