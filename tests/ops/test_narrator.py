# SPDX-License-Identifier: Apache-2.0
"""What a terminal shows of a round under way, also of one that an earlier run has opened."""

from typing import Any

import pytest

from coordinator.steps import Event
from ops.narrator import Narrator
from ops.output import when

OPENED: dict[str, Any] = {"roster": ["a", "b", "c"], "absent": [], "commit_by": 1_800_000_000}


def shown(events: list[tuple[str, int, dict[str, Any]]]) -> str:
    """What is said to be going on after these."""
    narrator = Narrator(5)
    narrator._progress.disable = False  # as on a terminal
    for kind, round_, facts in events:
        narrator(Event(kind, round_, 1, facts))
    return str(narrator._progress.tasks[0].description)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([("open", 1, OPENED), ("train", 1, {"members": ["a", "b", "c"]})], "round 1 of 5: training"),
        ([("open", 1, OPENED), ("site-committed", 1, {})], "round 1 of 5: 1 of 3 sites committed"),
        ([("train", 2, {"members": ["a", "b"]})], "round 2 of 5: training"),
        ([("train", 2, {"members": ["a", "b"]}), ("site-committed", 2, {})], "round 2 of 5: 1 of 2 sites committed"),
    ],
    ids=["opened", "opened and one committed", "resumed", "resumed and one committed"],
)
def test_what_is_going_on(events: list[tuple[str, int, dict[str, Any]]], expected: str) -> None:
    assert shown(events) == expected


@pytest.mark.parametrize(
    ("verdict", "says"),
    [
        ("update-digest", "delivered other bytes than it committed to: refused [update-digest]"),
        ("update-header", "delivered an update that cannot be taken: refused [update-header]"),
    ],
)
def test_nobody_is_said_to_have_delivered_other_bytes_who_did_not(
    capsys: pytest.CaptureFixture[str], verdict: str, says: str
) -> None:
    Narrator(1)(Event("delivered", 1, 1, {"member": "a", "verdict": verdict}))
    assert says in capsys.readouterr().err


def test_one_site_is_not_several(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator(1)
    narrator(Event("open", 1, 1, {"roster": ["a"], "absent": [], "commit_by": 1_800_000_000}))
    narrator(Event("seal", 1, 1, {"cohort": ["a"], "out": []}))
    narrator(Event("record", 1, 1, {"included": ["a"], "omitted": [], "examples": 1, "model": "0" * 64, "metrics": {}}))
    told = capsys.readouterr().err
    assert "opened for 1 site, " in told
    assert "committed and sealed: 1 update\n" in told
    assert ": 1 update, 1 example. " in told


def test_what_is_waited_for_is_the_deadline_that_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator(1)
    narrator(Event("open", 1, 1, OPENED))
    narrator(Event("wait", 1, 1, {"members": ["c"], "until": OPENED["commit_by"] + 1}))
    told = capsys.readouterr().err
    deadline = when(OPENED["commit_by"])
    assert f"commitments until {deadline}\n" in told
    assert f"waiting for c until {deadline}, as agreed\n" in told
