# SPDX-License-Identifier: Apache-2.0
"""Reading the blocks of a long channel on all cores: in child processes, which verify signatures and decide nothing else.

What a block says does not depend on any other block (``reading``); so children read, and the caller judges in order. Run as
a module it is such a child (``chaincode.children``).
"""

import sys
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, islice
from typing import IO, Any, Final

from chaincode.blocks.reading import Block, Fault, read_or_fault
from chaincode.blocks.transactions import Call, Space, Transaction
from chaincode.children import PROCESSES, in_children, serve
from chaincode.process import collect_rarely

_BATCH_BYTES: Final = 1 << 18
_LONG: Final = 16  # batches from which on children pay: some 4 MB of blocks
Batch = list[tuple[int, bytes]]


def read_blocks(blocks: Iterable[bytes], chaincode: str) -> Iterator[Block | Fault]:
    """Read each block, in order, with the entries in it that are for ``chaincode``. The blocks are taken somewhat ahead."""
    batches = _batches(enumerate(blocks))
    first = list(islice(batches, _LONG))
    if len(first) == _LONG and PROCESSES > 1:
        module = ["chaincode.blocks.readers", chaincode]
        here = partial(_read_some, chaincode=chaincode)
        yield from in_children(chain(first, batches), PROCESSES, module, rows=_rows, here=here)
    else:
        for batch in chain(first, batches):
            yield from _read_some(batch, chaincode)


def _batches(blocks: Iterator[tuple[int, bytes]]) -> Iterator[Batch]:
    batch, size = list[tuple[int, bytes]](), 0
    for number, data in blocks:
        batch.append((number, data))
        size += len(data)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read_some(batch: Batch, chaincode: str) -> list[Block | Fault]:
    return [read_or_fault(data, number, chaincode) for number, data in batch]


def _rows(batch: Batch, answer: Any) -> list[Block | Fault]:
    """A child's answer to a batch."""
    return [_from_row(row) for _, row in zip(batch, answer, strict=True)]


def _to_row(block: Block | Fault) -> tuple[Any, ...]:
    """A reading as plain tuples all through, which marshal takes."""
    if isinstance(block, Fault):
        return tuple(block)
    return (*block[:5], tuple(_plain(one) for one in block.transactions), block.fault)


def _plain(transaction: Transaction) -> tuple[Any, ...]:
    call = transaction.call
    row = None if call is None else (*call[:7], tuple(map(tuple, call.spaces)), call.entries)
    return (*transaction[:9], row, transaction.data)


def _from_row(row: tuple[Any, ...]) -> Block | Fault:
    if len(row) == len(Fault._fields):
        return Fault._make(row)
    return Block._make((*row[:5], tuple(_transaction(one) for one in row[5]), row[6]))


def _transaction(row: tuple[Any, ...]) -> Transaction:
    call = row[9]
    made = None if call is None else Call._make((*call[:7], tuple(Space._make(one) for one in call[7]), call[8]))
    return Transaction._make((*row[:9], made, row[10]))


def _serve(source: IO[bytes], sink: IO[bytes], chaincode: str) -> None:
    """The child."""
    collect_rarely()
    serve(source, sink, lambda batch: [_to_row(one) for one in _read_some(batch, chaincode)])


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer, sys.argv[1])
