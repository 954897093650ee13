# SPDX-License-Identifier: Apache-2.0
"""Bodies that threads hash ahead: what they have begun is taken over by whoever needs it, and left at the end."""

from hashlib import sha256
from typing import Any

import pytest

from chaincode import bundle as module
from chaincode.bundle import Bundle, File

LENGTH = 5 * module._PIECE


def made(length: int = LENGTH, altered: bool = False) -> tuple[Bundle, File]:
    body = bytes(range(256)) * (length // 256)
    file = File("blobs/one", length, sha256(body).hexdigest(), 0)
    held = bytearray(body)
    held[length // 2] ^= altered
    return Bundle(memoryview(held), {file.name: file}), file


@pytest.mark.parametrize("altered", [False, True])
@pytest.mark.parametrize("pieces", range(7))
def test_what_a_thread_has_begun_is_taken_over(pieces: int, altered: bool) -> None:
    opened, file = made(altered=altered)
    opened.hash_ahead(threads=0)
    hashing = opened._ahead[file.name]
    for _ in range(pieces):
        hashing.step()
    assert opened.altered(file) is altered
    assert opened.altered(file) is altered, "as often as it is asked"


@pytest.mark.parametrize("stop", ["stop", "take"])
def test_a_thread_leaves_its_work_at_the_next_piece(monkeypatch: pytest.MonkeyPatch, stop: str) -> None:
    opened, file = made()
    opened.hash_ahead(threads=0)
    hashing, real, steps = opened._ahead[file.name], module._Hashing.step, list[int]()

    def step(self: Any) -> bool:
        steps.append(1)
        if stop == "stop":
            opened.stop()
        else:
            hashing.taken = True
        return real(self)

    monkeypatch.setattr(module._Hashing, "step", step)
    opened._hash_some(iter([hashing, hashing]))
    assert len(steps) == 1


def test_small_bodies_are_hashed_by_who_asks() -> None:
    opened, file = made(length=256)
    opened.hash_ahead(threads=0)
    assert opened._ahead == {}
    assert not opened.altered(file)
