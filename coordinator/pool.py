# SPDX-License-Identifier: Apache-2.0
"""A pool of worker processes, as those see it who give them work: calls by name, and what may become of one."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from identity.errors import Error

Reference = Any
T = TypeVar("T")
DIED, LATE = "worker-died", "training-timeout"


@dataclass(slots=True)
class Call:
    """A method of ``coordinator.worker.Worker``, to be called with ``arguments``, references among them.

    ``slot`` is the worker that is best, -1 for any. ``kept`` holds references to the results after the first. A ``light``
    call is small and holds no reference, neither does its one result: it may go over a line (``coordinator.wire``).
    """

    name: str
    method: str
    arguments: Sequence[Any]
    returns: int = 1
    slot: int = -1
    tries: int = 1
    kept: Sequence[Reference] = ()
    light: bool = False


class Pool(Protocol):
    """Workers, each in a process of its own, that are replaced when they die."""

    @property
    def workers(self) -> int:
        """How many there are."""
        ...

    def run(self, calls: deque[Call], limit: Callable[[Call], float]) -> Iterator[tuple[Call, Any]]:
        """Carry out calls, also those that are added while this runs; ``limit`` bounds each by seconds when it starts.

        Yields each with its first result, or with an ``Error`` in its place: the one that the method raised, or
        Unavailable with the code ``worker-died`` or ``training-timeout``; the worker has been replaced then.

        Raises:
            Error: no worker is left, and none can be started.
        """
        ...

    def begin(self, calls: deque[Call], limit: Callable[[Call], float]) -> None:
        """Start as many of a run's calls as there are idle workers for, while that run waits to be asked on.

        So workers have something to do while what they answered is dealt with.
        """
        ...

    def poll(self, seconds: float) -> bool:
        """Whether a run has its next answer at once when it is asked on; waits so many seconds for one, none where nothing is
        under way."""
        ...


def balanced(items: Sequence[T], weights: Sequence[int], parts: int) -> list[list[T]]:
    """At most ``parts`` lists of nearly equal weight: the heaviest first, each to the lightest list so far."""
    loads, dealt = [0] * parts, [list[int]() for _ in range(parts)]
    for position in sorted(range(len(items)), key=lambda i: -weights[i]):
        lightest = min(range(parts), key=loads.__getitem__)
        loads[lightest] += max(1, weights[position])
        dealt[lightest].append(position)
    return [[items[i] for i in sorted(positions)] for positions in dealt if positions]


def run_all(pool: Pool, calls: Sequence[Call], tries: int, seconds: float = math.inf) -> list[Any]:
    """The first results of calls, in their order, each tried again when its worker dies.

    Raises:
        Error: the first that a method raised. Unavailable: ``worker-died``, ``training-timeout``.
    """
    results: dict[int, Any] = {}
    failed: Error | None = None
    queue = deque(calls)
    for call, result in pool.run(queue, lambda _: seconds):
        if not isinstance(result, Error):
            results[id(call)] = result
        elif result.code == DIED and call.tries < tries and failed is None:
            call.tries += 1
            queue.append(call)
        else:
            failed = failed or result
            queue.clear()
    if failed is not None:
        raise failed
    return [results[id(call)] for call in calls]


def call_name(what: str, of: Any) -> str:
    """A call's name, as Ray shows it: what it does for which federation, agreement and round."""
    return f"{what} {of.federation[:12]}/{of.agreement[:12]} round {of.round} attempt {of.attempt}"
