# SPDX-License-Identifier: Apache-2.0
"""Many small updates encoded at once, with the integers that `chaincode.update` specifies for each alone.

For a small update the calls cost more than the numbers: here one call serves the updates of many sites.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from chaincode.chunks import chunk_root
from chaincode.header import format_header
from chaincode.vector import DTYPES, SLICE, runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from chaincode.agreement import TensorSpec
    from chaincode.header import Header
    from chaincode.vector import Floats, Integers


def encode_rows(deltas: Floats, specs: Sequence[TensorSpec], encoding: str) -> tuple[Integers, NDArray[np.bool_]]:
    """The integers of each row of `deltas`, and which rows hold nothing but finite numbers; the others' are undefined.

    `deltas` has the shape (updates, vector_length(specs)): step 1 of `chaincode.update` has been done. Raises
    EvidenceError(update-scale).
    """
    parts = runs(specs, encoding)
    out: NDArray[Any] = np.empty(deltas.shape, DTYPES[encoding])
    finite = np.empty(len(deltas), np.bool_)
    rows = max(1, SLICE // max(1, deltas.shape[1]))  # so many at a time stay in the cache
    with np.errstate(all="ignore"):
        for first in range(0, len(deltas), rows):
            some = deltas[first : first + rows]
            np.isfinite(some).all(axis=1, out=finite[first : first + rows])
            for part in parts:
                values = some[:, part.start : part.stop]
                bound, scale = np.float32(2.0**part.clip_exponent), np.float32(2.0**part.fraction_bits)
                values = np.clip(values, -bound, bound)  # (3)
                np.multiply(values, scale, out=values)  # (4)
                np.rint(values, out=values)  # (5)
                np.copyto(out[first : first + rows, part.start : part.stop], values, casting="unsafe")
    return out, finite


def encode_blobs(
    headers: Sequence[Header], deltas: Floats, specs: Sequence[TensorSpec]
) -> list[tuple[str, bytes] | None]:
    """The digest and the bytes of each update's blob, one for each header; None where a row is not finite.

    The headers have one encoding, and the length of the specs' vector. For None, `chaincode.update.encode` of that
    row says by name what is not finite.
    """
    integers, finite = encode_rows(deltas, specs, headers[0].encoding)
    blobs = [format_header(header) + row.tobytes() for header, row in zip(headers, integers, strict=True)]
    return [(chunk_root(blob), blob) if whole else None for blob, whole in zip(blobs, finite, strict=True)]
