# SPDX-License-Identifier: Apache-2.0
"""The one door through which an update's bytes become something that may be aggregated (R2).

The ledger says what a member committed; the bytes come from anywhere. A VerifiedUpdate exists only where both
agree, so a function that takes one needs no further check of where it came from. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, NoReturn

from chaincode.chunks import CHUNK, chunk_hashes, chunk_root, root_of
from chaincode.header import HEADER_LIMIT, ITEM_SIZE, Header, match_header, parse_header
from identity.errors import EvidenceError
from identity.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

    from chaincode.crew import Crew


@dataclass(frozen=True)  # no slots: its fields are taken by ``vars``, where it is sent
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


UNIT: Final = CHUNK // 8
"""Elements whose sums fill one chunk: shards begin at multiples of it, so that each hashes whole chunks of the sum."""

_SEALED: Final = object()
_WORTH_THREADS: Final = 1 << 20
"""So many bytes take longer to hash than threads to wake."""
_PLACE: Final = tuple(f.name for f in fields(Header) if f.name not in ("length", "salt"))


class VerifiedUpdate:
    """Bytes that are what their author committed to on the ledger. Only `verify_update` and `verify_all` make one.

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
        """Refuse everybody but `verify_update` and `verify_all`."""
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

    `data` is the whole blob (bytes, a memoryview, a mapping). `threads` as for `chunk_root`.

    Raises EvidenceError, in this order: update-size (not the committed number of bytes), update-digest (other
    bytes), blob-header (committed, but no header can be read), update-header (the header names another
    federation, agreement, round, attempt, base, member, encoding or length: a copied update names its first
    author), update-length (not exactly `elements` integers after it).
    """
    return _verify(commitment, memoryview(data), threads=threads)


def verify_all(
    updates: Sequence[tuple[Commitment, memoryview]], crew: Crew | None = None
) -> list[VerifiedUpdate | EvidenceError]:
    """`verify_update` of each, or what it raises in its place; where they are 1 MiB or more, the threads of `crew` hash them."""
    digests: Sequence[str | None] = [None] * len(updates)
    if crew is not None and sum(data.nbytes for _, data in updates) >= _WORTH_THREADS:
        digests = crew.map(lambda u: chunk_root(u[1]) if u[1].nbytes == u[0].size else None, updates, 1)
    found: list[VerifiedUpdate | EvidenceError] = []
    for (commitment, data), digest in zip(updates, digests, strict=True):
        try:
            found.append(_verify(commitment, data, digest))
        except EvidenceError as error:
            found.append(error)
    return found


def _verify(commitment: Commitment, data: memoryview, digest: str | None = None, *, threads: int = 1) -> VerifiedUpdate:
    """As `verify_update`; ``digest`` is that of the data, where they have been hashed already."""
    view = data.toreadonly().cast("B")
    # (1) the size: the cheapest difference first
    _check_size(commitment, view)
    # (2) the digest, before a byte is given a meaning
    digest = digest or chunk_root(view, threads=threads)
    if digest != commitment.digest:
        _refuse("update-digest", commitment, f"has the digest {digest}; {commitment.digest} was committed.")
    # (3, 4) these are the author's bytes, now ask whether they were made for this place
    return VerifiedUpdate(_SEALED, commitment, view[_check_form(commitment, view) :])


def _check_size(commitment: Commitment, view: memoryview) -> None:
    if len(view) != commitment.size:
        why = f"has {counted(len(view), 'byte')}; {counted(commitment.size, 'was', 'were')} committed."
        _refuse("update-size", commitment, why)


def _check_form(commitment: Commitment, view: memoryview) -> int:
    """Where the integers begin. Raises EvidenceError: blob-header, update-header, update-length."""
    # (3) the header
    start = match_header(view, _place_of(commitment)) or _refuse_header(commitment, view)
    # (4) nothing but the integers behind it
    if len(view) - start != commitment.elements * ITEM_SIZE[commitment.encoding]:
        why = (
            f"has {counted(len(view) - start, 'byte')} of integers, not {commitment.elements} of {commitment.encoding}."
        )
        _refuse("update-length", commitment, why)
    return start


def _refuse_header(commitment: Commitment, view: memoryview) -> NoReturn:
    """Say why the header is not the one for this place. Raises EvidenceError: blob-header, update-header."""
    header, _ = parse_header(view)
    for name, committed in _place_of(commitment).items():
        if (stated := getattr(header, name)) != committed:
            _refuse("update-header", commitment, f"says {name} {stated}; the ledger says {committed}.")
    _refuse("blob-header", commitment, "has a header in another spelling than the one for its place.")


@dataclass(frozen=True, slots=True)
class ShardEvidence:
    """What one reader of a part of an update found: `code` of what is wrong ("" for nothing), and the leaf hashes
    of the chunks from `first` on that it read. Pickles."""

    member: str
    code: str
    first: int
    hashes: tuple[bytes, ...]


class ShardReader:
    """Reads integers `start` to `stop` of an update that is NOT verified, and hashes every chunk that it takes them from.

    What is made of them is worth nothing until the hashes have been joined with those of the other shards' readers:
    `judge` says whether the whole is the committed update, `check_shard` whether this reader's part belongs to it.
    The reader of element 0 judges the header too.

    Raises EvidenceError: update-size where `data` has another size than committed, update-length where that size
    cannot be one of these integers and a header: the place of the integers follows from the commitment.
    """

    __slots__ = ("_body", "_code", "_end", "_first", "_item", "_leaves", "_position", "_view", "commitment")

    def __init__(self, commitment: Commitment, data: Buffer, start: int, stop: int) -> None:
        view = memoryview(data).toreadonly().cast("B")
        _check_size(commitment, view)
        self.commitment, self._view, self._code = commitment, view, ""
        self._item = ITEM_SIZE[commitment.encoding]
        self._body = len(view) - commitment.elements * self._item
        if not 0 < self._body <= HEADER_LIMIT:  # the contract refuses such a commitment
            _refuse("update-length", commitment, f"leaves {counted(self._body, 'byte')} for its header.")
        self._first = (self._body + start * self._item) // CHUNK if start else 0
        self._position = self._first * CHUNK
        last = -(-(self._body + stop * self._item) // CHUNK)
        self._end, self._leaves = min(last * CHUNK, len(view)), list[bytes]()
        if start == 0:
            try:
                _check_form(commitment, view)
            except EvidenceError as error:
                self._code = error.code

    def read(self, start: int, stop: int) -> memoryview:
        """The bytes of integers `start` to `stop`, hashed before they are given out; shards are read in order."""
        end = self._body + stop * self._item
        self._hash_to(end)
        return self._view[self._body + start * self._item : end]

    def refuse(self, code: str) -> None:
        """Note what the reader found wrong with the integers; what is wrong with the form goes before."""
        self._code = self._code or code

    def evidence(self) -> ShardEvidence:
        """What was found, after the last read."""
        self._hash_to(self._end)
        return ShardEvidence(self.commitment.member, self._code, self._first, tuple(self._leaves))

    def _hash_to(self, end: int) -> None:
        while self._position < end:  # a whole chunk: what lies ahead is still in the cache when it is read
            stop = min(self._position + CHUNK, self._end)
            self._leaves += chunk_hashes(self._view[self._position : stop])
            self._position = stop


def shard_cuts(elements: int, shards: int) -> list[int]:
    """Where to cut a vector into at most `shards` shards of nearly equal size: the cuts, both ends among them."""
    units = -(-elements // UNIT)
    return sorted({min(elements, UNIT * (units * i // shards)) for i in range(shards + 1)})


def judge(commitment: Commitment, parts: Sequence[ShardEvidence]) -> tuple[str, list[bytes]]:
    """The verdict on an update from what the readers of all its shards found, and the hashes of all its chunks.

    The verdict is the code that `verify_update` would raise, then what the readers found wrong with the
    integers; "" where nothing is. Raises ValueError where the shards do not cover the update.
    """
    for part in parts:
        if part.code and not part.hashes:  # it was not even read
            return part.code, []
    hashes: list[bytes | None] = [None] * -(-commitment.size // CHUNK)
    for part in parts:
        for index, found in enumerate(part.hashes, part.first):
            if hashes[index] not in (None, found):  # two readers of one chunk had different bytes
                return "update-digest", []
            hashes[index] = found
    whole = [found for found in hashes if found is not None]
    if len(whole) != len(hashes):
        raise ValueError("the shards do not cover the update")
    if root_of(whole) != commitment.digest:
        return "update-digest", []
    return next((part.code for part in sorted(parts, key=lambda p: p.first) if part.code), ""), whole


def check_shard(commitment: Commitment, own: ShardEvidence, hashes: Sequence[bytes]) -> None:
    """Check that a reader's chunks belong to the committed update, whose chunks all have these `hashes`.

    With this the process that read the shard has verified it by itself: it need not believe where the other
    hashes come from. Raises EvidenceError: update-digest, and the code that the reader itself found.
    """
    fits = tuple(hashes[own.first : own.first + len(own.hashes)]) == own.hashes
    if not fits or len(hashes) != -(-commitment.size // CHUNK) or root_of(hashes) != commitment.digest:
        _refuse("update-digest", commitment, "was not verified: the chunks that were read are not the committed ones.")
    if own.code:
        _refuse(own.code, commitment, "was not verified.")


def _place_of(commitment: Commitment) -> dict[str, Any]:
    """The header's fields as the ledger has them: all of the Header but the salt, which its author chose."""
    place = {name: getattr(commitment, name) for name in _PLACE}
    return {**place, "length": commitment.elements}


def _refuse(code: str, commitment: Commitment, why: str) -> NoReturn:
    raise EvidenceError(code, f"{commitment.named()} {why}")
