# SPDX-License-Identifier: Apache-2.0
"""What training gives, in the forms that the ledger and the stores have: tensors, metrics. Without torch."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chaincode import schema
from chaincode.kinds import METRICS
from chaincode.models import Tensor

Arrays = Mapping[str, NDArray[Any]]
"""A model's tensors by name, C-contiguous; between processes they are read in place."""


def decimals(metrics: Mapping[str, float]) -> dict[str, str]:
    """Metrics as the ledger writes them: the shortest decimals that read back as the same float.

    What is not finite has no such form and is left out. Raises EvidenceError(entry-schema) for a bad name, and for more names than
    an entry may have.
    """
    written = {}
    for name, value in metrics.items():
        schema.slug(name, f"metric {str(name)[:80]!r}")
        if math.isfinite(number := float(value)):
            mantissa, _, exponent = repr(number).partition("e")
            written[name] = f"{mantissa}e{int(exponent)}" if exponent else mantissa
    METRICS(written, "metrics")
    return written


def to_tensors(arrays: Arrays) -> dict[str, Tensor]:
    """The form in which models are digested and stored; nothing is copied."""
    return {n: Tensor(str(a.dtype), a.shape, a.reshape(-1).view(np.uint8).data) for n, a in arrays.items()}


def to_arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    """The reverse; nothing is copied."""
    return {n: np.frombuffer(t.data, t.dtype).reshape(t.shape) for n, t in tensors.items()}
