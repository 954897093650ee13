# SPDX-License-Identifier: Apache-2.0
"""The validity of each transaction, derived anew from the blocks: nobody signs the flags that a peer keeps beside them.

The order is Fabric's: form, creator, transaction id, endorsements for all transactions of a block; then ids that came twice
in the block; then, one after the other, the versions that each one read (MVCC).

What other chaincodes do with means that are not modelled here (ranges, metadata, private data) is left to the peer's flag and
counted: nothing that the federation's chaincode or the lifecycle writes or reads depends on it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from fabric_protos.common import common_pb2
from fabric_protos.peer.transaction_pb2 import TxValidationCode

from chaincode.blocks.config import ChannelConfig
from chaincode.blocks.lifecycle import NAMESPACE, Lifecycle
from chaincode.blocks.msp import distinct
from chaincode.blocks.policies import Satisfies
from chaincode.blocks.transactions import VALID, Call, Space, Transaction, Version
from chaincode.blocks.wire import unsupported
from identity.errors import EvidenceError

UNKNOWN: Final = -1
_REMEMBERED: Final = 1024
_LATER: Final = (TxValidationCode.MVCC_READ_CONFLICT, TxValidationCode.PHANTOM_READ_CONFLICT)
Place = tuple[str, str]
"""A part of the state: a namespace, and a collection of private data in it, empty for none."""
Key = str | bytes
"""A key in a part of the state, or the hash of one in a collection."""
Part = tuple[Place, Sequence[tuple[Key, Version]], Sequence[tuple[Key, bool, bytes]]]


class State:
    """The versions of all keys, the transaction ids seen, and the values of the lifecycle's namespace.

    ``unjudged`` counts transactions of other chaincodes whose flags were taken as they are.
    """

    def __init__(self, own: str) -> None:
        """``own`` is the federation's chaincode."""
        self.versions: defaultdict[Place, dict[Key, Version]] = defaultdict(dict)
        self.definitions: dict[str, bytes] = {}
        self.lifecycle = Lifecycle(self.definitions)
        self.unjudged = 0
        self._own = frozenset((own, NAMESPACE))
        self._seen: set[str] = set()
        self._judged: dict[object, int] = {}
        self._unknown: set[str] = set()  # namespaces whose state is not known, since something was not judged

    def judge(self, config: ChannelConfig, block: int, transactions: Sequence[Transaction], flags: bytes) -> list[int]:
        """The validation code of each transaction of the next block; the state is that after the block then.

        ``flags`` are the peer's, one for each. Raises EvidenceError(fabric-unsupported).
        """
        codes = [self._judge_alone(config, one) for one in transactions]
        known = set[str]()
        for i, one in enumerate(transactions):
            if codes[i] == UNKNOWN:
                codes[i] = VALID if flags[i] in (VALID, *_LATER) else flags[i]
                self._unknown.update(_touched(one.call) if one.call else ())
            if codes[i] == VALID and one.call is not None:
                codes[i] = int(TxValidationCode.DUPLICATE_TXID) if one.txid in known else VALID
                known.add(one.txid)
        changed = defaultdict[Place, set[Key]](set)
        for i, one in enumerate(transactions):
            if codes[i] == VALID and one.call is not None:
                codes[i] = self._apply(one.call, (block, i), changed, flags[i])
        self._seen.update(one.txid for one in transactions if one.txid)
        return codes

    def _judge_alone(self, config: ChannelConfig, one: Transaction) -> int:
        """What is wrong with a transaction whatever else its block holds."""
        if one.before != VALID:
            return one.before
        creator = config.identity(one.creator)
        if creator is None or creator.why or not one.signed:
            return int(TxValidationCode.BAD_CREATOR_SIGNATURE)
        if one.after != VALID or one.kind == common_pb2.CONFIG:
            return one.after
        if one.txid in self._seen:
            return int(TxValidationCode.DUPLICATE_TXID)
        if one.call is None or one.call.code != VALID:
            return one.call.code if one.call else int(TxValidationCode.INVALID_ENDORSER_TRANSACTION)
        try:
            return self._judge_endorsements(config, one.call)
        except EvidenceError:
            if self._own.isdisjoint(_touched(one.call)):
                return UNKNOWN
            raise

    def _judge_endorsements(self, config: ChannelConfig, call: Call) -> int:
        """Whether the endorsements satisfy the policy of every namespace that the transaction writes to, and its own.

        Many transactions have the same endorsers: what was found of them holds as long as the policies do.
        """
        if any(space.collections for space in call.spaces):
            return self._endorsed(config, call)
        place = (config.block, call.chaincode, frozenset(_touched(call)), call.endorsements)
        found = self._judged.get(place)
        if found is None:
            if len(self._judged) >= _REMEMBERED:
                self._judged.clear()
            found = self._judged[place] = self._endorsed(config, call)
        return found

    def _endorsed(self, config: ChannelConfig, call: Call) -> int:
        signers = distinct([(config.identity(who), ok) for who, ok in call.endorsements])
        spaces = {space.name: space for space in call.spaces}
        failed = False
        for name in sorted(_touched(call)):
            policy = self.lifecycle.policy(name, config)
            if policy is None:
                return int(TxValidationCode.INVALID_CHAINCODE)
            needed = self._policies(name, spaces.get(name), policy, config)
            failed = failed or not all(one(signers) for one in needed)
        return int(TxValidationCode.ENDORSEMENT_POLICY_FAILURE) if failed else VALID

    def _policies(self, name: str, space: Space | None, own: Satisfies, config: ChannelConfig) -> Iterator[Satisfies]:
        """The policies that the writes to one namespace need; the namespace's own where it writes nothing."""
        private = [] if space is None else [coll for coll, _, writes in space.collections if writes]
        if space is None or space.writes or not private:
            yield own
        for collection in private:
            yield self.lifecycle.collection_policy(name, collection, config)

    def _apply(self, call: Call, version: Version, changed: Mapping[Place, set[Key]], flag: int) -> int:
        """Judge what a transaction read, and let it write where that holds. ``changed`` are the keys that earlier
        transactions of the block wrote."""
        touched = _touched(call)
        other = next((space for space in call.spaces if space.other), None)
        if other is not None and not self._own.isdisjoint(touched):
            unsupported(f"a transaction of {call.chaincode[:80]} with {other.other} in {other.name[:80]}")
        if other is not None or not self._unknown.isdisjoint({*touched, *(space.name for space in call.spaces)}):
            self._unknown.update(touched)
            self.unjudged += 1
            return flag
        parts = [part for space in call.spaces for part in _parts(space)]
        for place, reads, _ in parts:
            held, earlier = self.versions[place], changed[place]
            for key, read in reads:
                if held.get(key) != read or key in earlier:
                    return int(TxValidationCode.MVCC_READ_CONFLICT)
        for place, _, writes in parts:
            held, earlier = self.versions[place], changed[place]
            for key, deleted, _ in writes:
                earlier.add(key)
                if deleted:
                    held.pop(key, None)
                else:
                    held[key] = version
        for space in call.spaces:
            if space.name == NAMESPACE:
                self._define(space)
        return VALID

    def _define(self, space: Space) -> None:
        for key, deleted, value in space.writes:
            if deleted:
                self.definitions.pop(key, None)
            else:
                self.definitions[key] = value
        if space.writes:
            self.lifecycle.changed()
            self._judged.clear()


def _touched(call: Call) -> Collection[str]:
    """The namespaces that a transaction is of, or writes to."""
    return {call.chaincode} | {space.name for space in call.spaces if _writes(space)}


def _writes(space: Space) -> bool:
    return bool(space.writes or any(writes for _, _, writes in space.collections) or "metadata" in space.other)


def _parts(space: Space) -> Iterator[Part]:
    """What was read and written in each part of a namespace."""
    yield (space.name, ""), space.reads, space.writes
    for collection, reads, writes in space.collections:
        yield (space.name, collection), reads, writes
