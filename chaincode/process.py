# SPDX-License-Identifier: Apache-2.0
"""What a process of ours is set to when it starts. Standard library only."""

import gc

_ALLOCATIONS, _YOUNG, _OLD = 100_000, 20, 20


def collect_rarely() -> None:
    """Look for cyclic garbage a hundred times less often than Python does by itself.

    A batch of entries is tens of thousands of small objects that all live as long as the batch, and what we make has hardly
    a cycle; looking through everything that a process has loaded took a tenth of a large round.
    """
    gc.set_threshold(_ALLOCATIONS, _YOUNG, _OLD)
