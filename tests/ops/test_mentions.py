# SPDX-License-Identifier: Apache-2.0
"""What others' entries say about a member, held against a look at every entry; and that few entries are opened for it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from chaincode import opening, state
from chaincode.entries import Entry, Fields, read_fields
from chaincode.state import Head
from identity.envelope import Envelope
from ops import mentions
from ops.run_folder import RunFolder
from ops.source import opened
from tests.chaincode.contract.world import Who, World
from tests.ops.lives import life
from tests.ops.runs import Terminal, world, write_evidence, write_run

SEEDS = range(5)
KINDS = ("admit", "revoke", "open", "seal", "record")


@pytest.fixture(scope="module")
def lives() -> dict[int, World]:
    return {seed: life(seed) for seed in SEEDS}


def says(entry: Entry, member: str) -> bool:
    """Whether an entry is about a member, by its plain text."""
    listed = [item["member"] for field in ("absent", "out", "omitted") for item in entry.body.get(field, [])]
    return entry.kind in KINDS and member in (*listed, entry.body.get("admits"), entry.body.get("revokes"))


def test_everything_happens_in_these_lives(lives: dict[int, World]) -> None:
    entries = [entry for here in lives.values() for entry in here.entries]
    reasons = {i["reason"] for e in entries for field in ("absent", "out", "omitted") for i in e.body.get(field, [])}
    assert {"withdrawn", "revoked", "declined", "silent", "not-delivered"} <= reasons
    assert {"abort", "admit", "rotate", "withdraw"} <= {entry.kind for entry in entries}
    assert max(entry.body["attempt"] for entry in entries if entry.kind == "seal") > 1
    assert sum(entry.kind == "propose" for entry in entries) > len(SEEDS)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("form", ["run", "bundle"])
def test_what_is_about_a_member_is_what_a_look_at_every_entry_finds(
    lives: dict[int, World], seed: int, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mentions, "_TOGETHER", 4)
    here = lives[seed]
    run = write_run(tmp_path / "run", here)
    path = run.path if form == "run" else write_evidence(tmp_path / "bundle", run)
    middle = here.entries[len(here.entries) // 2].at
    with opened(str(path)) as source:
        everybody: list[Who] = ["coordinator", "auditor", *here.sites]
        for who in everybody:
            member = here.name(who)
            every = [i for i, e in enumerate(here.entries) if says(e, member)]
            asked: Iterable[tuple[dict[str, Any], list[int]]] = [
                ({}, every), *(({"kind": k}, [i for i in every if here.entries[i].kind == k]) for k in KINDS), ({"kind": "commit"}, []),
                ({"agreement": here.digest, "round": 2},
                 [i for i in every if here.entries[i].agreement == here.digest and here.entries[i].body["round"] == 2]),
            ]  # fmt: skip
            for wanted, expected in asked:
                for since, start in ((None, 0), (middle, 0), (None, len(here.entries) // 3)):
                    right = [i for i in expected if i >= start and (since is None or here.entries[i].at >= since)]
                    for limit in (0, 1, 3):
                        found = mentions.about(source, member, [wanted], since, limit, start=start)
                        assert [index for index, _ in found] == right[-limit:]
                        assert [entry.id for _, entry in found] == [here.entries[i].id for i in right[-limit:]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The envelopes that are opened."""
    seen: list[bytes] = []

    def counted(data: bytes) -> tuple[Fields, Envelope]:
        seen.append(data)
        return read_fields(data)

    monkeypatch.setattr(opening, "read_fields", counted)
    return seen


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, World]:
    """Sixty rounds; the third site is silent in one of them, left out of the record of another, and otherwise in."""
    here = world(3, rounds=60, min_participants=2)
    for number in range(1, 61):
        here.opened()
        for who in (1, 2) if number == 20 else here.sites:
            here.commit(who)
        here.wait(200).seal().wait(400).record(omit={3: "not-delivered"} if number == 40 else None)
    return write_run(tmp_path_factory.mktemp("long") / "run", here), here


def test_only_entries_that_say_something_are_opened(long: tuple[RunFolder, World], asked: list[bytes]) -> None:
    run, here = long
    with opened(str(run.path)) as source:
        found = mentions.about(source, here.name(3), [{}], None, 0)
    assert [(entry.kind, entry.body.get("round")) for _, entry in found] == [
        ("admit", None),
        ("seal", 20),
        ("record", 40),
    ]
    assert len(asked) == 3


def test_a_log_opens_what_it_prints(terminal: Terminal, long: tuple[RunFolder, World], asked: list[bytes]) -> None:
    run, here = long
    answer = terminal.json("log", run.path, "--did", here.name(3), "--limit", 10)
    assert [entry["kind"] for entry in answer["entries"]] == ["commit"] * 10
    assert len(asked) == 10
    answer = terminal.json("log", run.path, "--did", here.name(3), "--limit", 25)
    assert [entry["kind"] for entry in answer["entries"]].count("record") == 1


def test_a_round_that_the_state_does_not_know_is_read_as_it_is(
    long: tuple[RunFolder, World], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, here = long
    decode = state.decode
    monkeypatch.setattr(state, "decode", lambda cls, data: None if cls is not Head else decode(cls, data))
    with opened(str(run.path)) as source:
        found = mentions._says(source, here.name(3), {(here.digest, 61)})
    assert found == {(here.digest, 61): {"open", "seal", "record"}}
