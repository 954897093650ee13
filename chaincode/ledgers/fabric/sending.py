# SPDX-License-Identifier: Apache-2.0
"""How one transaction gets onto a Fabric channel, whatever dies meanwhile.

    endorse -> keep the signed envelope -> submit -> wait for its status
       ^           nobody knows what became of it: the SAME envelope again, to any organisation's peer
       '-------- versions conflict (another transaction was first): endorsed anew, after a random pause

A transaction's id makes sending it again harmless, and the ids of the entries in it make endorsing it anew harmless.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from chaincode.fabric_outcomes import Verdict, parse_outcomes
from chaincode.ledgers.fabric.differences import Differences
from chaincode.ledgers.fabric.gateway import WAITED_ENOUGH, CallFailed, Orderer, Peer, Status, hand_over
from chaincode.ledgers.fabric.identity import Member
from chaincode.ledgers.fabric.journal import Journal
from chaincode.ledgers.fabric.messages import (
    Pending,
    propose,
    response_of,
    seek_newest,
    sign_transaction,
    status_request,
)  # fmt: skip
from chaincode.ledgers.fabric.pauses import Pauses
from chaincode.ledgers.fabric.profile import Place
from chaincode.ledgers.fabric.refusals import (
    AGAIN,
    STATUS,
    Finding,
    check_known,
    diagnose,
    endorsed_by_too_few,
    unknown,
)
from identity.errors import CredentialError, OutcomeUnknown, Rejected, Unavailable, UsageError

CONFLICTS = frozenset(
    {"MVCC_READ_CONFLICT", "PHANTOM_READ_CONFLICT", "EXPIRED_CHAINCODE", "CHAINCODE_VERSION_CONFLICT"}
)
"""Validation codes after which nothing was stored and the same entries may be endorsed anew."""
TOO_FEW = "ENDORSEMENT_POLICY_FAILURE"
"""The same, but a few times only: an organisation that joined meanwhile raised what the channel asks for."""
COMPARED = (4, 8, 16)
"""After so many answers that differ, the organisations are compared."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long (seconds) a client tries. `total` bounds a transaction, `call` one endorsement.

    `status` is the first wait for a status before the envelope is sent again, longer than the two seconds for which an
    orderer usually gathers a block; it doubles up to `longest_status`.
    `conflicts` bounds how often a transaction is endorsed anew, `too_few` how often because it had too few endorsements.
    """

    total: float = 60.0
    call: float = 30.0
    status: float = 3.0
    longest_status: float = 8.0
    conflicts: int = 30
    too_few: int = 5
    first_pause: float = 0.02
    longest_pause: float = 1.0


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a transaction: a verdict for each envelope, and its block; None where nothing was written."""

    verdicts: list[Verdict]
    block: int | None


