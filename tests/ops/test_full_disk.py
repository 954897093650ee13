# SPDX-License-Identifier: Apache-2.0
"""A full disk in mid-run: a clear error, a ledger that is whole, and a run that goes on once there is space."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaincode.ledgers.sqlite import SqliteLedger
from tests.ops.test_run_command import SMALL, command


def mount(*arguments: object) -> bool:
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=900k", "tmpfs", folder):
        pytest.skip("this user may not mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_named_and_the_run_goes_on_with_space(disk: Path, tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL.format(task="breast-cancer", rounds=30))
    run = disk / "run"
    full = command("run", "small.toml", "--dir", run, folder=tmp_path)
    assert full.returncode == 3
    assert "is full" in full.stderr
    assert "next:" in full.stderr
    with SqliteLedger.open(run / "ledger.sqlite") as ledger:
        ledger.check_head()
        before = list(ledger.entries())
    assert mount("-o", "remount,size=30m", disk)
    resumed = command("run", "small.toml", "--dir", run, folder=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "PASS: no claim fails" in resumed.stdout
    with SqliteLedger.open(run / "ledger.sqlite") as ledger:
        assert list(ledger.entries())[: len(before)] == before
