# SPDX-License-Identifier: Apache-2.0
"""Adding up weighted integers exactly, slice after slice, in as few bits as hold the sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from chaincode.vector import SLICE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from chaincode.vector import Integers

    Sums = NDArray[np.int64]

_NARROW: Final = 2**31 - 1


class Accumulator:
    """Adds weighted slices to 64-bit sums, in reused buffers.

    Mostly an update's values are far from the bound, and weighted sums of several fit 32 bits: those are added up there, in
    half of the memory and less than half of the time, and to the sums once. That no sum can leave 64 bits is the caller's
    to know (`aggregation.check_overflow`).
    """

    def __init__(self, size: int) -> None:
        """For sums of `size` elements, of which a slice is a part."""
        self._products = np.empty(min(SLICE, size), np.int64)
        self._narrow, self._reach = np.zeros(size, np.int32), dict[int, int]()

    def add(self, values: Integers, most: int, weight: int, sums: Sums, at: int = 0) -> None:
        """Add weight * values, of which `most` is the largest absolute value, to a slice of the sums; complete after `finish`.

        `values` are of no use afterwards. `at` is where the slice begins: nowhere else until it is finished.
        """
        reach = most * weight
        if values.dtype != np.int32 or max(reach, weight) > _NARROW:
            products = self._products[: len(sums)]
            np.multiply(values, np.int64(weight), out=products, dtype=np.int64)
            np.add(sums, products, out=sums)
            return
        if self._reach.get(at, 0) + reach > _NARROW:
            self.finish(sums, at)
        narrow = self._narrow[at : at + len(sums)]
        np.multiply(values, np.int32(weight), out=values)
        np.add(narrow, values, out=narrow)
        self._reach[at] = self._reach.get(at, 0) + reach

    def finish(self, sums: Sums, at: int = 0) -> None:
        """Add to the slice of sums what was added up in 32 bits, of which nothing is left there."""
        if self._reach.pop(at, 0):
            narrow = self._narrow[at : at + len(sums)]
            np.add(sums, narrow, out=sums)
            narrow.fill(0)
