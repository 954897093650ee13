# SPDX-License-Identifier: Apache-2.0
"""``fedledger trace``, in both directions, held against a walk over the plain list of entries."""

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chaincode import models
from chaincode.entries import Entry
from identity.errors import EvidenceError
from ops import lineage
from ops.source import opened
from tests.chaincode.contract.world import World, digest
from tests.ops.runs import TENSORS, Terminal, world, write_evidence, write_released, write_run


def history() -> World:
    """Two agreements, the second of which goes on from the first; a fault of each kind."""
    here = world(4, share_metrics=True)
    here.opened().commit(1).commit(2).commit(3).wait(200).seal().wait(300).record(
        omit={3: "not-delivered"}
    )  # 4 is silent
    here.opened().committed().sealed().wait(201).abort()  # delivered and discarded
    here.wait(1).recorded()
    first = here.digest
    here.wait(1).propose(continues=first, terms={"title": "The second", "model": {"initial": here.head.base}})
    for who in here.sites:
        here.sign(who)
    here.opened().commit(2).commit(4).decline(1).decline(3).seal().wait(1)
    here.record(model=digest("continued"))
    return here.wait(1).release()


@pytest.fixture(scope="module")
def here() -> World:
    return history()


@pytest.fixture(scope="module", params=["run", "bundle"])
def path(request: pytest.FixtureRequest, here: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trace")
    run = write_run(folder / "run", here)
    return run.path if request.param == "run" else write_evidence(folder / "bundle", run)


def chain(here: World, model: str) -> Iterator[Entry]:
    """The records behind a model, by the simplest walk: each record's base is the model of an earlier one."""
    bases = {(e.agreement, e.body["round"]): e.subjects["base-model"] for e in here.entries if e.kind == "open"}
    for entry in reversed(here.entries):
        if entry.kind == "record" and entry.subjects["model"] == model:
            yield entry
            model = bases[entry.agreement, entry.body["round"]]


def test_back_to_every_round_update_site_credential_and_agreement(terminal: Terminal, here: World, path: Path) -> None:
    model = digest("continued")
    answer = terminal.json("trace", path, "--model", model)
    expected = list(chain(here, model))
    assert len(expected) == 3
    assert [r["entry"] for r in answer["rounds"]] == [e.id for e in expected]
    assert [r["round"] for r in answer["rounds"]] == [1, 2, 1]
    assert answer["initial"] == digest("model 0")
    outcomes = [{(c["member"], c["outcome"]) for c in r["contributions"]} for r in answer["rounds"]]
    name = here.name
    assert outcomes[0] == {(name(2), "included"), (name(4), "included")}
    assert outcomes[1] == {(name(who), "included") for who in (1, 2, 3, 4)}
    assert outcomes[2] == {(name(1), "included"), (name(2), "included"), (name(3), "not-delivered")}
    assert {s["member"]: [c["credential"] for c in s["credentials"]] for s in answer["sites"]} == {
        name(who): [here.member(who).credential] for who in (1, 2, 3, 4)
    }
    assert [a["title"] for a in answer["agreements"]] == ["Two tensors", "The second"]
    assert set(answer["agreements"][0]["signed"]) == {name(who) for who in here.sites}
    assert [release["entry"] for release in answer["released"]] == [here.entries[-1].id]


def test_back_in_words(terminal: Terminal, here: World, path: Path) -> None:
    shown = terminal("trace", path, "--model", digest("continued")[:8])
    for text in (
        "Rounds behind it",
        "initial model " + digest("model 0")[:12],
        "not-delivered",
        "The second",
        here.name(3),
    ):
        assert text in shown


def test_only_the_attempt_that_was_recorded_is_behind_a_model(terminal: Terminal, here: World, path: Path) -> None:
    rounds = terminal.json("trace", path, "--model", digest("continued"))["rounds"]
    assert [r["attempt"] for r in rounds] == [1, 2, 1]
    assert {c["attempt"] for c in rounds[1]["contributions"]} == {2}


def test_the_initial_model_has_nothing_behind_it(terminal: Terminal, here: World, path: Path) -> None:
    answer = terminal.json("trace", path, "--model", digest("model 0"))
    assert (answer["rounds"], answer["sites"], answer["initial"]) == ([], [], digest("model 0"))
    assert [a["title"] for a in answer["agreements"]] == ["Two tensors"]


def test_a_site_to_every_model_that_it_went_into(terminal: Terminal, here: World, path: Path) -> None:
    answer = terminal.json("trace", path, "--did", "site-03")
    assert answer["member"] == here.name(3)
    assert [(u["round"], u["attempt"], u["outcome"]) for u in answer["updates"]] == [
        (1, 1, "not-delivered"), (2, 1, "attempt given up"), (2, 2, "included"),
    ]  # fmt: skip
    assert [(m["round"], m["direct"], m["released"]) for m in answer["models"]] == [(2, True, False), (1, False, True)]
    assert answer["models"][1]["model"] == digest("continued")
    assert terminal.json("trace", path, "--did", here.name(3)) == answer


def test_a_site_that_is_in_everything(terminal: Terminal, path: Path) -> None:
    answer = terminal.json("trace", path, "--did", "site-02")
    assert [(m["round"], m["direct"]) for m in answer["models"]] == [(1, True), (2, True), (1, True)]


def test_an_update_that_was_omitted_is_in_no_model(terminal: Terminal, here: World, path: Path) -> None:
    commit = next(e for e in here.entries if e.kind == "commit" and e.member == here.name(3))
    answer = terminal.json("trace", path, "--update", commit.subjects["update"])
    assert [u["outcome"] for u in answer["updates"]] == ["not-delivered"]
    assert answer["models"] == []
    assert "Models that have them inside: 0" in terminal("trace", path, "--update", commit.subjects["update"][:10])


def test_an_update_leads_to_its_model_and_all_that_follow(terminal: Terminal, here: World, path: Path) -> None:
    commit = next(e for e in here.entries if e.kind == "commit" and e.member == here.name(1))
    answer = terminal.json("trace", path, "--update", commit.subjects["update"])
    assert [(m["round"], m["direct"]) for m in answer["models"]] == [(1, True), (2, False), (1, False)]


@pytest.mark.parametrize(("option", "value", "code"), [
    ("--model", "f" * 64, "digest-unknown"), ("--model", "xyz", "digest-malformed"), ("--update", "f" * 64, "digest-unknown"),
    ("--model", "", "digest-malformed"), ("--did", "nobody", "member-unknown"),
])  # fmt: skip
def test_what_is_not_there(terminal: Terminal, path: Path, option: str, value: str, code: str) -> None:
    terminal("trace", path, option, value, code=2)
    assert f"[{code}]" in terminal.err


def test_a_digest_of_something_else_is_no_model_and_no_update(terminal: Terminal, here: World, path: Path) -> None:
    terminal("trace", path, "--model", here.member(1).credential, code=2)
    assert "[model-unknown]" in terminal.err
    terminal("trace", path, "--update", digest("continued"), code=2)
    assert "[update-unknown]" in terminal.err


def test_what_is_not_in_the_newest_run_may_be_in_another(terminal: Terminal, path: Path) -> None:
    older, _ = write_released(Path("runs/older"))
    os.utime(older.ledger, (0, 0))
    write_run(Path("runs/newest"), world().opened())
    for asked in (("--model", older.model), ("--model", "f" * 64), ("--update", "f" * 64), ("--did", "nobody")):
        terminal("trace", *asked, code=2)
        assert "  looked in: runs/newest\n  other runs: runs/older\n" in terminal.err
        assert terminal.err.endswith(f"trace RUN {asked[0]} {asked[1]}\n")
    terminal("trace", "runs/older", "--model", older.model)
    terminal("trace", path, "--model", "f" * 64, code=2)
    assert f"  looked in: {path}\nnext: " in terminal.err
    assert "other runs" not in terminal.err


def test_a_seat_that_was_sealed_out_and_a_round_in_progress(terminal: Terminal, tmp_path: Path) -> None:
    here = world(4).opened().commit(1).commit(2).commit(3).commit(4).withdraw(4).seal().wait(1).record()
    here.opened().commit(1)
    run = write_run(tmp_path / "run", here)
    assert terminal.json("trace", run.path, "--did", "site-04")["updates"][0]["outcome"] == "sealed out: withdrawn"
    assert terminal.json("trace", run.path, "--did", "site-01")["updates"][1]["outcome"] == "round in progress"
    rounds = terminal.json("trace", run.path, "--model", here.result(1).model)["rounds"]
    assert (here.name(4), "sealed out: withdrawn") in {(c["member"], c["outcome"]) for c in rounds[0]["contributions"]}


def test_a_model_by_its_file(terminal: Terminal) -> None:
    run, _ = write_released(Path("run"))
    answer = terminal.json("trace", run.path, "--model", run.model)
    assert answer["model"] == models.model_digest(TENSORS)
    assert len(answer["rounds"]) == 1


def test_a_file_that_is_no_model_is_named(terminal: Terminal, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "thesis.pdf"
    other.write_bytes(b"%PDF-1.7 and so on")
    terminal("trace", path, "--model", other, code=1)
    assert f"{other} is no model that can be read. " in terminal.err


def test_a_base_that_nobody_recorded_breaks_the_chain(here: World, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", here)
    with opened(str(run.path)) as source:
        rounds = list(lineage.ancestry(source, digest("continued")))
        lineage._check_base(source, rounds[1], rounds[2])
        for wrong in (replace(rounds[1], base="0" * 64), replace(rounds[1], round=3)):
            with pytest.raises(EvidenceError) as caught:
                lineage._check_base(source, wrong, rounds[2])
            assert caught.value.code == "lineage-broken"
        with pytest.raises(EvidenceError) as caught:
            lineage._handed_on(source, rounds[0].agreement, "0" * 64)
        assert caught.value.code == "lineage-broken"


@pytest.mark.parametrize(
    "lost", ["UPDATE facet SET kind = 'claim' WHERE kind = 'record' AND round = 1", "DELETE FROM facet WHERE round = 1"]
)
def test_a_round_whose_record_is_not_there_breaks_the_chain(terminal: Terminal, tmp_path: Path, lost: str) -> None:
    here = world(3).recorded(3)
    run = write_run(tmp_path / "run", here)
    with sqlite3.connect(run.ledger) as raw:
        raw.execute(lost)
    terminal("trace", run.path, "--model", here.result(3).model, code=1)
    assert "[lineage-broken]" in terminal.err
    assert terminal.out == ""
    assert len(terminal.json("trace", run.path, "--model", here.result(3).model, "--limit", 2)["rounds"]) == 2


def test_a_limit_says_how_many_rounds_there_are(terminal: Terminal, here: World, path: Path) -> None:
    model = digest("continued")
    whole = terminal.json("trace", path, "--model", model)
    assert (whole["more"], whole["behind"]) == (False, 3)
    for limit in (1, 2):
        answer = terminal.json("trace", path, "--model", model, "--limit", limit)
        assert answer["rounds"] == whole["rounds"][:limit]
        assert (answer["more"], answer["behind"], answer["initial"]) == (True, 3, None)
    for limit in (0, 3, 4):
        assert terminal.json("trace", path, "--model", model, "--limit", limit) == whole
    terminal("trace", path, "--model", model, "--limit", 2)
    assert "Only the newest 2 rounds are shown, of 3" in terminal.err


def test_a_newer_agreement_that_comes_back_to_the_first_model_is_not_behind_the_older_one(
    terminal: Terminal, tmp_path: Path
) -> None:
    here = world(3).recorded()
    older, model = here.digest, here.result(1).model
    here.wait(1).propose(terms={"title": "Back again", "model": {"initial": model}})
    for who in here.sites:
        here.sign(who)
    here.opened().committed().sealed().wait(1).record(model=digest("model 0"))
    run = write_run(tmp_path / "run", here)
    behind = terminal.json("trace", run.path, "--model", model)
    assert [(r["agreement"], r["round"]) for r in behind["rounds"]] == [(older, 1)]
    assert behind["initial"] == digest("model 0")
    limited = terminal.json("trace", run.path, "--model", digest("model 0"), "--limit", 1)
    assert (limited["rounds"][0]["agreement"], limited["behind"]) == (here.digest, 2)


def test_rounds_that_recorded_the_same_model_are_all_behind_it(terminal: Terminal, tmp_path: Path) -> None:
    here = world(3).recorded()
    here.sealed().wait(1).record(model=here.result(1).model)
    here.recorded()
    run = write_run(tmp_path / "run", here)
    model = here.result(1).model
    behind = terminal.json("trace", run.path, "--model", model)
    assert (sorted(r["round"] for r in behind["rounds"]), behind["behind"]) == ([1, 2], 2)
    limited = terminal.json("trace", run.path, "--model", model, "--limit", 1)
    assert (limited["behind"], limited["more"]) == (2, True)


def test_an_agreement_that_does_not_say_what_it_continues_is_followed_all_the_same(
    terminal: Terminal, tmp_path: Path
) -> None:
    here = world(3).recorded().withdraw(1).wait(1)
    here.propose(terms={"title": "Another", "parties": here.names(2, 3), "model": {"initial": here.head.base}})
    here.sign(2).sign(3).wait(1).open().commit(2).commit(3).wait(1).seal().wait(1).record(model=digest("laundered"))
    run = write_run(tmp_path / "run", here)
    behind = terminal.json("trace", run.path, "--model", digest("laundered"))
    assert here.name(1) in str(behind), "its update is in the model that the new agreement began with"
    into = terminal.json("trace", run.path, "--did", "site-01")
    assert digest("laundered") in str(into)


def test_the_rounds_that_a_site_was_left_out_of(terminal: Terminal, here: World, path: Path) -> None:
    left_out = terminal.json("trace", path, "--did", "site-04")["left_out"]
    assert [(r["round"], r["attempt"], r["reason"]) for r in left_out] == [(1, 1, "sealed out: silent")]
    left_out = terminal.json("trace", path, "--did", "site-03")["left_out"]
    assert [(r["round"], r["reason"]) for r in left_out] == [(1, "omitted: not-delivered"), (1, "sealed out: declined")]
    assert len(terminal.json("trace", path, "--did", "site-03", "--limit", 1)["left_out"]) == 1
    shown = terminal("trace", path, "--did", "site-04")
    assert "Rounds that it was left out of: 1" in shown
    assert "sealed out: silent" in shown
