# SPDX-License-Identifier: Apache-2.0
"""The embedded ledger's file: creation, opening, the signed head, proofs from stored nodes, several writers."""

import os
import sqlite3
import stat
import threading
from pathlib import Path

import pytest

from chaincode import checkpoints, log
from chaincode.checkpoints import Checkpoint, Proof
from chaincode.ledgers.sqlite import SqliteLedger
from chaincode.ledgers.tables import schema_objects
from chaincode.notes import parse_vkey
from identity.errors import Error, EvidenceError, Unavailable, UsageError
from tests.chaincode.ledgers.hosts import VKEY, Clock, accepted, check_columns, embedded, opened
from tests.chaincode.ledgers.stream import LOG, LOG_KEY, ORIGIN, Stream, person
from tests.fakes.memory_ledger import MemoryLedger

STREAM = Stream()
WHOLE = STREAM.whole(rounds=1)
LEAVES = [log.leaf_hash(envelope) for envelope in WHOLE]


def refused(code: str, path: Path, family: type[Error] = EvidenceError) -> None:
    """Neither for reading nor for writing can the file be opened."""
    for open_ in (SqliteLedger.open, opened):
        with pytest.raises(family) as caught:
            open_(path)
        assert caught.value.code == code


def test_state_and_root_equal_those_in_memory(ledger: SqliteLedger) -> None:
    memory = MemoryLedger(origin=ORIGIN, log_key=VKEY, clock=Clock())
    assert ledger.submit(WHOLE) == memory.submit(WHOLE)
    assert list(ledger.state_items()) == memory.state_items()
    assert ledger.check_head() == Checkpoint(ORIGIN, len(WHOLE), memory.root())


def test_derived_columns_follow_from_the_entries(ledger: SqliteLedger, path: Path) -> None:
    for size in (1, 2, 3, 100):
        accepted(ledger.submit(WHOLE[ledger.size : ledger.size + size]))
    check_columns(path, WHOLE)


def test_every_batch_ends_with_one_signed_checkpoint(ledger: SqliteLedger) -> None:
    key = parse_vkey(VKEY)
    assert checkpoints.open_checkpoint(ledger.checkpoint(), key)[0] == Checkpoint(ORIGIN, 0, log.EMPTY_ROOT)
    for size in range(1, len(WHOLE) + 1):
        accepted(ledger.submit([WHOLE[size - 1]]))
        expected = Checkpoint(ORIGIN, size, log.root(LEAVES[:size]))
        assert checkpoints.open_checkpoint(ledger.checkpoint(), key)[0] == expected
        assert ledger.size == size


def test_a_batch_without_an_accepted_entry_signs_nothing(tmp_path: Path) -> None:
    signed: list[bytes] = []

    def sign(message: bytes) -> bytes:
        signed.append(message)
        return LOG.sign(message)

    embedded(tmp_path, Clock()).close()
    with SqliteLedger.open(tmp_path / "ledger.sqlite", sign=sign, clock=Clock()) as ledger:
        accepted(ledger.submit(WHOLE[:1]))
        before, note = len(signed), ledger.checkpoint()
        ledger.submit([WHOLE[0], b"no entry"])
        assert (len(signed), ledger.checkpoint()) == (before, note)


def test_stored_nodes_prove_every_entry_and_every_older_head(ledger: SqliteLedger) -> None:
    accepted(ledger.submit(WHOLE))
    size, key = len(WHOLE), parse_vkey(VKEY)
    for index, leaf in enumerate(LEAVES):
        proof = Proof(index, tuple(log.inclusion_proof(index, size, ledger.node)), ledger.checkpoint())
        checkpoints.verify_proof(checkpoints.parse_proof(checkpoints.format_proof(proof)), leaf, key)
        old, path = index + 1, log.consistency_proof(index + 1, size, ledger.node)
        log.verify_consistency(old, size, log.root(LEAVES[:old]), log.root(LEAVES), path)


def test_a_node_that_is_not_complete_is_not_there(ledger: SqliteLedger) -> None:
    accepted(ledger.submit(WHOLE[:3]))
    with pytest.raises(EvidenceError) as caught:
        ledger.node(1, 1)
    assert caught.value.code == "ledger-inconsistent"


