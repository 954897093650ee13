# SPDX-License-Identifier: Apache-2.0
"""The events of a run as a file: what a line says, when lines are written, and a real run whose file tells it."""

import json
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from coordinator.steps import Event
from ops.events import FEW, Recorder, process_age
from tests.ops.test_run_command import SMALL, command


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_says_what_happened_and_when(tmp_path: Path) -> None:
    told: list[Event] = []
    event = Event("site-committed", 3, 2, {"site": "site-01", "examples": 7, "metrics": {"loss": "0.5"}})
    age = process_age()
    with Recorder(tmp_path / "events", told.append) as recorder:
        recorder(event)
    first, second = lines(tmp_path / "events")
    assert first["kind"] == "process"
    assert second == {
        "kind": "site-committed", "round": 3, "attempt": 2, "seconds": second["seconds"],
        "facts": {"site": "site-01", "examples": 7, "metrics": {"loss": "0.5"}},
    }  # fmt: skip
    assert told == [event], "whoever watched before is told, and of nothing else"
    assert age <= float(str(first["seconds"])) + 0.02 <= float(str(second["seconds"])) + 0.04


def test_long_lists_are_written_as_their_length(tmp_path: Path) -> None:
    with Recorder(tmp_path / "events", lambda _: None) as recorder:
        recorder(Event("open", 1, 1, {"few": ["a"] * FEW, "many": ["a"] * (FEW + 1), "by": dict.fromkeys(range(1000))}))
    assert lines(tmp_path / "events")[1]["facts"] == {"few": ["a"] * FEW, "many": {"count": 9}, "by": {"count": 1000}}


class Kind(IntEnum):
    ONE = 1


class Pair(NamedTuple):
    one: int
    two: str


def test_what_is_like_a_number_or_a_list_is_written_as_one(tmp_path: Path) -> None:
    facts = {
        "none": None,
        "number": Kind.ONE,
        "pair": Pair(1, "b"),
        "by": MappingProxyType({"a": 1}),
        "path": Path("x"),
    }
    with Recorder(tmp_path / "events", lambda _: None) as recorder:
        recorder(Event("open", 1, 1, facts))
    expected = {"none": None, "number": 1, "pair": [1, "b"], "by": {"a": 1}, "path": "x"}
    assert lines(tmp_path / "events")[1]["facts"] == expected


def test_a_round_is_written_at_its_end_and_the_rest_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "events"
    with Recorder(path, lambda _: None) as recorder:
        recorder(Event("open", 1, 1, {}))
        assert [line["kind"] for line in lines(path)] == ["process"]
        recorder(Event("record", 1, 1, {}))
        assert [line["kind"] for line in lines(path)] == ["process", "open", "record"]
        recorder(Event("open", 2, 1, {}))
    assert lines(path)[-1]["round"] == 2


def test_what_a_failed_run_did_is_written(tmp_path: Path) -> None:
    def fail() -> None:
        with Recorder(tmp_path / "events", lambda _: None) as recorder:
            recorder(Event("open", 1, 1, {}))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [line["kind"] for line in lines(tmp_path / "events")] == ["process", "open"]


def test_a_run_that_goes_on_adds_to_the_file(tmp_path: Path) -> None:
    for _ in range(2):
        with Recorder(tmp_path / "events", lambda _: None) as recorder:
            recorder(Event("abort", 1, 1, {"reason": "coordinator-absent"}))
    assert [line["kind"] for line in lines(tmp_path / "events")] == ["process", "abort"] * 2


def test_a_run_tells_its_rounds_in_order(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL.format(task="breast-cancer", rounds=2))
    done = command("run", "small.toml", "--events", "events", "--no-baselines", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "alone" not in done.stdout
    events = lines(tmp_path / "events")
    seconds = [float(str(event["seconds"])) for event in events]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0, "the time before the file was opened counts"
    second = [event["kind"] for event in events if event["round"] == 2]
    order = ["before-open", "open", "site-committed", "seal", "delivered", "before-record", "record"]
    assert [kind for kind in dict.fromkeys(second) if kind in order] == order
    assert second.index("before-seal") < second.index("seal"), "drafted with the last commitments"
    record = next(event for event in events if event["kind"] == "record")
    assert isinstance(record["facts"], dict)
    assert set(record["facts"]["metrics"]) == {"accuracy", "loss"}


def test_a_file_that_cannot_be_written_is_said_so_before_anything_begins(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL.format(task="breast-cancer", rounds=2))
    done = command("run", "small.toml", "--events", "no/such/folder", folder=tmp_path)
    assert done.returncode == 2
    assert "no/such/folder" in done.stderr
    assert not (tmp_path / "runs").exists()
