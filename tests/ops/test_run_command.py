# SPDX-License-Identifier: Apache-2.0
"""``fedledger run`` as a user meets it: the demonstration in real processes, its evidence, interruption, resumption."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from chaincode.entries import open_entry
from chaincode.ledgers.sqlite import SqliteLedger

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = """
name = "small"
task = "{task}"
sites = 3
rounds = {rounds}

[agreement]
purpose = "Tests"
legal_basis = "Public research data"
min_participants = 2
"""


def command(*arguments: object, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A command line of Fedledger in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "ops.cli", *map(str, arguments)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def our_processes(folder: Path) -> list[str]:
    """Command lines of live processes that know the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, command("run", "demo", folder=folder)


Demo = tuple[Path, "subprocess.CompletedProcess[str]"]


def test_the_demonstration_ends_in_pass(demo: Demo) -> None:
    folder, done = demo
    assert done.returncode == 0, done.stderr + done.stdout
    assert "PASS: no claim fails" in done.stdout
    assert "Not in this evidence: 2, 10" in done.stdout, "one machine has no witness, and the audit says so"
    told = done.stderr
    assert "SIMULATED FAULT: site-03" in told
    assert "SIMULATED FAULT: site-07" in told
    assert told.count("credential: accepted, second opinion: ") == 11
    assert "round 2: site-03 delivered other bytes than it committed to: refused [update-digest]" in told
    assert "site-07 silent" in told
    assert "each site alone, worst" in done.stdout
    assert not our_processes(folder)


def test_the_demonstration_s_ledger_tells_it(demo: Demo) -> None:
    folder, _ = demo
    with SqliteLedger.open(folder / "runs/demo/ledger.sqlite") as ledger:
        entries = [open_entry(envelope) for envelope in ledger.entries()]
    records = [e for e in entries if e.kind == "record"]
    assert [r.body["round"] for r in records] == [1, 2, 3, 4, 5]
    assert [o["reason"] for o in records[1].body["omitted"]] == ["digest-mismatch"]
    assert [o["reason"] for e in entries if e.kind == "seal" for o in e.body["out"]] == ["silent"]


