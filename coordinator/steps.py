# SPDX-License-Identifier: Apache-2.0
"""The steps of a round, and what happens in one, as values: ``coordinator.rounds`` decides on them and carries them out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator.ports import PartialSum

Reasons = Mapping[str, str]  # member -> reason


@dataclass(frozen=True, slots=True)
class Open:
    """Open a round or the next attempt of it."""

    round: int
    attempt: int
    roster: Sequence[str]
    absent: Reasons


@dataclass(frozen=True, slots=True)
class Train:
    """Let the silent sites train and commit."""

    silent: Sequence[str]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before a UTC second, because these members may still act."""

    until: int
    members: Sequence[str]


@dataclass(frozen=True, slots=True)
class Seal:
    """Fix the cohort."""

    cohort: Sequence[str]
    out: Reasons


@dataclass(frozen=True, slots=True)
class Collect:
    """Take what these members deliver, verify and sum it."""

    members: Sequence[str]


@dataclass(frozen=True, slots=True)
class Record:
    """Record the aggregate."""

    included: Sequence[str]
    omitted: Reasons


@dataclass(frozen=True, slots=True)
class Abort:
    """Give up the attempt."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stuck:
    """The agreement allows nothing further, although not every round is recorded; ``code`` is the contract's."""

    code: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Every agreed round is recorded."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What an entry of the coordinator about an attempt will say, before it is signed; ``at`` is in UTC seconds."""

    kind: str
    round: int
    attempt: int
    at: int
    body: Mapping[str, Any]
    subjects: Mapping[str, str] = field(default_factory=dict)

    @property
    def stated(self) -> Mapping[str, Any]:
        """The body as it is signed."""
        return {"round": self.round, "attempt": self.attempt, **self.body}


Step = Open | Train | Wait | Seal | Collect | Record | Abort | Stuck | Finished


@dataclass(slots=True)
class Gathered:
    """What this process did in the present attempt and no ledger needs: it is done anew after a restart."""

    asked: bool = False
    collected: frozenset[str] = frozenset()
    retried: bool = False
    verdicts: dict[str, str] = field(default_factory=dict)
    sums: list[PartialSum] = field(default_factory=list)
    adopted: list[Path] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for whoever watches: ``kind`` is a step's or an entry's name."""

    kind: str
    round: int
    attempt: int
    facts: Mapping[str, Any]


class Clock:
    """Seconds of UTC, and waiting for them. Tests bring their own."""

    def __init__(self, now: Callable[[], int], wait_until: Callable[[int], None]) -> None:
        self.now, self.wait_until = now, wait_until
