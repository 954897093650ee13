# SPDX-License-Identifier: Apache-2.0
"""Parsing protocol buffers out of hostile bytes: bounded before, and where a field could carry meaning, none unknown."""

from typing import Any, Final, NoReturn

from google.protobuf.message import DecodeError

from identity.errors import EvidenceError

CONFIG_LIMIT: Final = 16 << 20


class Malformed(Exception):  # noqa: N818 - what peers give a validation code for, not a fault of ours
    """Bytes that are no message of their kind."""


def parse(kind: Any, data: bytes) -> Any:
    """The message of a kind that bytes hold, whatever else they hold; as a peer reads it. Raises Malformed."""
    try:
        return kind.FromString(data)
    except (DecodeError, ValueError) as error:  # ValueError: text that is no UTF-8, in some versions
        raise Malformed(f"not a {kind.DESCRIPTOR.name}") from error


def strict(kind: Any, data: bytes, *, limit: int = CONFIG_LIMIT) -> Any:
    """The message of a kind that bytes hold, and nothing else: no unknown field, no longer spelling. Raises Malformed."""
    if len(data) > limit:
        raise Malformed(f"{len(data)} bytes of a {kind.DESCRIPTOR.name}, at most {limit} are read")
    message = parse(kind, data)
    message.DiscardUnknownFields()
    if message.ByteSize() != len(data):
        raise Malformed(f"a {kind.DESCRIPTOR.name} with fields that are not known here, or spelt in another way")
    return message


def exact(kind: Any, data: bytes, *, limit: int) -> Any:
    """As ``strict``, for messages without maps: the bytes are the one spelling of what they say. Raises Malformed."""
    if len(data) > limit:
        raise Malformed(f"{len(data)} bytes of a {kind.DESCRIPTOR.name}, at most {limit} are read")
    message = parse(kind, data)
    message.DiscardUnknownFields()
    if message.SerializeToString(deterministic=True) != data:
        raise Malformed(f"a {kind.DESCRIPTOR.name} with fields that are not known here, or spelt in another way")
    return message


def unsupported(what: str) -> NoReturn:
    """Refuse what this verifier does not model, rather than pass over it. Raises EvidenceError(fabric-unsupported)."""
    raise EvidenceError("fabric-unsupported", f"{what}: this version does not judge that.")
