# SPDX-License-Identifier: Apache-2.0
"""The ledgers that the conformance suite runs over: each made by one function, with a clock that the test sets."""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

from chaincode.entries import open_entry
from chaincode.ledgers import Ledger, Receipt
from chaincode.ledgers.sqlite import SqliteLedger
from chaincode.ledgers.tables import facet_of, segment_of, subjects_of
from chaincode.notes import format_vkey
from identity.errors import Rejected
from tests.chaincode.ledgers.stream import LOG, LOG_KEY, ORIGIN, START
from tests.fakes.memory_ledger import MemoryLedger

VKEY = format_vkey(ORIGIN, LOG_KEY)


@dataclass
class Clock:
    """A clock that stands still at `now`, and counts how often it is asked; None makes it break when asked."""

    now: int | None = START
    asked: int = field(default=0)

    def __call__(self) -> int:
        self.asked += 1
        if self.now is None:
            raise AssertionError("the clock was asked")
        return self.now


Factory = Callable[[Path, Clock], Ledger]


def memory(_folder: Path, clock: Clock) -> Ledger:
    return MemoryLedger(origin=ORIGIN, log_key=VKEY, clock=clock)


def embedded(folder: Path, clock: Clock) -> SqliteLedger:
    return SqliteLedger.create(folder / "ledger.sqlite", origin=ORIGIN, public_key=LOG_KEY, sign=LOG.sign, clock=clock)


def opened(path: Path, timeout: float = 10.0) -> SqliteLedger:
    """The embedded ledger in a file, for writing."""
    return SqliteLedger.open(path, sign=LOG.sign, clock=Clock(), timeout=timeout)


FACTORIES: dict[str, Factory] = {"memory": memory, "embedded": embedded}


def accepted(outcomes: list[Receipt | Rejected]) -> list[Receipt]:
    """The receipts, where every outcome is one."""
    refused = [outcome for outcome in outcomes if isinstance(outcome, Rejected)]
    assert not refused, refused[0]
    return [outcome for outcome in outcomes if isinstance(outcome, Receipt)]


def codes(outcomes: list[Receipt | Rejected]) -> list[str]:
    """The code of each refusal; empty for a receipt."""
    return [outcome.code if isinstance(outcome, Rejected) else "" for outcome in outcomes]


def check_columns(path: Path, envelopes: list[bytes]) -> None:
    """The derived columns in a file are what the ledger's own functions say of the entries."""
    raw = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    facets = raw.execute(
        "SELECT kind, m.text, d.text, a.text, round, at, latest FROM facet"
        " JOIN name AS m ON m.number = member JOIN name AS d ON d.number = did"
        " LEFT JOIN name AS a ON a.number = agreement ORDER BY idx"
    ).fetchall()
    subjects = raw.execute("SELECT segment, digest, idx FROM subject").fetchall()
    raw.close()
    entries = [open_entry(envelope) for envelope in envelopes]
    latest = accumulate((entry.at for entry in entries), max)
    assert facets == [(*facet_of(entry), most) for entry, most in zip(entries, latest, strict=True)]
    expected = [(segment_of(i), digest, i) for i, entry in enumerate(entries) for digest in subjects_of(entry)]
    assert sorted(subjects) == sorted(expected)
