# SPDX-License-Identifier: Apache-2.0
"""The signatures of those who order: by the channel's BlockValidation policy, and on a BFT channel by a quorum of them."""

from typing import Any, Final

from fabric_protos.common import common_pb2

from chaincode.blocks.config import BFT, ChannelConfig
from chaincode.blocks.signatures import verifies
from chaincode.blocks.wire import Malformed, exact, parse
from identity.wording import counted

POLICY: Final = "/Channel/Orderer/BlockValidation"
SIGNATURES: Final = 256
METADATA_LIMIT: Final = 1 << 20


def quorum(consenters: int) -> int:
    """How many of n orderers must sign where f = (n - 1) // 3 of them may lie: the least number above (n + f) / 2."""
    faulty = (consenters - 1) // 3
    return -(-(consenters + faulty + 1) // 2)


def read_signatures(data: bytes) -> Any:
    """A block's ``Metadata`` with its signatures. Raises Malformed."""
    found = exact(common_pb2.Metadata, data, limit=METADATA_LIMIT)
    if len(found.signatures) > SIGNATURES:
        raise Malformed(f"{len(found.signatures)} signatures of a block, at most {SIGNATURES} are read")
    return found


def last_config(value: bytes) -> int:
    """The number of the block with the configuration in force, as the orderers sign it. Raises Malformed."""
    return int(exact(common_pb2.OrdererBlockMetadata, value, limit=METADATA_LIMIT).last_config.index)


def check_signatures(config: ChannelConfig, metadata: Any, header: bytes) -> None:
    """Hold a block's signatures to the configuration in force; ``header`` are the header's bytes.

    Raises Malformed, saying what is wrong. A signature that does not count is wrong, also where the others suffice: an
    orderer stores none.
    """
    signed: list[tuple[bytes, bool]] = []
    numbers = set[int]()
    for one in metadata.signatures:
        who, head = _signer(config, one, numbers)
        if not verifies(who, metadata.value + head + header, one.signature):
            raise Malformed("a signature that is not of the one whom it names")
        signed.append((who, True))
    if not signed:
        raise Malformed("no signature of an orderer")
    if not config.satisfied(config.policy(POLICY), signed):
        raise Malformed(f"signatures that do not satisfy {POLICY}")
    if config.consensus == BFT and len(numbers) < quorum(len(config.consenters)):
        raise Malformed(
            f"signatures of {len(numbers)} of {counted(len(config.consenters), 'orderer')}; "
            f"{quorum(len(config.consenters))} are a quorum"
        )


def _signer(config: ChannelConfig, signature: Any, numbers: set[int]) -> tuple[bytes, bytes]:
    """Whom a signature names, and the header of it that is signed. Adds the number of a BFT orderer."""
    if config.consensus == BFT:
        if signature.signature_header or not signature.identifier_header:
            raise Malformed("a signature that names no orderer of the channel")
        number = parse(common_pb2.IdentifierHeader, signature.identifier_header).identifier
        if number not in config.consenters or number in numbers:
            raise Malformed(f"a signature of orderer {number}, which is unknown or signed twice")
        numbers.add(number)
        return config.consenters[number], signature.identifier_header
    if signature.identifier_header:
        raise Malformed("a signature in another form than the channel's")
    return parse(common_pb2.SignatureHeader, signature.signature_header).creator, signature.signature_header