def test_the_three_commands_work_when_pasted(demo: Demo) -> None:
    folder, done = demo
    lines = done.stdout.partition("Try next:")[2].strip().splitlines()
    assert len(lines) == 3
    for line in lines:
        pasted = subprocess.run(
            ["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=100, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert pasted.returncode == 0, line + pasted.stdout + pasted.stderr


def test_a_bundle_alone_passes_and_a_flipped_bit_fails(demo: Demo) -> None:
    folder, _ = demo
    bundle = folder / "moved.evidence"
    assert command("audit", "export", "runs/demo", "-o", bundle, folder=folder).returncode == 0
    verified = command("audit", "verify", bundle, "--key", "runs/demo/federation.vkey", "--json", folder=folder)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    verdicts = {c["number"]: c["verdict"] for c in json.loads(verified.stdout)["claims"]}
    assert [n for n, v in verdicts.items() if v == "PASS"] == [1, 3, 4, 5, 6, 7, 8, 9]
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 4
    bundle.write_bytes(data)
    broken = command("audit", "verify", bundle, folder=folder)
    assert broken.returncode == 1
    assert "FAIL" in broken.stdout


def test_a_model_with_one_bit_flipped_is_refused(demo: Demo) -> None:
    folder, _ = demo
    release = folder / "runs/demo/release"
    key = folder / "runs/demo/federation.vkey"
    assert command("verify", release / "model.safetensors", "--key", key, folder=folder).returncode == 0
    data = bytearray((release / "model.safetensors").read_bytes())
    data[-3] ^= 1
    other = folder / "model.safetensors"
    other.write_bytes(data)
    refused = command("verify", other, "--proof", release / "model.proof", "--key", key, folder=folder)
    assert refused.returncode == 1


def test_a_complete_run_says_so_and_changes_nothing(demo: Demo) -> None:
    folder, _ = demo
    with SqliteLedger.open(folder / "runs/demo/ledger.sqlite") as ledger:
        before = ledger.size
    again = command("run", "demo", folder=folder)
    assert again.returncode == 0, again.stderr
    assert "complete" in again.stderr
    with SqliteLedger.open(folder / "runs/demo/ledger.sqlite") as ledger:
        assert ledger.size == before


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "small.toml").write_text(SMALL.format(task="breast-cancer", rounds=150))
    return tmp_path


def started(folder: Path) -> Iterator[str]:
    """A run's lines on stderr, as they come; the process comes first, as its id."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ops.cli", "run", "small.toml"], cwd=folder, text=True, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
    )  # fmt: skip
    yield str(process.pid)
    assert process.stderr is not None
    yield from process.stderr
    process.stderr.close()
    yield str(process.wait(60))


def test_ctrl_c_loses_nothing_and_the_run_goes_on(small: Path) -> None:
    lines = started(small)
    pid, told = int(next(lines)), []
    for line in lines:
        told.append(line)
        if "round 2: recorded" in line or "Nothing is lost" in line or "interrupted" in line:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)  # impatiently, also while it tidies up
    assert told[-1] == "130"
    assert any("Nothing is lost" in line for line in told)
    assert not any("Traceback" in line for line in told)
    assert any("fedledger run small.toml" in line for line in told)
    assert not our_processes(small)
    with SqliteLedger.open(small / "runs/small/ledger.sqlite") as ledger:
        before = list(ledger.entries())
    resumed = command("run", "small.toml", "--json", folder=small)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["audit"]["result"] == "PASS"
    with SqliteLedger.open(small / "runs/small/ledger.sqlite") as ledger:
        after = list(ledger.entries())
    assert after[: len(before)] == before


def ray_runs(folder: Path) -> bool:
    """Whether the run in the folder has started Ray's processes, each of which it writes down."""
    try:
        return bool(json.loads((folder / "runs/small/processes.json").read_bytes())["processes"])
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("late", [False, True], ids=["before Ray runs", "while its workers start"])
def test_sigterm_ends_a_run_as_ctrl_c_does_from_its_first_second(small: Path, late: bool) -> None:
    lines = started(small)
    pid, told = int(next(lines)), []
    for line in lines:
        told.append(line)
        if "1. The federation" in line:
            until = time.monotonic() + 60
            while late and not ray_runs(small) and time.monotonic() < until:
                time.sleep(0.01)
            os.kill(pid, signal.SIGTERM)
    assert told[-1] == "130"
    assert any("The run goes on with:" in line for line in told)
    assert not any("2. The agreement" in line for line in told)
    assert not our_processes(small)


def test_two_processes_do_not_carry_out_one_run(small: Path) -> None:
    lines = started(small)
    pid, second = int(next(lines)), None
    for line in lines:
        if second is None and "1. The federation" in line:
            second = command("run", "small.toml", folder=small)
            os.kill(pid, signal.SIGINT)
    assert second is not None
    assert second.returncode == 3
    assert "run-in-progress" in second.stderr


def test_a_changed_file_does_not_resume(small: Path) -> None:
    (small / "small.toml").write_text(SMALL.format(task="breast-cancer", rounds=1))
    assert command("run", "small.toml", folder=small).returncode == 0
    (small / "small.toml").write_text(SMALL.format(task="breast-cancer", rounds=2))
    refused = command("run", "small.toml", folder=small)
    assert refused.returncode == 2
    assert "rounds: 1 -> 2" in refused.stderr
    assert "run-file-changed" in refused.stderr


def test_images_with_running_statistics_and_integer_buffers(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL.format(task="digits", rounds=2))
    done = command("run", "small.toml", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["audit"]["result"] == "PASS"
    with SqliteLedger.open(tmp_path / "runs/small/ledger.sqlite") as ledger:
        proposal = open_entry(next(ledger.find("propose")).envelope)
    rules = {t["name"]: (t["dtype"], t["rule"]) for t in proposal.body["terms"]["model"]["tensors"]}
    assert ("int64", "keep") in rules.values()
    assert any("running_mean" in name and rule == ("float32", "mean") for name, rule in rules.items())


def test_what_new_writes_runs_as_it_is(tmp_path: Path) -> None:
    assert command("new", "mine", folder=tmp_path).returncode == 0
    done = command("run", "mine/federation.toml", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "PASS: no claim fails" in done.stdout


def test_keys_under_a_passphrase(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL.format(task="breast-cancer", rounds=1))
    (tmp_path / "passphrase").write_text("correct horse\n")
    (tmp_path / "wrong").write_text("battery staple\n")
    done = command("run", "small.toml", "--passphrase-file", "passphrase", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "unencrypted" not in done.stderr
    (tmp_path / "runs/small/release/model.proof").unlink()
    refused = command("run", "small.toml", "--passphrase-file", "wrong", folder=tmp_path)
    assert refused.returncode == 1
    assert "keystore-passphrase" in refused.stderr
    again = command("run", "small.toml", "--passphrase-file", "passphrase", folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "runs/small/release/model.proof").exists(), "a release that lost a file is completed"


@pytest.mark.skipif(find_spec("aiohttp_cors") is not None, reason="the dashboard's packages are installed here")
def test_a_dashboard_without_its_packages_is_refused_before_anything_begins(small: Path) -> None:
    refused = command("run", "small.toml", "--dashboard", folder=small)
    assert refused.returncode == 2
    assert "dashboard-missing" in refused.stderr
    assert not (small / "runs").exists()
