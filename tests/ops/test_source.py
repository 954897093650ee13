# SPDX-License-Identifier: Apache-2.0
"""What queries read: that a bundle answers each of them as its run does, and what is refused as evidence."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from chaincode.ledgers import search
from identity.errors import EvidenceError, UsageError
from ops.run_folder import RunFolder
from ops.source import opened, read_many
from tests.chaincode.contract.world import World
from tests.ops.runs import Terminal, rich_world, write_evidence, write_run


@pytest.fixture(scope="module")
def here() -> World:
    return rich_world()


@pytest.fixture(scope="module")
def run(here: World, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("run") / "rich", here)


COMMANDS: list[list[object]] = [
    ["status", "PATH"], ["log", "PATH"], ["log", "PATH", "--kind", "commit", "--limit", 2], ["log", "PATH", "--did", "site-01"],
    ["log", "PATH", "--round", 2], ["log", "PATH", "--since", "5m"], ["show", "PATH", 0], ["agreement", "show", "PATH"],
    ["trace", "PATH", "--did", "site-03"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(map(str, c)))
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_bundle_answers_as_the_run_that_it_was_made_from(
    terminal: Terminal, run: RunFolder, tmp_path: Path, command: list[object], form: list[str]
) -> None:
    bundle = write_evidence(tmp_path / "evidence", run)
    answers = [terminal(*[path if word == "PATH" else word for word in command], *form) for path in (run.path, bundle)]
    assert answers[0].replace(str(run.path), "PATH") == answers[1].replace(str(bundle), "PATH")


@pytest.mark.parametrize("page", [1, 7, 1024])
def test_a_bundle_searches_as_the_ledger_does(
    run: RunFolder, tmp_path: Path, here: World, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "PAGE", page)
    bundle = write_evidence(tmp_path / "evidence", run)
    some = here.entries[20]
    with opened(str(run.path)) as ledger, opened(str(bundle)) as replayed:
        assert (ledger.size, ledger.checkpoint()) == (replayed.size, replayed.checkpoint())
        assert list(ledger.entries(5)) == list(replayed.entries(5))
        for digest in {d for e in here.entries for d in e.subjects.values()}:
            assert list(ledger.by_subject(digest)) == list(replayed.by_subject(digest))
            assert ledger.digests(digest[:8]) == replayed.digests(digest[:8])
        questions: list[dict[str, Any]] = [
            {"kind": "commit"}, {"member": some.member}, {"agreement": here.digest, "round": 2}, {}
        ]  # fmt: skip
        for wanted in questions:
            for since in (None, some.at):
                for limit in (0, 1, 3):
                    assert ledger.newest(wanted, since, limit) == replayed.newest(wanted, since, limit)
                assert list(ledger.find(**wanted, since=since)) == list(replayed.find(**wanted, since=since))
                for start in (0, 17):
                    assert list(ledger.places(wanted, since, start)) == list(replayed.places(wanted, since, start))
        asked = [9, 2, 30, 2]
        assert list(ledger.at(asked)) == list(replayed.at(asked)) == [ledger.entry(index) for index in asked]
        for digits in ("", "0", "ab"):
            assert ledger.digests(digits) == replayed.digests(digits)
        for unknown in (10**6, "f" * 64, "abc"):
            for source in (ledger, replayed):
                with pytest.raises(UsageError):
                    source.entry(unknown)
        with pytest.raises(UsageError):
            replayed.submit([some.envelope])


def test_a_changed_bundle_is_unreadable_evidence(terminal: Terminal, run: RunFolder, tmp_path: Path) -> None:
    data = write_evidence(tmp_path / "evidence", run).read_bytes()
    start = data.index(b"\n") + 1
    for position in range(start, len(data), len(data) // 40):
        (tmp_path / "changed").write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        terminal("log", tmp_path / "changed", code=1)
        assert terminal.out == ""


def test_a_bundle_whose_last_entries_were_cut_off_is_refused(terminal: Terminal, here: World, tmp_path: Path) -> None:
    whole = write_run(tmp_path / "whole", here)
    shorter = here.fork()
    shorter.entries = here.entries[:-1]
    cut = write_run(tmp_path / "cut", shorter)
    evidence = write_evidence(tmp_path / "evidence", whole)
    assert "1 entry" not in terminal("status", evidence)
    with opened(str(whole.path)) as source:
        head = source.checkpoint().encode()
    with opened(str(cut.path)) as source:
        old = source.checkpoint().encode()
    assert len(head) == len(old)
    (tmp_path / "evidence").write_bytes(evidence.read_bytes().replace(head, old))
    terminal("status", evidence, code=1)
    assert "bundle-head" in terminal.err


def test_a_file_that_is_neither_is_refused(terminal: Terminal, run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x00" * 100)
    for path in (tmp_path / "file", run.ledger):
        terminal("log", path, code=2)
        assert "neither a run folder nor an exported bundle" in terminal.err


def test_a_ledger_that_is_none_is_unreadable_evidence(terminal: Terminal, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.ledger.write_bytes(b"hello")
    terminal("log", run.path, code=1)
    assert "ledger-not-a-ledger" in terminal.err


def test_a_changed_entry_is_not_shown(terminal: Terminal, here: World, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", here)
    change_entry(run, 5)
    terminal("show", run.path, 5, code=1)
    terminal("log", run.path, code=1)
    assert terminal.err.startswith("error: ")


def test_many_entries_are_opened_in_their_order_and_none_that_was_changed(
    run: RunFolder, here: World, tmp_path: Path
) -> None:
    with opened(str(run.path)) as source:
        asked = [*range(len(here.entries)), 3] * 5  # enough for several threads
        found = list(read_many(source, asked))
        assert [logged.index for logged, _ in found] == asked
        assert [entry.id for _, entry in found] == [here.entries[index].id for index in asked]
        assert list(read_many(source, [])) == []
    damaged = write_run(tmp_path / "run", here)
    change_entry(damaged, 5)
    with opened(str(damaged.path)) as source:
        assert len(list(read_many(source, [4, 6]))) == 2
        with pytest.raises(EvidenceError):
            list(read_many(source, [4, 5, 6]))


def change_entry(run: RunFolder, index: int) -> None:
    """Change the bytes of a stored entry, as whoever holds the file can."""
    with sqlite3.connect(run.ledger) as raw:
        (guard,) = raw.execute("SELECT sql FROM sqlite_master WHERE name = 'entry_update'").fetchone()
        raw.execute("DROP TRIGGER entry_update")
        raw.execute("UPDATE entry SET envelope = CAST(replace(envelope, 'A', 'B') AS BLOB) WHERE idx = ?", (index,))
        raw.execute(guard)


def test_queries_leave_no_trace_in_the_folder(terminal: Terminal, run: RunFolder) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    for command in COMMANDS:
        terminal(*[run.path if word == "PATH" else word for word in command])
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
