# SPDX-License-Identifier: Apache-2.0
"""Writers in processes of their own, several at once, killed at any moment: no receipt is ever broken."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chaincode import contract, log
from chaincode.checkpoints import Checkpoint
from chaincode.entries import open_entry
from chaincode.ledgers.sqlite import SqliteLedger
from tests.chaincode.ledgers.hosts import Clock, accepted, check_columns, embedded, opened
from tests.chaincode.ledgers.stream import ORIGIN, Stream, person

ROOT = Path(__file__).parents[3]
STREAM = Stream()


def start(path: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.chaincode.ledgers.writing_process", str(path), name]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def read_until(process: subprocess.Popen[str], marks: int) -> list[str]:
    """The lines up to where the process has begun that many submissions."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        marks -= line == "submitting\n"
        if not marks:
            return lines
    raise AssertionError("the writing process ended by itself")


def killed(process: subprocess.Popen[str]) -> list[str]:
    """Kill the process; the whole lines that it had still printed."""
    process.kill()
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    return [line + "\n" for line in rest.split("\n")[:-1]]


def receipts(lines: list[str]) -> dict[int, str]:
    return {int(index): entry for word, index, entry in (x.split() for x in lines if x.startswith("receipt"))}


def check_whole(path: Path, acknowledged: dict[int, str]) -> None:
    """Every receipt holds, the log has no gap, the head is that of the entries, the state that of the contract."""
    for open_ in (SqliteLedger.open, opened):
        with open_(path) as ledger:
            envelopes = list(ledger.entries())
            assert [row.index for row in ledger.find()] == list(range(len(envelopes)))
            root = log.root([log.leaf_hash(envelope) for envelope in envelopes])
            assert ledger.check_head() == Checkpoint(ORIGIN, len(envelopes), root)
            entries = [open_entry(envelope) for envelope in envelopes]
            assert acknowledged.items() <= {i: entry.id for i, entry in enumerate(entries)}.items()
            outcomes, writes = contract.apply_all(entries, dict.fromkeys(contract.keys_of(entries)))
            assert outcomes == [None] * len(entries)
            assert dict(ledger.state_items()) == writes
    check_columns(path, envelopes)


def test_a_writer_killed_at_any_moment_breaks_no_receipt(tmp_path: Path) -> None:
    with embedded(tmp_path, Clock()) as ledger:
        accepted(ledger.submit([STREAM.found]))
    path = tmp_path / "ledger.sqlite"
    acknowledged: dict[int, str] = {}
    for number, marks in enumerate([1, 2, 3, 9, 26]):
        process = start(path, f"writer {number}")
        lines = read_until(process, marks)
        acknowledged |= receipts(lines + killed(process))
        check_whole(path, acknowledged)
    assert len(acknowledged) > 60


def test_a_reader_reads_on_while_its_writer_is_killed(tmp_path: Path) -> None:
    with embedded(tmp_path, Clock()) as ledger:
        accepted(ledger.submit([STREAM.found]))
    path = tmp_path / "ledger.sqlite"
    with SqliteLedger.open(path) as reader:
        process = start(path, "writer")
        acknowledged = receipts(read_until(process, 12))
        assert reader.size > max(acknowledged)
        acknowledged |= receipts(killed(process))
        assert reader.size > max(acknowledged)
        reader.check_head()


def test_writers_in_several_processes_take_turns(tmp_path: Path) -> None:
    """Two processes and this one write at once; each index is given once, and nobody's receipt is lost."""
    with embedded(tmp_path, Clock()) as ledger:
        accepted(ledger.submit([STREAM.found]))
        path = tmp_path / "ledger.sqlite"
        processes = [start(path, name) for name in ("one", "two")]
        firsts = [read_until(process, 1) for process in processes]
        own = {r.index: r.entry for i in range(20) for r in accepted(ledger.submit([STREAM.admit(person(f"own {i}"))]))}
        given = [receipts(a + read_until(p, 10) + killed(p)) for a, p in zip(firsts, processes, strict=True)]
        total = own | given[0] | given[1]
        assert len(total) == len(own) + len(given[0]) + len(given[1])
        check_whole(path, total)
        accepted(ledger.submit([STREAM.admit(person("afterwards"))]))


@pytest.mark.parametrize("size", [1, 300])
def test_receipts_are_given_after_the_commit(tmp_path: Path, size: int) -> None:
    """What another process sees when a receipt is here: the entry, whatever became of this process."""
    with embedded(tmp_path, Clock()) as ledger, SqliteLedger.open(tmp_path / "ledger.sqlite") as reader:
        accepted(ledger.submit([STREAM.found]))
        batch = [STREAM.admit(person(f"member {i}")) for i in range(size)]
        for receipt in accepted(ledger.submit(batch)):
            assert reader.entry(receipt.index).id == receipt.entry
