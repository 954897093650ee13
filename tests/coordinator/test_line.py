# SPDX-License-Identifier: Apache-2.0
"""A line carries calls and answers, ends with either side, and reads no more than it may."""

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest

from coordinator import line as module
from coordinator.line import Exchange, Line
from coordinator.wire import write_answer
from identity.errors import Error, EvidenceError
from participant.ports import TrainFailure, TrainOrder
from tests.coordinator.scripted_pool import order


def carry_out(method: str, base: None = None, orders: Sequence[TrainOrder] = ()) -> Any:
    """Answers to each order with a failure that says what was asked for."""
    if method == "refuse":
        raise EvidenceError("sum-mixed", "Two rounds.")
    if method == "talk":
        return "nonsense"
    return [TrainFailure(o.site, o.header.member, "training-failed", o.outbox) for o in orders]


def ask(line: Line, site: str = "site-01", outbox: str = "/nowhere") -> None:
    line.ask("train", None, [replace(order(site), outbox=outbox)])


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
            ask(line, f"site-{number}")
            assert said(line.answer()) == (f"site-{number}", "/nowhere")
        line.close()


def test_the_next_caller_is_served_after_the_last_one(path: str) -> None:
    with serving(path, callers=2):
        first, second = Line(path), Line(path)  # the second waits
        ask(second, "second")
        ask(first, "first")
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
        ask(line)
        assert said(line.answer())[0] == "site-01"
        line.close()


def test_a_line_can_be_waited_for(path: str) -> None:
    with serving(path):
        line = Line(path)
        assert not line.answered
        assert wait([line], 0) == []  # type: ignore[list-item]  # anything with a fileno
        ask(line)
        assert wait([line], 60) == [line]  # type: ignore[list-item]  # anything with a fileno
        assert line.answered
        line.close()


def test_a_large_call_and_its_answer_arrive(path: str) -> None:
    text = "x" * 3_000_000  # more than a socket holds
    with serving(path):
        line = Line(path)
        ask(line, outbox=text)
        assert said(line.answer())[1] == text
        line.close()


def test_a_caller_that_has_gone_does_not_end_the_worker(path: str) -> None:
    with serving(path, callers=2):
        rude = Line(path)
        ask(rude)
        rude.close()  # before the answer
        line = Line(path)
        ask(line)
        assert said(line.answer())[0] == "site-01"
        line.close()


@contextmanager
def listener(path: str, answers: bytes, *, hangs_up: bool = True) -> Iterator[None]:
    """A worker that has gone wrong: it takes a call, says something, and then hangs up or nothing at all."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)
        made.listen(1)
        over = threading.Event()

        def serve() -> None:
            with made.accept()[0] as connection:
                connection.recv(1 << 16)
                connection.sendall(answers)
                over.wait(0 if hangs_up else 60)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        over.set()
        thread.join(60)


@contextmanager
def dripping(path: str, answers: bytes, *, every: float) -> Iterator[None]:
    """A worker that takes a call and says something, a byte at a time with so many seconds between them, until nobody listens."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)
        made.listen(1)

        def serve() -> None:
            with made.accept()[0] as connection, suppress(ConnectionError):
                connection.recv(1 << 16)
                for byte in answers:
                    connection.sendall(bytes([byte]))
                    time.sleep(every)

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
        ask(line)
        assert wait([line], 60)  # type: ignore[list-item]  # anything with a fileno
        with pytest.raises((EOFError, OSError)):
            line.answer()


@pytest.mark.parametrize("answers", [b"\0\0", (5).to_bytes(4, "big") + b"abc"], ids=["half a length", "half an answer"])
def test_a_worker_that_stops_in_the_middle_is_not_waited_for_without_end(
    path: str, answers: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 1)
    with listener(path, answers, hangs_up=False):
        line = Line(path)
        ask(line)
        assert wait([line], 60)  # type: ignore[list-item]  # anything with a fileno
        with pytest.raises(OSError, match="temporarily unavailable"):
            line.answer()
        line.close()


