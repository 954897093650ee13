# SPDX-License-Identifier: Apache-2.0
"""What a person waits for: commands from their start to their end, on a long ledger."""

import sys
from collections.abc import Mapping
from pathlib import Path

from chaincode.ledgers.sqlite import SqliteLedger
from ops.bench import ledgers
from ops.bench.ledgers import ROUNDS, Length, Place
from ops.bench.limits_measure import command_seconds, repeat, run_command, spent, timed
from ops.bench.people import people
from ops.bench.report import Row, row
from ops.run_folder import RunFolder

LONG, QUICK_LONG = 1_000_000, 10_000  # entries
FEW = 10  # rounds behind the model that is traced
QUERY, HELP = 0.5, 0.3  # seconds that are wanted

Words = tuple[object, ...]


def length(quick: bool) -> Length:
    """The ledger that is asked."""
    return Length(QUICK_LONG if quick else LONG)


def queries(run: RunFolder, place: Place, sites: int) -> Mapping[str, Words]:
    """The query commands by their names. What they answer does not grow with the ledger: a member's newest hundred
    entries, the rounds behind one model, the agreement in progress."""
    model = ledgers.model(max(0, place.number - 1), FEW)
    return {
        "log --did": ("log", run.path, "--did", people(sites).sites[1].did),
        "trace --model": ("trace", run.path, "--model", model),
        "status": ("status", run.path),
    }


def start_rows(quick: bool, cache: Path) -> list[Row]:
    """Query commands and ``--help``."""
    asked = length(quick)
    (run, place), times = ledgers.cached(cache, asked), 3 if quick else 7
    with SqliteLedger.open(run.ledger) as ledger:
        size = ledger.size
    rows = []
    for what, words in queries(run, place, asked.sites).items():
        seconds, note = command_seconds(*words, times=times), "the ledger's file in the page cache"
        if what.startswith("trace"):
            note += _traces(run, place, asked.sites, times)
        rows.append(row(f"fedledger {what} on a ledger of {size:,} entries, start-up included", spent(seconds),
                        f"{QUERY} s wanted", seconds / QUERY, 1.0, "at-most", note))  # fmt: skip
    bare = repeat(timed(lambda: run_command([sys.executable, "-c", "pass"])), times)
    seconds = command_seconds("--help", times=times)
    rows.append(row("fedledger --help", spent(seconds), f"{HELP} s wanted", seconds / HELP, 1.0, "at-most",
                    f"python alone starts in {spent(bare)}"))  # fmt: skip
    return rows


def _traces(run: RunFolder, place: Place, sites: int, times: int) -> str:
    """How much is behind the model that is traced, and what tracing more of it costs."""
    behind, note = FEW * sites, f"; {FEW} rounds and {FEW * sites:,} verified updates behind the model"
    if place.number == 0:
        return note
    seconds = command_seconds("trace", run.path, "--model", ledgers.model(place.number - 1, ROUNDS), times=times)
    return f"{note}; behind another {ROUNDS} rounds and {behind // FEW * ROUNDS:,} updates: {spent(seconds)}"
