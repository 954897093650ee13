# SPDX-License-Identifier: Apache-2.0
"""What ``fedledger run`` says when a run does not come to its end: the command that goes on with it, with all that was asked for."""

import shlex
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from identity.errors import CredentialError, Rejected, Unavailable, UsageError
from identity.keys import Keystore
from ops import settings
from ops.commands import run
from ops.run_folder import RunFolder
from tests.ops.runs import Terminal
from tests.ops.test_run_command import SMALL

Asked = list[tuple[Any, ...]]


@pytest.fixture
def file() -> Path:
    """A federation file whose path a shell would take apart."""
    path = Path("a folder/it's small.toml")
    path.parent.mkdir()
    path.write_text(SMALL.format(task="breast-cancer", rounds=1))
    Path("pass phrase").write_text("correct horse\n")
    return path


def ending(monkeypatch: pytest.MonkeyPatch, end: BaseException) -> Asked:
    """Let each run end so; what each was asked to do."""
    asked: Asked = []

    def carry_out(begin: "partial[Any]", _: Any, events: str | None) -> None:
        asked.append((*begin.args, events))
        raise end

    monkeypatch.setattr(run, "carry_out", carry_out)
    monkeypatch.setattr(settings, "prepare_ray", lambda *_, **__: None)
    return asked


def pasted(line: str) -> list[str]:
    """The words of a command that was shown, without the program's name."""
    words = shlex.split(line)
    return words[words.index("run") :]


@pytest.mark.parametrize(
    "options",
    [
        [], ["--workers", "2", "--no-baselines"], ["--events", "the events"], ["--dir", "$HOME; run", "--json"],
        ["--passphrase-file", "pass phrase", "--no-dashboard"], ["--ray-address", "127.0.0.1:1", "--ledger", "embedded"],
    ],
)  # fmt: skip
def test_the_command_that_goes_on_asks_for_the_same(
    terminal: Terminal, file: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    asked = ending(monkeypatch, KeyboardInterrupt())
    terminal("run", file, *options, code=130)
    again = pasted(terminal.err.partition("goes on with:\n")[2].splitlines()[0])
    assert sorted(again) == sorted(["run", str(file), *options])
    terminal(*again, code=130)
    assert asked[0] == asked[1]


def test_what_may_help_later_is_tried_again_with_the_same_command(
    terminal: Terminal, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ending(monkeypatch, Unavailable("aggregation-timeout", "No answer."))
    terminal("run", file, "--workers", 2, code=3)
    terminal(*pasted(terminal.err.partition("next: ")[2]), code=3)
    assert asked[0] == asked[1]
    ending(monkeypatch, Unavailable("run-in-progress", "Another process.", next="fedledger status x"))
    terminal("run", file, code=3)
    assert "next: " in terminal.err
    assert " status x" in terminal.err


def test_a_folder_that_is_no_run_is_left_for_another_one(terminal: Terminal, file: Path) -> None:
    Path("mine").mkdir()
    Path("mine/federation.toml").write_text("my own")
    terminal("run", file, "--dir", "mine", code=2)
    assert "[run-folder-taken]" in terminal.err
    assert pasted(terminal.err.partition("next: ")[2]) == ["run", str(file), "--dir", "mine-2"]
    assert Path("mine/federation.toml").read_text() == "my own"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("My", "has no class My; its classes are MyTask, Other. "),
        ("MyTask", "line 2: the class MyTask has no build_model and no site_data, which every task needs. "),
        ("Other", "line 4: the class Other is not derived from Task. "),
    ],
)
def test_a_class_that_is_no_task_is_missed_before_anything_is_written(terminal: Terminal, name: str, says: str) -> None:
    Path("task.py").write_text(
        "from participant import Task\nclass MyTask(Task):\n    name = 'mine'\nclass Other: pass\n"
    )
    Path("small.toml").write_text(SMALL.format(task=f"task.py:{name}", rounds=1))
    before = sorted(Path().iterdir())
    terminal("run", "small.toml", "--events", "events", code=2)
    assert terminal.err.startswith(f'error: small.toml:3: task = "task.py:{name}": ')
    assert says in terminal.err
    assert "[task-class]\nnext: " in terminal.err
    assert sorted(Path().iterdir()) == before


