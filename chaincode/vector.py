# SPDX-License-Identifier: Apache-2.0
"""The vector of a model: its tensors of rule "mean", in the agreement's order, each flattened in C order.

How it is cut into slices of one clip and scale that stay in the cache, and how an update's integers are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from chaincode.agreement import MAX_VALUE_BITS
from chaincode.header import ITEM_SIZE
from identity.errors import EvidenceError
from identity.wording import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from chaincode.agreement import TensorSpec

    Floats = NDArray[np.float32]
    Integers = NDArray[np.int32] | NDArray[np.int64]

DTYPES: Final[dict[str, np.dtype[Any]]] = {"int32": np.dtype("<i4"), "int64": np.dtype("<i8")}
SLICE: Final = 1 << 16  # elements worked on at a time: they stay in the cache, and calls are few enough for threads
_MAX_FRACTION_BITS: Final = 60  # 2**f, and with c + f <= 52 and c + f >= 0 also 2**c, is a normal binary32 number


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring elements `start` to `stop` of the vector with one clip and one scale."""

    start: int
    stop: int
    clip_exponent: int
    fraction_bits: int

    @property
    def bound(self) -> int:
        """The largest absolute value of an encoded element."""
        return 1 << (self.clip_exponent + self.fraction_bits)


def vector_length(specs: Sequence[TensorSpec]) -> int:
    """The number of elements in the vector: those of the tensors whose rule is "mean"."""
    return sum(spec.elements for spec in specs if spec.rule == "mean")


def runs(specs: Sequence[TensorSpec], encoding: str) -> list[Run]:
    """The vector as maximal runs of one clip and scale; empty tensors take no place in it.

    Raises EvidenceError(update-scale) where clip and fraction bits do not fit the encoding (an agreement that
    the contract has checked fits).
    """
    found: list[Run] = []
    position = 0
    for spec in specs:
        if spec.rule != "mean" or spec.elements == 0:
            continue
        bits = spec.clip_exponent + spec.fraction_bits
        if not 0 <= bits <= MAX_VALUE_BITS[encoding] or not 0 <= spec.fraction_bits <= _MAX_FRACTION_BITS:
            message = (
                f"Tensor {spec.name}: clip 2^{spec.clip_exponent} and {counted(spec.fraction_bits, 'fraction bit')}"
            )
            raise EvidenceError("update-scale", f"{message} do not fit {encoding}.")
        start, position = position, position + spec.elements
        scale = (spec.clip_exponent, spec.fraction_bits)
        if found and (found[-1].clip_exponent, found[-1].fraction_bits) == scale:
            start = found.pop().start
        found.append(Run(start, position, *scale))
    return found


def slices(parts: Sequence[Run], start: int, stop: int) -> Iterator[Run]:
    """Elements `start` to `stop` of the vector, cut into pieces of at most SLICE elements and one run each."""
    for part in parts:
        low, high = max(part.start, start), min(part.stop, stop)
        for first in range(low, high, SLICE):
            yield Run(first, min(first + SLICE, high), part.clip_exponent, part.fraction_bits)


def tensor_at(specs: Sequence[TensorSpec], index: int) -> TensorSpec:
    """The tensor that element `index` of the vector belongs to. Raises IndexError beyond the vector."""
    for spec in specs:
        if spec.rule == "mean":
            if index < spec.elements:
                return spec
            index -= spec.elements
    raise IndexError("beyond the vector")


class BodyReader:
    """Reads slices of an update's integers into an aligned, reused buffer.

    A body follows a header line of any length, so its integers lie at odd addresses; arithmetic on those is
    several times slower than this copy into the cache.
    """

    def __init__(self, body: Buffer, encoding: str, length: int, buffer: Integers) -> None:
        """Read into `buffer`, made by `slice_buffer`; readers that take turns may share one.

        Raises EvidenceError(update-length) where the body does not hold exactly `length` integers.
        """
        self._bytes = np.frombuffer(memoryview(body).cast("B"), np.uint8)
        self._item = ITEM_SIZE[encoding]
        if len(self._bytes) != length * self._item:
            message = f"An update holds {counted(len(self._bytes), 'byte')}; the model has {counted(length, 'element')} of {encoding}."
            raise EvidenceError("update-length", message)
        self._buffer, self._raw = buffer, buffer.view(np.uint8)

    def read(self, start: int, stop: int) -> Integers:
        """Integers `start` to `stop`, at most SLICE; valid until the buffer's next use."""
        source = self._bytes[start * self._item : stop * self._item]
        np.copyto(self._raw[: len(source)], source)
        return self._buffer[: stop - start]


def slice_buffer(encoding: str, length: int) -> Integers:
    """A buffer for any slice of a vector of `length` integers."""
    return np.empty(min(SLICE, length), DTYPES[encoding])


def largest(values: Integers) -> int:
    """The largest absolute value among integers."""
    return max(-int(np.minimum.reduce(values)), int(np.maximum.reduce(values)))


def refuse_range(what: str, values: Integers, piece: Run, specs: Sequence[TensorSpec]) -> NoReturn:
    """Raise EvidenceError(update-beyond-clip) for the first integer of a slice beyond its bound."""
    beyond = (values < -piece.bound) | (values > piece.bound)
    index = piece.start + int(np.argmax(beyond))
    value = int(values[index - piece.start])
    message = f"{what} holds {value} in tensor {tensor_at(specs, index).name}, beyond +-{piece.bound}"
    raise EvidenceError("update-beyond-clip", f"{message} (element {index} of the vector).")
