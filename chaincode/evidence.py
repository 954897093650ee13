# SPDX-License-Identifier: Apache-2.0
"""The one door through which an update's bytes become something that may be aggregated (R2).

The ledger says what a member committed; the bytes come from anywhere. A VerifiedUpdate exists only where both
agree, so a function that takes one needs no further check of where it came from. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from chaincode.blobs import ITEM_SIZE, Header, chunk_root, parse_header
from identity.errors import EvidenceError

if TYPE_CHECKING:
    from typing_extensions import Buffer


@dataclass(frozen=True, slots=True)
class Commitment:
    """What the ledger says about one update: its place, its author, its bytes' digest and size, its weight.

    `base` is the base model's digest and `digest` the blob's, 64 hex digits; `size` is the whole blob's bytes;
    `weight` counts examples; `elements` counts the integers of type `encoding`, as the agreement fixes both.
    """

    federation: str
    agreement: str
    round: int
    attempt: int
    base: str
    member: str
    digest: str
    size: int
    weight: int
    encoding: str
    elements: int

    def named(self) -> str:
        """The update in words, for a message."""
        return f"The update of {self.member} for round {self.round}, attempt {self.attempt},"


_SEALED: Final = object()


class VerifiedUpdate:
    """Bytes that are what their author committed to on the ledger. Only `verify_update` makes one.

    `commitment` is the ledger's side; `body` the raw little-endian integers, a read-only view into the bytes
    that were verified. It cannot be built, changed, copied, subclassed or pickled: a process that receives an
    update's bytes verifies them itself. The view is only as constant as the memory behind it: hand
    `verify_update` bytes that nobody else can write.
    """

    __slots__ = ("body", "commitment")

    body: memoryview
    commitment: Commitment

    def __new__(
        cls, token: object = None, commitment: Commitment | None = None, body: memoryview | None = None
    ) -> VerifiedUpdate:
        """Refuse everybody but `verify_update`."""
        if token is not _SEALED:
            raise TypeError("A VerifiedUpdate cannot be constructed: call chaincode.evidence.verify_update.")
        update = super().__new__(cls)
        object.__setattr__(update, "commitment", commitment)
        object.__setattr__(update, "body", body)
        return update

    def __init_subclass__(cls) -> None:
        raise TypeError("A VerifiedUpdate cannot be subclassed.")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("A VerifiedUpdate cannot be changed.")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("A VerifiedUpdate cannot be changed.")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("A VerifiedUpdate cannot be copied or pickled: send the bytes and verify them there.")

    def __setstate__(self, state: object) -> NoReturn:
        # Without this a crafted pickle could fill the slots of an instance that object.__new__ made.
        raise TypeError("A VerifiedUpdate cannot be unpickled.")

    def __repr__(self) -> str:
        return f"VerifiedUpdate({self.commitment.digest} of {self.commitment.member})"


def verify_update(commitment: Commitment, data: Buffer, *, threads: int = 1) -> VerifiedUpdate:
    """Check that `data` is the blob that `commitment` names, reading it once and copying nothing.

    `data` is the whole blob (bytes, a memoryview, a mapping). `threads` as for `blobs.chunk_root`.

    Raises EvidenceError, in this order: update-size (not the committed number of bytes), update-digest (other
    bytes), blob-header (committed, but no header can be read), update-header (the header names another
    federation, agreement, round, attempt, base, member, encoding or length: a copied update names its first
    author), update-length (not exactly `elements` integers after it).
    """
    view = memoryview(data).toreadonly().cast("B")
    # (1) the size: the cheapest difference first
    if len(view) != commitment.size:
        _refuse("update-size", commitment, f"has {len(view)} bytes; {commitment.size} were committed.")
    # (2) the digest, before a byte is given a meaning
    digest = chunk_root(view, threads=threads)
    if digest != commitment.digest:
        _refuse("update-digest", commitment, f"has the digest {digest}; {commitment.digest} was committed.")
    # (3) the header: these are the author's bytes, now ask whether they were made for this place
    header, start = parse_header(view)
    for name, committed in _place_of(commitment).items():
        if (stated := getattr(header, name)) != committed:
            _refuse("update-header", commitment, f"says {name} {stated}; the ledger says {committed}.")
    # (4) nothing but the integers behind it
    if len(view) - start != commitment.elements * ITEM_SIZE[header.encoding]:
        why = f"has {len(view) - start} bytes of integers; {commitment.elements} of {header.encoding} are due."
        _refuse("update-length", commitment, why)
    return VerifiedUpdate(_SEALED, commitment, view[start:])


def _place_of(commitment: Commitment) -> dict[str, Any]:
    """The header's fields as the ledger has them: all of the Header but the salt, which its author chose."""
    place = {name: getattr(commitment, name) for name in Header.__slots__ if name not in ("length", "salt")}
    return {**place, "length": commitment.elements}


def _refuse(code: str, commitment: Commitment, why: str) -> NoReturn:
    raise EvidenceError(code, f"{commitment.named()} {why}")
