# SPDX-License-Identifier: Apache-2.0
"""Making the key that outsiders keep, out of a channel's first block."""

from hashlib import sha256

from chaincode.blocks.chain import Chain, Trust
from chaincode.blocks.reading import read_block
from chaincode.blocks.wire import Malformed
from chaincode.channel_key import ChannelKey
from identity.errors import EvidenceError


def make_channel_key(genesis: bytes, origin: str, federation: str) -> ChannelKey:
    """The key of a federation, from its channel's first block as the organisations agreed on it.

    Raises EvidenceError: block-malformed, block-altered, fabric-unsupported for a first block that cannot be judged.
    """
    channel, chaincode = origin.split("/")[-2:]
    try:
        block = read_block(genesis)
    except Malformed as error:
        raise EvidenceError("block-malformed", f"The first block cannot be read: {error}.") from error
    chain = Chain(Trust(channel, chaincode, block.hash))
    list(chain.entries([block]))
    if chain.config is None:
        fault = chain.faults[0]
        raise EvidenceError(fault.code, fault.what)
    roots = {(msp, sha256(der).hexdigest()) for msp, ders in chain.config.roots.items() for der in ders}
    return ChannelKey(origin, block.hash.hex(), federation, tuple(sorted(roots)))
