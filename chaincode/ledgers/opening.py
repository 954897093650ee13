# SPDX-License-Identifier: Apache-2.0
"""How a ledger opens the envelopes of a batch: it reads all of them, and then verifies their signatures in threads."""

from collections.abc import Sequence
from typing import Final

from chaincode.crew import Crew, own_crew
from chaincode.entries import Entry, Fields, read_fields
from identity.envelope import Envelope, verify
from identity.errors import EvidenceError, Rejected

_TOGETHER: Final = 4
"""So many signatures are worth a thread: to wake one costs less than verifying these."""


def open_all(envelopes: Sequence[bytes], crew: Crew | None = None) -> list[Entry | Rejected]:
    """Open each envelope, or say with the evidence's code why it is none.

    OpenSSL verifies without Python's lock, so threads, by default the process's crew, verify a batch together. They do
    nothing else: threads that read as well wait for one another's lock longer than they verify.
    """
    read = [_read(data) for data in envelopes]
    sealed = [one[1] for one in read if not isinstance(one, Rejected)]
    judged = iter((crew or own_crew()).map(_refusal, sealed, _TOGETHER))
    return [
        one if isinstance(one, Rejected) else next(judged) or Entry(*one[0], data)
        for one, data in zip(read, envelopes, strict=True)
    ]


def _read(data: bytes) -> tuple[Fields, Envelope] | Rejected:
    try:
        return read_fields(data)
    except EvidenceError as error:
        return Rejected(error.code, error.message)


def _refusal(sealed: Envelope) -> Rejected | None:
    try:
        verify(sealed)
    except EvidenceError as error:
        return Rejected(error.code, error.message)
    return None
