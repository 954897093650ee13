# SPDX-License-Identifier: Apache-2.0
"""What can go wrong under the embedded ledger: no space, no lock, no disk, damaged bytes. It stays intact and usable."""

import os
import resource
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaincode import log
from chaincode.checkpoints import Checkpoint
from chaincode.ledgers.sqlite import SqliteLedger
from identity.errors import Error, EvidenceError, Unavailable
from tests.chaincode.ledgers.hosts import Clock, accepted, embedded, opened
from tests.chaincode.ledgers.stream import LOG, ORIGIN, Stream, person

STREAM = Stream()
WHOLE = STREAM.whole(rounds=1)


def many(count: int) -> list[bytes]:
    return [STREAM.admit(person(f"member {i}")) for i in range(count)]


def check_intact(ledger: SqliteLedger, envelopes: list[bytes]) -> None:
    """Exactly these entries, a whole tree and a head that fits."""
    assert list(ledger.entries()) == envelopes
    root = log.root([log.leaf_hash(envelope) for envelope in envelopes])
    assert ledger.check_head() == Checkpoint(ORIGIN, len(envelopes), root)


def check_refuses(code: str, ledger: SqliteLedger, batch: list[bytes]) -> None:
    """The batch fails as a whole, and nothing of it is there; not in another process either."""
    before, note = list(ledger.entries()), ledger.checkpoint()
    with pytest.raises(Unavailable) as caught:
        ledger.submit(batch)
    assert caught.value.code == code
    assert ledger.checkpoint() == note
    check_intact(ledger, before)


# No file


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_was_taken_from_under_its_name_gets_no_entries(ledger: SqliteLedger, replaced: bool) -> None:
    """A receipt for what nobody will find again would be a lie."""
    accepted(ledger.submit(WHOLE))
    assert ledger._writer is not None
    path = ledger._writer._connection.path
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    if replaced:
        copy.replace(path)
    else:
        path.unlink()
    with pytest.raises(Unavailable) as caught:
        ledger.submit(many(2))
    assert caught.value.code == "ledger-gone"
    assert list(ledger.entries()) == WHOLE


# No space


def test_a_full_database_keeps_what_it_has(ledger: SqliteLedger) -> None:
    """SQLite's own bound on the number of pages fails as a full disk does, anywhere."""
    accepted(ledger.submit(WHOLE))
    assert ledger._writer is not None
    raw = ledger._writer._connection.raw
    pages = raw.execute("PRAGMA page_count").fetchone()[0]
    raw.execute(f"PRAGMA max_page_count = {pages + 2}")
    batch = many(200)
    check_refuses("ledger-disk-full", ledger, batch)
    check_refuses("ledger-disk-full", ledger, batch)
    raw.execute("PRAGMA max_page_count = 1073741823")
    accepted(ledger.submit(batch))
    check_intact(ledger, [*WHOLE, *batch])


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a file system of its own, where the machine lets us."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs rights that this user has not")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_keeps_what_it_has(tmp_path: Path) -> None:
    with small_disk(tmp_path, "1m"), embedded(tmp_path, Clock()) as ledger:
        held = list(WHOLE)
        accepted(ledger.submit(held))
        batches = iter([(rest := many(600))[i : i + 50] for i in range(0, 600, 50)])
        for batch in batches:
            try:
                accepted(ledger.submit(batch))
            except Unavailable as error:
                assert error.code == "ledger-disk-full"  # noqa: PT017
                break
            held += batch
        else:
            raise AssertionError("the disk never filled")
        check_refuses("ledger-disk-full", ledger, rest[-300:])
        check_intact(ledger, held)
        subprocess.run(["mount", "-o", "remount,size=8m", str(tmp_path)], check=True)
        accepted(ledger.submit(batch))
        check_intact(ledger, [*held, *batch])
        with SqliteLedger.open(tmp_path / "ledger.sqlite") as reader:
            check_intact(reader, [*held, *batch])


