# SPDX-License-Identifier: Apache-2.0
"""Reading typed values as a member, several tables in one read of the ledger, absent keys as None; signing many entries at once."""

from dataclasses import replace
from pathlib import Path

import pytest

from chaincode import state
from chaincode.author import Author, read_all, read_tables, sign_all
from chaincode.crew import Crew
from chaincode.state import DidOwner, Member
from identity.errors import EvidenceError
from identity.keys import identity_from_seed
from tests.chaincode.ledgers.hosts import FACTORIES, Clock, accepted
from tests.chaincode.ledgers.stream import Stream

STREAM = Stream()


@pytest.mark.parametrize("host", ["memory", "embedded"])
def test_several_tables_are_read_at_once(tmp_path: Path, host: str) -> None:
    ledger = FACTORIES[host](tmp_path, Clock())
    accepted(ledger.submit(list(STREAM.setup())))
    one, two = (member.did for member in STREAM.members[:2])
    members = {"one": state.member_key(one), "two": state.member_key(two), "none": state.member_key("did:key:z6MkNone")}
    owners = {"one": state.did_key(one), "two": state.did_key(two)}
    found, owned = read_tables(ledger, (Member, members), (DidOwner, owners))
    assert {name: value and value.did for name, value in found.items()} == {"one": one, "two": two, "none": None}
    assert owned == {"one": DidOwner(one), "two": DidOwner(two)}
    assert read_all(ledger, Member, members) == found
    assert read_tables(ledger) == []
    with pytest.raises(EvidenceError, match="state-malformed"):
        read_tables(ledger, (Member, owners))
    getattr(ledger, "close", lambda: None)()


def test_a_key_of_any_text_is_absent(tmp_path: Path) -> None:
    with FACTORIES["embedded"](tmp_path, Clock()) as ledger:  # type: ignore[attr-defined]
        strange = ["\ud800", "é", "a\x00b", "'", "entry/\ud800"]
        assert ledger.get(strange) == dict.fromkeys(strange)
        assert ledger.get([*strange, *map(str, range(200))]) == dict.fromkeys([*strange, *map(str, range(200))])


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("number", [0, 1, 7, 8, 41])
def test_many_are_signed_as_each_alone(number: int, threads: int) -> None:
    authors = [Author("a" * 64, i.did, i) for i in (identity_from_seed(bytes([n]) * 32) for n in range(number))]
    body = {"round": 1, "attempt": 1, "reason": "policy"}
    written = [author.unsigned("decline", 1_800_000_000, body, agreement="b" * 64) for author in authors]
    alone = [author.entry("decline", 1_800_000_000, body, agreement="b" * 64) for author in authors]
    assert sign_all(written, Crew(threads - 1)) == alone


def test_a_signer_that_answers_with_something_else_signs_nothing() -> None:
    identities = [identity_from_seed(bytes([n]) * 32) for n in range(20)]
    identities[13] = replace(identities[13], sign=lambda message: b"short")
    body = {"round": 1, "attempt": 1, "reason": "policy"}
    written = [
        Author("a" * 64, i.did, i).unsigned("decline", 1_800_000_000, body, agreement="b" * 64) for i in identities
    ]
    with pytest.raises(EvidenceError) as refused:
        sign_all(written, Crew(1))
    assert refused.value.code == "envelope-signature"
