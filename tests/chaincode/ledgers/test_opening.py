# SPDX-License-Identifier: Apache-2.0
"""A batch is opened with the verdicts that its envelopes get one by one, whatever is in it and however many threads verify."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaincode.crew import Crew
from chaincode.entries import make_entry
from chaincode.ledgers import open_or_refuse
from chaincode.ledgers.opening import open_all
from identity.errors import Rejected
from identity.keys import identity_from_seed

MANGLED = ("good", "signature", "cut", "author", "empty")


@cache
def _envelope(number: int, how: str) -> bytes:
    signer = identity_from_seed(bytes([number]) * 32)
    good = make_entry(
        "decline", member=signer.did, at=1_800_000_000, body={"round": 1, "attempt": 1, "reason": "policy"},
        subjects={"federation": "a" * 64, "agreement": "b" * 64}, signer=signer,
    )  # fmt: skip
    match how:
        case "signature":  # well-formed, and not over these bytes
            at = good.index(b'"sig":"') + len(b'"sig":"')
            return good[:at] + (b"A" if good[at : at + 1] != b"A" else b"B") + good[at + 1 :]
        case "cut":
            return good[:-1]
        case "author":
            return good.replace(signer.did.encode(), identity_from_seed(bytes(32)).did.encode())
        case "empty":
            return b""
    return good


CREWS = {threads: Crew(threads) for threads in (0, 1, 3)}


@pytest.mark.parametrize("threads", CREWS)
@given(batch=st.lists(st.tuples(st.integers(1, 9), st.sampled_from(MANGLED)), max_size=40))
def test_verdicts_are_those_of_each_alone(threads: int, batch: list[tuple[int, str]]) -> None:
    envelopes = [_envelope(*one) for one in batch]
    opened = open_all(envelopes, CREWS[threads])
    for found, data in zip(opened, envelopes, strict=True):
        alone = open_or_refuse(data)
        if isinstance(alone, Rejected):
            assert isinstance(found, Rejected)
            assert (found.code, found.message) == (alone.code, alone.message)
        else:
            assert found == alone


def test_every_way_to_mangle_is_refused_by_its_own_name() -> None:
    codes = {how: getattr(open_or_refuse(_envelope(1, how)), "code", "") for how in MANGLED}
    assert codes["good"] == ""
    assert codes["signature"] == "signature-invalid"
    assert codes["author"] == "entry-author"
    assert all(codes[how] for how in MANGLED[1:])
