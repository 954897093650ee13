# SPDX-License-Identifier: Apache-2.0
"""The contract, replayed over a channel: what a transaction wrote must be, byte for byte, what its entries make.

A majority of organisations endorsed what it wrote; that it is what the contract says, is for everybody to compute.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chaincode import contract
from chaincode.blocks.transactions import Call, Space, Transaction
from chaincode.blocks.wire import Malformed
from chaincode.entries import Entry
from chaincode.fabric_outcomes import Accepted, Verdict, format_outcomes, parse_outcomes
from chaincode.fabric_transaction import OK, Context, Judged, Refused, judge_whole
from chaincode.views import Encoded
from identity.errors import EvidenceError, Rejected

_SHOWN = 80


@dataclass(slots=True)
class Contract:
    """One federation's contract on a channel: its state, and how many entries each version of it has accepted, in order.

    Once a transaction has written something else than the contract makes, the state is ``lost``: what comes after it is
    taken as the transactions say, for the replay of the entries to judge.
    """

    channel: str
    chaincode: str
    versions: list[tuple[str, int]] = field(default_factory=list)
    lost: bool = False
    _held: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> Mapping[str, bytes]:
        """The state's bytes, each written when it is asked for."""
        return Encoded(self._held)

    def take(self, transaction: Transaction, call: Call) -> list[Entry]:
        """The entries that a valid transaction brings, in the order of its arguments.

        Raises Malformed where it wrote something else than the contract makes of them.
        """
        own = next((space for space in call.spaces if space.name == self.chaincode), _empty(self.chaincode))
        if call.chaincode != self.chaincode:
            if own.writes:
                self.lost = True
                raise Malformed(f"a transaction of {call.chaincode[:_SHOWN]} writes to {self.chaincode}")
            return []
        if self.lost:
            return _as_said(call)
        try:
            found, judged, keys = self._judge(transaction, call)
            self._compare(call, own, judged, keys)
        except Malformed:
            self.lost = True
            raise
        if found:
            version, count = self.versions.pop() if self.versions else (call.version, 0)
            if version != call.version:
                self.versions.append((version, count))
                count = 0
            self.versions.append((call.version, count + len(found)))
        return found

    def _judge(self, transaction: Transaction, call: Call) -> tuple[list[Entry], Judged, frozenset[str]]:
        """What the contract says of a transaction: the entries that it accepts, verdicts and writes, and the keys it reads."""
        if not call.entries:  # a function that writes nothing
            return [], Judged([], {}), frozenset()
        opened: list[Entry | Rejected] = [
            Rejected(*row) if len(row) == 2 else Entry(*row, data)
            for row, data in zip(call.entries, call.envelopes, strict=True)
        ]
        entries = [one for one in opened if isinstance(one, Entry)]
        keys = contract.keys_of(entries)
        context = Context(transaction.channel, call.chaincode, transaction.seconds)
        if not entries:
            raise Malformed("a transaction without an entry was endorsed")
        try:
            judged = judge_whole(opened, self._held, context)
        except Refused as refused:
            raise Malformed(f"the contract refuses the transaction: {refused}") from refused
        accepted = {one.entry for one in judged.verdicts if isinstance(one, Accepted)}
        found = [
            e for e, v in zip(opened, judged.verdicts, strict=True) if isinstance(e, Entry) and isinstance(v, Accepted)
        ]
        assert len(accepted) == len(found)  # noqa: S101 - an id is accepted once
        return found, judged, keys

    def _compare(self, call: Call, own: Space, judged: Judged, keys: frozenset[str]) -> None:
        """Raises Malformed for the first difference between what was endorsed and what the contract makes."""
        stranger = next((space.name for space in call.spaces if space.writes and space is not own), None)
        if stranger is not None or any(space.collections for space in call.spaces):
            raise Malformed(f"it writes elsewhere than the contract does: {(stranger or 'private data')[:_SHOWN]}")
        written = sorted(judged.writes)  # by code points, which is the order of their UTF-8 bytes
        same = own.writes == tuple([(key, False, judged.writes[key]) for key in written])
        for key, deleted, value in () if same else own.writes:
            if deleted or judged.writes.get(key) != value:
                raise Malformed(f"it writes what the contract does not make: {key[:_SHOWN]}")
        if not same:
            missing = sorted(judged.writes.keys() - {key for key, _, _ in own.writes})
            raise Malformed(f"it leaves out what the contract writes: {(missing or ['the order of keys'])[0][:_SHOWN]}")
        if not call.entries:
            return  # another function, such as `get`: what it read and answered is nobody's concern
        if {key for key, _ in own.reads} != keys:
            raise Malformed("it read other keys than the contract does")
        answered = call.response == format_outcomes(judged.verdicts) or (
            _said(call.response) == [_word(verdict) for verdict in judged.verdicts]
        )
        if call.status != OK or not answered:
            raise Malformed("its response is not what the contract answers")


def _as_said(call: Call) -> list[Entry]:
    """The entries that the response calls accepted."""
    said = _said(call.response)
    if len(said) != len(call.entries):
        return []
    return [
        Entry(*row, data)
        for (what, _), row, data in zip(said, call.entries, call.envelopes, strict=True)
        if what == "accepted" and len(row) != 2
    ]


def _said(response: bytes) -> list[tuple[str, str]]:
    try:
        return [_word(verdict) for verdict in parse_outcomes(response)]
    except EvidenceError:
        return []


def _word(verdict: Verdict) -> tuple[str, str]:
    """A verdict without the text of a refusal, which may be another one in another version of the contract."""
    if isinstance(verdict, Rejected):
        return "rejected", verdict.code
    return ("accepted" if isinstance(verdict, Accepted) else "duplicate"), verdict.entry


def _empty(name: str) -> Space:
    return Space(name, (), (), (), "")
