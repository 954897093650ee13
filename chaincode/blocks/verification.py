# SPDX-License-Identifier: Apache-2.0
"""The way in: a channel's raw blocks, and what an auditor trusts; out come the entries, and what is wrong."""

from collections.abc import Iterable, Iterator

from chaincode.blocks.chain import Chain, Trust
from chaincode.blocks.readers import read_blocks
from chaincode.entries import Entry


def verify_chain(blocks: Iterable[bytes], trust: Trust) -> tuple[Chain, Iterator[Entry]]:
    """Begin to verify a channel, of its ``common.Block`` bytes from the first on.

    Returns the verification and the entries of the valid transactions, in the order of blocks, transactions and arguments.
    When the entries have been taken to their end, the verification says what was found (``faults``), who changed the
    configuration, and how far the chain holds. Whatever the bytes are, nothing is raised.
    """
    chain = Chain(trust)
    return chain, chain.entries(read_blocks(blocks, trust.chaincode))