def test_a_ledger_is_the_same_after_closing(ledger: SqliteLedger, path: Path) -> None:
    receipts = accepted(ledger.submit(WHOLE[:5]))
    note, state = ledger.checkpoint(), list(ledger.state_items())
    ledger.close()
    ledger.close()
    with opened(path) as again:
        assert (again.checkpoint(), list(again.state_items())) == (note, state)
        assert again.submit(WHOLE[:5]) == receipts
        accepted(again.submit(WHOLE[5:]))
        assert again.check_head().root == log.root(LEAVES)


def without_trigger(name: str, change: str) -> str:
    """SQL that does what a trigger forbids and leaves the schema as it was."""
    return f"DROP TRIGGER {name}; {change}; {next(o[3] for o in schema_objects() if o[1] == name)};"


# Creation


def test_a_ledger_is_never_overwritten(ledger: SqliteLedger, path: Path) -> None:
    accepted(ledger.submit(WHOLE[:1]))
    with pytest.raises(UsageError) as caught:
        embedded(path.parent, Clock())
    assert caught.value.code == "ledger-exists"
    assert ledger.size == 1


def test_creation_leaves_one_file(ledger: SqliteLedger, path: Path) -> None:
    ledger.close()
    assert [name.name for name in path.parent.iterdir()] == ["ledger.sqlite"]


def test_a_failed_creation_leaves_nothing(path: Path) -> None:
    def fails(_message: bytes) -> bytes:
        raise Unavailable("token-removed", "The signing token was removed.")

    with pytest.raises(Unavailable):
        SqliteLedger.create(path, origin=ORIGIN, public_key=LOG_KEY, sign=fails, clock=Clock())
    assert list(path.parent.iterdir()) == []
    with pytest.raises(EvidenceError):
        SqliteLedger.create(path, origin="a name", public_key=LOG_KEY, sign=LOG.sign, clock=Clock())
    with pytest.raises(Unavailable):
        embedded(path.parent / "missing", Clock())
    assert list(path.parent.iterdir()) == []


def test_the_file_may_be_read_by_others(ledger: SqliteLedger, path: Path) -> None:
    """Nothing in it is secret: what the umask leaves is left."""
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 & ~umask


# Opening


def test_what_is_no_ledger_is_refused_by_name(path: Path) -> None:
    refused("ledger-missing", path, UsageError)
    path.mkdir()
    refused("ledger-cannot-open", path, Unavailable)
    path.rmdir()
    for content in [b"", b"hello", b"SQLite format 3\0", bytes(200)]:
        path.write_bytes(content)
        refused("ledger-not-a-ledger", path)
        assert path.read_bytes() == content
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE entry (x)")
    other.close()
    refused("ledger-not-a-ledger", path)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("PRAGMA user_version = 2", "ledger-schema-newer"),
        ("PRAGMA application_id = 1", "ledger-not-a-ledger"),
        ("CREATE TABLE more (x)", "ledger-schema"),
        ("CREATE VIEW more AS SELECT 1", "ledger-schema"),
        ("DROP TRIGGER entry_update", "ledger-schema"),
        ("DROP INDEX facet_kind", "ledger-schema"),
        ("CREATE TRIGGER t AFTER INSERT ON entry BEGIN DELETE FROM state; END", "ledger-schema"),
        ("UPDATE checkpoint SET note = 'nothing'", "note-unsigned"),
        ("UPDATE checkpoint SET note = replace(note, char(10) || '6' || char(10), char(10) || '5' || char(10))",
         "note-signature"),
        ("DELETE FROM checkpoint", "ledger-inconsistent"),
        ("DELETE FROM meta WHERE name = 'vkey'", "ledger-inconsistent"),
        ("UPDATE meta SET value = 'x' WHERE name = 'vkey'", "vkey-malformed"),
        ("INSERT INTO entry VALUES (7, x'00', x'00', x'00')", "ledger-head-mismatch"),
        ("INSERT INTO entry VALUES (4611686018427387904, x'00', x'00', x'00')", "ledger-head-mismatch"),
        (without_trigger("node_update", "UPDATE node SET hash = x'00'"), "frontier-hash-length"),
        (without_trigger("node_update", "UPDATE node SET hash = zeroblob(32)"), "ledger-head-mismatch"),
        (without_trigger("node_delete", "DELETE FROM node"), "ledger-inconsistent"),
    ],
)  # fmt: skip
def test_a_file_that_was_tampered_with_is_refused(ledger: SqliteLedger, path: Path, change: str, code: str) -> None:
    accepted(ledger.submit(WHOLE[:6]))
    ledger.close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA journal_mode = DELETE")
    other.executescript(change)
    other.close()
    refused(code, path)


