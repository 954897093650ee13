# SPDX-License-Identifier: Apache-2.0
"""A party that holds a key and data: its agent, its local training, and the tasks that it trains.

``from participant import Task`` is the one import of a task of one's own.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from participant.task import Task as Task

__all__ = ["Task"]


def __getattr__(name: str) -> Any:
    """Load ``Task``, and torch with it, on first use only: the process that signs imports this package too (R6)."""
    if name != "Task":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from participant.task import Task  # noqa: PLC0415  (the point of this function)

    return Task
