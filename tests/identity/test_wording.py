# SPDX-License-Identifier: Apache-2.0
"""Numbers of things, one among them."""

import pytest

from identity.wording import counted


@pytest.mark.parametrize(
    ("number", "words", "expected"),
    [
        (0, ("round",), "0 rounds"), (1, ("round",), "1 round"), (2, ("round",), "2 rounds"),
        (1, ("entry",), "1 entry"), (2, ("entry",), "2 entries"), (3, ("party",), "3 parties"), (2, ("day",), "2 days"),
        (1, ("hash",), "1 hash"), (2, ("hash",), "2 hashes"), (2, ("more run",), "2 more runs"),
        (1, ("leaf", "leaves"), "1 leaf"), (2, ("leaf", "leaves"), "2 leaves"),
        (1, ("key has signed", "keys have signed"), "1 key has signed"),
        (0, ("key has signed", "keys have signed"), "0 keys have signed"),
    ],
)  # fmt: skip
def test_one_is_not_several(number: int, words: tuple[str, ...], expected: str) -> None:
    assert counted(number, *words) == expected
