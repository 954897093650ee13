# SPDX-License-Identifier: Apache-2.0
"""What a writer knows of the state without asking the file: never anything else than what the file says.

Run as a module it is another process that writes: `python -m … PATH`, a line of JSON for each question and answer.
"""

import json
import os
import resource
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chaincode import contract, state
from chaincode.entries import open_entry
from chaincode.ledgers import recent
from chaincode.ledgers.replica import Replica
from chaincode.ledgers.sqlite import SqliteLedger
from chaincode.state import Head, Seat
from identity.errors import EvidenceError, Unavailable
from tests.chaincode.ledgers.hosts import VKEY, Clock, accepted, check_columns, codes, embedded, opened
from tests.chaincode.ledgers.stream import ORIGIN, START, Stream, person
from tests.fakes.memory_ledger import MemoryLedger

ROOT = Path(__file__).parents[3]
STREAM = Stream()
WHOLE = STREAM.whole(rounds=2)
SETUP = list(STREAM.setup())
AGREEMENT = open_entry(WHOLE[-1]).agreement
HEAD = state.head_key(AGREEMENT)
SEAT = state.seat_key(AGREEMENT, 1, 1, STREAM.members[0].did)
KEYS = sorted(contract.keys_of([open_entry(envelope) for envelope in WHOLE]))


def seat(ledger: SqliteLedger) -> str:
    """What the ledger says of the first member's seat in round 1."""
    data = ledger.get([SEAT])[SEAT]
    assert data is not None
    return state.decode(Seat, data).state


def in_memory(*batches: list[bytes]) -> MemoryLedger:
    memory = MemoryLedger(origin=ORIGIN, log_key=VKEY, clock=Clock())
    for batch in batches:
        accepted(memory.submit(batch))
    return memory


def present(memory: MemoryLedger) -> dict[str, bytes | None]:
    """All that the state holds, by keys of which none is absent: such a question may be answered without the file."""
    return {key: value for key, value in memory.get(KEYS).items() if value is not None}


@pytest.fixture
def open_round(ledger: SqliteLedger) -> SqliteLedger:
    """A ledger in whose first round all seats are open, and known to it."""
    accepted(ledger.submit([*SETUP, STREAM.open(1)]))
    assert seat(ledger) == "open"
    return ledger


# Nobody else writes


def test_what_was_just_written_is_not_read_again(open_round: SqliteLedger) -> None:
    """Neither to answer with it nor to judge by it."""
    asked: list[str] = []
    assert open_round._writer is not None
    for connection in (open_round._reads, open_round._writer._connection):
        connection.raw.set_trace_callback(asked.append)
    assert seat(open_round) == "open"
    assert asked == ["PRAGMA data_version"]
    accepted(open_round.submit([STREAM.commit(STREAM.members[0], 1)]))
    assert seat(open_round) == "committed"
    assert not [statement for statement in asked if statement.startswith("SELECT") and "state" in statement]


