# SPDX-License-Identifier: Apache-2.0
"""What of an audit needs numpy. Loaded only where recomputation is asked for: nothing else here may import it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chaincode import aggregation
from chaincode.agreement import TensorSpec
from chaincode.evidence import VerifiedUpdate
from chaincode.models import Tensor
from chaincode.recompute import Result, load_state, sum_and_finish, sum_updates
from chaincode.recompute import finish as finish_round
from chaincode.threads import CORES
from chaincode.update import check_range

if TYPE_CHECKING:
    from chaincode.recompute import Recorded

__all__ = ["add", "at_once", "check_range", "finish", "load_state"]


def add(total: Any, updates: Sequence[VerifiedUpdate], specs: Sequence[TensorSpec], rule: str) -> Any:
    """The aggregate of some updates, added to that of others (None for none before).

    Raises EvidenceError as ``recompute.sum_updates`` and ``aggregation.add`` do.
    """
    part = sum_updates(updates, specs, rule, threads=CORES)
    return part if total is None else aggregation.add([total, part])


def finish(
    terms: Mapping[str, Any], base: Mapping[str, Tensor], total: Any, weight: int, state: Any, *,
    recorded: Recorded | None,
) -> Result:  # fmt: skip
    """The result of a round. Raises EvidenceError as ``recompute.finish`` does."""
    return finish_round(terms, base, total, weight, state, threads=CORES, recorded=recorded)


def at_once(
    terms: Mapping[str, Any], base: Mapping[str, Tensor], updates: Sequence[VerifiedUpdate], weight: int, *,
    recorded: Recorded,
) -> Result:  # fmt: skip
    """The result of a round from all of its updates. Raises EvidenceError as ``recompute.sum_and_finish`` does."""
    return sum_and_finish(terms, base, updates, weight, threads=CORES, recorded=recorded)
