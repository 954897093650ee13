# SPDX-License-Identifier: Apache-2.0
"""A task that fails at every site: told once, with the line of the task's own file, and without using up the agreed attempts."""

from pathlib import Path

import torch

from chaincode.entries import open_entry
from chaincode.ledgers.sqlite import SqliteLedger
from tests.ops.test_run_command import command

TASK = """
import torch
from participant import Task


class Failing(Task):
    name = "failing"

    def build_model(self):
        return torch.nn.Linear(2, 2)

    def site_data(self, site, sites, seed):
        return torch.ones(4, 2), torch.zeros(4, dtype=torch.int64)

    def train(self, model, data, seed):
        torch.load({path!r})  # raises in torch's own files
        return super().train(model, data, seed)
"""
FILE = """
name = "failing"
task = "task.py:Failing"
sites = 3
rounds = 1

[agreement]
purpose = "Tests"
legal_basis = "Synthetic data"
"""


def test_a_task_that_fails_everywhere_stops_the_run_and_leaves_the_other_attempts(tmp_path: Path) -> None:
    needed = tmp_path / "needed.pt"
    (tmp_path / "task.py").write_text(TASK.format(path=str(needed)))
    (tmp_path / "federation.toml").write_text(FILE)
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
