# SPDX-License-Identifier: Apache-2.0
"""The ledger on a Hyperledger Fabric channel, reached through the peers' Gateway service.

The same port as the embedded ledger: what it promises there, the organisations' endorsements and the orderers' blocks
promise here. An entry is on the ledger when its transaction is in a block and valid; its number is its place in the log
that the blocks make. Nothing signs a head of the log here: members cosign what they replayed.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Self

from fabric_protos.common import common_pb2
from google.protobuf.message import DecodeError

from chaincode.entries import Entry
from chaincode.fabric_outcomes import Duplicate, Verdict
from chaincode.ledgers import Receipt
from chaincode.ledgers.fabric.batches import Batch, waves
from chaincode.ledgers.fabric.blocks import header_hash
from chaincode.ledgers.fabric.gateway import CallFailed, Orderer, Peer
from chaincode.ledgers.fabric.identity import load_member
from chaincode.ledgers.fabric.journal import Journal
from chaincode.ledgers.fabric.log import BlockLog, Numbers
from chaincode.ledgers.fabric.messages import propose
from chaincode.ledgers.fabric.pauses import Pauses
from chaincode.ledgers.fabric.profile import Place, Profile
from chaincode.ledgers.fabric.refusals import AGAIN
from chaincode.ledgers.fabric.sending import Patience, Sender, Sent
from chaincode.ledgers.fabric.together import Together
from chaincode.ledgers.opening import open_all
from identity import canonical
from identity.errors import EvidenceError, OutcomeUnknown, Rejected, Unavailable, UsageError
from identity.wording import counted

KEYS_AT_ONCE = 1000
Outcome = Receipt | Rejected
Notice = Callable[[CallFailed], None]


class FabricLedger:
    """A ledger on a channel, as one organisation's client. Thread-safe; as a context manager it closes."""

    def __init__(
        self, profile: Profile, organisation: str, pending: Path, *, clock: Callable[[], int], patience: Patience,
        notice: Notice | None, numbers: Numbers | None,
    ) -> None:  # fmt: skip
        """For `open` only."""
        own = profile.organisation(organisation)
        member, self._place = load_member(own), Place(profile.channel, profile.chaincode)
        self._own = [Peer(node) for node in own.peers]
        others = [Peer(node) for one in profile.organisations if one.msp != own.msp for node in one.peers]
        if not self._own:
            raise UsageError("profile-organisation", f"{profile.path} names no peer of {own.name}.")
        self._peers = [*self._own, *others]
        self._orderers = [Orderer(node) for node in profile.orderers]
        self._member, self._clock, self._patience = member, clock, patience
        self._pauses = Pauses(patience.first_pause, patience.longest_pause)
        self._sender = Sender(
            member, self._place, self._peers, self._orderers, Journal(pending), clock=clock, patience=patience,
            pauses=self._pauses, notice=notice,
        )  # fmt: skip
        self._log = BlockLog(
            member,
            self._place,
            genesis_hash(profile.genesis),
            patience=patience.total,
            pauses=self._pauses,
            folder=pending,
        )
        self._numbers: Numbers = numbers or self._log
        self._together = Together(self._sender.send)

    @classmethod
    def open(
        cls, profile: Profile, organisation: str, *, pending: Path | None = None, clock: Callable[[], int] | None = None,
        patience: Patience | None = None, notice: Notice | None = None, numbers: Numbers | None = None,
    ) -> Self:  # fmt: skip
        """Open the ledger as a client of `organisation` (its name or its MSP's); nothing is sent before it is used.

        `pending` is the folder for signed transactions of unknown outcome and for where entries are in the log, by default
        one beside the profile; `clock` (UTC seconds) is what transactions state as their time. `notice` is told of each call
        that fails while the ledger tries on, so that somebody can be told who is away; several threads may call it at once.
        `numbers` says where entries are in the log for a caller who reads the blocks anyway: then `submit` reads none.
        An orderer that the profile does not let us reach is left out, and named when one is needed.
        Raises UsageError: profile-organisation, fabric-tls-needed, profile-genesis; CredentialError: msp-*,
        fabric-tls-ca; Unavailable(fabric-journal).
        """
        folder = pending or profile.path.parent / "pending" / profile.organisation(organisation).msp
        return cls(
            profile, organisation, folder, clock=clock or _now, patience=patience or Patience(), notice=notice,
            numbers=numbers,
        )  # fmt: skip

    def submit(self, envelopes: Sequence[bytes]) -> list[Outcome]:
        """Judge entries and have them stored, as the port says; many share a transaction.

        Raises Unavailable: fabric-*; OutcomeUnknown: fabric-outcome-unknown, or the code of what failed after a part
        of the entries was stored; CredentialError(fabric-access-denied); EvidenceError: fabric-fork, fabric-genesis.
        """
        opened = open_all(envelopes)
        known = {
            entry.id for entry in opened if isinstance(entry, Entry) and self._numbers.index_of(entry.id) is not None
        }
        entries = [(i, one) for i, one in enumerate(opened) if isinstance(one, Entry) and one.id not in known]
        verdicts: dict[int, Verdict] = {
            i: Duplicate(one.id) for i, one in enumerate(opened) if isinstance(one, Entry) and one.id in known
        }
        newest = -1
        for wave in waves(entries):
            for batch, sent in zip(wave, self._send(wave, newest >= 0), strict=True):
                verdicts.update(zip(batch.places, sent.verdicts, strict=True))
                newest = max(newest, -1 if sent.block is None else sent.block)
        try:
            if newest >= 0:
                self._numbers.read_to(self._peers, newest)
            return [one if isinstance(one, Rejected) else self._outcome(verdicts[i]) for i, one in enumerate(opened)]
        except Unavailable as error:
            raise _stored(error, "What was accepted is on the ledger", AGAIN) from error

    def get(self, keys: Collection[str]) -> dict[str, bytes | None]:
        """Return the state under each key, from a peer of one's own organisation.

        What this ledger's `submit` stored is seen. Raises Unavailable(fabric-read), EvidenceError(fabric-read).
        """
        found: dict[str, bytes | None] = {}
        distinct = list(dict.fromkeys(keys))
        for some in (distinct[i : i + KEYS_AT_ONCE] for i in range(0, len(distinct), KEYS_AT_ONCE)):
            values = _values(self._evaluate([b"get", *(key.encode() for key in some)], self._member.msp))
            if len(values) != len(some):
                raise EvidenceError(
                    "fabric-read",
                    f"{counted(len(values), 'value was', 'values were')} answered for {counted(len(some), 'key')}.",
                )
            found.update(zip(some, values, strict=True))
        return found

    def entries(self, start: int = 0) -> Iterator[bytes]:
        """Iterate over the envelopes from number `start` to the newest now, from the blocks of one's own peers.

        What this ledger's `submit` answered with receipts is seen, even where one's own peers are behind: they are
        waited for. Raises Unavailable(fabric-blocks), EvidenceError: fabric-block, fabric-fork, fabric-genesis.
        """
        return self._log.entries(self._own, max(start, 0))

    def follow(self, start: int = 0) -> Iterator[bytes]:
        """Iterate over the envelopes from number `start` on, and wait for each further one: it never ends by itself.

        Raises Unavailable(fabric-blocks) where no peer of one's own organisation has been there for long.
        """
        return self._log.entries(self._own, max(start, 0), follow=True)

    def source(self, organisation: str) -> str:
        """Return the digest (hex) of the contract's source that an organisation's peers run, as they say.

        Raises Unavailable(fabric-read).
        """
        return self._evaluate([b"source"], organisation).decode("ascii", "replace")

    def versions(self) -> list[tuple[str, int]]:
        """Return which version of the contract judged the entries: the digest of its source, and how many in a row.

        They are read from the blocks, in the log's order: the version is what the organisations signed with each
        endorsement. Raises as `entries`.
        """
        self._log.read_to(self._own, None)
        return self._log.versions

    def recover(self) -> int:
        """Settle what an earlier process left: its signed transactions are sent again until their fate is known.

        Returns their number. Raises OutcomeUnknown where one stays unknown.
        """
        pending = self._sender.journal.pending()
        for one in pending:
            self._sender.settle(one)
        return len(pending)

    def close(self) -> None:
        """Hang up; a second call does nothing. What other threads have under way is not tried again."""
        self._pauses.closing.set()
        self._together.close()
        self._log.save()
        for remote in (*self._peers, *self._orderers):
            remote.close()

    def __enter__(self) -> Self:
        """Return the ledger itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self.close()

    def _send(self, wave: list[Batch], stored: bool) -> list[Sent]:
        """Send the batches of a wave side by side. `stored` says whether earlier ones of the submission are stored."""
        results = self._together.send(wave)
        stored = stored or any(isinstance(one, Sent) and one.block is not None for one in results)
        for one in results:
            if isinstance(one, Unavailable) and stored and not isinstance(one, OutcomeUnknown):
                raise _stored(one, "A part of the entries is stored") from one
            if isinstance(one, Exception):
                raise one
        return [one for one in results if isinstance(one, Sent)]

    def _outcome(self, verdict: Verdict) -> Outcome:
        if isinstance(verdict, Rejected):
            return verdict
        attempts = self._pauses.until(time.monotonic() + self._patience.total)
        index = self._numbers.index_of(verdict.entry)
        while index is None and next(attempts, None):  # in the state of the peer that answered, in no block read here
            self._numbers.read_to(self._peers, None)
            index = self._numbers.index_of(verdict.entry)
        if index is None:
            raise Unavailable("fabric-blocks", f"No peer shows the block of entry {verdict.entry[:12]} yet.")
        return Receipt(verdict.entry, index)

    def _evaluate(self, arguments: Sequence[bytes], organisation: str) -> bytes:
        """Ask the peers of an organisation, through any peer of one's own. Raises Unavailable(fabric-read)."""
        end = time.monotonic() + self._patience.call
        for _ in self._pauses.until(end):
            for peer in self._own:
                proposal = propose(self._member, self._place.channel, self._place.chaincode, arguments, self._clock())
                try:
                    self._sender.catch_up(peer)
                    return peer.evaluate(proposal, self._place.channel, organisation, self._patience.call)
                except CallFailed as failure:
                    failed = failure
            if failed.code == "UNKNOWN":  # the chaincode's own answer
                break
        raise Unavailable(
            "fabric-read", f"No peer of {organisation} answers: {failed}.", next="fedledger fabric status"
        )


def genesis_hash(path: Path) -> bytes | None:
    """Return the hash of the channel's first block in a file, None where there is no such file.

    Raises UsageError(profile-genesis) for a file that holds no block.
    """
    if not path.is_file():
        return None
    try:
        return header_hash(common_pb2.Block.FromString(path.read_bytes()).header)
    except DecodeError as error:
        raise UsageError("profile-genesis", f"{path} holds no block.") from error


def _values(data: bytes) -> list[bytes | None]:
    """Read the answer of `get`. Raises EvidenceError: json-*, base64-not-canonical, fabric-read."""
    value = canonical.loads(data, limit=1 << 24)
    if not isinstance(value, list) or not all(item is None or isinstance(item, str) for item in value):
        raise EvidenceError("fabric-read", "The state was answered in no form that this version reads.")
    return [None if item is None else canonical.b64decode(item) for item in value]


def _stored(error: Unavailable, what: str, next_: str | None = None) -> OutcomeUnknown:
    """Return the error of a step before which something was stored."""
    return OutcomeUnknown(error.code, f"{what}. {error.message}", next=next_ or error.next)


def _now() -> int:
    return int(time.time())
