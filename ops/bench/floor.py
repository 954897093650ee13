# SPDX-License-Identifier: Apache-2.0
"""What stands in the way of a round's goal: what its signatures, commits and calls cost bare, measured in the same run."""

import json
import secrets
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chaincode.threads import CORES
from identity.wording import counted
from ops.bench.compare import Comparison
from ops.bench.contestants import FEDLEDGER, PLAIN, TUNED
from ops.bench.limits_crypto import hash_seconds
from ops.bench.limits_measure import run_command
from ops.bench.report import Table, seconds
from ops.bench.workloads import Workload

ENTRY_BYTES = 900
"""About what the envelope of a commitment has."""
COMMITS = 2
"""Durable commits of a round: the commitments with the seal behind them, the record with the next opening behind it."""
ITEM_BYTES = 4
"""An update has a 32-bit integer for each parameter."""
CALLS = 2
"""Calls of a worker that a round has at least: to train, and to aggregate."""
_TIMES = 9


def floor(comparisons: Sequence[Comparison], folder: Path) -> Table:
    """For each workload: the faster plain loop's round on all cores, and what hashing, signing, verifying, committing and calling
    cost without a line of ours, as many as a round needs; what that is together, beside our round. ``folder`` is on the disk
    whose commits count."""
    wanted = [c for c in comparisons if {FEDLEDGER, PLAIN} <= c.measured.keys()]
    call, of_ray = json.loads(run_command([sys.executable, "-m", "ops.bench.bare_calls"])) if wanted else (0.0, 0.0)
    cells = []
    for comparison in wanted:
        sites, measured = comparison.workload.sites, comparison.measured
        train = min(measured[plain].round for plain in (PLAIN, TUNED) if plain in measured)
        parts = (
            train / min(CORES, sites), _hashes(comparison.workload), _signatures(sites), _commits(sites, folder), CALLS * call
        )  # fmt: skip
        plain, ours, goals = measured[PLAIN].round, measured[FEDLEDGER].round, comparison.workload.goals
        cells.append((
            comparison.workload.name, *map(seconds, (train, *parts, sum(parts))), f"{sum(parts) / plain:.2f}",
            f"{goals.plain:g}" if goals else "", seconds(ours), f"{ours / sum(parts):.2f}",
        ))  # fmt: skip
    columns = ("work", "arithmetic in one thread", "on all cores", "hashes", "signatures", "durable commits", "calls", "floor", "floor to plain", "goal",
               "our round", "ours to floor")  # fmt: skip
    return Table(
        "What a round costs with nothing of ours in it", columns, tuple(cells),
        f"Arithmetic: the round of the faster one of the plain loops, and that dealt to {counted(CORES, 'core')} without loss, which is "
        f"what counts: sites are independent of each other. Hashes: SHA-256 over every update "
        f"by whoever makes it and by whoever sums it, by one thread or dealt to {CORES}, whichever is faster. Signatures: each site's entry "
        f"signed and verified, the messages dealt to {CORES} threads. Durable commits: {COMMITS} transactions of SQLite with the "
        f"envelopes and nothing else, each on the disk before the next. Calls: {CALLS} times a byte to another process and back, "
        f"{seconds(call)} each (an empty call of Ray: {seconds(of_ray)}). Encoding, canonical bytes, judging, state and files are not in it. "
        f"A goal below the floor's ratio to the plain loop needs faster arithmetic or fewer bytes.",
    )  # fmt: skip


def _hashes(workload: Workload) -> float:
    """Seconds in which each site's update is hashed twice, by one thread or by all of them: few bytes are done before a
    second thread has started."""
    updates = [bytes(workload.parameters * ITEM_BYTES)] * (2 * workload.sites)
    return min(_median(lambda threads=threads: hash_seconds(updates, threads)) for threads in (1, CORES))  # type: ignore[misc]


def _signatures(sites: int) -> float:
    """Seconds in which all cores sign, and then verify, one message for each site."""
    keys = [Ed25519PrivateKey.generate() for _ in range(sites)]
    messages = [secrets.token_bytes(ENTRY_BYTES * 3 // 4) for _ in keys]
    public = [key.public_key() for key in keys]

    def some(part: range) -> None:
        signatures = [keys[i].sign(messages[i]) for i in part]
        for i, signature in zip(part, signatures, strict=True):
            public[i].verify(signature, messages[i])

    parts = [range(number, sites, CORES) for number in range(CORES)]
    with ThreadPoolExecutor(CORES) as pool:
        return _median(lambda: list(pool.map(some, parts)))


def _commits(sites: int, place: Path) -> float:
    """Seconds of a round's durable commits to SQLite: one has an envelope for each site and the seal, the other two."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        raw = sqlite3.connect(Path(folder) / "bare.sqlite", isolation_level=None)
        try:
            raw.executescript(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; CREATE TABLE entry (envelope BLOB)"
            )

            def commit(count: int) -> None:
                raw.execute("BEGIN IMMEDIATE")
                raw.executemany("INSERT INTO entry VALUES (?)", [(bytes(ENTRY_BYTES),)] * count)
                raw.execute("COMMIT")

            def all_of_a_round() -> None:
                for count in (sites + 1, *(2,) * (COMMITS - 1)):
                    commit(count)

            return _median(all_of_a_round)
        finally:
            raw.close()


def _median(action: Callable[[], object]) -> float:
    spans = []
    for _ in range(_TIMES + 1):
        begin = time.perf_counter()
        action()
        spans.append(time.perf_counter() - begin)
    return median(spans[1:])
