# SPDX-License-Identifier: Apache-2.0
"""What the benchmark of the Fabric ledger sends: a federation of now, its rounds, and transactions that do nothing.

The same entries in the same order for every ledger; only the founding says which log it is for.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from chaincode.agreement import agreement_digest
from chaincode.author import Author
from chaincode.entries import make_entry, open_entry
from chaincode.ledgers import Ledger
from chaincode.ledgers.fabric.batches import waves
from chaincode.ledgers.fabric.gateway import Peer
from chaincode.ledgers.fabric.identity import load_member
from chaincode.ledgers.fabric.messages import propose, sign_transaction, status_request
from chaincode.ledgers.fabric.profile import Profile
from identity.errors import Rejected
from ops.bench.people import SKEW, Signing, digest, federation_id, people, tensor, terms

ELEMENTS = 100
ROUNDS = 1_000_000
DAY = 86_400
CALL_SECONDS = 30.0
AT_ONCE = 32
"""Transactions that do nothing and are being endorsed or submitted at once; more of them do not come through faster. Any
number waits for blocks meanwhile."""
Steps = list[list[bytes]]
"""The entries of a round in the groups that wait for one another, as a run submits them: the commitments, by the sites'
organisations; the seal; the record with the next opening."""


def append(ledger: Ledger, envelopes: Sequence[bytes]) -> None:
    """Store entries that must be accepted. Raises Rejected: one is not, so the benchmark is wrong."""
    for outcome in ledger.submit(envelopes):
        if isinstance(outcome, Rejected):
            raise outcome


class Consortium:
    """A federation on a ledger, founded now, with so many sites admitted."""

    def __init__(self, ledger: Ledger, origin: str, log_key: str | None, sites: int) -> None:
        self.ledger, self.who = ledger, people(sites)
        now, authority = int(time.time()), self.who.authority
        body = {
            "origin": origin,
            "log_key": log_key,
            "authority": [authority.did],
            "cosigners": [],
            "quorum": 0,
            "skew": SKEW,
        }
        founding = make_entry(
            "found", member=authority.did, at=now, body=body, signer=authority, subjects={"nonce": digest("nonce", now)}
        )
        self.federation = federation_id(founding)
        append(ledger, [founding])

    def admit(self) -> None:
        """Admit the coordinator and the sites."""
        author, now = Author(self.federation, self.who.authority.did, self.who.authority), int(time.time())
        span = {"not_before": now - DAY, "not_after": now + 30 * DAY}
        everybody = [("coordinator", self.who.coordinator), *(("participant", site) for site in self.who.sites)]
        append(self.ledger, [
            author.entry("admit", now, {"admits": one.did, "new_did": one.did, "role": role, "organisation": role, **span},
                         subjects={"credential": digest("credential", one.did)})
            for role, one in everybody
        ])  # fmt: skip

    def agree(self, parties: int) -> "Deal":
        """Agree on a model with the first so many sites."""
        return Deal(self, parties)


class Deal:
    """An agreement of some sites of a federation, and its rounds."""

    def __init__(self, consortium: Consortium, parties: int) -> None:
        self._ledger, now = consortium.ledger, int(time.time())
        who = replace(consortium.who, sites=consortium.who.sites[:parties])
        agreed = terms(who, f"{parties} sites", digest("model", 0), ROUNDS, [tensor("weight", [ELEMENTS])])
        agreed |= {"not_before": now - DAY, "not_after": now + 30 * DAY}
        self._by, self._round = Signing(who, consortium.federation, agreement_digest(agreed)), 0
        append(self._ledger, [self._by.propose(now, agreed), *(self._by.sign(now, site) for site in who.sites)])
        append(self._ledger, [self._by.open(now, 1, digest("model", 0))])

    def next(self) -> Steps:
        """Sign the round that is open, and the opening of the next one."""
        self._round, now = self._round + 1, int(time.time())
        n, by = self._round, self._by
        commitments = [
            by.commit(now, n, site, digest("update", n, s), ELEMENTS * 4 + 400) for s, site in enumerate(by.who.sites)
        ]
        record = by.record(now, n, digest("sum", n), digest("model", n))
        return [commitments, [by.seal(now, n)], [record, by.open(now, n + 1, digest("model", n))]]

    def store(self, steps: Steps) -> list[float]:
        """Store a round; the seconds of each of its steps."""
        found = []
        for step in steps:
            begin = time.perf_counter()
            append(self._ledger, step)
            found.append(time.perf_counter() - begin)
        return found


class Floor:
    """The network alone: transactions with the same arguments, ordered and endorsed alike, to a function that does nothing."""

    def __init__(self, profile: Profile, organisation: str) -> None:
        own = profile.organisation(organisation)
        self._profile, self._member, self._peer = profile, load_member(own), Peer(own.peers[0])
        self._threads = ThreadPoolExecutor(AT_ONCE)

    def close(self) -> None:
        """Hang up."""
        self._threads.shutdown()
        self._peer.close()

    def store(self, steps: Steps) -> list[float]:
        """Send what ``Deal.store`` would, in as many transactions; the seconds of each step."""
        found = []
        for step in steps:
            batches = list(waves(list(enumerate(map(open_entry, step)))))
            begin = time.perf_counter()
            for wave in batches:
                self._transact([batch.envelopes for batch in wave])
            found.append(time.perf_counter() - begin)
        return found

    def store_each(self, envelopes: Sequence[bytes]) -> float:
        """Send a transaction for each envelope; the seconds until all are in blocks."""
        begin = time.perf_counter()
        self._transact([[one] for one in envelopes])
        return time.perf_counter() - begin

    def _transact(self, some: Sequence[Sequence[bytes]]) -> None:
        """Transactions side by side, until all are in blocks. Raises CallFailed, RuntimeError where one is not valid."""
        for txid in list(self._threads.map(self._send, some)):
            status = self._peer.status(status_request(self._member, self._profile.channel, txid), CALL_SECONDS)
            if status.code != "VALID":
                raise RuntimeError(f"a transaction that does nothing is {status.code}")

    def _send(self, envelopes: Sequence[bytes]) -> str:
        """One transaction to the orderers; its id."""
        channel = self._profile.channel
        arguments = [b"source", *envelopes]
        proposal = propose(self._member, channel, self._profile.chaincode, arguments, int(time.time()))
        prepared = self._peer.endorse(proposal, channel, CALL_SECONDS)
        self._peer.submit(sign_transaction(self._member, proposal.txid, prepared), channel, CALL_SECONDS)
        return proposal.txid
