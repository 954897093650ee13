# SPDX-License-Identifier: Apache-2.0
"""Batches of callers that come at once share transactions, and what waits for a block does not hold up the next.

A place is held from the endorsement until the orderers have the transaction. Whoever finds all places taken waits, and goes
into one transaction with the others that wait, where nothing in it can meet (as `batches` says).
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from chaincode.ledgers.fabric import batches
from chaincode.ledgers.fabric.batches import Batch, own_keys_only
from chaincode.ledgers.fabric.sending import Sent
from identity.errors import EvidenceError
from identity.wording import counted

PLACES = 8
"""Transactions that are being endorsed or submitted at once."""
THREADS = 64
"""Transactions under way at once, those that wait for their block included."""
Send = Callable[[Sequence[bytes], Callable[[], None]], Sent]
Result = Sent | Exception
Waiting = tuple[Batch, "Future[Result]"]


class Together:
    """Sends batches for many callers. Thread-safe."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="submitting")
        self._places = threading.Semaphore(PLACES)
        self._lock = threading.Lock()
        self._waiting: list[Waiting] = []

    def send(self, batches: Sequence[Batch]) -> list[Result]:
        """Send batches that may be under way together; what became of each, or the error, in order."""
        waiting: list[Waiting] = [(batch, Future()) for batch in batches]
        with self._lock:
            self._waiting += waiting
        for _ in waiting:
            self._threads.submit(self._work)
        return [future.result() for _, future in waiting]

    def close(self) -> None:
        """Wait for what is under way."""
        self._threads.shutdown(wait=True)

    def _work(self) -> None:
        """Send one transaction of those that wait, if others have not taken them all."""
        self._places.acquire()
        held = [True]

        def release() -> None:
            if held:
                held.clear()
                self._places.release()

        try:
            with self._lock:
                group = take(self._waiting)
            if group:
                self._send_group(group, release)
        finally:
            release()

    def _send_group(self, group: list[Waiting], submitted: Callable[[], None]) -> None:
        envelopes = [envelope for batch, _ in group for envelope in batch.envelopes]
        try:
            sent = self._send(envelopes, submitted)
            if len(sent.verdicts) != len(envelopes):
                raise EvidenceError(
                    "outcomes-malformed",
                    f"{counted(len(sent.verdicts), 'outcome was', 'outcomes were')} answered for {counted(len(envelopes), 'entry')}.",
                )
        except Exception as error:  # each caller hears of it, when all of its batches have ended
            for _, future in group:
                future.set_result(error)
            return
        at = 0
        for batch, future in group:
            future.set_result(Sent(sent.verdicts[at : at + len(batch.entries)], sent.block))
            at += len(batch.entries)


def take(waiting: list[Waiting]) -> list[Waiting]:
    """Take the first batch that waits, and those behind it that may share its transaction."""
    group: list[Waiting] = waiting[:1]
    if not group or not own_keys_only(group[0][0]):
        del waiting[:1]
        return group
    kind = group[0][0].entries[0].kind
    authors = {entry.member for entry in group[0][0].entries}
    size, count = _size(group[0][0]), len(group[0][0].entries)
    for one in waiting[1:]:
        batch = one[0]
        new = {entry.member for entry in batch.entries}
        if not own_keys_only(batch) or batch.entries[0].kind != kind or authors & new:
            continue
        if size + _size(batch) > batches.BATCH_BYTES or count + len(batch.entries) > batches.BATCH_ENTRIES:
            continue
        group.append(one)
        authors |= new
        size, count = size + _size(batch), count + len(batch.entries)
    waiting[:] = [one for one in waiting if not any(one is taken for taken in group)]
    return group


def _size(batch: Batch) -> int:
    return sum(len(entry.envelope) for entry in batch.entries)
