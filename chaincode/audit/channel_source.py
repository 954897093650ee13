# SPDX-License-Identifier: Apache-2.0
"""A channel's blocks as evidence: the entries are those of its valid transactions, once the chain that holds them is verified.

Fabric's protocol buffers are loaded when blocks are read, not before: evidence of an embedded ledger needs none of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

from chaincode import artefacts
from chaincode.audit.report import Finding
from chaincode.audit.source import Observer
from chaincode.channel_key import LIMIT, ChannelKey, parse_channel_key
from chaincode.checkpoints import Checkpoint
from chaincode.entries import Entry
from chaincode.log import leaf_hash, root
from chaincode.opening import Opened
from chaincode.trust import KEY_FILE
from identity.errors import EvidenceError, UsageError

if TYPE_CHECKING:
    from chaincode.blocks.chain import Chain

_RULES: Final = {"write-set-differs": 4}
"""Findings that are not about the chain, by the claim that they are against; the others are against claim 1."""
Open = Callable[[str], AbstractContextManager[memoryview | None]]


class ChannelSource:
    """The ``Source`` that a channel's blocks and a run's artefacts are. Call ``trust`` before anything is read."""

    def __init__(
        self, blocks: Callable[[], Iterable[bytes]], open_: Open, observer: Callable[[], Observer], remarks: Sequence[str] = ()
    ) -> None:  # fmt: skip
        """``blocks`` gives the raw blocks from the first on, ``open_`` an artefact by its name, ``remarks`` are its own."""
        self._blocks, self._open, self._observer, self.remarks = blocks, open_, observer, remarks
        self._ready: deque[Entry] = deque()
        self._leaves: list[bytes] = []
        self.key: ChannelKey | None = None
        self.carried: ChannelKey | None = None
        self.unreadable: EvidenceError | None = None
        self.chain: Chain | None = None

    def trust(self, given: ChannelKey | None) -> None:
        """Rest on the given key, or else on the one that came with the evidence."""
        try:
            with self.open(KEY_FILE) as data:
                self.carried = None if data is None else parse_channel_key(bytes(data[: LIMIT + 1]))
        except EvidenceError as error:
            self.unreadable = error
        self.key = given or self.carried

    def checkpoint(self) -> bytes:
        """The head of the log, as the evidence states it; members may have cosigned it. Empty where there is none."""
        with self.open(artefacts.CHECKPOINT) as data:
            return b"" if data is None else bytes(data[: 1 << 20])

    def entries(self) -> Iterator[bytes]:
        """The envelopes of valid transactions, in the order of blocks, transactions and arguments; what is wrong with the
        chain is told by the observer. Raises EvidenceError(channel-key-missing)."""
        if self.key is None:
            raise EvidenceError("channel-key-missing", "There is no key that says which first block to trust.")
        self.chain, entries = _verify(self._blocks(), self.key)
        for entry in entries:
            self._ready.append(entry)
            yield entry.envelope

    def opened(self, envelopes: Iterable[bytes]) -> Iterator[Opened]:
        """The envelopes of ``entries``, opened: that was done, and the signature verified, when their blocks were read."""
        for data in envelopes:
            self._leaves.append(leaf_hash(data))
            yield data, self._leaves[-1], self._ready.popleft()

    def own_head(self) -> bytes:
        """The head of the entries that were opened so far, which nobody signed."""
        origin = self.key.origin if self.key else ""
        return Checkpoint(origin, len(self._leaves), root(self._leaves)).text().encode()

    def open(self, name: str) -> AbstractContextManager[memoryview | None]:
        """The bytes of an artefact, None where it is not there."""
        return self._open(name)

    def are_same(self, name: str, other: str) -> bool:
        """Not known."""
        return False

    def observer(self) -> ChannelObserver:
        """One that tells what is wrong with the chain, and what the container's own observer finds."""
        return ChannelObserver(self, self._observer())


class ChannelObserver:
    """Tells at the end of the replay what the verification of the blocks found."""

    def __init__(self, source: ChannelSource, inner: Observer) -> None:
        self._source, self._inner = source, inner

    def see(self, index: int, entry: Entry | None) -> None:
        """The next entry."""
        self._inner.see(index, entry)

    def finish(self, leaves: Sequence[bytes], state: Mapping[str, bytes]) -> Iterable[tuple[int, Finding]]:
        """What differs, with the claim that it is against."""
        yield from self._inner.finish(leaves, state)
        chain = self._source.chain
        if chain is None:
            return
        for fault in chain.faults:
            yield _RULES.get(fault.code, 1), Finding(fault.code, f"block {fault.block}", fault.what)
        if not chain.faults and chain.contract.state != state:
            differing = sorted(set(chain.contract.state.items()) ^ set(state.items()))[0][0]
            what = f"The channel's state after the last block is not that of the replayed contract, first at {differing[:80]}."
            yield 4, Finding("state-differs", f"block {chain.height - 1}", what)


class NoObserver:
    """The observer of a container of which nothing is to be told."""

    def see(self, index: int, entry: Entry | None) -> None:
        """The next entry."""

    def finish(self, leaves: Sequence[bytes], state: Mapping[str, bytes]) -> Iterable[tuple[int, Finding]]:
        """Nothing."""
        return ()


def _verify(blocks: Iterable[bytes], key: ChannelKey) -> tuple[Chain, Iterator[Entry]]:
    """The verification of a channel's blocks, begun.

    Raises UsageError(fabric-packages) where Fabric's protocol buffers are not installed.
    """
    try:
        from chaincode.blocks import chain, verification  # noqa: PLC0415 (an embedded ledger's evidence needs no protocol buffers)
    except ModuleNotFoundError as error:
        raise UsageError(
            "fabric-packages", "Evidence from a Fabric channel needs Fabric's protocol buffers to be read.",
            next="pip install 'fedledger[fabric]'",
        ) from error  # fmt: skip
    trust = chain.Trust(key.channel, key.chaincode, bytes.fromhex(key.genesis), key.roots_of())
    return verification.verify_chain(blocks, trust)
