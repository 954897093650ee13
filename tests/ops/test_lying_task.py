# SPDX-License-Identifier: Apache-2.0
"""A task whose code takes its worker over and answers for sites that it was not asked about: nobody signs that."""

from pathlib import Path

from chaincode.entries import open_entry
from chaincode.ledgers.sqlite import SqliteLedger
from tests.ops.own_task import write_own_task
from tests.ops.test_run_command import command

LIES = """
from dataclasses import replace
from coordinator.worker import Worker

honest = Worker.train


def lying(self, base, orders):
    made = honest(self, base, orders)
    asked = {one.site for one in made}
    others = [f"site-0{n}" for n in (1, 2, 3) if f"site-0{n}" not in asked]
    return [*made, *(replace(made[0], site=site) for site in others)]


Worker.train = lying
"""


def test_answers_for_other_sites_are_no_answers(tmp_path: Path) -> None:
    write_own_task(tmp_path, "Lying", "pass", "attempts = 1")
    with (tmp_path / "task.py").open("a") as task:
        task.write(LIES)
    failed = command("run", "federation.toml", "--no-baselines", "--workers", "2", folder=tmp_path)
    assert failed.returncode == 1, failed.stderr
    assert failed.stderr.count("What a worker answered is no answer to the call to train.") >= 3
    assert "[attempts-exhausted]" in failed.stderr
    with SqliteLedger.open(tmp_path / "runs/lying/ledger.sqlite") as ledger:
        kinds = [open_entry(envelope).kind for envelope in ledger.entries()]
    assert kinds[-5:] == ["open", "decline", "decline", "decline", "abort"]
