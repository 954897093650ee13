# SPDX-License-Identifier: Apache-2.0
"""An oracle for the tree: the definitions of RFC 6962 section 2.1, over the leaves themselves."""

import json
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from chaincode import log
from identity.errors import EvidenceError

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "log.json").read_text(encoding="utf-8")
)
MOST = 70


def data(count: int) -> list[bytes]:
    return [b"leaf-%d" % i for i in range(count)]


def split(count: int) -> int:
    k = 1
    while k * 2 < count:
        k *= 2
    return k


def mth(d: list[bytes]) -> bytes:
    if not d:
        return sha256(b"").digest()
    if len(d) == 1:
        return sha256(b"\x00" + d[0]).digest()
    k = split(len(d))
    return sha256(b"\x01" + mth(d[:k]) + mth(d[k:])).digest()


def path(m: int, d: list[bytes]) -> list[bytes]:
    if len(d) == 1:
        return []
    k = split(len(d))
    return [*path(m, d[:k]), mth(d[k:])] if m < k else [*path(m - k, d[k:]), mth(d[:k])]


def subproof(m: int, d: list[bytes], known: bool) -> list[bytes]:
    if m == len(d):
        return [] if known else [mth(d)]
    k = split(len(d))
    if m <= k:
        return [*subproof(m, d[:k], known), mth(d[k:])]
    return [*subproof(m - k, d[k:], False), mth(d[:k])]


@cache
def roots() -> list[bytes]:
    return [mth(data(n)) for n in range(MOST + 1)]


@cache
def nodes() -> dict[tuple[int, int], bytes]:
    """Every complete subtree of a tree of MOST leaves, as a ledger stores them."""
    frontier, stored = log.Frontier(), {}
    for leaf in data(MOST):
        for level, index, value in frontier.append(log.leaf_hash(leaf)):
            assert (level, index) not in stored
            stored[level, index] = value
    return stored


def stored(size: int) -> Callable[[int, int], bytes]:
    """The stored nodes of a tree of `size` leaves: to ask for one that is not complete yet is a KeyError."""

    def node(level: int, index: int) -> bytes:
        if (index + 1) << level > size:
            raise KeyError((level, index))
        return nodes()[level, index]

    return node


def refused(code: str, check: Callable[..., object], *args: Any) -> None:
    """Check that a call raises EvidenceError with exactly this code."""
    with pytest.raises(EvidenceError) as caught:
        check(*args)
    assert caught.value.code == code