def test_a_disk_that_fails_to_write_keeps_what_it_has(ledger: SqliteLedger, path: Path) -> None:
    """A bound on the size of this process's files makes a write fail, for another reason than a full disk."""
    accepted(ledger.submit(WHOLE))
    batch, bounds = many(200), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(f"{path}-wal") + 4096, bounds[1]))
    try:
        with pytest.raises(Unavailable) as caught:
            ledger.submit(batch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, bounds)
    assert caught.value.code in {"ledger-io", "ledger-disk-full", "ledger-outcome-unknown"}
    check_intact(ledger, WHOLE)
    accepted(ledger.submit(batch))
    check_intact(ledger, [*WHOLE, *batch])


# No lock


def test_a_ledger_that_another_process_writes_is_locked(ledger: SqliteLedger, path: Path) -> None:
    accepted(ledger.submit(WHOLE[:2]))
    with opened(path, timeout=0.05) as impatient:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        check_refuses("ledger-locked", impatient, WHOLE[2:])
        with SqliteLedger.open(path) as reader:
            check_intact(reader, WHOLE[:2])
        other.execute("ROLLBACK")
        other.close()
        accepted(impatient.submit(WHOLE[2:]))
    check_intact(ledger, WHOLE)


# What is handed in fails


def test_a_signer_that_fails_leaves_nothing(ledger: SqliteLedger, path: Path) -> None:
    ledger.close()
    answers = iter([LOG.sign, LOG.sign])

    def sign(message: bytes) -> bytes:
        try:
            return next(answers)(message)
        except StopIteration:
            raise Unavailable("token-removed", "The signing token was removed.") from None

    with SqliteLedger.open(path, sign=sign, clock=Clock()) as writer:
        accepted(writer.submit(WHOLE[:2]))
        check_refuses("token-removed", writer, WHOLE[2:])
        answers = iter([LOG.sign])
        accepted(writer.submit(WHOLE[2:]))
        check_intact(writer, WHOLE)


def test_a_clock_that_fails_leaves_nothing(tmp_path: Path) -> None:
    clock = Clock()
    with embedded(tmp_path, clock) as ledger:
        clock.now = None
        with pytest.raises(AssertionError):
            ledger.submit(WHOLE)
        clock.now = STREAM.at
        check_intact(ledger, [])
        accepted(ledger.submit(WHOLE))
        check_intact(ledger, WHOLE)


# Damaged bytes


def test_a_truncated_file_is_refused(ledger: SqliteLedger, path: Path) -> None:
    accepted(ledger.submit(WHOLE))
    ledger.close()
    content = path.read_bytes()
    for length in range(100, len(content), 4096 * 3):
        path.write_bytes(content[:length])
        with pytest.raises(EvidenceError):
            ask_everything(path)


def ask_everything(path: Path) -> None:
    with SqliteLedger.open(path) as reader:
        held = [(row.index, row.id, row.envelope) for row in reader.find(since=0)]
        keys = [key for key, _ in reader.state_items()]
        reader.get(keys)
        list(reader.entries())
        for _, id_, _ in held:
            reader.entry(id_)
            list(reader.by_subject(id_))
        log.inclusion_proof(0, reader.size, reader.node)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("sound")
    with embedded(folder, Clock()) as made:
        accepted(made.submit(WHOLE))
    return (folder / "ledger.sqlite").read_bytes()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_of_a_damaged_file_only_our_errors_escape(sound: bytes, tmp_path: Path, data: st.DataObject) -> None:
    """Bytes overwritten anywhere, the pages' own structure included: an error of ours, or an answer."""
    content = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 8))):
        page = data.draw(st.integers(0, len(content) // 4096 - 1))
        # The head of a page and its list of cells are the worst places.
        at = page * 4096 + data.draw(st.one_of(st.integers(0, 40), st.integers(0, 4095)))
        piece = data.draw(st.binary(min_size=1, max_size=4))
        content[at : at + len(piece)] = piece
    path = tmp_path / "damaged.sqlite"
    path.write_bytes(content[: len(sound)])
    try:
        ask_everything(path)
    except Error as error:
        assert error.code  # noqa: PT017
