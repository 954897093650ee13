# SPDX-License-Identifier: Apache-2.0
"""A line carries calls and answers, ends with either side, and reads no more than it may."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from coordinator import line as module
from coordinator.line import Exchange, Line
from identity.errors import Error, EvidenceError
from participant.ports import TrainFailure


def carry_out(method: str, *arguments: Any) -> Any:
    """Answers with a failure that says what was asked for."""
    if method == "refuse":
        raise EvidenceError("sum-mixed", "Two rounds.")
    return [TrainFailure(method, "did:key:x", "training-failed", repr(arguments))]


def said(answer: Any) -> tuple[str, str]:
    return answer[0].site, answer[0].message


@contextmanager
def serving(path: str, callers: int = 1) -> Iterator[threading.Thread]:
    """A worker that serves so many callers, one after the other."""
    exchange = Exchange(path)
    thread = threading.Thread(target=lambda: [exchange.serve(carry_out) for _ in range(callers)])
    thread.start()
    yield thread
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A short one: a socket's has room for 107 bytes."""
    monkeypatch.chdir(tmp_path)
    return "line"


def test_calls_are_answered_in_order_until_the_caller_hangs_up(path: str) -> None:
    with serving(path):
        line = Line(path)
        for number in range(3):
            line.ask(f"method {number}", None)
            assert said(line.answer()) == (f"method {number}", "(None,)")
        line.close()


def test_the_next_caller_is_served_after_the_last_one(path: str) -> None:
    with serving(path, callers=2):
        first, second = Line(path), Line(path)  # the second waits
        second.ask("second", None)
        first.ask("first", None)
        assert said(first.answer())[0] == "first"
        assert not second.answered
        first.close()
        assert said(second.answer())[0] == "second"
        second.close()


def test_an_error_is_an_answer_and_the_line_goes_on(path: str) -> None:
    with serving(path):
        line = Line(path)
        line.ask("refuse")
        refused = line.answer()
        assert (type(refused), refused.code) == (EvidenceError, "sum-mixed")
        line.ask("train", None)
        assert said(line.answer())[0] == "train"
        line.close()


def test_a_line_can_be_waited_for(path: str) -> None:
    with serving(path):
        line = Line(path)
        assert not line.answered
        assert wait([line], 0) == []  # type: ignore[list-item]  # anything with a fileno
        line.ask("train", None)
        assert wait([line], 60) == [line]  # type: ignore[list-item]  # anything with a fileno
        assert line.answered
        line.close()


def test_a_large_call_and_its_answer_arrive(path: str) -> None:
    text = "x" * 3_000_000  # more than a socket holds
    with serving(path):
        line = Line(path)
        line.ask(text, None)
        assert said(line.answer())[0] == text
        line.close()


def test_a_caller_that_has_gone_does_not_end_the_worker(path: str) -> None:
    with serving(path, callers=2):
        rude = Line(path)
        rude.ask("train", None)
        rude.close()  # before the answer
        line = Line(path)
        line.ask("train", None)
        assert said(line.answer())[0] == "train"
        line.close()


@contextmanager
def listener(path: str, answers: bytes) -> Iterator[None]:
    """A worker that has gone wrong: it takes a call, says something and hangs up."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)
        made.listen(1)

        def serve() -> None:
            with made.accept()[0] as connection:
                connection.recv(1 << 16)
                connection.sendall(answers)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(60)


@pytest.mark.parametrize(
    "answers",
    [b"", b"\0\0", (5).to_bytes(4, "big") + b"abc", (1 << 30).to_bytes(4, "big"), b"\xff" * 12],
    ids=["nothing", "half a length", "half an answer", "too long", "too long for memory"],
)
def test_a_worker_that_breaks_off_is_gone(path: str, answers: bytes) -> None:
    with listener(path, answers):
        line = Line(path)
        line.ask("train", None)
        assert wait([line], 60)  # type: ignore[list-item]  # anything with a fileno
        with pytest.raises((EOFError, OSError)):
            line.answer()


def test_an_answer_that_is_none_is_an_error(path: str) -> None:
    with listener(path, (3).to_bytes(4, "big") + b"\x80\x04N"):  # a pickle, for one
        line = Line(path)
        line.ask("train", None)
        answer = line.answer()
        assert isinstance(answer, Error)
        assert answer.code == "worker-answer"


def test_a_worker_that_does_not_read_is_not_waited_for_without_end(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEND_SECONDS", 1)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)
        made.listen(1)
        line = Line(path)
        with pytest.raises(OSError, match="temporarily unavailable"):
            line.ask("x" * 10_000_000)
        line.close()


def test_nobody_listens(path: str) -> None:
    with pytest.raises(OSError, match="No such file"):
        Line(path)
    Path(path).touch()
    with pytest.raises(OSError, match="refused"):
        Line(path)
