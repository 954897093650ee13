# SPDX-License-Identifier: Apache-2.0
"""The command line as a whole: the registry, exit codes, what is said on an error, and how fast help is."""

import errno
import os
import pty
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import typer

from identity.errors import (
    CredentialError,
    Error,
    EvidenceError,
    OutcomeUnknown,
    Rejected,
    Unavailable,
    UsageError,
)
from ops import command_line as cli
from ops import output
from tests.ops.runs import Terminal

ROOT = Path(__file__).resolve().parents[2]


def start(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """A command line in a process of its own."""
    command = [sys.executable, "-m", "ops.cli", *arguments]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_is_a_file_whose_help_begins_with_its_summary(name: str) -> None:
    module = import_module(f"ops.commands.{name}")
    assert isinstance(module.app, typer.Typer)
    assert cli.load(name).get_short_help_str(200) == cli.COMMANDS[name].rstrip(".") or (
        cli.load(name).help.splitlines()[0] == cli.COMMANDS[name]
    )


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_has_help(terminal: Terminal, name: str) -> None:
    assert f"Usage: fedledger {name}" in terminal(name, "--help")


def test_help_names_every_command_and_loads_none() -> None:
    code = (
        "import sys, ops.command_line; code = ops.command_line.run(['--help']);"
        "print(sorted(m for m in sys.modules if m.startswith('ops.commands.') or m in {'torch', 'ray', 'numpy', 'cryptography'}));"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(summary in done.stdout for summary in cli.COMMANDS.values())


def test_help_takes_less_than_a_third_of_a_second() -> None:
    def seconds() -> float:
        begun = time.perf_counter()
        assert start("--help").returncode == 0
        return time.perf_counter() - begun

    assert min(seconds() for _ in range(5)) <= 0.3


def test_the_version(terminal: Terminal) -> None:
    assert terminal("--version").startswith("fedledger ")


def test_without_a_command_there_is_help_and_the_code_for_usage(terminal: Terminal) -> None:
    assert "Usage: fedledger" in terminal(code=2)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lgo"], "Did you mean 'log'?"),
        (["log", "--kidn", "x"], "--kidn"),
        (["log", "--limit", "-1"], "limit"),
        (["agreement"], "Missing command"),
        (["agreement", "shwo"], "'show'"),
        (["show"], "ENTRY"),
        (["show", "a", "b", "c"], "3 values"),
        (["trace"], "--model, --did and --update"),
        (["log", "no-such-folder"], "no-such-folder"),
        (["log", "--since", "yesterday"], "2026-11-23"),
        (["log", "--kind", "nonsense"], "found, amend"),
        (["status"], "holds a run"),
        (["verify", "absent.safetensors"], "absent.safetensors"),
        (["credential", "verify", "absent.jwt"], "absent.jwt"),
    ],
)
def test_usage_errors(terminal: Terminal, arguments: list[str], says: str) -> None:
    assert terminal(*arguments, code=2) == ""
    first = terminal.err.splitlines()[0]
    assert first.startswith("error: ")
    assert first.endswith("]")
    assert says in terminal.err
    assert "Traceback" not in terminal.err


class Failing(Terminal):
    """A terminal in which the command `doctor` fails as told."""

    def fail(self, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> str:
        def command() -> None:
            """Fail."""
            raise error

        app = typer.Typer(add_completion=False)
        app.command()(command)
        monkeypatch.setattr(import_module("ops.commands.doctor"), "app", app)
        assert self("doctor", code=code) == ""
        return self.err


@pytest.fixture
def failing(capsys: pytest.CaptureFixture[str]) -> Failing:
    return Failing(capsys)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("a-code", "Text."), 2),
        (EvidenceError("a-code", "Text."), 1),
        (CredentialError("a-code", "Text."), 1),
        (Rejected("a-code", "Text."), 1),
        (Error("a-code", "Text."), 1),
        (Unavailable("a-code", "Text."), 3),
        (OutcomeUnknown("a-code", "Text."), 3),
        (KeyboardInterrupt(), 130),
        (typer.Exit(1), 1),
        (FileNotFoundError(errno.ENOENT, "Text", "file"), 2),
        (PermissionError(errno.EACCES, "Text", "file"), 2),
        (OSError(errno.ENOSPC, "Text", "file"), 3),
        (OSError("Text"), 3),
        (ValueError("Text"), 70),
        (RecursionError("Text"), 70),
        (MemoryError("Text"), 70),
    ],
)
def test_errors_become_exit_codes(
    failing: Failing, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = failing.fail(monkeypatch, error, code)
    assert "Traceback" not in said
    if isinstance(error, Error):
        assert said == "error: Text. [a-code]\n"


def test_an_error_says_its_details_and_the_next_command(failing: Failing, monkeypatch: pytest.MonkeyPatch) -> None:
    error = UsageError("a-code", "First \x1b[31m.\nallowed: x", next="fedledger log --kind open")
    assert failing.fail(monkeypatch, error, 2).splitlines() == [
        "error: First \\x1b[31m. [a-code]",
        "  allowed: x",
        f"next: {output.command_line('log', '--kind', 'open')}",
    ]


def test_an_internal_error_says_where_its_traceback_is(
    failing: Failing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said = failing.fail(monkeypatch, ZeroDivisionError("seven"), 70)
    (written,) = tmp_path.glob("fedledger-error-*.txt")
    assert "ZeroDivisionError: seven" in said
    assert str(written) in said
    assert "Traceback (most recent call last)" in written.read_text()
    assert written.stat().st_mode & 0o077 == 0


def test_the_exit_code_reaches_the_shell() -> None:
    assert start("--version").returncode == 0
    done = start("status", "/no/such/folder")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")


def test_a_reader_that_has_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ops.cli", "doctor"]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == 141


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    variables = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-m", "ops.cli", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs,
        env=variables | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment,
    ) as process:  # fmt: skip
        os.close(theirs)
        written = b""
        try:
            while chunk := os.read(ours, 65536):
                written += chunk
        except OSError:  # the other side of a terminal has closed
            pass
        process.wait(60)
    os.close(ours)
    return written.decode()


def test_colours_on_a_terminal_unless_they_are_unwanted() -> None:
    assert "\x1b[" in on_a_terminal("status", "/no/such/folder")
    assert "\x1b[" not in on_a_terminal("status", "/no/such/folder", NO_COLOR="1")
    assert "\x1b[3" not in start("status", "/no/such/folder").stderr


def test_help_is_drawn_on_a_terminal() -> None:
    assert "╭" in on_a_terminal("--help")
    assert all(summary in on_a_terminal("--help", COLUMNS="120") for summary in cli.COMMANDS.values())


def test_completion_of_commands_needs_none_of_them() -> None:
    environment = os.environ | {"_FEDLEDGER_COMPLETE": "complete_bash", "COMP_WORDS": "fedledger a", "COMP_CWORD": "1"}
    done = start(env=environment)
    assert set(done.stdout.split()) == {"agreement", "audit"}


def test_completion_of_kinds() -> None:
    words = {"_FEDLEDGER_COMPLETE": "complete_bash", "COMP_WORDS": "fedledger log --kind re", "COMP_CWORD": "3"}
    assert set(start(env=os.environ | words).stdout.split()) == {"revoke", "record", "release"}
