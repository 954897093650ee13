# SPDX-License-Identifier: Apache-2.0
"""Ledgers of any length for a benchmark: real keys, credentials, signatures and rounds; the updates are digests only.

A consortium of sites agrees on one model after the other. Nearly all entries are commitments, as in a real federation.
Entries are signed in processes beside the one that writes, some rounds ahead and no more, and stored by the product's own
ledger in batches of about a thousand: the memory does not grow with the length.
"""

import hashlib
import itertools
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path

from chaincode import notes, trust
from chaincode.agreement import agreement_digest
from chaincode.ledgers import Receipt
from chaincode.ledgers.sqlite import SqliteLedger
from identity.did import public_key_from_did
from identity.errors import Error, Rejected
from ops.bench.people import (
    SKEW,
    START,
    People,
    Signing,
    admissions,
    digest,
    federation_id,
    found,
    people,
    tensor,
    terms,
)
from ops.run_folder import RunFolder

ORIGIN = "fedledger/benchmark"
BATCH = 1000
ROUNDS = 97  # of an agreement: with 100 sites about ten thousand entries
ELEMENTS = 100
OPEN_END = 1_000_000  # rounds of the last agreement, which is in progress
SIGNERS = 2  # processes
_AHEAD = 8  # batches that may be signed before they are written


