# SPDX-License-Identifier: Apache-2.0
"""The plain version of the encoder and the tree, number by number, and what the numeric tests build with them."""

import hashlib
import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st

from chaincode.agreement import TensorSpec
from chaincode.chunks import chunk_root
from chaincode.evidence import Commitment, VerifiedUpdate, verify_update
from chaincode.header import Header
from chaincode.update import encode_to, vector_length

FEDERATION, AGREEMENT, BASE, SALT = "f" * 64, "a" * 64, "b" * 64, "5" * 64


def spec(
    name: str, *shape: int, clip: int = 0, bits: int = 20, rule: str = "mean", dtype: str = "float32"
) -> TensorSpec:
    return TensorSpec(name, shape, dtype, rule, clip, bits)


def float32(value: float) -> float:
    """The nearest binary32, infinity where it is too large."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def plain_encode(new: Sequence[float], base: Sequence[float] | None, specs: Sequence[TensorSpec]) -> list[int]:
    """Steps 1 to 5 of chaincode.update in rational numbers. ValueError names the tensor of a NaN or infinity."""
    integers, position = [], 0
    for one in specs:
        if one.rule != "mean":
            continue
        clip, scale = Fraction(2) ** one.clip_exponent, Fraction(2) ** one.fraction_bits
        for index in range(position, position + prod(one.shape)):
            # binary64 holds the difference of two binary32 well enough that rounding it again is rounding it once
            delta = new[index] if base is None else float32(new[index] - base[index])
            if not math.isfinite(delta):
                raise ValueError(one.name)
            integers.append(round(min(max(Fraction(delta), -clip), clip) * scale))  # round() of a Fraction: half-even
        position += prod(one.shape)
    return integers


def plain_root(data: bytes, chunk: int = 1 << 20) -> str:
    """RFC 6962 section 2.1, by its recursive definition."""

    def root(leaves: list[bytes]) -> bytes:
        if not leaves:
            return hashlib.sha256(b"").digest()
        if len(leaves) == 1:
            return hashlib.sha256(b"\x00" + leaves[0]).digest()
        k = 1
        while 2 * k < len(leaves):
            k *= 2
        return hashlib.sha256(b"\x01" + root(leaves[:k]) + root(leaves[k:])).digest()

    return root([data[i : i + chunk] for i in range(0, len(data), chunk)]).hex()


def header(member: str = "did:key:zAlice", *, length: int = 4, encoding: str = "int32", **other: Any) -> Header:
    fields = {"federation": FEDERATION, "agreement": AGREEMENT, "round": 1, "attempt": 1, "base": BASE, "salt": SALT}
    return Header(**{**fields, "member": member, "length": length, "encoding": encoding, **other})


def commit(head: Header, blob: bytes, weight: int = 1, **other: Any) -> Commitment:
    fields = {
        n: getattr(head, n) for n in ("federation", "agreement", "round", "attempt", "base", "member", "encoding")
    }
    return Commitment(
        **{**fields, "digest": chunk_root(blob), "size": len(blob), "weight": weight, "elements": head.length, **other}
    )


def site_blob(head: Header, new: Any, specs: Sequence[TensorSpec], base: Any = None) -> bytes:
    """The blob of a site whose model is `new`, or whose delta it is where no base is given."""
    blob = bytearray()
    digest, size = encode_to(head, np.asarray(new, np.float32), base, specs, blob.extend)
    assert (digest, size) == (plain_root(bytes(blob)), len(blob))
    return bytes(blob)


def verified(member: str, delta: Any, specs: Sequence[TensorSpec], weight: int = 1, **other: Any) -> VerifiedUpdate:
    head = header(f"did:key:z{member}", length=vector_length(specs), **other)
    blob = site_blob(head, delta, specs)
    return verify_update(commit(head, blob, weight), blob)


def forged(member: str, integers: Any, weight: int = 1, **other: Any) -> VerifiedUpdate:
    """An update whose author committed to integers of its own choice: genuine evidence, whatever they are."""
    array = np.asarray(integers)
    encoding = other.pop("encoding", "int32")
    head = header(f"did:key:z{member}", length=array.size, encoding=encoding, **other)
    line = site_blob(header(head.member, length=0, encoding=encoding, **other), np.zeros(0), [spec("none", 0)])
    line = line.replace(b'"length":0', b'"length":%d' % array.size)
    blob = line + array.astype({"int32": "<i4", "int64": "<i8"}[encoding]).tobytes()
    return verify_update(commit(head, blob, weight), blob)


@st.composite
def tensor_specs(draw: st.DrawFn, limit: int = 30) -> list[TensorSpec]:
    """Up to five small tensors of any rule, with clips of their own; some are empty or scalars."""
    specs = []
    for number in range(draw(st.integers(1, 5))):
        bits = draw(st.integers(0, 60))
        clip = draw(st.integers(max(-30, -bits), min(30, limit - bits)))
        shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
        rule = draw(st.sampled_from(["mean", "mean", "keep", "local"]))
        specs.append(TensorSpec(f"t{number}", shape, "float32", rule, clip, bits))
    return specs


def hostile_floats(one: TensorSpec, *, finite: bool = True) -> st.SearchStrategy[float]:
    """binary32 numbers where an encoder goes wrong: halves, the clip and its neighbours, subnormals, -0.0."""
    clip, step = np.float32(2.0**one.clip_exponent), 2.0**-one.fraction_bits
    near = [np.nextafter(clip, np.float32(0)), clip, np.nextafter(clip, np.float32(np.inf))]
    special = [float(v) for v in near] + [0.0, 2.0**-149, 2.0**-126, 3.4e38, step, step / 2, step * 1.5, step * 2.5]
    halves = st.integers(-(2**23), 2**23 - 1).map(lambda k: float32((k + 0.5) * step))
    some = st.sampled_from([float32(v) for v in special] + [-float32(v) for v in special])
    return st.one_of(some, halves, st.floats(width=32, allow_nan=not finite, allow_infinity=not finite))


def test_the_oracle_rounds_as_the_specification_says() -> None:
    one = [spec("w", 7, clip=1, bits=1)]
    assert plain_encode([0.25, 0.75, -0.25, -0.75, 1.25, 9.0, -0.0], None, one) == [0, 2, 0, -2, 2, 4, 0]
    assert plain_root(b"abc") == hashlib.sha256(b"\x00abc").hexdigest()
    assert (
        plain_root(b"ab", 1)
        == hashlib.sha256(b"\x01" + hashlib.sha256(b"\x00a").digest() + hashlib.sha256(b"\x00b").digest()).hexdigest()
    )
