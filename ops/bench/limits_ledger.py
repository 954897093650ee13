# SPDX-License-Identifier: Apache-2.0
"""The embedded ledger and the audit's replay, each beside the bare rate at which signatures can be verified."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from chaincode.audit import audit
from chaincode.audit.bundle_source import bundle_source
from chaincode.audit.export import export
from chaincode.audit.folder_source import folder_source
from chaincode.audit.replay import replay
from chaincode.audit.report import Draft
from chaincode.crew import CREW_THREADS
from chaincode.threads import CORES
from ops.bench import ledgers
from ops.bench.ledgers import (
    OPEN_END,
    ClockedLedger,
    Deal,
    Length,
    agreement_entries,
    append,
    create,
    round_entries,
    start,
)
from ops.bench.limits_crypto import AllCores, messages, prepared, verify_seconds
from ops.bench.limits_measure import Paired, as_an_auditor, rate, spent, take_turns
from ops.bench.people import START, people
from ops.bench.report import Row, row
from ops.run_folder import RunFolder

SMALL, LARGE = 10, 1000  # commitments in a batch
MESSAGES = 3000  # that each core verifies bare at a time
LONG, QUICK_LONG = 100_000, 10_000  # entries that are replayed


class Appending:
    """A federation whose rounds are stored as they come; only the batch of a round's commitments is timed."""

    def __init__(self, folder: Path, sites: int, together: int) -> None:
        """``together`` rounds make one measurement."""
        run = RunFolder(folder)
        run.create()
        self.together, self.round, self.at = together, 0, START + 1
        self.ledger: ClockedLedger = create(run, people(sites))
        self.deal = Deal(sites, start(run, self.ledger, people(sites)), 0, OPEN_END)
        append(self.ledger, agreement_entries(self.deal, self.at), self.at)
        self.signed: list[list[bytes]] = []
        self.next()

    def next(self) -> None:
        """Sign the next measurement's rounds."""
        first, self.round = self.round + 1, self.round + self.together
        self.signed = [round_entries(self.deal, self.at, n, n) for n in range(first, self.round + 1)]

    def store(self) -> float:
        """Store the signed rounds; the seconds in which their commitments were stored, durably. Signs the next ones."""
        seconds = 0.0
        for opening, *commitments, seal, record in self.signed:
            append(self.ledger, [opening], self.at)
            begin = time.perf_counter()
            append(self.ledger, commitments, self.at)
            seconds += time.perf_counter() - begin
            append(self.ledger, [seal, record], self.at)
        self.next()
        return seconds

    @property
    def commitments(self) -> list[bytes]:
        """The commitments that are stored next."""
        return [entry for opening, *commitments, seal, record in self.signed for entry in commitments]


@contextmanager
def appending(sites: int, together: int) -> Iterator[Appending]:
    """A federation in a folder that is removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fedledger-bench-"))
    try:
        made = Appending(folder / "run", sites, together)
        with made.ledger:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def measure_appends(sites: int, together: int, turns: int) -> Paired:
    """Storing commitments beside verifying the very same messages and nothing else."""
    with appending(sites, together) as federation:
        return take_turns(lambda: verify_seconds(prepared(messages(federation.commitments))), federation.store, turns)


def ledger_rows(quick: bool) -> list[Row]:
    """Signed entries a second, verified and durable."""
    turns = 5 if quick else 15
    small, large = measure_appends(SMALL, 20, turns), measure_appends(LARGE, 1, turns)
    ours, bare = LARGE / large.our_seconds, LARGE / large.limit_seconds
    note = (
        f"batches of {LARGE}, ratio {1 / max(large.ratios):.2f} to {1 / min(large.ratios):.2f}; in batches of {SMALL}: "
        f"{rate(SMALL * 20, small.our_seconds)}, {1 / small.ratio:.0%} of bare"
    )
    what = "embedded ledger: signed entries verified, judged and durable"
    return [
        row(f"{what}, each second", f"{ours:,.0f}/s", "5,000/s wanted", ours / 5000, 1.0, "at-least", note),
        row(f"{what}, to the bare Ed25519 verify rate of one core", f"{ours:,.0f}/s", f"{bare:,.0f}/s", 1 / large.ratio,
            0.6, "at-least", f"batches of {LARGE}; the ledger verifies on {CREW_THREADS} cores"),
    ]  # fmt: skip


def replay_seconds(bundle: Path) -> float:
    """Seconds of the audit's pass over a log: every entry opened and verified, its leaf hashed, the contract replayed."""
    with bundle_source(bundle) as source:
        drafts = [Draft(1), Draft(3), Draft(4)]
        begin = time.perf_counter()
        done = replay(
            source.entries(), source.observer(), lambda *_: None, whole=drafts[0], form=drafts[1], rules=drafts[2]
        )
        seconds = time.perf_counter() - begin
    if any(draft.claim().findings for draft in drafts) or done.accepted != len(done.leaves):
        raise RuntimeError("the ledger that is replayed is not sound, so its replay says nothing")
    return seconds


def replay_rows(quick: bool, cache: Path) -> list[Row]:
    """Replay and verification of a long ledger."""
    run, _ = ledgers.cached(cache, Length(QUICK_LONG if quick else LONG))
    bundle = run.path / "exported"
    if not bundle.exists():
        with folder_source(run.path) as source:
            export(source, bundle)
    with bundle_source(bundle) as source:
        size = sum(1 for _ in source.entries())
        sample = messages(islice(source.entries(), size - MESSAGES, None))
    with AllCores(sample) as cores, as_an_auditor():
        scale = size / cores.messages
        taken = take_turns(
            lambda: cores.seconds() * scale, lambda: replay_seconds(bundle), 3 if quick else 5, warm=quick
        )
    with bundle_source(bundle) as source:
        begin = time.perf_counter()
        audit(source, recompute=False)
        whole = time.perf_counter() - begin
    return [
        row(f"replay and verification of a ledger of {size:,} entries, to the bare verify rate of all {CORES} cores",
            rate(size, taken.our_seconds), rate(size, taken.limit_seconds), 1 / taken.ratio, 0.7, "at-least",
            f"{spent(taken.our_seconds)}; all ten claims without recomputation {spent(whole)}; ratio "
            f"{1 / max(taken.ratios):.2f} to {1 / min(taken.ratios):.2f}"),
    ]  # fmt: skip