def test_a_task_file_that_is_not_there_is_missed_at_its_line(terminal: Terminal) -> None:
    Path("small.toml").write_text(SMALL.format(task="mine.py:Task", rounds=1))
    terminal("run", "small.toml", code=2)
    missing = Path("mine.py").absolute()
    assert terminal.err.startswith(f'error: small.toml:3: task = "mine.py:Task": There is no file {missing} ')
    assert "[task-missing]\nnext: " in terminal.err
    assert not Path("runs").exists()


def test_a_run_that_cannot_go_on_is_begun_anew_with_the_same_options(
    terminal: Terminal, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ending(monkeypatch, Rejected("attempts-exhausted", "No further attempt."))
    terminal("run", file, "--dir", "one", "--workers", 2, "--no-baselines", code=1)
    terminal(*pasted(terminal.err.partition("next: ")[2]), code=1)
    (file_, folder, options, events), other = asked
    assert other == (file_, type(folder)(Path("one-2")), options, events)


def test_a_task_that_is_mended_before_anything_was_signed_goes_on_with_the_same_command(
    terminal: Terminal, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, UsageError("task-evaluation", "evaluate() raises KeyError: 1 (mine.py, line 7)"))
    terminal("run", file, "--workers", 2, code=2)
    assert pasted(terminal.err.partition("next: ")[2]) == ["run", str(file), "--workers", "2"]


def test_a_run_on_a_channel_is_begun_anew_on_another_one(
    terminal: Terminal, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, Rejected("attempts-exhausted", "No further attempt."))
    terminal("run", file, "--ledger", "fabric", code=1)
    wanted = ["run", str(file), "--ledger", "fabric", "--dir", "runs/small-2", "--fabric-dir", ".fabric-2"]
    assert pasted(terminal.err.partition("next: ")[2]) == wanted


@pytest.mark.parametrize(
    ("encrypted", "given", "wanted"),
    [
        (True, [], ["--workers", "2", "--passphrase-file", "FILE"]),
        (True, ["--passphrase-file", "pass phrase"], ["--workers", "2", "--passphrase-file", "FILE"]),
        (False, ["--passphrase-file", "pass phrase"], ["--workers", "2"]),
    ],
    ids=["missing", "wrong", "not needed"],
)
def test_a_passphrase_that_does_not_open_the_keys_is_asked_for_anew(
    terminal: Terminal,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    encrypted: bool,
    given: list[str],
    wanted: list[str],
) -> None:
    place = RunFolder(Path("runs/small"))
    place.create()
    Keystore.create(place.keystore, "battery staple" if encrypted else None)
    with pytest.raises(CredentialError) as caught:
        Keystore.open(place.keystore, "correct horse" if given else None)
    ending(monkeypatch, caught.value)
    terminal("run", file, "--workers", 2, *given, code=1)
    assert sorted(pasted(terminal.err.partition("next: ")[2])) == sorted(["run", str(file), *wanted])


def test_a_passphrase_of_the_environment_that_is_not_needed(
    terminal: Terminal, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = RunFolder(Path("runs/small"))
    place.create()
    Keystore.create(place.keystore, None)
    ending(monkeypatch, CredentialError("keystore-passphrase", "keystore.json takes no passphrase."))
    monkeypatch.setenv("FEDLEDGER_PASSPHRASE_FILE", "pass phrase")
    terminal("run", file, code=1)
    assert terminal.err.endswith("next: unset FEDLEDGER_PASSPHRASE_FILE\n")


def test_a_missing_folder_of_the_events_is_to_be_made(terminal: Terminal, file: Path) -> None:
    terminal("run", file, "--events", "no such/folder/events", code=2)
    assert "There is no folder no such/folder" in terminal.err
    assert terminal.err.endswith("next: mkdir -p 'no such/folder'\n")
    assert not Path("runs").exists()


@pytest.mark.parametrize("content", [None, b"", b"\nsecond line\n"])
def test_a_file_without_a_passphrase_is_refused_with_what_to_do(
    terminal: Terminal, file: Path, content: bytes | None
) -> None:
    if content is not None:
        Path("empty").write_bytes(content)
    terminal("run", file, "--passphrase-file", "empty", code=2)
    assert "next: write the passphrase into the first line of empty" in terminal.err
    assert not Path("runs").exists()
