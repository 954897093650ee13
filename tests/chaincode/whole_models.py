# SPDX-License-Identifier: Apache-2.0
"""A round's arithmetic in one piece and on copies: what shards and threads are held to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from chaincode.aggregation import own_state, step_model
from chaincode.chunks import chunk_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaincode.aggregation import Floats, Sums
    from chaincode.agreement import TensorSpec
    from chaincode.optimisers import Doubles, Optimiser


def mean_model(
    base: Floats,
    total: Sums,
    weight: int,
    specs: Sequence[TensorSpec],
    optimiser: Optimiser,
    *,
    state: Doubles | None = None,
    start: int = 0,
) -> tuple[Floats, Doubles | None]:
    """As `step_model`, with base and state left as they are: the new vector and state (None for an optimiser without)."""
    result, following = base.copy(), own_state(optimiser, state, len(total))
    step_model(result, total, weight, specs, optimiser=optimiser, state=following, start=start)
    return result, following if optimiser.rows else None


def sum_digest(total: Sums, *, threads: int = 1) -> str:
    """The digest of an integer sum: the chunk root over its little-endian int64 bytes."""
    return chunk_root(np.ascontiguousarray(total, "<i8").view(np.uint8).data, threads=threads)