@dataclass(frozen=True, slots=True)
class Length:
    """A ledger to make: at least ``entries`` entries of a consortium of ``sites`` sites."""

    entries: int
    sites: int = 100

    @property
    def agreements(self) -> list[int]:
        """The rounds of each agreement; the last one goes on, all others end with a release."""
        left, whole = self.entries - 2 - self.sites, 2 + self.sites + ROUNDS * (self.sites + 3)
        ended = max(left, 0) // whole
        rest = left - ended * whole - 1 - self.sites
        return [ROUNDS] * ended + [max(1, -(-rest // (self.sites + 3)))]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a made ledger stands: the federation, the agreement in progress and its last round."""

    federation: str
    agreement: str
    number: int
    round: int
    entries: int
    at: int


def model(number: int, round_: int) -> str:
    """The digest that stands for the model of a round of an agreement; round 0 is the initial one."""
    return digest("model", number, round_)


@dataclass(frozen=True, slots=True)
class Deal:
    """Agreement number ``number`` of a federation of so many sites, for ``rounds`` rounds."""

    sites: int
    federation: str
    number: int
    rounds: int


@lru_cache(maxsize=2)
def signing(deal: Deal) -> tuple[Signing, dict[str, object]]:
    """The signers of an agreement, and its terms."""
    who = people(deal.sites)
    agreed = terms(who, f"Model {deal.number}", model(deal.number, 0), deal.rounds, [tensor("weight", [ELEMENTS])])
    return Signing(who, deal.federation, agreement_digest(agreed)), agreed


def agreement_entries(deal: Deal, at: int) -> list[bytes]:
    """The proposal and the signatures of an agreement."""
    by, agreed = signing(deal)
    return [by.propose(at, agreed), *(by.sign(at, site) for site in by.who.sites)]


def round_entries(deal: Deal, at: int, first: int, last: int, *, release: bool = False) -> list[bytes]:
    """The entries of some rounds of an agreement, a second each; and the release of the last one's model."""
    (by, _), number = signing(deal), deal.number
    made = []
    for n in range(first, last + 1):
        now = at + n - first
        made.append(by.open(now, n, model(number, n - 1)))
        made += [
            by.commit(now, n, site, digest("update", number, n, s), ELEMENTS * 4 + 400)
            for s, site in enumerate(by.who.sites)
        ]
        made += [by.seal(now, n), by.record(now, n, digest("sum", number, n), model(number, n))]
    if release:
        made.append(by.release(at + last - first, last, model(number, last), digest("card", number)))
    return made


def build(folder: Path, length: Length) -> Place:
    """Make a run folder whose ledger has that length; no updates, models or secrets are in it."""
    run = RunFolder(folder)
    run.create()
    with create(run, people(length.sites)) as ledger:
        federation = start(run, ledger, people(length.sites))
        last = START
        for last, envelopes in _signed(length, federation):
            append(ledger, envelopes, last)
        rounds = length.agreements
        number = len(rounds) - 1
        by, _ = signing(Deal(length.sites, federation, number, OPEN_END))
        return Place(federation, by.agreement, number, rounds[-1], ledger.size, last)


def create(run: RunFolder, who: People) -> "ClockedLedger":
    """An empty ledger in a run folder, whose clock says what a benchmark tells it."""
    clock = [START]
    ledger = SqliteLedger.create(
        run.ledger, origin=ORIGIN, public_key=public_key_from_did(who.log.did), sign=who.log.sign,
        clock=lambda: clock[0], skew=SKEW,
    )  # fmt: skip
    return ClockedLedger(ledger, clock)


def reopen(run: RunFolder, who: People) -> "ClockedLedger":
    """The ledger of a run folder for writing."""
    clock = [START]
    return ClockedLedger(SqliteLedger.open(run.ledger, sign=who.log.sign, clock=lambda: clock[0], skew=SKEW), clock)


class ClockedLedger:
    """An embedded ledger and the second that its clock says."""

    def __init__(self, ledger: SqliteLedger, clock: list[int]) -> None:
        self.ledger, self._clock = ledger, clock

    @property
    def size(self) -> int:
        return self.ledger.size

    def submit(self, envelopes: list[bytes], at: int) -> list[Receipt | Rejected]:
        """One durable batch at the second ``at``."""
        self._clock[0] = at
        return self.ledger.submit(envelopes)

    def __enter__(self) -> "ClockedLedger":
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.close()


def append(ledger: ClockedLedger, envelopes: list[bytes], at: int) -> None:
    """Store entries that must be accepted. Raises Rejected: one is not, so the benchmark is wrong."""
    for outcome in ledger.submit(envelopes, at):
        if isinstance(outcome, Rejected):
            raise outcome


def start(run: RunFolder, ledger: ClockedLedger, who: People) -> str:
    """Found the federation and admit everybody; its id. The credentials and the key file are in the folder afterwards."""
    vkey = notes.format_vkey(ORIGIN, public_key_from_did(who.log.did))
    founding = found(who, ORIGIN, vkey)
    federation = federation_id(founding)
    append(ledger, [founding], START)
    admitted = admissions(who, federation)
    for token, _ in admitted:
        name = f"{hashlib.sha256(token.encode()).hexdigest()}.jwt"
        (run.credentials / name).write_text(token)
    append(ledger, [entry for _, entry in admitted], START)
    key = trust.FederationKey(notes.parse_vkey(vkey), federation)
    run.key_file.write_text(trust.format_key(key))
    return federation


def _jobs(length: Length, federation: str) -> Iterator[tuple[int, Callable[..., list[bytes]], tuple[object, ...]]]:
    """What is to be signed, a batch each: its last second, a function, and what it is called with."""
    at, together, planned = START + 1, max(1, BATCH // (length.sites + 3)), length.agreements
    for number, rounds in enumerate(planned):
        ends = number < len(planned) - 1
        deal = Deal(length.sites, federation, number, ROUNDS if ends else OPEN_END)
        yield at, agreement_entries, (deal, at)
        for first in range(1, rounds + 1, together):
            last = min(first + together - 1, rounds)
            function = partial(round_entries, release=ends and last == rounds)
            yield at + last - first, function, (deal, at, first, last)
            at += last - first + 1


def _signed(length: Length, federation: str) -> Iterator[tuple[int, list[bytes]]]:
    """The entries in order, batch by batch, each with its last second; signed a few batches ahead in processes."""
    jobs = _jobs(length, federation)
    with ProcessPoolExecutor(SIGNERS, mp_context=get_context("spawn")) as pool:
        waiting: deque[tuple[int, Future[list[bytes]]]] = deque()

        def order(count: int) -> None:
            waiting.extend((at, pool.submit(function, *rest)) for at, function, rest in itertools.islice(jobs, count))

        order(_AHEAD)
        while waiting:
            at, future = waiting.popleft()
            yield at, future.result()
            order(1)


def cached(cache: Path, length: Length) -> tuple[RunFolder, Place]:
    """A ledger of that length, made on the first call and kept; made anew where the code that made it has changed.

    Benchmarks append to it, so it grows a little with each use: ``Place`` is where it stood when it was made.
    """
    made_by = hashlib.sha256(Path(__file__).read_bytes() + Path(__file__).with_name("people.py").read_bytes())
    folder = cache / f"ledger-{length.entries}x{length.sites}-{made_by.hexdigest()[:8]}"
    notebook = folder / "place.json"
    try:
        place = Place(**json.loads(notebook.read_text()))
        with SqliteLedger.open(RunFolder(folder).ledger):
            return RunFolder(folder), place
    except (OSError, ValueError, TypeError, Error):
        shutil.rmtree(folder, ignore_errors=True)
    place = build(folder, length)
    notebook.write_text(json.dumps(asdict(place)))
    return RunFolder(folder), place
