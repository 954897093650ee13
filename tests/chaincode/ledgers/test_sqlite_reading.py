# SPDX-License-Identifier: Apache-2.0
"""A ledger opened for reading: it leaves no trace, needs no writable folder, and never sees half a commit."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaincode import log
from chaincode.checkpoints import Checkpoint
from chaincode.ledgers.sqlite import SqliteLedger
from identity.errors import Unavailable, UsageError
from tests.chaincode.ledgers.hosts import accepted, opened
from tests.chaincode.ledgers.stream import ORIGIN, Stream

STREAM = Stream()
WHOLE = STREAM.whole(rounds=1)
LEAVES = [log.leaf_hash(envelope) for envelope in WHOLE]
NOBODY = 65534


def test_a_reader_writes_nothing(ledger: SqliteLedger, path: Path) -> None:
    accepted(ledger.submit(WHOLE))
    ledger.close()
    before = {name: (os.stat(name).st_mtime_ns, name.read_bytes()) for name in path.parent.iterdir()}
    with SqliteLedger.open(path) as reader:
        assert list(reader.entries()) == WHOLE
        assert reader.check_head().size == len(WHOLE)
        assert {name: (os.stat(name).st_mtime_ns, name.read_bytes()) for name in path.parent.iterdir()} == before
        with pytest.raises(UsageError) as caught:
            reader.submit(WHOLE)
        assert caught.value.code == "ledger-read-only"
    assert {name: (os.stat(name).st_mtime_ns, name.read_bytes()) for name in path.parent.iterdir()} == before


def test_a_reader_sees_what_a_later_writer_commits(ledger: SqliteLedger, path: Path) -> None:
    """Opened as immutable while nobody wrote; then a writer comes, commits, goes, and comes again."""
    accepted(ledger.submit(WHOLE[:2]))
    ledger.close()
    with SqliteLedger.open(path) as reader:
        slow = reader.entries()
        assert next(slow) == WHOLE[0]
        with opened(path) as writer:
            accepted(writer.submit(WHOLE[2:5]))
            assert (reader.size, reader.check_head().size) == (5, 5)
        assert reader.size == 5
        with opened(path) as writer:
            accepted(writer.submit(WHOLE[5:]))
        assert reader.check_head() == Checkpoint(ORIGIN, len(WHOLE), log.root(LEAVES))
        assert [WHOLE[0], *slow] == WHOLE


def test_a_file_that_disappears_is_missed(ledger: SqliteLedger, path: Path) -> None:
    ledger.close()
    with SqliteLedger.open(path) as reader:
        path.unlink()
        with pytest.raises(Unavailable) as caught:
            reader.checkpoint()
    assert caught.value.code == "ledger-cannot-open"


def test_a_reader_beside_a_writer_sees_whole_commits(ledger: SqliteLedger, path: Path) -> None:
    with SqliteLedger.open(path) as reader:
        for envelope in WHOLE:
            accepted(ledger.submit([envelope]))
            assert reader.checkpoint() == ledger.checkpoint()
            reader.check_head()


@contextmanager
def unprivileged() -> Iterator[None]:
    """Act as a user whom file modes bind."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def sealed() -> Iterator[Path]:
    """A folder that everyone may enter; a test takes away the right to write."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def copied(path: Path, folder: Path, *suffixes: str) -> Path:
    """The ledger's files in the folder, none of which, nor the folder, can be written."""
    for suffix in suffixes:
        shutil.copy(f"{path}{suffix}", folder / f"{path.name}{suffix}")
        (folder / f"{path.name}{suffix}").chmod(0o444)
    folder.chmod(0o555)
    return folder / path.name


def test_a_ledger_on_a_read_only_folder_is_read(ledger: SqliteLedger, path: Path, sealed: Path) -> None:
    accepted(ledger.submit(WHOLE))
    ledger.close()
    copy = copied(path, sealed, "")
    with unprivileged():
        with SqliteLedger.open(copy) as reader:
            assert list(reader.entries()) == WHOLE
        with pytest.raises(Unavailable) as caught:
            opened(copy)
    assert caught.value.code in {"ledger-not-writable", "ledger-cannot-open"}


def test_an_empty_side_file_hides_nothing(ledger: SqliteLedger, path: Path, sealed: Path) -> None:
    accepted(ledger.submit(WHOLE))
    ledger.close()
    Path(f"{path}-wal").write_bytes(b"")
    copy = copied(path, sealed, "", "-wal")
    with unprivileged(), SqliteLedger.open(copy) as reader:
        assert reader.check_head().size == len(WHOLE)


def test_commits_that_wait_in_the_side_file_are_never_passed_over(
    ledger: SqliteLedger, path: Path, sealed: Path
) -> None:
    """Copied from under a writer: the main file alone is older, and must not be taken for the ledger."""
    accepted(ledger.submit(WHOLE))
    assert os.path.getsize(f"{path}-wal") > 0
    copy = copied(path, sealed, "", "-wal")
    with unprivileged(), pytest.raises(Unavailable) as caught:
        SqliteLedger.open(copy)
    assert caught.value.code == "ledger-wal-pending"
    assert caught.value.next is not None
    sealed.chmod(0o755)
    with SqliteLedger.open(copy) as reader:
        assert reader.check_head().size == len(WHOLE)


def test_all_three_files_of_a_writer_that_died_are_read(ledger: SqliteLedger, path: Path, sealed: Path) -> None:
    accepted(ledger.submit(WHOLE))
    copy = copied(path, sealed, "", "-wal", "-shm")
    with unprivileged(), SqliteLedger.open(copy) as reader:
        assert reader.check_head() == Checkpoint(ORIGIN, len(WHOLE), log.root(LEAVES))
