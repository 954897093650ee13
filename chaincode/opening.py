# SPDX-License-Identifier: Apache-2.0
"""Opening the entries of a long log on all cores: in threads, or from some thousands of entries on in child processes.

OpenSSL verifies without Python's lock, but reading an entry and judging it need the lock; so threads of one process gain
little beside a caller that judges. Run as a module it is such a child (``chaincode.children``).
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import IO, Any

from chaincode.children import PROCESSES, in_children, serve
from chaincode.entries import Entry, Fields, read_fields
from chaincode.log import leaf_hash
from identity.envelope import Envelope, verify
from identity.errors import EvidenceError

Opened = tuple[bytes, bytes, Entry | EvidenceError]
"""An envelope, its leaf hash, and the entry that it holds or why it holds none."""

Row = tuple[bytes, Fields | tuple[str, str]]
"""A leaf hash, and the entry's fields, or code and message of why it is none."""

_BATCH, _BATCH_BYTES = 64, 1 << 18  # envelopes that are sent together
_LONG = 64  # batches from which on children pay: some 4,000 entries, or a third of a second


def opened(envelopes: Iterable[bytes]) -> Iterator[Opened]:
    """Open each envelope, in order. The envelopes are read somewhat ahead."""
    batches = _batches(iter(envelopes))
    first = list(islice(batches, _LONG))
    if len(first) == _LONG and PROCESSES > 1:
        yield from in_children(chain(first, batches), PROCESSES, ["chaincode.opening"], rows=_rows, here=_open_some)
    elif len(first) > 1 and PROCESSES > 1:
        with ThreadPoolExecutor(PROCESSES) as pool:
            for some in pool.map(_open_some, first):
                yield from some
    else:
        for batch in chain(first, batches):
            yield from _open_some(batch)


def _batches(envelopes: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch, size = list[bytes](), 0
    for data in envelopes:
        batch.append(data)
        size += len(data)
        if len(batch) == _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _open_some(batch: Sequence[bytes]) -> list[Opened]:
    return [
        (data, leaf, fields if isinstance(fields, EvidenceError) else Entry(*fields, data))
        for data, (leaf, fields) in zip(batch, _fields_of(batch), strict=True)
    ]


def _fields_of(batch: Sequence[bytes]) -> list[tuple[bytes, Fields | EvidenceError]]:
    """The leaf hash of each envelope, and its entry's fields or why it holds none.

    The batch is read before its first signature is verified: in turns, the two take a hundredth longer.
    """
    read = [(leaf_hash(data), _read(data)) for data in batch]
    return [(leaf, one if isinstance(one, EvidenceError) else _verified(*one)) for leaf, one in read]


def _read(data: bytes) -> tuple[Fields, Envelope] | EvidenceError:
    try:
        return read_fields(data)
    except EvidenceError as error:
        return error


def _verified(fields: Fields, sealed: Envelope) -> Fields | EvidenceError:
    try:
        verify(sealed)
    except EvidenceError as error:
        return error
    return fields


def _rows(batch: list[bytes], answer: Any) -> list[Opened]:
    """A child's answer to a batch."""
    return [(data, leaf, _from_row(fields, data)) for data, (leaf, fields) in zip(batch, answer, strict=True)]


def _to_rows(batch: Sequence[bytes]) -> list[Row]:
    """What a child answers to a batch."""
    return [
        (leaf, (fields.code, fields.message) if isinstance(fields, EvidenceError) else fields)
        for leaf, fields in _fields_of(batch)
    ]


def _from_row(fields: Fields | tuple[str, str], data: bytes) -> Entry | EvidenceError:
    return EvidenceError(*fields) if len(fields) == 2 else Entry(*fields, data)


def _serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """The child."""
    serve(source, sink, _to_rows)


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
