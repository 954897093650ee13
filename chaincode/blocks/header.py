# SPDX-License-Identifier: Apache-2.0
"""A block's header: the bytes that orderers sign, and the hash that chains the blocks."""

from hashlib import sha256

INTEGER, OCTETS, SEQUENCE = 0x02, 0x04, 0x30


def header_bytes(number: int, previous: bytes, data: bytes) -> bytes:
    """The DER of SEQUENCE(INTEGER number, OCTET STRING hash of the block before, OCTET STRING hash of the data)."""
    minimal = number.to_bytes(number.bit_length() // 8 + 1, "big")  # two's complement: no sign bit
    return _der(SEQUENCE, _der(INTEGER, minimal) + _der(OCTETS, previous) + _der(OCTETS, data))


def header_hash(number: int, previous: bytes, data: bytes) -> bytes:
    """SHA-256 of ``header_bytes``: the block's name."""
    return sha256(header_bytes(number, previous, data)).digest()


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content
