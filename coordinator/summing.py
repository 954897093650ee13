# SPDX-License-Identifier: Apache-2.0
"""What a worker does with deliveries: verify them, keep them as evidence, and sum them, whole or by shards."""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chaincode.aggregation import add, weighted_sum
from chaincode.agreement import TensorSpec
from chaincode.blobs import BlobStore
from chaincode.crew import Crew
from chaincode.evidence import Commitment, ShardEvidence, VerifiedUpdate, verify_all
from chaincode.files import mapped
from chaincode.header import ITEM_SIZE
from chaincode.packs import SMALL
from chaincode.place import Place
from chaincode.shards import Tentative, sum_shard
from chaincode.update import check_range
from chaincode.writeback import forget, start_writing_back
from coordinator.ports import UNKNOWN_BYTES, Delivery
from identity.errors import EvidenceError, Unavailable

Sums = NDArray[np.int64]
Cut = tuple[int, int]
"""A shard: the first element of the vector that is in it, and the first that is not any more."""
Summed = tuple[dict[str, str], Sums | None]
Hashes = Mapping[str, Sequence[bytes]]
"""The hashes of all chunks of each update, by member."""

OPEN_FILES = 256
"""So many files are open at a time: a process may not open as many as there are sites."""

_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What this process is short of, whatever was delivered."""


class Summing:
    """Sums a model's updates, and puts those that lie in packs into the store."""

    def __init__(self, specs: Sequence[TensorSpec], blobs: BlobStore) -> None:
        """``blobs`` is this object's alone: it is used in a thread."""
        self._specs, self._blobs = specs, blobs
        self._tentative: tuple[object, Tentative | None] = None, None
        self._sums = np.empty(0, np.int64)
        self._moved: list[Path] = []  # packs to let go of, for the thread beside
        self._beside = ThreadPoolExecutor(1)  # writes what is kept: nothing else uses the store meanwhile

    def sum(self, deliveries: Sequence[Delivery]) -> Summed:
        """See ``summed``; what is put into the store is on the disk when this returns."""
        with self.summed(deliveries) as found:
            return found

    @contextmanager
    def summed(self, deliveries: Sequence[Delivery], crew: Crew | None = None) -> Iterator[Summed]:
        """A verdict per member ("" or an EvidenceError's code), and the weighted sum of those that pass, if any do.

        With a crew its threads help: the other workers have nothing to do meanwhile.
        Verified blobs that lie in packs are put into the blob store: within the block that goes on, at its end they are on
        the disk; packs that were moved there then leave the memory. Raises Unavailable(worker-resources); at the end also OSError.
        """
        verdicts: dict[str, str] = {}
        total: Sums | None = None
        with ExitStack() as files:
            for part in _few_files(deliveries):
                files.close()  # those of the part before
                summed = self._sum_some(part, verdicts, files, crew)
                if summed is not None:
                    total = summed if total is None else add([total, summed])
            yield verdicts, total
        self._beside.submit(self._forget_packs)

    def sum_shard(self, deliveries: Sequence[Delivery], cut: Cut) -> list[ShardEvidence]:
        """What was found of each delivery in a shard; the sum stays here until it is confirmed.

        Raises EvidenceError: ``sum-*``; Unavailable(worker-resources).
        """
        self._tentative = None, None  # its sums are overwritten from here on, also where this raises
        missing: dict[str, ShardEvidence] = {}
        updates: list[tuple[Commitment, memoryview]] = []
        with ExitStack() as stack:
            for delivery, place in zip(deliveries, self._delivered(deliveries), strict=True):
                try:
                    updates.append((delivery.commitment, stack.enter_context(place.open())))
                except (EvidenceError, OSError) as error:
                    _check_own(error)
                    member = delivery.commitment.member
                    missing[member] = ShardEvidence(member, "update-missing", 0, ())
            if not updates:
                self._tentative = _name(deliveries, cut), None
                return [missing[delivery.commitment.member] for delivery in deliveries]
            if len(self._sums) != cut[1] - cut[0]:
                self._sums = np.empty(cut[1] - cut[0], np.int64)
            tentative = sum_shard(updates, self._specs, *cut, out=self._sums)
        self._tentative = _name(deliveries, cut), tentative
        found = missing | {evidence.member: evidence for evidence in tentative.evidence}
        return [found[delivery.commitment.member] for delivery in deliveries]

    def confirm(self, deliveries: Sequence[Delivery], cut: Cut, hashes: Hashes) -> tuple[Sums, tuple[bytes, ...]]:
        """The sum of a shard and the leaf hashes of its chunks, valid until the next ``sum_shard``.

        Summed again where this process has not got it. Raises EvidenceError as ``Tentative.confirm``.
        """
        if self._tentative[0] != _name(deliveries, cut):
            self.sum_shard(deliveries, cut)
        tentative = self._tentative[1]
        if tentative is None:
            raise EvidenceError("update-missing", "The updates that have been summed are there no longer.")
        return tentative.confirm(hashes)

    def start_writing_back(self, deliveries: Sequence[Delivery], cut: Cut) -> None:
        """Have a shard of what was delivered written to the disk, which it must be on before it counts as evidence."""
        for delivery in deliveries:
            start_writing_back(delivery.place.path, *_bytes(delivery.commitment, cut))

    def forget(self, deliveries: Sequence[Delivery], cut: Cut) -> None:
        """Have what was read of a shard leave the memory, of the updates that have become blobs: nobody reads it again soon."""
        for commitment in (delivery.commitment for delivery in deliveries):
            forget(self._blobs.path(commitment.digest), *_bytes(commitment, cut))

    def _sum_some(
        self, deliveries: Sequence[Delivery], verdicts: dict[str, str], files: ExitStack, crew: Crew | None
    ) -> Sums | None:
        """The sum of as many deliveries as may be open at a time; adds their verdicts. What is open, and what is still being
        written, ends with ``files``."""
        there: list[tuple[Delivery, Place, memoryview]] = []
        opened: dict[str, memoryview] = {}
        for delivery, place in zip(deliveries, self._delivered(deliveries), strict=True):
            try:
                if place.path not in opened:
                    opened[place.path] = files.enter_context(mapped(place.path))
                    if place.size < 0:
                        self._beside.submit(start_writing_back, place.path)
                there.append((delivery, place, place.cut(opened[place.path])))
            except (EvidenceError, OSError) as error:
                # A link or a folder is no bytes: nothing was delivered that could be judged, or kept.
                _check_own(error)
                verdicts[delivery.commitment.member] = "update-missing"
        found = verify_all([(delivery.commitment, data) for delivery, _, data in there], crew)
        packed: list[tuple[str, Place, memoryview]] = []
        for (delivery, place, data), update in zip(there, found, strict=True):
            verdict = update.code if isinstance(update, EvidenceError) else ""
            verdicts[delivery.commitment.member] = verdict
            if place.size >= 0 and place is delivery.place and verdict not in UNKNOWN_BYTES:
                packed.append((delivery.commitment.digest, place, data))
        files.callback(self._beside.submit(self._keep, packed).result)
        updates = [update for update in found if not isinstance(update, EvidenceError)]
        return self._sum_in_range(updates, verdicts) if updates else None

    def _keep(self, packed: Sequence[tuple[str, Place, memoryview]]) -> None:
        """Put verified blobs into the store, those that are not in it yet: a sum may be asked for again.

        A pack that is nothing but these is moved there. Other bytes in the place of one are hidden by a file of its own.
        What another worker has stored since this one started is not looked for: at worst it is stored twice.
        """
        stored = self._blobs.find([digest for digest, _, _ in packed], look=False)
        places: dict[str, dict[str, Place]] = {}  # of what is not in the store, by its pack
        for digest, place, _ in packed:
            if digest not in stored:
                places.setdefault(place.path, {})[digest] = place
        moved = self._blobs.adopt_packs(places)
        self._moved += moved.values()
        small, single = dict[str, memoryview](), dict[str, memoryview]()
        for digest, place, blob in packed:
            if digest in stored:
                if not _holds(stored[digest], blob):
                    single[digest] = blob
            elif place.path not in moved:
                (small if len(blob) <= SMALL else single)[digest] = blob
        if small:
            self._blobs.put_small(list(small.items()))
        for digest, blob in single.items():
            self._blobs.put(blob, digest)

    def _forget_packs(self) -> None:
        """Have the packs that were moved leave the memory, which nobody reads any more: the next round's get their pages."""
        for path in self._moved:
            forget(path)
        self._moved.clear()

    def _delivered(self, deliveries: Sequence[Delivery]) -> list[Place]:
        """Where the bytes are: as delivered, or the blobs that they have become: a sum may be asked for again after
        they were kept."""
        there = {path: os.path.lexists(path) for path in {delivery.place.path for delivery in deliveries}}
        stored = self._blobs.find([d.commitment.digest for d in deliveries if not there[d.place.path]])
        return [stored.get(d.commitment.digest, d.place) for d in deliveries]

    def _sum_in_range(self, updates: Sequence[VerifiedUpdate], verdicts: dict[str, str]) -> Sums | None:
        """The sum; one update with a value beyond its clip makes every one be looked at alone."""
        specs = self._specs
        try:
            return weighted_sum(updates, specs)
        except EvidenceError:
            good = []
            for update in updates:
                try:
                    check_range(update.body, specs, update.commitment.encoding)
                    good.append(update)
                except EvidenceError as error:
                    verdicts[update.commitment.member] = error.code
            if len(good) == len(updates):
                raise
            return weighted_sum(good, specs) if good else None


