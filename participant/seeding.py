# SPDX-License-Identifier: Apache-2.0
"""Seeds: what a random draw may depend on, so that a restart, or another number of workers, draws the same."""

import random
from hashlib import sha256

import numpy as np
import torch

from identity import canonical


def derive_seed(*parts: str | int) -> int:
    """A seed of 63 bits from SHA-256 over the canonical JSON of the parts."""
    return int.from_bytes(sha256(canonical.dumps(list(parts))).digest()[:8], "big") >> 1


def seed_all(seed: int) -> None:
    """Seed torch, numpy's legacy generator and random: what a task may draw from."""
    # torch.manual_seed formats a stack trace per call for a GPU that is not there: as long as a small site's epoch.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
