# SPDX-License-Identifier: Apache-2.0
"""How a ledger opens the envelopes of a batch: it reads all of them, and then verifies their signatures in threads."""

from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Final

from chaincode.entries import Entry, Fields, read_fields
from chaincode.threads import CORES
from identity.envelope import Envelope, verify
from identity.errors import EvidenceError, Rejected

_TOGETHER: Final = 4
"""So many signatures are worth a thread: handing four over costs less than verifying one."""
THREADS: Final = min(4, CORES)


def open_all(envelopes: Sequence[bytes], pool: Executor | None = None) -> list[Entry | Rejected]:
    """Open each envelope, or say with the evidence's code why it is none.

    OpenSSL verifies without Python's lock, so the threads of a pool verify a batch together. They do nothing else: threads
    that read as well wait for one another's lock longer than they verify.
    """
    read = [_read(data) for data in envelopes]
    judged = iter(_verify_all([one[1] for one in read if not isinstance(one, Rejected)], pool))
    return [
        one if isinstance(one, Rejected) else next(judged) or Entry(*one[0], data)
        for one, data in zip(read, envelopes, strict=True)
    ]


def verifying_threads() -> ThreadPoolExecutor | None:
    """Return the pool for `open_all`, whose threads start when they are first needed; None on a machine of one core."""
    return ThreadPoolExecutor(THREADS, "fedledger-verify") if THREADS > 1 else None


def _read(data: bytes) -> tuple[Fields, Envelope] | Rejected:
    try:
        return read_fields(data)
    except EvidenceError as error:
        return Rejected(error.code, error.message)


def _verify_all(sealed: Sequence[Envelope], pool: Executor | None) -> list[Rejected | None]:
    """Return for each envelope what is wrong with its signature."""
    if pool is None or len(sealed) < 2 * _TOGETHER:
        return _verify_some(sealed)
    each = -(-len(sealed) // THREADS)
    others = pool.map(_verify_some, [sealed[i : i + each] for i in range(each, len(sealed), each)])
    return [*_verify_some(sealed[:each]), *(verdict for part in others for verdict in part)]


def _verify_some(sealed: Sequence[Envelope]) -> list[Rejected | None]:
    return [_refusal(envelope) for envelope in sealed]


def _refusal(sealed: Envelope) -> Rejected | None:
    try:
        verify(sealed)
    except EvidenceError as error:
        return Rejected(error.code, error.message)
    return None