class Sender:
    """Sends transactions for one member over the peers of all organisations, its own first. Thread-safe."""

    def __init__(
        self, member: Member, place: Place, peers: Sequence[Peer], orderers: Sequence[Orderer], journal: Journal, *,
        clock: Callable[[], int], patience: Patience, pauses: Pauses, notice: Callable[[CallFailed], None] | None = None,
    ) -> None:  # fmt: skip
        """`notice` is called for each call that fails and is made again, there or elsewhere: by any thread, so be quick."""
        self.journal, self._pauses, self._notice, self._orderers = journal, pauses, notice or _nothing, orderers
        self._member, self._place, self._peers, self._clock, self._patience = member, place, peers, clock, patience
        self._lock = threading.Lock()
        self._latest: tuple[int, str, Peer] | None = None

    def send(self, envelopes: Sequence[bytes], submitted: Callable[[], None]) -> Sent:
        """Bring a batch of envelopes onto the channel, or hear why none of them may.

        `submitted` is called when the transaction is with the orderers, and all that is left is to wait.
        Raises Unavailable: fabric-* (nothing was stored); OutcomeUnknown: fabric-outcome-unknown; CredentialError.
        """
        end = time.monotonic() + self._patience.total
        conflict, differing, too_few = "", 0, 0
        for _ in self._pauses.until(end, self._patience.conflicts):
            answer = self._endorse(envelopes, end)
            if isinstance(answer, Finding):
                conflict, differing = answer.message, differing + answer.differs
                if answer.differs and differing in COMPARED:
                    self._compare(envelopes)
            elif isinstance(answer, list):
                return Sent(answer, None)
            else:
                status = self.commit(answer, end, submitted)
                if status.code == "VALID":
                    return Sent(parse_outcomes(response_of(answer.envelope)), status.block)
                conflict = f"transaction {answer.txid[:12]} in block {status.block} is {status.code}"
                too_few += status.code == TOO_FEW
                if too_few > self._patience.too_few:
                    raise endorsed_by_too_few(answer, status, too_few)
        raise Unavailable("fabric-conflicts", f"The entries met a conflict each time: {conflict}.", next=AGAIN)

    def settle(self, pending: Pending) -> Status | None:
        """Learn what became of a transaction of an earlier process; None where it is refused for good.

        Raises OutcomeUnknown(fabric-outcome-unknown).
        """
        try:
            return self.commit(pending, time.monotonic() + self._patience.total)
        except OutcomeUnknown:
            raise
        except Unavailable:
            return None

    def commit(self, pending: Pending, end: float, submitted: Callable[[], None] = lambda: None) -> Status:
        """Send a signed transaction until its fate is known, and return it: VALID, TOO_FEW or one of the conflicts.

        Raises Unavailable: fabric-orderer-refused, fabric-invalid; OutcomeUnknown: fabric-outcome-unknown.
        """
        self.journal.keep(pending)
        wait, before = self._patience.status, False
        failures: dict[str, CallFailed] = {}
        for _ in self._pauses.until(end):
            failures = self._submit(pending, before)
            before = True
            submitted()
            status, failed = self._status(pending.txid, min(wait, max(0.1, end - time.monotonic())))
            if status is not None:
                return self._final(pending, status)
            failures |= {failed.step: failed} if failed else {}
            wait = min(2 * wait, self._patience.longest_status)
        raise unknown(pending, failures)

    def catch_up(self, peer: Peer) -> None:
        """Wait until a peer has what this client last saw committed elsewhere. Raises CallFailed."""
        latest = self._latest
        if latest is not None and latest[2] is not peer:
            peer.status(status_request(self._member, self._place.channel, latest[1]), self._patience.longest_status)

    def _endorse(self, envelopes: Sequence[bytes], end: float) -> Pending | list[Verdict] | Finding:
        """Return a signed transaction; or the verdicts where nothing is to be written; or a conflict."""
        failures: dict[str, CallFailed] = {}
        for _ in self._pauses.until(end):
            for peer in self._peers:
                try:
                    return self._ask(peer, envelopes)
                except CallFailed as failure:
                    failures[peer.node.address] = failure
                    self._notice(failure)
            check_known(self._place, failures.values())
        said = ". ".join(str(failure) for failure in failures.values())
        raise Unavailable("fabric-not-endorsed", f"Too few organisations endorse the entries. {said}.", next=STATUS)

    def _ask(self, peer: Peer, envelopes: Sequence[bytes]) -> Pending | list[Verdict] | Finding:
        """Have a peer's gateway collect endorsements. Raises CallFailed where another peer may do better.

        A refusal is not ordered, so nobody else checks on what it was judged, and a peer that was just started again may
        be far behind. It counts when it comes from a peer that had, before it was asked, what every other one has.
        """
        checked = False
        while True:
            arguments = (b"submit", *envelopes)
            proposal = propose(self._member, self._place.channel, self._place.chaincode, arguments, self._clock())
            try:
                self.catch_up(peer)
                prepared = peer.endorse(proposal, self._place.channel, self._patience.call)
                return sign_transaction(self._member, proposal.txid, prepared)
            except CallFailed as failure:
                finding = diagnose(failure)
                if finding.verdicts is None and not finding.conflict:
                    raise
                if finding.verdicts is None:
                    return finding
                if checked or not any(isinstance(verdict, Rejected) for verdict in finding.verdicts):
                    return finding.verdicts
                if behind := self._behind(peer):
                    return behind
                checked = True

    def _compare(self, envelopes: Sequence[bytes]) -> None:
        """Raise Unavailable(fabric-organisations-differ) where an organisation certainly runs another contract."""
        asked = Differences(self._member, self._place, self._peers, self._patience.longest_status, self._clock)
        if found := asked.found(envelopes):
            message = f"{found} No endorsements of both can be in one transaction, and nothing was stored."
            raise Unavailable("fabric-organisations-differ", message, next=_APPROVED)

    def _behind(self, peer: Peer) -> Finding | None:
        """Return a conflict where another peer has a newer block."""
        newest: dict[Peer, int] = {}
        request = seek_newest(self._member, self._place.channel, int(time.time()))
        for one in (peer, *(other for other in self._peers if other is not peer)):
            with suppress(CallFailed):
                newest[one] = one.newest(request, self._patience.status)
        if newest.get(peer, -1) == max(newest.values(), default=-1):
            return None
        said = f"{peer.node.msp}'s peer {peer.node.address} is behind others at block {newest.get(peer)}"
        return Finding(conflict=True, message=said)

    def _submit(self, pending: Pending, before: bool) -> dict[str, CallFailed]:
        """Hand the transaction to the orderers by the first peer that can; return what to tell if nothing comes of it.

        Where no peer can, the orderers are tried directly; the last peer's failure is told, and which orderers the
        profile does not let us reach.
        Raises Unavailable(fabric-orderer-refused) where the orderers refuse what they have never been given before.
        """
        failures: dict[str, CallFailed] = {}
        for peer in self._peers:
            try:
                peer.submit(pending, self._place.channel, self._patience.call)
                return {}
            except CallFailed as failure:
                failures["submit"] = failure
                if failure.code == "ABORTED" and not before:
                    self.journal.drop(pending.txid)
                    raise Unavailable(
                        "fabric-orderer-refused", f"The orderers refuse the transaction: {failure}."
                    ) from failure
                before = True
                self._notice(failure)
        hand_over(self._orderers, pending, self._patience.status)
        return failures | _unfit(self._orderers)

    def _status(self, txid: str, wait: float) -> tuple[Status | None, CallFailed | None]:
        """Ask each peer in turn; the first one that is there is given the time to wait for the block."""
        request, failed, waited = status_request(self._member, self._place.channel, txid), None, False
        for peer in self._peers:
            try:
                status = peer.status(request, self._patience.first_pause * 10 if waited else wait)
            except CallFailed as failure:
                failed, waited = failure, waited or failure.code in WAITED_ENOUGH
                if failure.code not in WAITED_ENOUGH:
                    self._notice(failure)
                continue
            if status.code == "VALID":
                with self._lock:
                    if self._latest is None or self._latest[0] <= status.block:
                        self._latest = (status.block, txid, peer)
            if status.code != "DUPLICATE_TXID":  # a later copy's; what became of the first one, another peer knows
                return status, None
        return None, failed

    def _final(self, pending: Pending, status: Status) -> Status:
        self.journal.drop(pending.txid)
        if status.code in ("VALID", TOO_FEW) or status.code in CONFLICTS:
            return status
        message = f"Transaction {pending.txid[:12]} is in block {status.block} and invalid: {status.code}."
        raise Unavailable("fabric-invalid", message, next=STATUS)


_APPROVED = (
    "Have that organisation run the contract that was approved (fedledger fabric up starts it), then submit again."
)


def _unfit(orderers: Sequence[Orderer]) -> dict[str, CallFailed]:
    """The orderers that the profile does not let us reach, by their addresses, and why."""
    found = {}
    for orderer in orderers:
        try:
            _ = orderer.credentials
        except (CredentialError, UsageError) as error:
            found[orderer.node.address] = CallFailed("order", orderer.node, error.code, error.message.rstrip("."))
    return found


def _nothing(_failure: CallFailed) -> None:
    """Nobody wants to know."""
