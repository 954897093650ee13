# SPDX-License-Identifier: Apache-2.0
"""Blocks that child processes read: they say the same as those that are read here, whatever becomes of a child."""

from pathlib import Path

import pytest

from chaincode.blocks import readers
from tests.chaincode.blocks.recordings import Recording, recording


@pytest.fixture
def raft() -> Recording:
    return recording("raft")


@pytest.fixture
def whole(raft: Recording, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The entries of the channel, as read without children; from then on children read."""
    entries = [entry.id for entry in raft.verify()[1]]
    monkeypatch.setattr(readers, "_LONG", 1)
    monkeypatch.setattr(readers, "_BATCH_BYTES", 40_000)
    monkeypatch.setattr(readers, "PROCESSES", 2)
    return entries


def test_long_channels_are_read_by_children_alike(raft: Recording, whole: list[str]) -> None:
    chain, entries = raft.verify()
    assert chain.faults == []
    assert [entry.id for entry in entries] == whole
    assert raft.faults([*raft.blocks[:9], b"nothing", *raft.blocks[10:]]) == [("block-malformed", 9)]


def test_children_that_end_at_once(raft: Recording, whole: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert [entry.id for entry in raft.verify()[1]] == whole


@pytest.mark.parametrize(
    "says", ["a greeting that is no frame", "\0\0\0\0\0\0\0\2ab", "\0\0\0\0\0\0\0\5(\0\0\0\0", "\0" * 9]
)
def test_a_child_that_says_something_else_is_not_heard(
    raft: Recording, whole: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the site of an interpreter may do. An empty tuple is a frame, and no answer to a batch."""
    (tmp_path / "said").write_bytes(says.encode())
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ncat '{tmp_path}/said'\nexec cat > /dev/null\n")
    program.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(program))
    chain, entries = raft.verify()
    assert chain.faults == []
    assert [entry.id for entry in entries] == whole