def _check_own(error: Exception) -> None:
    """Raise Unavailable where bytes cannot be read for want of something here: no site is to be named for that."""
    if isinstance(error, OSError) and error.errno in _OWN:
        message = f"A worker cannot open the updates that were delivered: {error.strerror}."
        raise Unavailable("worker-resources", message, next="ulimit -n 65536") from error


def _holds(place: Place, blob: memoryview) -> bool:
    """Whether these bytes are there."""
    with suppress(EvidenceError, OSError), place.open() as data:
        return data == blob
    return False


def _few_files(deliveries: Sequence[Delivery]) -> Iterator[list[Delivery]]:
    """The deliveries in parts that lie in at most OPEN_FILES files."""
    part, files = list[Delivery](), set[str]()
    for delivery in deliveries:
        files.add(delivery.place.path)
        if len(files) > OPEN_FILES:
            yield part
            part, files = [], {delivery.place.path}
        part.append(delivery)
    yield part


def _bytes(commitment: Commitment, cut: Cut) -> tuple[int, int]:
    """Where a shard's integers begin in an update's file, and how many bytes they are; short of the length of its header."""
    item = ITEM_SIZE[commitment.encoding]
    return cut[0] * item, (cut[1] - cut[0]) * item


def _name(deliveries: Sequence[Delivery], cut: Cut) -> tuple[list[Commitment], Cut]:
    """Tells a shard's sum from others."""
    return [delivery.commitment for delivery in deliveries], cut
