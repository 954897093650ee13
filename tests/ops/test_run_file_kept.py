# SPDX-License-Identifier: Apache-2.0
"""The file that a run keeps: its terms are fixed from the proposal on, whatever the run's folder knows of the ledger yet."""

from pathlib import Path

import pytest

from identity.errors import UsageError
from ops.federation_file import load
from ops.narrator import Narrator
from ops.run_folder import RunFolder
from ops.runner import Options, Run
from tests.chaincode.ledgers.hosts import Clock, accepted, embedded
from tests.chaincode.ledgers.stream import Stream
from tests.ops.test_run_command import SMALL

STREAM = Stream()
*BEFORE, PROPOSED = list(STREAM.setup())[: 2 + len(STREAM.members) + 1]


def run_of(folder: Path, rounds: int) -> Run:
    """A run of so many rounds in the same folder, begun with this file or another one."""
    (folder / "small.toml").write_text(SMALL.format(task="breast-cancer", rounds=rounds))
    place = RunFolder(folder / "run")
    place.create()
    return Run(load(folder / "small.toml"), place, Options(), Narrator(rounds))


def test_only_the_open_ledger_allows_another_file(tmp_path: Path) -> None:
    """On a channel the folder's replica may lack a proposal that was made before the run was cut off."""
    run_of(tmp_path, 1)._keep_file()
    kept = tmp_path / "run" / "federation.toml"
    first = kept.read_bytes()
    changed = run_of(tmp_path, 2)
    changed._keep_file()  # the folder knows of no ledger
    assert kept.read_bytes() == first
    (tmp_path / "elsewhere").mkdir()
    with embedded(tmp_path / "elsewhere", Clock()) as ledger:
        accepted(ledger.submit([*BEFORE, PROPOSED]))
        with pytest.raises(UsageError, match="rounds: 1 -> 2") as caught:
            changed._keep_file(ledger)
    assert caught.value.code == "run-file-changed"
    assert kept.read_bytes() == first


def test_before_the_proposal_another_file_is_taken(tmp_path: Path) -> None:
    run_of(tmp_path, 1)._keep_file()
    changed = run_of(tmp_path, 2)
    (tmp_path / "elsewhere").mkdir()
    with embedded(tmp_path / "elsewhere", Clock()) as ledger:
        accepted(ledger.submit(BEFORE))
        changed._keep_file(ledger)
    assert b"rounds = 2" in (tmp_path / "run" / "federation.toml").read_bytes()


def test_a_task_that_was_mended_before_the_proposal_is_kept_as_it_was_agreed_on(tmp_path: Path) -> None:
    file, task, kept = tmp_path / "small.toml", tmp_path / "mine.py", tmp_path / "run" / "mine.py"
    file.write_text(SMALL.format(task="mine.py:Mine", rounds=1))
    task.write_text("broken")
    place = RunFolder(tmp_path / "run")
    place.create()
    run = Run(load(file), place, Options(), Narrator(1))
    run._keep_file()
    (tmp_path / "elsewhere").mkdir()
    with embedded(tmp_path / "elsewhere", Clock()) as ledger:
        accepted(ledger.submit(BEFORE))
        task.write_text("mended")
        run._keep_file(ledger)
        assert kept.read_text() == "mended"
        accepted(ledger.submit([PROPOSED]))
        task.write_text("changed")
        run._keep_file(ledger)
        assert kept.read_text() == "mended"