def test_an_auditor_may_open_a_ledger_whose_head_is_wrong(ledger: SqliteLedger, path: Path) -> None:
    accepted(ledger.submit(WHOLE[:6]))
    ledger.close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("INSERT INTO entry VALUES (6, x'00', x'00', x'0102')")
    other.close()
    with SqliteLedger.open(path, check=False) as audited:
        assert list(audited.entries()) == [*WHOLE[:6], b"\1\2"]
        with pytest.raises(EvidenceError) as caught:
            audited.check_head()
        assert caught.value.code == "ledger-head-mismatch"


def test_triggers_stop_accidents(ledger: SqliteLedger, path: Path) -> None:
    accepted(ledger.submit(WHOLE[:2]))
    ledger.close()
    other = sqlite3.connect(path)
    for change in ["DELETE FROM entry", "UPDATE entry SET envelope = x'00'", "DELETE FROM node",
                   "UPDATE node SET hash = x'00'"]:  # fmt: skip
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            other.execute(change)
    other.close()


def test_another_logs_key_does_not_open_for_writing(ledger: SqliteLedger, path: Path) -> None:
    ledger.close()
    with pytest.raises(UsageError) as caught:
        SqliteLedger.open(path, sign=person("another log").sign, clock=Clock())
    assert caught.value.code == "ledger-wrong-key"


# Several writers


def test_a_second_writer_goes_on_from_the_firsts_commits(ledger: SqliteLedger, path: Path) -> None:
    with opened(path) as other:
        writers = [ledger, other]
        receipts = [accepted(writers[i % 2].submit([envelope]))[0] for i, envelope in enumerate(WHOLE)]
        assert [receipt.index for receipt in receipts] == list(range(len(WHOLE)))
        assert other.submit(WHOLE) == ledger.submit(WHOLE) == receipts
        assert ledger.check_head() == other.check_head() == Checkpoint(ORIGIN, len(WHOLE), log.root(LEAVES))


def test_threads_share_a_ledger(ledger: SqliteLedger) -> None:
    accepted(ledger.submit(WHOLE[:1]))
    admits = [STREAM.admit(person(f"thread {i}")) for i in range(40)]
    receipts = []

    def work(part: list[bytes]) -> None:
        for envelope in part:
            receipts.extend(accepted(ledger.submit([envelope])))

    threads = [threading.Thread(target=work, args=(admits[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(receipt.index for receipt in receipts) == list(range(1, 41))
    assert ledger.check_head().root == log.root([log.leaf_hash(e) for e in ledger.entries()])


def test_a_file_that_went_back_is_noticed(ledger: SqliteLedger, path: Path) -> None:
    """Another process puts an older state in the place of the ledger: a writer must not sign a second history."""
    accepted(ledger.submit(WHOLE[:3]))
    raw = sqlite3.connect(path, isolation_level=None)
    older = bytearray(raw.serialize())
    older[18:20] = b"\1\1"  # no write-ahead log: a database in memory has none
    accepted(ledger.submit(WHOLE[3:6]))
    memory = sqlite3.connect(":memory:")
    memory.deserialize(bytes(older))
    memory.backup(raw)
    memory.close()
    raw.close()
    with pytest.raises(EvidenceError) as caught:
        ledger.submit(WHOLE[6:7])
    assert caught.value.code == "consistency-size"
