# SPDX-License-Identifier: Apache-2.0
"""Waiting between attempts: the one place where a client of a Fabric network, or its operator's commands, wait and try again."""

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count


@dataclass(frozen=True, slots=True)
class Pauses:
    """Pauses (seconds) from `first` on, each twice the one before, up to `longest`, with jitter that keeps rivals apart.

    Who sets `closing` ends the pause that is under way, and no further attempt begins.
    """

    first: float = 0.1
    longest: float = 0.1
    closing: threading.Event = field(default_factory=threading.Event)

    def until(self, end: float, most: int | None = None) -> Iterator[int]:
        """Yield the number of each attempt from 1 on, with pauses between them: at least one, and at most so many.

        None begins after `end` (of `time.monotonic`).
        """
        longest = self.first
        for number in count(1):
            yield number
            left = end - time.monotonic()
            if left <= 0 or number == most:
                return
            pause = random.uniform(longest / 2, longest)  # noqa: S311 - spreads rivals, keeps no secret
            if self.closing.wait(min(pause, left)):
                return
            longest = min(2 * longest, self.longest)
