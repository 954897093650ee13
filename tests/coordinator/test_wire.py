# SPDX-License-Identifier: Apache-2.0
"""What travels as rows arrives as what was sent."""

import pickle
from typing import Any

import pytest

from chaincode.blobs import Header
from chaincode.evidence import Commitment
from chaincode.place import Place
from coordinator.ports import Delivery
from coordinator.wire import pack, unpack
from participant.ports import TrainOrder

HEADER = Header("f" * 64, "a" * 64, 1, 2, "b" * 64, "did:key:x", "int32", 7, "5" * 64)
ORDER = TrainOrder("site-01", 3, HEADER, "/outbox")
COMMITMENT = Commitment("f" * 64, "a" * 64, 1, 2, "b" * 64, "did:key:x", "d" * 64, 100, 5, "int32", 7)


@pytest.mark.parametrize(
    "argument",
    [
        [ORDER, ORDER], [Delivery(COMMITMENT, Place("/file")), Delivery(COMMITMENT, Place("/pack", 3, 4))],
        [], None, (0, 8), "train", {"site": [b"hash"]}, [b"leaf"], 5, ("orders", 1),
    ],
    ids=repr,
)  # fmt: skip
def test_everything_arrives_as_it_was(argument: Any) -> None:
    arrived = unpack(pickle.loads(pickle.dumps(pack(argument))))
    assert arrived == argument
    assert type(arrived) is type(argument)


def test_rows_hold_no_objects() -> None:
    """Else Ray's serialiser asks Python about each of them, which is what rows are for."""

    def plain(value: Any) -> bool:
        return all(map(plain, value)) if type(value) in (list, tuple) else type(value) in (str, int)

    for argument in ([ORDER], [Delivery(COMMITMENT, Place("/file"))]):
        assert plain(pack(argument))
