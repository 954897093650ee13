# SPDX-License-Identifier: Apache-2.0
"""What reaches a terminal: nothing that it would act upon, and commands that work when they are pasted."""

import io
import json
import shlex
import stat
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ops import output

HOSTILE = "\x1b[31mred\x07 [bold]markup[/bold] \u202eevil\u2028\x9b2J\x00\r\nnext\ud800"


def test_clean_neutralises_what_a_terminal_acts_upon() -> None:
    text = output.clean(HOSTILE)
    assert text == (r"\x1b[31mred\x07 [bold]markup[/bold] \u202eevil\u2028\x9b2J\x00\r\nnext\ud800")
    assert output.clean("Zürich, 病院\u00a0ok") == "Zürich, 病院 ok"


@given(st.text())
def test_clean_leaves_only_printable_text(text: str) -> None:
    cleaned = output.clean(text)
    assert cleaned.isprintable()
    assert all(unicodedata.category(c)[0] != "C" for c in cleaned)
    cleaned.encode()


@pytest.mark.parametrize("write", [
    lambda: output.line(HOSTILE),
    lambda: output.note(HOSTILE),
    lambda: output.table(("a",), [[HOSTILE]], title=HOSTILE),
    lambda: output.facts([("a", HOSTILE), ("b", [HOSTILE])]),
    lambda: output.emit_json("x", {"a": HOSTILE}),
])  # fmt: skip
@pytest.mark.parametrize("terminal", [False, True])
def test_no_writer_lets_hostile_text_through(
    write: object, terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
    assert callable(write)
    write()
    written = "".join(capsys.readouterr())
    assert "[bold]" in written.replace("\\", "")
    assert not set(written) & {"\x07", "\u202e", "\u2028", "\x9b", "\x00", "\r"}
    assert "\x1b[31m" not in written


def test_tables_are_plain_and_whole_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", "digest"), [["a", "f" * 300], ["bb", "0"]], title="Title")
    assert capsys.readouterr().out.splitlines() == ["Title", "NAME  DIGEST", "a     " + "f" * 300, "bb    0"]


def test_tables_are_drawn_on_a_terminal_without_cutting(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=40, color_system=None, soft_wrap=True)
    monkeypatch.setattr(output, "stdout", lambda: console)
    output.table(("digest",), [["0123456789" * 3]])
    assert "─" in screen.getvalue()
    output.table(("round", "digest"), [["1", "f" * 100]], title="Title")  # too wide in any form: nothing is cut
    assert screen.getvalue().splitlines()[-4:] == ["Title", "round   1", "digest  " + "f" * 100, ""]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_on_a_narrow_terminal_columns_go_and_words_stay_whole(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(output, "stdout", lambda: console)
    row = ["87", "2026-11-23 00:41:00Z", "record", "1", "site-01 (…abcdefgh)", "model 0123456789ab of 6 updates; omitted: site-03 digest-mismatch",
           "fedcba987654"]  # fmt: skip
    output.table(("index", "at", "kind", "round", "member", "says", "entry"), [row], drop=("entry", "at"))
    drawn = screen.getvalue()
    assert max(map(len, drawn.splitlines())) <= width
    for word in ["site-01 (…abcdefgh)", *row[5].split()]:
        assert word in drawn
    assert ("2026-11-23 00:41:00Z" in drawn) == ("AT" in drawn.upper().split())
    assert ("fedcba987654" in drawn) == (width > 100)
    left = {80: "at, entry", 100: "entry"}.get(width)
    assert (f"not shown for want of room: {left} " in drawn) == (left is not None)


def test_what_the_encoding_has_no_character_for_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    output.line("…abc")
    output.table(("did",), [["…abc"]])
    sys.stdout.flush()
    assert raw.getvalue().splitlines() == [rb"\u2026abc", b"DID", rb"\u2026abc"]


def test_json_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_json("status", {"a": "é\x1b"})
    written = capsys.readouterr().out
    assert written.isascii()
    assert json.loads(written) == {"fedledger": "status/v1", "a": "é\x1b"}


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "1970-01-01 00:00:00Z"), (1_800_000_000, "2027-01-15 08:00:00Z"), (10**18, f"{10**18} s"), (-(10**18), f"{-(10**18)} s"),
])  # fmt: skip
def test_when(seconds: int, text: str) -> None:
    assert output.when(seconds) == text


def install(folder: Path) -> Path:
    """A script called fedledger."""
    folder.mkdir(parents=True)
    script = folder / "fedledger"
    script.write_text("#!/bin/sh\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return script


def test_a_command_is_pasted_by_its_path_where_the_shell_would_not_find_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = install(tmp_path / ".venv" / "bin")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", "/usr/bin")
    assert output.command_line("status", "runs/a b") == ".venv/bin/fedledger status 'runs/a b'"
    monkeypatch.chdir(tmp_path / ".venv")
    assert output.command_line() == "bin/fedledger"
    monkeypatch.chdir(tmp_path / ".venv" / "bin")
    assert output.command_line() == "./fedledger"
    monkeypatch.chdir("/")
    assert shlex.split(output.command_line())[0] == str(script).removeprefix("/")


def test_a_command_is_pasted_by_its_name_where_the_shell_finds_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = install(tmp_path / "bin")
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", str(script.parent))
    assert output.command_line("log") == "fedledger log"


def test_another_installation_of_the_name_is_not_what_is_pasted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours, theirs = install(tmp_path / "ours"), install(tmp_path / "theirs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(ours)])
    monkeypatch.setenv("PATH", str(theirs.parent))
    assert output.command_line("log") == "ours/fedledger log"


def test_without_a_script_the_module_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/pytest"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(tmp_path)
    assert output.command_line("log") == "./python -m ops.cli log"


def test_long_text_is_wrapped_at_words_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    words, did = ["several"] * 20, "did:key:" + "z" * 60
    for terminal in (True, False):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=terminal, width=40, color_system=None, soft_wrap=True)
        monkeypatch.setattr(output, "stdout", lambda made=console: made)
        output.facts([("says", " ".join([*words, did]))])
        output.paragraph(" ".join([*words, did]), indent="    ")
        lines = screen.getvalue().splitlines()
        assert screen.getvalue().split() == ["says", *words, did, *words, did]
        assert (len(lines) == 2) != terminal
        assert not terminal or all(len(line) <= 40 or did in line for line in lines)
        assert all(line.startswith("    ") for line in lines[1:])
