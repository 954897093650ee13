# SPDX-License-Identifier: Apache-2.0
"""A task that fails at every site: told once, with the line of the task's own file, and without using up the agreed attempts."""

from pathlib import Path

import torch

from chaincode.entries import open_entry
from chaincode.ledgers.sqlite import SqliteLedger
from tests.ops.own_task import write_own_task
from tests.ops.test_run_command import command


def test_a_task_that_fails_everywhere_stops_the_run_and_leaves_the_other_attempts(tmp_path: Path) -> None:
    needed = tmp_path / "needed.pt"
    write_own_task(tmp_path, "Failing", f"torch.load({str(needed)!r})  # raises in torch's own files")
    failed = command("run", "federation.toml", "--no-baselines", folder=tmp_path)
    assert failed.returncode == 2, failed.stderr
    assert "error: Round 1 attempt 1: the task failed at every site. site-0" in failed.stderr
    assert "(task.py, line 16) [training-failed]" in failed.stderr
    assert "the same command makes attempt 2 of 3" in failed.stderr
    assert failed.stderr.endswith("run federation.toml --no-baselines --dir runs/failing-2\n")
    with SqliteLedger.open(tmp_path / "runs/failing/ledger.sqlite") as ledger:
        kinds = [open_entry(envelope).kind for envelope in ledger.entries()]
    assert kinds[-4:] == ["open", "decline", "decline", "decline"]
    torch.save(torch.ones(1), needed)
    again = command("run", "federation.toml", "--no-baselines", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "round 1 attempt 2: recorded" in again.stderr