@pytest.mark.parametrize(
    ("answers", "every"),
    [((9).to_bytes(4, "big") + b"123456789", 0.25), ((1 << 20).to_bytes(4, "big") + bytes(3000), 0.001)],
    ids=["a few bytes", "many bytes"],
)
def test_a_worker_that_says_a_byte_now_and_then_is_not_heard_to_the_end(
    path: str, answers: bytes, every: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 1)
    with dripping(path, answers, every=every):
        line = Line(path)
        ask(line)
        assert wait([line], 60)  # type: ignore[list-item]  # anything with a fileno
        began = time.monotonic()
        with pytest.raises(OSError, match="temporarily unavailable"):
            line.answer()
        assert 0.9 < time.monotonic() - began < 2
        line.close()


@contextmanager
def answered_in_pieces(path: str, *, every: float) -> Iterator[Line]:
    """A line on which a worker is about to answer a byte at a time; at the end the answer is read, and must be whole."""
    text = write_answer(1, Error("said", "so"))
    with dripping(path, len(text).to_bytes(4, "big") + text, every=every):
        line = Line(path)
        ask(line)
        yield line
        answer = line.answer()
        assert (answer.code, answer.message) == ("said", "so")
        line.close()


def test_an_answer_in_pieces_is_one_where_it_comes_in_time(path: str) -> None:
    with answered_in_pieces(path, every=0.001) as line:
        assert not line.complete


def test_an_answer_is_here_when_all_of_it_is(path: str) -> None:
    with serving(path):
        line = Line(path)
        assert not line.arrives(0.01), "nothing was asked"
        ask(line)
        assert wait([line], 60) == [line]  # type: ignore[list-item]  # anything with a fileno
        assert line.arrives(0), "it is here: nobody waits for it"
        assert line.complete
        assert line.answered
        assert wait([line], 0) == [], "it has been received"  # type: ignore[list-item]  # anything with a fileno
        assert said(line.answer())[0] == "site-01"
        assert not line.complete
        line.close()


@pytest.mark.parametrize(
    "answers",
    [b"", b"\0\0", (5).to_bytes(4, "big") + b"abc", b"\xff" * 12],
    ids=["nothing", "half a length", "half an answer", "too long"],
)
def test_half_an_answer_is_not_here_and_is_soon_given_up(path: str, answers: bytes) -> None:
    with listener(path, answers, hangs_up=False):
        line = Line(path)
        ask(line)
        began = time.monotonic()
        for _ in range(3):
            assert not line.arrives(0.05)
        assert time.monotonic() - began < 2
        line.close()


def test_what_came_before_is_not_forgotten(path: str) -> None:
    with answered_in_pieces(path, every=0.002) as line:
        while not line.arrives(0.004):  # in the middle of it, again and again
            assert not line.complete


def test_a_call_that_is_too_long_is_not_begun(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(path):
        line = Line(path)
        with monkeypatch.context() as patch:
            patch.setattr(module, "LONGEST", 100)
            with pytest.raises(OSError, match="too long"):
                ask(line)
        ask(line)
        assert said(line.answer())[0] == "site-01"
        line.close()


def test_what_ends_a_workers_serving_is_raised_there(path: str) -> None:
    exchange, raised = Exchange(path), list[str]()

    def serve() -> None:
        try:
            exchange.serve(carry_out)
        except TypeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=serve)
    thread.start()
    line = Line(path)
    line.ask("talk")
    with pytest.raises(EOFError):
        line.answer()
    thread.join(60)
    assert raised == ["a str is no answer to a light call"]


def test_an_answer_that_is_none_is_an_error(path: str) -> None:
    with listener(path, (3).to_bytes(4, "big") + b"\x80\x04N"):  # a pickle, for one
        line = Line(path)
        ask(line)
        answer = line.answer()
        assert isinstance(answer, Error)
        assert answer.code == "worker-answer"


def test_a_worker_that_does_not_read_is_not_waited_for_without_end(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_SECONDS", 1)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)
        made.listen(1)
        line = Line(path)
        began = time.monotonic()
        with pytest.raises(OSError, match="temporarily unavailable"):
            line.ask("x" * 10_000_000)
        assert time.monotonic() - began < 1.9, "it has been waited for once, not for each piece that was taken"
        line.close()


def test_nobody_listens(path: str) -> None:
    with pytest.raises(OSError, match="No such file"):
        Line(path)
    Path(path).touch()
    with pytest.raises(OSError, match="refused"):
        Line(path)
