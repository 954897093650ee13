# SPDX-License-Identifier: Apache-2.0
"""A task that never ends does not hold a round: its site is out with a reason, and the others go on."""

from pathlib import Path

from chaincode.entries import open_entry
from chaincode.ledgers.sqlite import SqliteLedger
from tests.ops.test_run_command import command

TASK = """
import threading

import torch
from participant import Task


class Hanging(Task):
    name = "hanging"

    def build_model(self):
        return torch.nn.Linear(2, 2)

    def site_data(self, site, sites, seed):
        return torch.ones(4 + site, 2), torch.zeros(4 + site, dtype=torch.int64)

    def train(self, model, data, seed):
        if len(data[1]) == 5:
            threading.Event().wait()  # for ever
        return super().train(model, data, seed)
"""
FILE = """
name = "hanging"
task = "task.py:Hanging"
sites = 3
rounds = 1

[agreement]
purpose = "Tests"
legal_basis = "Synthetic data"
min_participants = 2
commit_seconds = 12
"""


def test_a_task_that_never_ends_is_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "federation.toml").write_text(FILE)
    done = command("run", "federation.toml", "--workers", 2, "--events", "events", folder=tmp_path)
    with SqliteLedger.open(tmp_path / "runs/hanging/ledger.sqlite") as ledger:
        entries = [open_entry(envelope) for envelope in ledger.entries()]
    seals = [e for e in entries if e.kind == "seal"]
    assert [[o["reason"] for o in s.body["out"]] for s in seals] in ([["silent"]], [["declined"]]), done.stderr
    assert [len(e.body["included"]) for e in entries if e.kind == "record"] == [2]
    assert "site-02 gives no update [training-timeout]" in done.stderr
    assert "\n  a worker was replaced: The worker did not answer in time.\n" in done.stderr
    assert '"kind":"worker-replaced"' in (tmp_path / "events").read_text()
