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

from typing import TYPE_CHECKING

import numpy as np

from chaincode.chunks import ChunkHasher
from chaincode.header import ITEM_SIZE, format_header
from chaincode.vector import (
    DTYPES,
    SLICE,
    BodyReader,
    Run,
    largest,
    refuse_range,
    runs,
    slice_buffer,
    slices,
    tensor_at,
    vector_length,
)
from identity.errors import EvidenceError
from identity.wording import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Buffer

    from chaincode.agreement import TensorSpec
    from chaincode.header import Header
    from chaincode.vector import Floats, Integers

__all__ = [
    "DTYPES", "SLICE", "blob_size", "check_range", "encode", "encode_tensors", "encode_to", "runs", "slices", "tensor_at",
    "vector_length",
]  # fmt: skip

PIECE = 8 * SLICE
"""Elements of a blob that are written at once: the system then keeps a file in larger parts, which take less time to write and
to map."""

_Source = tuple["Floats", "Floats | None", Run]  # some neighbouring elements of the vectors, flat


def encode(new: Floats, base: Floats | None, specs: Sequence[TensorSpec], encoding: str) -> Integers:
    """The integers of an update, as an array; see the module for every step.

    `new` and `base` are the vectors of the trained and of the base model: flat, contiguous, float32, of
    vector_length(specs). Where `base` is None, `new` already is the delta of step 1.

    Raises EvidenceError: update-not-finite naming the tensor, update-scale; ValueError for other vectors.
    """
    out = np.empty(vector_length(specs), DTYPES[encoding])
    position = 0
    for integers in _integers(_of_vectors(new, base, specs, encoding), specs, slice_buffer(encoding, len(out))):
        out[position : position + len(integers)] = integers
        position += len(integers)
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
    again. Beyond the two vectors this needs a piece of memory, and a slice.

    Raises EvidenceError: update-not-finite naming the tensor, update-scale, and update-length where the header
    states another number of elements; ValueError for other vectors.
    """
    return _blob(header, _of_vectors(new, base, specs, header.encoding), specs, write)


def encode_tensors(
    header: Header,
    new: Sequence[Floats],
    base: Sequence[Floats],
    specs: Sequence[TensorSpec],
    write: Callable[[memoryview], object],
) -> tuple[str, int]:
    """As `encode_to`, from the tensors themselves: neither vector nor their difference is ever put together.

    `new` and `base` are the tensors of rule "mean" of the trained and of the base model in the agreement's order,
    contiguous (C order) float32 of the agreement's shapes or flat.
    """
    return _blob(header, _of_tensors(new, base, specs, header.encoding), specs, write)


def blob_size(header: Header, specs: Sequence[TensorSpec]) -> int:
    """The bytes of the blob that `encode_to` and `encode_tensors` make. Raises EvidenceError(update-length) as they do."""
    return len(format_header(header)) + _length(header, specs) * ITEM_SIZE[header.encoding]


def _length(header: Header, specs: Sequence[TensorSpec]) -> int:
    length = vector_length(specs)
    if header.length != length:
        raise EvidenceError(
            "update-length", f"The header states {counted(header.length, 'element')}; the model has {length}."
        )
    return length


def _of_vectors(new: Floats, base: Floats | None, specs: Sequence[TensorSpec], encoding: str) -> list[_Source]:
    length = vector_length(specs)
    for vector in (new,) if base is None else (new, base):
        if vector.shape != (length,) or vector.dtype != np.float32 or not vector.flags.c_contiguous:
            raise ValueError(f"expected a flat, contiguous float32 vector of {length} elements")
    return [(new[r.start : r.stop], None if base is None else base[r.start : r.stop], r) for r in runs(specs, encoding)]


def _of_tensors(
    new: Sequence[Floats], base: Sequence[Floats], specs: Sequence[TensorSpec], encoding: str
) -> list[_Source]:
    runs(specs, encoding)  # checks every scale
    sources: list[_Source] = []
    position = 0
    for spec, one, other in zip((s for s in specs if s.rule == "mean"), new, base, strict=True):
        for array in (one, other):
            fits = array.shape in (spec.shape, (spec.elements,))
            if not fits or array.dtype != np.float32 or not array.flags.c_contiguous:
                raise ValueError(f"tensor {spec.name} must be contiguous float32 of shape {list(spec.shape)}")
        part = Run(position, position + spec.elements, spec.clip_exponent, spec.fraction_bits)
        sources.append((one.reshape(-1), other.reshape(-1), part))
        position = part.stop
    return sources


def _blob(
    header: Header, sources: Sequence[_Source], specs: Sequence[TensorSpec], write: Callable[[memoryview], object]
) -> tuple[str, int]:
    """The header's line and the sources' integers to `write`, hashed while they are in the cache."""
    length, hasher = _length(header, specs), ChunkHasher()
    line = memoryview(format_header(header))
    hasher.update(line)
    write(line)
    for integers in _integers(sources, specs, np.empty(min(PIECE, length), DTYPES[header.encoding])):
        raw = integers.view(np.uint8).data
        hasher.update(raw)
        write(raw)
    return hasher.digest(), hasher.size


def _integers(sources: Sequence[_Source], specs: Sequence[TensorSpec], buffer: Integers) -> Iterator[Integers]:
    """The sources' integers in order: the buffer, as often as it is full, and what is left at the end."""
    kernel, filled = _Kernel(specs, min(SLICE, len(buffer))), 0
    for new, base, part in sources:
        position = 0
        while position < len(new):
            stop = min(position + min(SLICE, len(buffer) - filled), len(new))
            cut, end = slice(position, stop), filled + stop - position
            kernel(new[cut], None if base is None else base[cut], part, part.start + position, buffer[filled:end])
            position, filled = stop, end
            if filled == len(buffer):
                yield buffer
                filled = 0
    if filled:
        yield buffer[:filled]


class _Kernel:
    """Encodes one slice after the other into integers, in one reused buffer."""

    def __init__(self, specs: Sequence[TensorSpec], size: int) -> None:
        self._specs, self._delta = specs, np.empty(size, np.float32)

    def __call__(self, new: Floats, base: Floats | None, part: Run, start: int, out: Integers) -> None:
        """Encode a slice that begins at element `start` of the vector. Numbers are those of the module's steps."""
        clip, scale = np.float32(2.0**part.clip_exponent), np.float32(2.0**part.fraction_bits)
        delta = self._delta[: len(new)]
        with np.errstate(all="ignore"):  # an overflow or a NaN is refused by name, not warned about
            source = new if base is None else np.subtract(new, base, out=delta)  # (1)
            # (1, 3) Two reductions that NaN survives tell both at once: mostly there is nothing to refuse or to clip.
            if not (np.minimum.reduce(source) >= -clip and np.maximum.reduce(source) <= clip):
                self._refuse_not_finite(source, start)
                source = np.clip(source, -clip, clip, out=delta)
            np.multiply(source, scale, out=delta)  # (4)
            np.rint(delta, out=delta)  # (5)
            np.copyto(out, delta, casting="unsafe")

    def _refuse_not_finite(self, source: Floats, start: int) -> None:
        finite = np.isfinite(source)
        if not finite.all():
            index = start + int(np.argmin(finite))
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
        if largest(values) > piece.bound:
            refuse_range("The update", values, piece, specs)
