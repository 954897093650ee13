# SPDX-License-Identifier: Apache-2.0
"""The one loop that asks peers for blocks: each in turn, from the block at which the one before ended, and again with patience.

What a block is worth is for the caller to say: it is given each one, in order, and what it makes of them is handed on.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from chaincode.ledgers.fabric.gateway import OUT_OF_ORDER, WAITED_ENOUGH, CallFailed, Peer
from chaincode.ledgers.fabric.identity import Member
from chaincode.ledgers.fabric.messages import FOR_EVER, seek
from chaincode.ledgers.fabric.pauses import Pauses
from identity.errors import EvidenceError, Unavailable

T = TypeVar("T")
Take = Callable[[Any, Peer, int], T]
"""What a caller makes of a block (a ``common.Block``), of the peer that shows it in the place of a number."""


class UnfoundedError(EvidenceError):
    """A peer shows a block that does not hold. Another one may show the channel as it is."""


def _nobody_told(_: CallFailed) -> None:
    """The notice of who need not know which peer failed."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How a member asks for the blocks of a channel: ``patience`` (seconds) is for each block that no peer shows; 0 asks each once.

    ``notice`` is told of each call that fails, but for those that waited in vain for a block to come.
    """

    member: Member
    channel: str
    patience: float = 0.0
    pauses: Pauses = field(default_factory=Pauses)
    notice: Callable[[CallFailed], None] = _nobody_told

    def blocks(self, peers: Sequence[Peer], first: int, last: int | None, take: Take[T], *, turn: float) -> Iterator[T]:
        """Iterate over what ``take`` makes of the blocks from ``first`` to ``last``; None: to the newest now.

        One peer that is behind or slow is waited for ``turn`` seconds, then the next one is asked; twice as long each time
        it is in vain. ``take`` may raise CallFailed or UnfoundedError, and the next peer is asked for that block; what else
        it raises passes.

        Raises Unavailable(fabric-blocks) where none shows a block, UnfoundedError where what they show does not hold,
        EvidenceError(fabric-fork) where all show others than were asked for.
        """
        if not peers:
            raise Unavailable("fabric-blocks", "There is no peer to ask for the channel's blocks.")
        block = first
        while True:
            began = block
            for _ in self.pauses.until(time.monotonic() + self.patience):
                block, failures = yield from self._ask(peers, block, last, take, turn)
                if not failures:
                    return
                if block > began:
                    break
                if all(failure.code == OUT_OF_ORDER for failure in failures):
                    raise EvidenceError("fabric-fork", f"{_said(failures)}.")
                if any(failure.code in WAITED_ENOUGH for failure in failures):  # a large block on a slow line, perhaps
                    turn = max(turn, min(2 * turn, self.patience))
            else:
                message = f"No peer shows the channel's blocks from {block} on: {_said(failures)}."
                raise Unavailable("fabric-blocks", message, next="fedledger fabric status")

    def _ask(
        self, peers: Sequence[Peer], block: int, last: int | None, take: Take[T], turn: float
    ) -> Generator[T, None, tuple[int, list[CallFailed]]]:
        """Ask each peer once for what the ones before did not show.

        Returns the number of the next block, and the failures where blocks are missing still.
        """
        failures: list[CallFailed] = []
        unfounded: UnfoundedError | None = None
        for peer in list(peers):  # as they are now: a caller may rank them anew while this goes on
            if last is not None and block > last:  # also where a stream broke off behind its last block
                return block, []
            try:
                for read in self._shown(peer, block, last, None if last == FOR_EVER else turn):
                    taken = take(read, peer, block)
                    block, unfounded = block + 1, None
                    yield taken
                return block, []
            except CallFailed as failure:
                if last is None and block and failure.code == "NOT_FOUND":
                    return block, []  # there is no block after those that were read
                failures.append(failure)
                if last is None or failure.code not in WAITED_ENOUGH:
                    self.notice(failure)
            except UnfoundedError as error:
                unfounded = error
        if unfounded is not None:
            raise unfounded
        return block, failures

    def _shown(self, peer: Peer, block: int, last: int | None, timeout: float | None) -> Iterator[Any]:
        """Iterate over the blocks that a peer shows, no more than are asked for. Raises CallFailed, also for fewer."""
        request = seek(self.member, self.channel, block, last, int(time.time()))
        for read in peer.blocks(request, timeout):
            if last is not None and block > last:
                raise misplaced(peer, read, block)
            yield read
            block += 1
        if last is not None and block <= last:
            raise CallFailed("blocks", peer.node, "NOT_FOUND", f"it ends before block {block}")


def misplaced(peer: Peer, read: Any, block: int) -> CallFailed:
    """The failure of a peer that shows another block than the one of a number."""
    message = f"it shows block {read.header.number} in the place of block {block}"
    return CallFailed("blocks", peer.node, OUT_OF_ORDER, message)


def _said(failures: Sequence[CallFailed]) -> str:
    return "; ".join(str(failure) for failure in failures)
