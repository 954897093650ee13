# SPDX-License-Identifier: Apache-2.0
"""Which organisation differs: each is asked alone for the source of its contract, and for its result of the same proposal.

Peers that are at different blocks differ for a moment and mean nothing by it. So what they say counts only where all were
at the same block before and after they were asked.
"""

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from fabric_protos.common import common_pb2
from google.protobuf.message import DecodeError

from chaincode.ledgers.fabric.gateway import CallFailed, Peer
from chaincode.ledgers.fabric.identity import Member
from chaincode.ledgers.fabric.messages import Proposal, chaincode_action, endorsed_action, propose, seek_newest
from chaincode.ledgers.fabric.profile import Place
from chaincode.ledgers.fabric.refusals import RESPONSE

_SHOWN = 12
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one organisation says: its contract's source digest, and the digest of the result that it endorses.

    `approved` is the version that the channel's definition of the contract has: with us, the digest of its source; ""
    where that is not known.
    """

    msp: str
    addresses: str
    source: str
    result: str
    approved: str

    @property
    def said(self) -> tuple[str, str]:
        """Return what must be the same for all."""
        return self.source, self.result


@dataclass(frozen=True, slots=True)
class Differences:
    """Asks the organisations of `peers`, through the first of these that answers; `timeout` (seconds) bounds a call."""

    member: Member
    place: Place
    peers: Sequence[Peer]
    timeout: float
    clock: Callable[[], int]

    def found(self, envelopes: Sequence[bytes]) -> str | None:
        """Return which organisation makes something else of entries than the others, in words; None where that is not sure."""
        before = self._heights()
        opinions = self._opinions(envelopes)
        if len(set(before.values())) > 1 or before != self._heights():
            return None
        strays = [one for one in opinions if _DIGEST.fullmatch(one.approved) and one.source != one.approved]
        if strays:
            return " ".join(
                f"{one.msp} at {one.addresses} runs the contract {one.source[:_SHOWN]}; {one.approved[:_SHOWN]} was approved."
                for one in strays
            )
        groups: dict[tuple[str, str], list[Opinion]] = {}
        for one in opinions:
            groups.setdefault(one.said, []).append(one)
        if len(groups) < 2:
            return None
        *odd, most = sorted(groups.values(), key=len)
        if len(odd[-1]) == len(most):
            return "Organisations differ, and no more agree than differ: " + "; ".join(
                f"{_names(group)} {_runs(group[0])}" for group in (*odd, most)
            )
        return " ".join(_difference(group, most) for group in odd)

    def _opinions(self, envelopes: Sequence[bytes]) -> list[Opinion]:
        """Ask each organisation; those that do not answer have no opinion."""
        arguments = (b"submit", *envelopes)
        proposal = propose(self.member, self.place.channel, self.place.chaincode, arguments, self.clock())
        found = []
        for msp in dict.fromkeys(peer.node.msp for peer in self.peers):
            addresses = ", ".join(peer.node.address for peer in self.peers if peer.node.msp == msp)
            source, answer = self._source(msp), self._result(msp, proposal)
            if source is not None and answer is not None:
                found.append(Opinion(msp, addresses, source, *answer))
        return found

    def _source(self, msp: str) -> str | None:
        asked = propose(self.member, self.place.channel, self.place.chaincode, [b"source"], self.clock())
        for peer in self.peers:
            with suppress(CallFailed):
                answer = peer.evaluate(asked, self.place.channel, msp, self.timeout)
                return answer.decode("ascii", "replace")
        return None

    def _result(self, msp: str, proposal: Proposal) -> tuple[str, str] | None:
        """Return a digest of what the organisation endorses, or of its refusal; and the approved version, if it is said."""
        for peer in self.peers:
            try:
                prepared = peer.endorse(proposal, self.place.channel, self.timeout, [msp])
                data = common_pb2.Payload.FromString(prepared.payload).data
                result = hashlib.sha256(endorsed_action(data).proposal_response_payload).hexdigest()
                return result, chaincode_action(data).chaincode_id.version
            except CallFailed as failure:
                for detail in failure.details:
                    if match := RESPONSE.fullmatch(detail.message):
                        return hashlib.sha256(match[1].encode()).hexdigest(), ""
            except (DecodeError, IndexError):
                return "nothing that can be read", ""
        return None

    def _heights(self) -> dict[Peer, int]:
        """Return the number of the newest block at each peer that answers."""
        request = seek_newest(self.member, self.place.channel, int(time.time()))
        found: dict[Peer, int] = {}
        for peer in self.peers:
            with suppress(CallFailed):
                found[peer] = peer.newest(request, self.timeout)
        return found


def _difference(group: Sequence[Opinion], most: Sequence[Opinion]) -> str:
    """Say how those who differ do."""
    one, other, are = group[0], most[0], "answer" if len(group) > 1 else "answers"
    if one.source != other.source:
        how = f"its contract's source is {one.source[:_SHOWN]}, theirs {other.source[:_SHOWN]}."
    else:
        how = (
            f"it endorses another result, although it says that its contract's source is theirs, {one.source[:_SHOWN]}."
        )
    places = ", ".join(f"{opinion.msp} at {opinion.addresses}" for opinion in group)
    return f"{places} {are} otherwise than {_names(most)}: {how}"


def _names(group: Sequence[Opinion]) -> str:
    return " and ".join(opinion.msp for opinion in group)


def _runs(one: Opinion) -> str:
    return f"(source {one.source[:_SHOWN]}, result {one.result[:_SHOWN]})"
