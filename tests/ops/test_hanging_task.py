# SPDX-License-Identifier: Apache-2.0
"""A task that never ends does not hold a round: its site is out with a reason, and the others go on."""

from pathlib import Path

from chaincode.entries import open_entry
from chaincode.ledgers.sqlite import SqliteLedger
from tests.ops.own_task import write_own_task
from tests.ops.test_run_command import command

HANG = """\
import threading
if len(data[1]) == 5:
    threading.Event().wait()  # for ever"""
TERMS = """\
min_participants = 2
commit_seconds = 12"""


def test_a_task_that_never_ends_is_left_out_and_named(tmp_path: Path) -> None:
    write_own_task(tmp_path, "Hanging", HANG, TERMS)
    done = command("run", "federation.toml", "--workers", 2, "--events", "events", folder=tmp_path)
    with SqliteLedger.open(tmp_path / "runs/hanging/ledger.sqlite") as ledger:
        entries = [open_entry(envelope) for envelope in ledger.entries()]
    seals = [e for e in entries if e.kind == "seal"]
    assert [[o["reason"] for o in s.body["out"]] for s in seals] in ([["silent"]], [["declined"]]), done.stderr
    assert [len(e.body["included"]) for e in entries if e.kind == "record"] == [2]
    assert "site-02 gives no update [training-timeout]" in done.stderr
    assert "\n  a worker was replaced: The worker did not answer in time.\n" in done.stderr
    assert '"kind":"worker-replaced"' in (tmp_path / "events").read_text()
