# SPDX-License-Identifier: Apache-2.0
"""Queries on a run's ledger: log, show, agreement, status."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from chaincode.kinds import KINDS
from identity.errors import UsageError
from identity.keys import Keystore
from ops import federation_file
from ops.commands.log import parse_time
from ops.run_folder import RunFolder
from ops.source import which
from tests.chaincode.contract.world import World
from tests.ops.runs import Terminal, rich_world, world, write_run


@pytest.fixture(scope="module")
def here() -> World:
    return rich_world()


@pytest.fixture(scope="module")
def run(here: World, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("run") / "rich", here)


def test_every_kind_of_entry_has_its_line(terminal: Terminal, run: RunFolder, here: World) -> None:
    lines = terminal("log", run.path).splitlines()
    assert len(lines) == 1 + len(here.entries)
    assert {e.kind for e in here.entries} >= set(KINDS) - {"amend", "withdraw", "claim"}
    assert [line.split()[0] for line in lines[1:]] == [str(i) for i in range(len(here.entries))]
    assert "3 in the cohort; out: evil [red]hospital[/red] silent, site-04 declined" in terminal.out
    assert "omitted: site-03 digest-mismatch; accuracy 0.9123" in terminal.out


@pytest.mark.parametrize(("options", "kinds"), [
    (["--kind", "open"], ["open", "open", "open"]),
    (["--kind", "record", "--round", 2], ["record"]),
    (["--round", 1], ["open", "commit", "commit", "commit", "decline", "seal", "record"]),
    (["--did", "site-04"], ["admit", "sign", "decline", "seal", "commit"]),
    (["--did", "site-04", "--kind", "seal"], ["seal"]),
    (["--did", "site-04", "--kind", "open"], []),
    (["--did", "site-03", "--round", 1], ["commit", "record"]),
    (["--did", "auditor"], ["admit", "attest"]),
    (["--did", "site-04", "--round", 2, "--kind", "commit"], ["commit"]),
    (["--since", "2999-01-01"], []),
    (["--limit", 2], ["release", "attest"]),
    (["--limit", 1, "--kind", "commit"], ["commit"]),
])  # fmt: skip
def test_log_filters(terminal: Terminal, run: RunFolder, options: list[object], kinds: list[str]) -> None:
    answer = terminal.json("log", run.path, *options)
    assert [entry["kind"] for entry in answer["entries"]] == kinds
    assert answer["more"] == ("--limit" in options)


def test_log_says_when_it_does_not_show_everything(terminal: Terminal, run: RunFolder, here: World) -> None:
    terminal("log", run.path, "--limit", 5)
    assert "Only the newest 5 are shown" in terminal.err
    assert f"\n{len(here.entries) - 1}  " in terminal.out
    terminal("log", run.path, "--limit", 0)
    assert terminal.err == ""


def test_a_filter_by_did_finds_the_member_and_every_key_that_it_had(
    terminal: Terminal, run: RunFolder, here: World
) -> None:
    first, second = (identity.did for identity in here.keys(1))
    found = [terminal.json("log", run.path, "--did", did)["entries"] for did in (first, second, first[-8:], "site-01")]
    assert found[0] == found[1] == found[2] == found[3]
    own = [entry for entry in found[0] if entry["relation"] == "by"]
    assert {entry["did"] for entry in own} == {first, second}
    assert {entry["member"] for entry in own} == {first}
    assert [entry["kind"] for entry in own] == ["sign", "commit", "commit", "rotate", "commit"]
    assert [entry["kind"] for entry in found[0] if entry["relation"] == "about"] == ["admit"]
    authority = here.name("authority")
    assert len(terminal.json("log", run.path, "--did", authority)["entries"]) == 10


@pytest.mark.parametrize("name", ["nobody", "did:key:z6MkeXATEjyXENzBXBxgC5EHk2JE5aqd7qMGGtDpLUH1e2Sj", ""])
def test_a_member_that_is_none_is_refused(terminal: Terminal, run: RunFolder, name: str) -> None:
    terminal("log", run.path, "--did", name, code=2)
    assert "member-unknown" in terminal.err


def test_since(terminal: Terminal, run: RunFolder, here: World) -> None:
    at = here.entries[-1].at
    assert len(terminal.json("log", run.path, "--since", at)["entries"]) == sum(e.at >= at for e in here.entries)
    assert terminal.json("log", run.path, "--since", "1d", "--limit", 0)["more"] is False


@pytest.mark.parametrize(("text", "seconds"), [
    ("90s", 10**6 - 90), ("2m", 10**6 - 120), ("3h", 10**6 - 10800), ("1d", 10**6 - 86400), ("12345", 12345),
    ("1970-01-02", 86400), ("1970-01-02T00:00:00Z", 86400), ("1970-01-02T02:00:00+02:00", 86400), ("1970-01-02 00:00:10", 86410),
])  # fmt: skip
def test_times(text: str, seconds: int) -> None:
    assert parse_time(text, 10**6) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "1e9", "9" * 20, "²", "2026-13-01", "\x00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_time(text, 0)


def test_show_by_index_and_by_the_beginning_of_the_id(terminal: Terminal, run: RunFolder, here: World) -> None:
    entry = here.entries[20]
    shown = terminal("show", run.path, 20)
    assert shown == terminal("show", run.path, "#20") == terminal("show", run.path, entry.id[:10].upper())
    assert entry.id in shown
    assert "(signature verified)" in shown
    answer = terminal.json("show", run.path, entry.id)
    assert (answer["index"], answer["kind"], answer["body"]) == (20, entry.kind, dict(entry.body))
    assert answer["subjects"] == dict(entry.subjects)


def test_show_finds_the_run_by_itself(terminal: Terminal, run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    named = terminal("show", run.path, 3)
    monkeypatch.chdir(run.path)
    assert terminal("show", 3).splitlines()[:5] == named.splitlines()[:5]


@pytest.mark.parametrize("entry", ["99999", "#99999", "abc", "zzzz", "f" * 64, "f" * 65, "-1", ""])
def test_show_of_what_is_not_there(terminal: Terminal, run: RunFolder, entry: str) -> None:
    terminal("show", "--", run.path, entry, code=2)
    assert terminal.err.startswith("error: ")


def test_which_entry_a_text_means() -> None:
    assert which("12", 100) == 12
    assert which("#12", 5) == 12
    assert which("123456", 100) == "123456"
    assert which("ABcd", 100) == "abcd"
    assert which("1" * 64, 10**9) == "1" * 64


def test_agreement_show(terminal: Terminal, run: RunFolder, here: World) -> None:
    shown = terminal("agreement", "show", run.path)
    for text in (here.digest, "Two tensors", "None is needed", "at least 2 of 5", "Parties: 5 signed", here.name(5)):
        assert text in shown
    answer = terminal.json("agreement", "show", run.path, "--agreement", here.digest[:6])
    assert answer["terms"] == here.agreement
    assert set(answer["parties"].values()) == {"signed"}
    terminal("agreement", "show", run.path, "--agreement", "0" * 64, code=2)


def test_status_of_a_run_between_rounds(terminal: Terminal, run: RunFolder, here: World) -> None:
    shown = terminal("status", run.path)
    assert re.search(
        r"^1 +recorded +1 +2 +evil \[red\]hospital\[/red\] silent, site-04 declined, site-03 digest-mismatch +20 +accuracy 0\.9123",
        shown,
        re.MULTILINE,
    )
    assert re.search(r"^2 +recorded +2 +4 +nobody +40 +\S+ +yes$", shown, re.MULTILINE)
    assert "member-revoked" in shown
    assert "next: round 3 attempt 1 is opened to 4 sites" in shown
    answer = terminal.json("status", run.path)
    assert (answer["state"], answer["round"], answer["of"], answer["late"]) == ("recorded", 2, 3, [])
    assert answer["next"]["step"] == "open"
    assert answer["size"] == len(here.entries)
    assert [r["round"] for r in terminal.json("status", run.path, "--limit", 1)["rounds"]] == [2]


@pytest.mark.parametrize(("stage", "says"), [
    (lambda w: w.opened().commit(1), "commit until"),
    (lambda w: w.committed(), "is sealed with 3 updates, 0 sites out"),
    (lambda w: w.sealed(), "deliver until"),
    (lambda w: w.aborted(), "round 1 attempt 2 is opened to 3 sites"),
    (lambda w: w.recorded(3), "nothing: every agreed round is recorded"),
    (lambda w: w.proposed(), "round 1 attempt 1 is opened to 0 sites"),
    (lambda w: w.founded(), "an agreement is proposed"),
])  # fmt: skip
def test_status_says_what_happens_next(terminal: Terminal, tmp_path: Path, stage: object, says: str) -> None:
    assert callable(stage)
    here = world(phases={"commit_seconds": 5000})
    run = write_run(tmp_path / "run", stage(here))
    assert says in terminal("status", run.path)


def test_status_names_who_is_late(terminal: Terminal, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", world().opened().commit(2))
    shown = terminal("status", run.path)
    assert "late: site-01, site-03" in shown
    assert "is given up (coordinator-absent)" in shown
    assert shown.count("LATE") == 2


def test_status_says_how_an_interrupted_run_goes_on(terminal: Terminal, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", world().opened())
    assert "it goes on with" not in terminal("status", run.path)
    shutil.copy(federation_file.locate("demo"), run.federation_file)
    assert terminal("status", run.path).endswith(f"run {run.federation_file} --dir {run.path}\n")
    run.keys.mkdir(exist_ok=True)
    Keystore.create(run.keystore, "a passphrase")
    assert terminal("status", run.path).endswith(f"--dir {run.path} --passphrase-file FILE\n")
    with run.locked():
        assert "it goes on with" not in terminal("status", run.path)
        assert "at work: process" in terminal.out


@pytest.mark.parametrize("stage", [World.founded, World.opened])
def test_a_run_with_a_task_of_its_own_goes_on_from_its_folder(
    terminal: Terminal, tmp_path: Path, stage: Callable[[World], World]
) -> None:
    run = write_run(tmp_path / "run", stage(world()))
    demo = federation_file.locate("demo").read_text()
    run.federation_file.write_text(demo.replace('task = "breast-cancer"', 'task = "mine.py:Mine"'))
    assert f"run FILE --dir {run.path}\nFILE is the federation file that it began with" in terminal("status", run.path)
    (run.path / "mine.py").touch()
    assert terminal("status", run.path).endswith(f"run {run.federation_file} --dir {run.path}\n")


def test_the_newest_entries_by_and_about_a_member_in_order(terminal: Terminal, run: RunFolder, here: World) -> None:
    member = here.name(5)
    everything = terminal.json("log", run.path, "--did", member)["entries"]
    mentioned = [i for i, e in enumerate(here.entries) if e.member == member or member in (e.body.get("admits"), e.body.get("revokes"))
                 or any(item["member"] == member for f in ("absent", "out", "omitted") for item in e.body.get(f, []))]  # fmt: skip
    assert [entry["index"] for entry in everything] == mentioned
    assert {"admit", "revoke", "seal"} <= {entry["kind"] for entry in everything}
    last = terminal.json("log", run.path, "--did", member, "--limit", 2)
    assert (last["entries"], last["more"]) == (everything[-2:], True)
    assert terminal.json("log", run.path, "--did", member, "--since", "2999-01-01")["entries"] == []
    assert " about " in terminal("log", run.path, "--did", member)
    assert "BY/ABOUT" in terminal.out


def test_an_entry_that_is_not_there_says_which_are(terminal: Terminal, run: RunFolder, here: World) -> None:
    terminal("show", run.path, "999", code=2)
    assert "There is no entry 999" in terminal.err
    assert f"entries 0 to {len(here.entries) - 1}" in terminal.err
    assert f"log {run.path}" in terminal.err.partition("next: ")[2]


def test_next_commands_name_the_path_that_was_given(terminal: Terminal, run: RunFolder) -> None:
    terminal("log", run.path, "--did", "nobody", code=2)
    assert f"log {run.path} --kind admit" in terminal.err.partition("next: ")[2]
    terminal("trace", run.path, "--model", "abcdef", code=2)
    assert f"log {run.path}" in terminal.err.partition("next: ")[2]


@pytest.mark.parametrize("command", [["log"], ["status"], ["trace", "--did", "x"], ["show", "3"]])
def test_a_damaged_ledger_is_one_to_audit_and_a_missing_one_has_a_next_command(
    terminal: Terminal, tmp_path: Path, command: list[str]
) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "ledger.sqlite").write_bytes(b"no database" * 100)
    terminal(command[0], folder, *command[1:], code=1)
    assert f"audit verify {folder}" in terminal.err.partition("next: ")[2]
    terminal(command[0], tmp_path / "nowhere", *command[1:], code=2)
    assert "next: " in terminal.err


def test_a_run_that_was_found_is_named_but_not_to_programs(
    terminal: Terminal, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.path)
    for command in (["log"], ["status"], ["show", "3"], ["trace", "--did", "site-01"], ["agreement", "show"]):
        terminal(*command)
        assert terminal.err.startswith("reading ")
        assert terminal.err.count("reading ") == 1
        terminal(*command, "--json")
        assert terminal.err == ""
    terminal("log", run.path)
    assert terminal.err == ""


def test_status_says_who_is_at_work(terminal: Terminal, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", world().recorded())
    with run.locked():
        assert "at work: process " in terminal("status", run.path)
        assert isinstance(terminal.json("status", run.path)["process"], int)
    assert "at work" not in terminal("status", run.path)
