# SPDX-License-Identifier: Apache-2.0
"""Where in a recorded channel the federation begins."""

from tests.chaincode.blocks.recordings import (
    Recording,
    block_of,
)  # fmt: skip

ORDERER = "orderer-1.orderers"


def first_submit(channel: Recording) -> int:
    """The number of the block that founds the federation."""
    chain, _ = channel.verify()
    for number, data in enumerate(channel.blocks):
        if any(b"submit" in one for one in block_of(data).data.data):
            return number
    raise AssertionError(chain)
