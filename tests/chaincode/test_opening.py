# SPDX-License-Identifier: Apache-2.0
"""Opening a long log: the same entries and refusals in the same order, whoever opens them and whatever becomes of it."""

import io
import marshal
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from chaincode import children, opening
from chaincode.entries import open_entry
from chaincode.log import leaf_hash
from chaincode.opening import opened
from identity.errors import EvidenceError
from tests.chaincode.ledgers.stream import Stream

STREAM = Stream(sites=3)
GOOD = STREAM.whole(rounds=3)
# Sound in all but its signature, which is another entry's.
FORGED = GOOD[-1].partition(b'"sig":"')[0] + b"".join(GOOD[-2].partition(b'"sig":"')[1:])
BAD = [b"", b"{}", b"\xff" * 50, GOOD[3][:-1], GOOD[4].replace(b'"sig":"', b'"sig":"A', 1), GOOD[0].swapcase(), FORGED]
LOG = [*GOOD[:5], *BAD, *GOOD[5:]] * 3


def plain(data: bytes) -> tuple[bytes, bytes, object]:
    try:
        return data, leaf_hash(data), open_entry(data)
    except EvidenceError as error:
        return data, leaf_hash(data), (error.code, error.message)


def comparable(rows: Any) -> list[tuple[bytes, bytes, object]]:
    return [(d, leaf, (e.code, e.message) if isinstance(e, EvidenceError) else e) for d, leaf, e in rows]


EXPECTED = [plain(data) for data in LOG]


def test_what_is_refused_is_refused_for_its_form_and_for_its_signature() -> None:
    codes = [found[0] for _, _, found in map(plain, BAD) if isinstance(found, tuple)]
    assert codes[-1] == "signature-invalid"
    assert "signature-invalid" not in codes[:-1]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of five, and two children from the third batch on."""
    monkeypatch.setattr(opening, "_BATCH", 5)
    monkeypatch.setattr(opening, "_LONG", 3)
    monkeypatch.setattr(opening, "PROCESSES", 3)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list["subprocess.Popen[bytes]"]:
    """The children that were started."""
    made: list[subprocess.Popen[bytes]] = []
    real: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen

    def start(*arguments: Any, **named: Any) -> "subprocess.Popen[bytes]":
        made.append(real(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return made


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 10])
def test_a_short_log_is_opened_without_children(small: None, started: list[Any], count: int) -> None:
    assert comparable(opened(LOG[:count])) == EXPECTED[:count]
    assert started == []


@pytest.mark.parametrize("count", [11, 15, 16, 31, len(LOG)])
def test_a_long_log_is_opened_by_children_and_none_stays(small: None, started: list[Any], count: int) -> None:
    assert comparable(opened(iter(LOG[:count]))) == EXPECTED[:count]
    assert len(started) == 2
    assert all(child.returncode is not None for child in started)


def test_one_core_starts_no_child(small: None, started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "PROCESSES", 1)
    assert comparable(opened(LOG)) == EXPECTED
    assert started == []


@pytest.mark.parametrize("after", [0, 7, 40])
def test_a_child_that_is_killed_leaves_its_entries_to_this_process(small: None, started: list[Any], after: int) -> None:
    rows = opened(LOG)
    found = [next(rows)]
    for number, row in enumerate(rows):
        found.append(row)
        if number == after:
            started[0].kill()
    assert comparable(found) == EXPECTED


def test_this_process_opens_entries_while_a_child_is_not_ready(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child begins when three batches were opened here; what it is to read first is more than a pipe holds."""
    monkeypatch.setattr(children, "_PIPE", 4096)
    program, gate = tmp_path / "program", tmp_path / "gate"
    program.write_text(f"#!/bin/sh\nread go < '{gate}'\nexec '{sys.executable}' \"$@\"\n")
    program.chmod(0o700)
    os.mkfifo(gate)
    here, real = list[int](), opening._open_some

    def open_some(batch: Sequence[bytes]) -> list[opening.Opened]:
        here.append(len(batch))
        if len(here) == 3:
            gate.write_text("go\n")
        return real(batch)

    monkeypatch.setattr(opening, "_open_some", open_some)
    monkeypatch.setattr(opening, "PROCESSES", 2)
    monkeypatch.setattr("sys.executable", str(program))
    assert comparable(opened(LOG)) == EXPECTED
    assert 3 <= len(here) <= -(-len(LOG) // 5) - children._AHEAD


@pytest.mark.parametrize("program", ["/bin/false", "/nowhere/python"])
def test_what_is_no_child_of_ours_opens_nothing(small: None, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends at once, and one that does not start."""
    monkeypatch.setattr("sys.executable", program)
    assert comparable(opened(LOG)) == EXPECTED


@pytest.mark.parametrize(
    "says", ["a greeting that is no frame", "\0\0\0\0\0\0\0\2ab", "\0\0\0\0\0\0\0\5[\0\0\0\0", "\0" * 9]
)
def test_a_child_that_says_something_else_is_not_heard(
    small: None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "said").write_bytes(says.encode())
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ncat '{tmp_path}/said'\nexec cat > /dev/null\n")
    program.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(program))
    assert comparable(opened(LOG)) == EXPECTED


def test_the_child_ends_where_it_cannot_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(children, "read_frame", read)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    opening._serve(io.BytesIO(), io.BytesIO())


def test_a_reader_that_stops_early_ends_the_children(small: None, started: list[Any]) -> None:
    rows = opened(LOG)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert len(started) == 2
    assert all(child.returncode is not None for child in started)


def test_the_sources_own_error_passes_and_ends_the_children(small: None, started: list[Any]) -> None:
    def broken() -> Any:
        yield from LOG[:33]
        raise EvidenceError("bundle-entries", "cut off")

    with pytest.raises(EvidenceError, match="bundle-entries"):
        list(opened(broken()))
    assert len(started) == 2
    assert all(child.returncode is not None for child in started)


def test_a_batch_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_BATCH_BYTES", 1000)
    batches = list(opening._batches(iter([b"x" * 400] * 5 + [b"y" * 5000] + [b"z"] * 100)))
    assert [len(b) for b in batches] == [3, 3, 64, 36]


def test_the_child_answers_each_frame_and_ends_with_its_input() -> None:
    source, sink = io.BytesIO(), io.BytesIO()
    frames = SimpleQueue[bytes | None]()
    for batch in (LOG[:3], [b""]):
        frames.put(marshal.dumps(batch))
    frames.put(None)
    children.write_frames(source, frames)
    source.seek(0)
    opening._serve(source, sink)
    sink.seek(0)
    first, second = children.read_frame(sink), children.read_frame(sink)
    assert children.read_frame(sink) is None
    assert [leaf for leaf, _ in first] == [leaf_hash(data) for data in LOG[:3]]
    assert [opening._from_row(fields, data) for (_, fields), data in zip(first, LOG, strict=False)] == [
        e for _, _, e in EXPECTED[:3]
    ]
    assert second[0][1][0] == "json-syntax"