@pytest.mark.parametrize("most", [0, 1, 5, 1000])
def test_few_values_are_kept(ledger: SqliteLedger, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(recent, "_MOST", most)
    memory = in_memory()
    assert ledger._writer is not None
    for size in range(1, len(WHOLE) + 1):
        batch = WHOLE[ledger.size : ledger.size + size]
        assert ledger.submit(batch) == memory.submit(batch)
        assert ledger.get(present(memory).keys()) == present(memory)
        assert len(ledger._writer._recent._values) <= most


def test_a_replica_knows_what_it_replayed(tmp_path: Path) -> None:
    memory = in_memory()
    with Replica.open(tmp_path / "replica.sqlite", origin=ORIGIN) as replica:
        for envelope in WHOLE:
            replica.extend([open_entry(envelope)])
            accepted(memory.submit([envelope]))
            assert replica.get(present(memory).keys()) == present(memory)
            assert replica.get(KEYS) == memory.get(KEYS)


# Others write


class Other:
    """A ledger that another process has open for writing."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-m", "tests.chaincode.ledgers.test_sqlite_recent", str(path)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _ask(self, *question: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def submit(self, batch: list[bytes]) -> list[str]:
        answer: list[str] = self._ask("submit", [envelope.hex() for envelope in batch])
        return answer

    def get(self, keys: list[str]) -> dict[str, bytes | None]:
        return {key: value and bytes.fromhex(value) for key, value in self._ask("get", keys).items()}


@contextmanager
def another(path: Path) -> Iterator[Other]:
    other = Other(path)
    try:
        yield other
    finally:
        other.process.kill()
        other.process.communicate(timeout=60)


def serve(path: Path) -> None:
    """The other process."""
    with opened(path) as ledger:
        for line in sys.stdin:
            what, values = json.loads(line)
            if what == "submit":
                answer: Any = codes(ledger.submit([bytes.fromhex(value) for value in values]))
            else:
                answer = {key: value and value.hex() for key, value in ledger.get(values).items()}
            print(json.dumps(answer), flush=True)


@pytest.mark.parametrize("turn", [1, 2, 3, 5])
def test_processes_that_write_in_turn_judge_and_answer_by_each_others_entries(
    ledger: SqliteLedger, path: Path, turn: int
) -> None:
    """So many entries by one, then by the other, an old one with each; both know after each what a third would read."""
    memory = in_memory()
    with another(path) as other:
        for at in range(0, len(WHOLE), turn):
            batch = [*WHOLE[at : at + turn], WHOLE[at // 2], STREAM.commit(STREAM.members[1], 1, update="ab" * 32)]
            expected = codes(memory.submit(batch))
            given = other.submit(batch) if at // turn % 2 else codes(ledger.submit(batch))
            assert given == expected
            known = present(memory)
            for _ in range(2):
                assert ledger.get(known.keys()) == known
                assert other.get(list(known)) == known


def test_columns_follow_from_the_log_whoever_wrote_it(ledger: SqliteLedger, path: Path) -> None:
    """Above all the latest time so far, which neither writer reads anew for each batch."""
    accepted(ledger.submit([STREAM.found]))
    offsets = [30, -20, 10, -5, 40, 50, -60, 0, 60, 20]
    with opened(path) as other:
        for number, offset in enumerate(offsets):
            writer = other if number % 4 > 1 else ledger
            accepted(writer.submit([STREAM.admit(person(f"member {number}"), at=START + offset)]))
        check_columns(path, list(ledger.entries()))


def test_a_killed_writer_leaves_what_it_committed(open_round: SqliteLedger, path: Path) -> None:
    with another(path) as other:
        assert other.submit([STREAM.commit(STREAM.members[0], 1)]) == [""]
    assert other.process.returncode != 0
    assert seat(open_round) == "committed"
    assert codes(open_round.submit([STREAM.commit(STREAM.members[0], 1, update="cd" * 32)])) == [
        "conflicting-commitment"
    ]


def test_a_value_that_no_ledger_wrote_is_the_files_all_the_same(open_round: SqliteLedger, path: Path) -> None:
    """The head has not moved; an auditor will say what is wrong with the state."""
    other = sqlite3.connect(path, isolation_level=None)
    declined = state.encode(Seat("declined"))
    other.execute("UPDATE state SET value = ? WHERE key = ?", (declined, SEAT))
    other.close()
    assert open_round.get([SEAT, HEAD])[SEAT] == declined
    assert codes(open_round.submit([STREAM.commit(STREAM.members[0], 1)])) == ["already-declined"]


def test_a_head_that_is_not_ours_is_refused_every_time(open_round: SqliteLedger, path: Path) -> None:
    """What was looked at in a turn that failed does not count as seen in the next one."""
    other = sqlite3.connect(path, isolation_level=None)
    note = open_round.checkpoint()
    other.execute("UPDATE checkpoint SET note = ?", (note.replace("\n", "x\n", 1),))
    for _ in range(3):
        with pytest.raises(EvidenceError):
            open_round.submit([STREAM.commit(STREAM.members[0], 1)])
    other.execute("UPDATE checkpoint SET note = ?", (note,))
    other.close()
    accepted(open_round.submit([STREAM.commit(STREAM.members[0], 1)]))


# A transaction of our own fails, or is under way


def failing_commit(ledger: SqliteLedger, path: Path, batch: list[bytes]) -> None:
    """Submit where the side file may grow by a page and no more: the commit writes several."""
    bounds = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(f"{path}-wal") + 5000, bounds[1]))
    try:
        with pytest.raises(Unavailable):
            ledger.submit(batch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, bounds)


def failing_clock(ledger: SqliteLedger, path: Path, batch: list[bytes]) -> None:
    assert ledger._writer is not None
    clock, ledger._writer._clock = ledger._writer._clock, Clock(None)
    with pytest.raises(AssertionError):
        ledger.submit(batch)
    ledger._writer._clock = clock


@pytest.mark.parametrize("failing", [failing_commit, failing_clock])
def test_what_was_not_committed_is_not_known(
    open_round: SqliteLedger, path: Path, failing: Callable[[SqliteLedger, Path, list[bytes]], None]
) -> None:
    failing(open_round, path, [STREAM.commit(member, 1) for member in STREAM.members])
    assert seat(open_round) == "open"
    accepted(open_round.submit([STREAM.commit(STREAM.members[0], 1, update="ef" * 32)]))
    assert seat(open_round) == "committed"
    failing(open_round, path, [STREAM.commit(STREAM.members[1], 1)])
    memory = in_memory([*SETUP, STREAM.open(1), STREAM.commit(STREAM.members[0], 1, update="ef" * 32)])
    assert open_round.get(present(memory).keys()) == present(memory)


def test_whoever_asks_during_a_submission_gets_what_is_committed_and_does_not_wait(tmp_path: Path) -> None:
    judging, answered, inside = threading.Event(), threading.Event(), list[str]()

    def clock() -> int:
        """Asked in the middle of a submission; asks the ledger itself."""
        if ledger.size == len(SETUP) + 1:
            inside.append(seat(ledger))
            judging.set()
            assert answered.wait(60)
        return START

    with embedded(tmp_path, Clock()) as first:
        accepted(first.submit([*SETUP, STREAM.open(1)]))
    with opened(tmp_path / "ledger.sqlite") as ledger:
        assert ledger._writer is not None
        ledger._writer._clock = clock
        batch = [STREAM.commit(STREAM.members[0], 1)]
        submission = threading.Thread(target=lambda: inside.append(codes(ledger.submit(batch))[0]))
        submission.start()
        assert judging.wait(60)
        assert seat(ledger) == "open"
        assert state.decode(Head, ledger.get([HEAD])[HEAD] or b"").state == "open"
        answered.set()
        submission.join()
        assert inside == ["open", ""]
        assert seat(ledger) == "committed"


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
