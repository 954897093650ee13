# SPDX-License-Identifier: Apache-2.0
"""From a trained model to an update: the delta as fixed-point integers, written as a blob (R4).

The vector of a model holds its tensors of rule "mean", in the agreement's order, each flattened in C order.
For every element of it, with the tensor's c = clip_exponent and f = fraction_bits:

    1. d = float32(new) - float32(base), one binary32 subtraction (round to nearest, ties to even);
       NaN and infinity are refused, an overflow of the subtraction among them
    2. d to binary64, exact
    3. d = min(max(d, -2**c), 2**c)
    4. d = d * 2**f, exact
    5. q = d rounded to an integer, ties to even; q is written as int32 or int64, little-endian

Steps 3 to 5 are carried out in binary32, with the same integers for every input: for |d| <= 2**c the product is
exact there too (f >= 0, so nothing is lost at the small end, and c + f <= 52 is far from the large end), the
rounding sees the same number. A processor that flushes subnormal numbers to zero gives the same integers too: what
it loses is below 2**-125, far less than half a unit in the last place of any d that does not round to q = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import numpy as np

from chaincode.agreement import MAX_VALUE_BITS
from chaincode.blobs import ITEM_SIZE, ChunkHasher, format_header
from chaincode.files import replacing
from identity.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from chaincode.agreement import TensorSpec
    from chaincode.blobs import Header

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
            message = f"Tensor {spec.name}: clip 2^{spec.clip_exponent} and {spec.fraction_bits} fraction bits"
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


def encode(new: Floats, base: Floats | None, specs: Sequence[TensorSpec], encoding: str) -> Integers:
    """The integers of an update, as an array; see the module for every step.

    `new` and `base` are the vectors of the trained and of the base model: flat, contiguous, float32, of
    vector_length(specs). Where `base` is None, `new` already is the delta of step 1.

    Raises EvidenceError: update-not-finite naming the tensor, update-scale; ValueError for other vectors.
    """
    out = np.empty(vector_length(specs), DTYPES[encoding])
    kernel = _Kernel(new, base, specs)
    with np.errstate(all="ignore"):  # an overflow or a NaN is refused by name, not warned about
        for piece in slices(runs(specs, encoding), 0, len(out)):
            kernel(piece, out[piece.start : piece.stop])
    return out


def encode_to(
    header: Header,
    new: Floats,
    base: Floats | None,
    specs: Sequence[TensorSpec],
    write: Callable[[memoryview], object],
) -> tuple[str, int]:
    """Hand an update's blob to `write`, piece by piece, hashed as it is made; return its digest and its size.

    `new` and `base` as for `encode`; the encoding is the header's; the size is in bytes. `write` gets the pieces in
    order (a file's write, a bytearray's extend) and must be done with one when it returns: its memory is used
    again. Beyond the two vectors this needs two slices of memory.

    Raises EvidenceError: update-not-finite naming the tensor, update-scale, and update-length where the header
    states another number of elements; ValueError for other vectors.
    """
    length = vector_length(specs)
    if header.length != length:
        raise EvidenceError("update-length", f"The header states {header.length} elements; the model has {length}.")
    parts = runs(specs, header.encoding)
    kernel, hasher = _Kernel(new, base, specs), ChunkHasher()
    buffer = slice_buffer(header.encoding, length)
    raw = buffer.view(np.uint8).data
    line = memoryview(format_header(header))
    hasher.update(line)
    write(line)
    with np.errstate(all="ignore"):
        for piece in slices(parts, 0, length):
            integers = buffer[: piece.stop - piece.start]
            kernel(piece, integers)
            hasher.update(raw[: integers.nbytes])
            write(raw[: integers.nbytes])
    return hasher.digest(), hasher.size


def encode_blob(
    header: Header, new: Floats, base: Floats | None, specs: Sequence[TensorSpec], path: Path | str
) -> tuple[str, int]:
    """Write an update's blob to the file `path`; return its digest and its size in bytes. See `encode_to`.

    The file appears under its name when it is whole, readable by its owner alone; it is not forced to the disk
    (the blob store does that).
    """
    with replacing(Path(path), fsync=False) as file:
        return encode_to(header, new, base, specs, file.write)


class _Kernel:
    """Encodes one slice after the other into integers, in one reused buffer."""

    def __init__(self, new: Floats, base: Floats | None, specs: Sequence[TensorSpec]) -> None:
        length = vector_length(specs)
        for vector in (new,) if base is None else (new, base):
            if vector.shape != (length,) or vector.dtype != np.float32 or not vector.flags.c_contiguous:
                raise ValueError(f"expected a flat, contiguous float32 vector of {length} elements")
        self._new, self._base, self._specs = new, base, specs
        self._delta = np.empty(min(SLICE, length), np.float32)

    def __call__(self, piece: Run, out: Integers) -> None:
        """Encode the elements of `piece` into `out`. Numbers are those of the module's steps."""
        low, high = piece.start, piece.stop
        clip, scale = np.float32(2.0**piece.clip_exponent), np.float32(2.0**piece.fraction_bits)
        delta = source = self._delta[: high - low]
        if self._base is None:
            source = self._new[low:high]
        else:
            np.subtract(self._new[low:high], self._base[low:high], out=delta)  # (1)
        # (1, 3) Two reductions that NaN survives tell both at once: mostly there is nothing to refuse or to clip.
        if not (np.minimum.reduce(source) >= -clip and np.maximum.reduce(source) <= clip):
            self._refuse_not_finite(source, low)
            source = np.clip(source, -clip, clip, out=delta)
        np.multiply(source, scale, out=delta)  # (4)
        np.rint(delta, out=delta)  # (5)
        np.copyto(out, delta, casting="unsafe")

    def _refuse_not_finite(self, source: Floats, low: int) -> None:
        finite = np.isfinite(source)
        if not finite.all():
            index = low + int(np.argmin(finite))
            name = tensor_at(self._specs, index).name
            message = f"The update of tensor {name} holds NaN or infinity (element {index} of the vector)."
            raise EvidenceError("update-not-finite", message, next="lower the learning rate, or check the data")


def check_range(body: Buffer, specs: Sequence[TensorSpec], encoding: str) -> None:
    """Check that every integer of an update's body lies within its tensor's clip, and that none is missing.

    `body` holds the raw little-endian integers, as VerifiedUpdate.body does; it may begin at any address.
    Raises EvidenceError: update-length, update-beyond-clip naming the tensor, update-scale.
    """
    length = vector_length(specs)
    reader = BodyReader(body, encoding, length, slice_buffer(encoding, length))
    for piece in slices(runs(specs, encoding), 0, length):
        values = reader.read(piece.start, piece.stop)
        if out_of_range(values, piece.bound):
            refuse_range("The update", values, piece, specs)


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
            message = f"An update holds {len(self._bytes)} bytes; the model has {length} elements of {encoding}."
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


def out_of_range(values: Integers, bound: int) -> bool:
    """Whether an integer lies beyond +-bound."""
    return bool(np.minimum.reduce(values) < -bound or np.maximum.reduce(values) > bound)


def refuse_range(what: str, values: Integers, piece: Run, specs: Sequence[TensorSpec]) -> NoReturn:
    """Raise EvidenceError(update-beyond-clip) for the first integer of a slice beyond its bound."""
    beyond = (values < -piece.bound) | (values > piece.bound)
    index = piece.start + int(np.argmax(beyond))
    value = int(values[index - piece.start])
    message = f"{what} holds {value} in tensor {tensor_at(specs, index).name}, beyond +-{piece.bound}"
    raise EvidenceError("update-beyond-clip", f"{message} (element {index} of the vector).")
