# SPDX-License-Identifier: Apache-2.0
"""``fedledger audit``: verify, export and prove, as a person and as a program use them."""

import shlex
import shutil
from pathlib import Path

import pytest

from chaincode import artefacts
from chaincode.proofs import verify_entry_proof
from chaincode.trust import KEY_FILE, read_key
from ops import audits
from tests.chaincode.audit_evidence import Run, head_of, whole_run
from tests.ops.runs import Terminal


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return whole_run(tmp_path_factory.mktemp("command") / "run")


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Path:
    shutil.copytree(run.folder, tmp_path / "run")
    return tmp_path / "run"


def test_verify_shows_each_claim_with_its_verdict_and_what_it_rests_on(run: Run, terminal: Terminal) -> None:
    shown = terminal("audit", "verify", run.folder)
    lines = shown.splitlines()
    assert [line[:2].strip() for line in lines if line[:2].strip().isdigit()] == [str(n) for n in range(1, 11)]
    assert " 8  PASS  Each result is recomputed bit for bit" in lines
    assert "    2 of 2 recorded rounds recomputed to the same bits. Rests on entries 15, 21." in lines
    assert "10  NOT IN THIS EVIDENCE  Witnesses have cosigned the log's head" in lines
    assert "No witness outside this machine has cosigned." in shown
    assert (
        lines[-1]
        == "PASS: no claim fails. Not in this evidence: 2, 10. Integrity only: the key came with the evidence (--key)."
    )


def test_verify_fails_naming_what_differs(run: Run, copy: Path, terminal: Terminal) -> None:
    name = run.world.entries[run.index("commit")].subjects["update"]
    blob = copy / "blobs" / name[:2] / name[2:4] / name
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    shown = terminal("audit", "verify", copy, code=1)
    assert f"    differs: blob {name}: The update of" in shown
    assert "[update-digest]" in shown
    assert shown.splitlines()[-1] == "FAIL: claims that do not hold: 7. Not in this evidence: 2, 8, 10."


@pytest.mark.parametrize(("gone", "claim"), [("blobs", 7), ("models", 8), ("credentials", 5), ("release", 9)])
def test_evidence_that_is_gone_is_never_a_pass(gone: str, claim: int, copy: Path, terminal: Terminal) -> None:
    shutil.rmtree(copy / gone)
    value = terminal.json("audit", "verify", copy, code=1)
    assert value["result"] == "INCOMPLETE"
    assert value["claims"][claim - 1]["verdict"] == "NOT IN THIS EVIDENCE"
    assert "INCOMPLETE: no claim fails, but evidence that the ledger names is gone" in terminal(
        "audit", "verify", copy, code=1
    )


def test_json_has_everything(run: Run, tmp_path: Path, terminal: Terminal) -> None:
    value = terminal.json("audit", "verify", run.folder)
    assert value["result"] == "PASS"
    assert (value["size"], value["key"], value["federation"]) == (
        len(run.world.entries),
        "evidence",
        run.world.federation,
    )
    assert [claim["number"] for claim in value["claims"]] == list(range(1, 11))
    assert set(value["claims"][0]) == {
        "number",
        "title",
        "verdict",
        "summary",
        "rests_on",
        "findings",
        "missing",
        "notes",
    }
    (tmp_path / "x").write_bytes(b"no bundle")
    value = terminal.json("audit", "verify", tmp_path / "x", code=1)
    assert value["claims"][0]["findings"][0]["where"] == "index line"
    assert value["result"] == "FAIL"


def test_export_then_verify_on_the_bundle_alone(run: Run, tmp_path: Path, terminal: Terminal) -> None:
    out = tmp_path / "b"
    shown = terminal("audit", "export", run.folder, "-o", out)
    assert f"{out.stat().st_size} bytes" in shown
    assert "treat it as confidential" in shown
    assert shown.endswith(f"audit verify {out} --key {run.folder / KEY_FILE}\n")
    assert terminal("audit", "verify", out).splitlines()[-1].startswith("PASS")
    damaged = bytearray(out.read_bytes())
    damaged[-1] ^= 1
    out.write_bytes(damaged)
    assert "differs: index line, file release/model.safetensors" in terminal("audit", "verify", out, code=1)


def test_evidence_that_was_exported_is_not_replaced(run: Run, tmp_path: Path, terminal: Terminal) -> None:
    out = tmp_path / "b"
    terminal("audit", "export", run.folder, "-o", out)
    before = out.read_bytes()
    for number in (2, 3):
        terminal("audit", "export", run.folder, "-o", out, code=2)
        assert "output-exists" in terminal.err
        assert terminal.err.endswith(f"audit export {run.folder} -o {out}-{number}\n")
        (tmp_path / f"b-{number}").write_bytes(b"taken")
    assert out.read_bytes() == before


def test_the_first_byte_of_a_bundle_counts_too(run: Run, tmp_path: Path, terminal: Terminal) -> None:
    data = bytearray(run.export(tmp_path / "b").read_bytes())
    data[0] ^= 1
    (tmp_path / "b").write_bytes(data)
    shown = terminal("audit", "verify", tmp_path / "b", code=1)
    assert (
        "differs: index line: The bundle's index line: the file does not begin like an evidence bundle. [bundle-index]"
        in shown
    )


def test_an_outside_head_is_a_checkpoint_a_proof_or_an_older_bundle(
    run: Run, tmp_path: Path, terminal: Terminal
) -> None:
    older = Run(tmp_path / "older").rounds(1).write().export(tmp_path / "older-bundle")
    (tmp_path / "head").write_text(head_of(run.world.envelopes[:5]))
    for head in (tmp_path / "head", run.folder / artefacts.RELEASED_PROOF, older):
        shown = terminal("audit", "verify", run.folder, "--no-recompute", "--head", head)
        assert " 2  PASS  The log contains the head that was held outside" in shown
    (tmp_path / "head").write_text(head_of([*run.world.envelopes, b"one more"]))
    shown = terminal("audit", "verify", run.folder, "--no-recompute", "--head", tmp_path / "head", code=1)
    assert "[log-cut-short]" in shown
    terminal("audit", "verify", run.folder, "--head", tmp_path / "nowhere", code=2)


def test_a_trusted_key_from_outside(
    run: Run, tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(run.folder / KEY_FILE, tmp_path / "trusted")
    assert terminal.json("audit", "verify", run.folder, "--key", tmp_path / "trusted")["key"] == "given"
    monkeypatch.setenv("FEDLEDGER_KEY", str(tmp_path / "trusted"))
    assert terminal.json("audit", "verify", run.folder)["key"] == "given"
    text = (tmp_path / "trusted").read_text().splitlines()
    (tmp_path / "trusted").write_text(f"{text[0]}\n{'0' * 64}\n")
    assert "[key-differs]" in terminal("audit", "verify", run.folder, code=1)
    terminal("audit", "verify", run.folder, "--key", tmp_path / "nowhere", code=2)
    assert f"no file {tmp_path / 'nowhere'}" in terminal.err
    assert terminal.err.endswith(f"audit verify {run.folder}\n")
    terminal(
        "audit",
        "verify",
        run.folder,
        "--key",
        tmp_path / "nowhere",
        "--head",
        run.folder / artefacts.RELEASED_PROOF,
        code=2,
    )
    assert terminal.err.endswith(f"audit verify {run.folder} --head {run.folder / artefacts.RELEASED_PROOF}\n")
    (tmp_path / "trusted").write_text("nonsense")
    terminal("audit", "verify", run.folder, code=1)
    assert "federation-key" in terminal.err


@pytest.mark.parametrize("place", ["folder", "bundle"])
def test_prove_one_entry(run: Run, tmp_path: Path, terminal: Terminal, place: str) -> None:
    path = run.folder if place == "folder" else run.export(tmp_path / "b")
    out, entry = tmp_path / "proof", run.world.entries[7]
    for which in ("7", entry.id[:10], entry.id):
        assert f"entry 7 ({entry.id}) of {len(run.world.entries)}" in terminal("audit", "prove", path, which, "-o", out)
        proven, head = verify_entry_proof(out.read_bytes(), read_key(run.folder / KEY_FILE))
        assert (proven.id, head.size) == (entry.id, len(run.world.entries))


def test_prove_without_a_path_in_a_run_folder(
    run: Run, tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.folder)
    terminal("audit", "prove", "0", "-o", tmp_path / "proof")
    assert verify_entry_proof((tmp_path / "proof").read_bytes(), read_key(Path(KEY_FILE)))[0].kind == "found"


@pytest.mark.parametrize(
    "command", [["verify"], ["head", "-o", "head"], ["prove", "0", "-o", "proof"], ["export", "-o", "all"]]
)
def test_a_run_that_was_found_is_named_once(
    copy: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    (copy.parent / "runs").mkdir()
    copy.rename(copy.parent / "runs" / "newest")
    monkeypatch.chdir(copy.parent)
    terminal("audit", *command)
    assert terminal.err.count("reading runs/newest\n") == 1


def test_nothing_of_another_kind_is_replaced(run: Run, tmp_path: Path, terminal: Terminal) -> None:
    precious = tmp_path / "thesis"
    precious.write_text("years of work")
    for arguments in (("export", run.folder), ("prove", run.folder, "0")):
        terminal("audit", *arguments, "-o", precious, code=2)
        assert "output-exists" in terminal.err
        terminal("audit", *arguments, "-o", tmp_path, code=2)
        terminal("audit", *arguments, "-o", tmp_path / "no" / "such" / "folder", code=2)
    assert precious.read_text() == "years of work"


def test_a_proof_does_not_replace_another(run: Run, tmp_path: Path, terminal: Terminal) -> None:
    terminal("audit", "prove", run.folder, "0", "-o", tmp_path / "proof")
    kept = (tmp_path / "proof").read_bytes()
    terminal("audit", "prove", run.folder, "1", "-o", tmp_path / "proof", code=2)
    assert "output-exists" in terminal.err
    assert (tmp_path / "proof").read_bytes() == kept
    (command,) = [line for line in terminal.err.splitlines() if "next: " in line]
    terminal(*shlex.split(command.partition("fedledger ")[2]))
    (another,) = tmp_path.glob("proof-*")
    assert verify_entry_proof(another.read_bytes(), read_key(run.folder / KEY_FILE))[0].id == run.world.entries[1].id


def test_wrong_places_are_usage_errors(run: Run, tmp_path: Path, terminal: Terminal) -> None:
    terminal("audit", "verify", tmp_path / "nowhere", code=2)
    assert "next: " in terminal.err
    terminal("audit", "verify", tmp_path, code=2)
    assert "next: " in terminal.err
    terminal("audit", "export", run.export(tmp_path / "b"), "-o", tmp_path / "c", code=2)
    terminal("audit", "prove", run.folder, "99", "-o", tmp_path / "p", code=2)
    terminal("audit", code=2)


def test_a_ledger_that_is_none_is_a_finding(copy: Path, terminal: Terminal) -> None:
    (copy / "ledger.sqlite").write_bytes(b"no database" * 100)
    shown = terminal("audit", "verify", copy, code=1)
    assert "differs: ledger.sqlite:" in shown
    assert "[ledger-not-a-ledger]" in shown


def test_markup_in_the_evidence_is_shown_and_not_obeyed(tmp_path: Path, terminal: Terminal) -> None:
    run = Run(tmp_path / "run").founded()
    run.world.wait(1).admit(1, organisation="[red]hospital[/red]", credential="0" * 64)
    assert "the credential of [red]hospital[/red] (entry 6" in terminal("audit", "verify", run.write().folder, code=1)


def test_a_fault_of_a_running_writer_is_not_blamed_on_the_evidence(
    copy: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = []
    monkeypatch.setattr("chaincode.audit.folder_source.FolderSource.check_still", lambda self: checks.append(self.path))
    terminal("audit", "verify", copy)
    assert not checks
    (copy / KEY_FILE).write_text("damaged")
    terminal("audit", "verify", copy, code=1)
    assert checks == [copy]


def test_the_run_command_can_use_it(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    report = audits.verify_folder(run.folder)
    assert audits.exit_code(report) == 0
    assert audits.report_json(report)["result"] == "PASS"
    audits.show(report)
    assert "PASS: no claim fails" in capsys.readouterr().out


def test_a_head_to_keep_is_written_and_found_again(run: Run, tmp_path: Path, terminal: Terminal) -> None:
    out = tmp_path / "kept"
    shown = terminal("audit", "head", run.folder, "-o", out)
    assert shown.endswith(f"audit verify {run.folder} --head {out} --key {run.folder / KEY_FILE}\n")
    terminal("audit", "head", run.folder, "-o", out)  # the same one may be written again
    out.write_bytes(out.read_bytes() + b"\n\r\n\n")
    assert " 2  PASS " in terminal("audit", "verify", run.folder, "--no-recompute", "--head", out)
    out.write_text("years of work")
    terminal("audit", "head", run.folder, "-o", out, code=2)
    assert out.read_text() == "years of work"


def test_a_head_that_was_kept_is_not_replaced_by_another(run: Run, tmp_path: Path, terminal: Terminal) -> None:
    out = tmp_path / "kept"
    earlier = head_of(run.world.envelopes[:5])
    out.write_text(earlier)
    terminal("audit", "head", run.folder, "-o", out, code=2)
    assert out.read_text() == earlier
    assert "at 5 entries" in terminal.err
    assert f"audit head {run.folder} -o {out}-" in terminal.err


@pytest.mark.parametrize("data", [b"", b"nonsense\n", b"\xff" * 10, b"a\n\n\xe2\x80\x94 x y\n"])
def test_what_is_no_head_is_a_mistake_of_the_caller(run: Run, tmp_path: Path, terminal: Terminal, data: bytes) -> None:
    (tmp_path / "head").write_bytes(data)
    terminal("audit", "verify", run.folder, "--head", tmp_path / "head", code=2)
    assert "head-malformed" in terminal.err
    assert f"audit head {run.folder} -o" in terminal.err


def test_a_proof_is_checked_by_its_recipient(run: Run, tmp_path: Path, terminal: Terminal) -> None:
    out, entry, key = tmp_path / "proof", run.world.entries[7], run.folder / KEY_FILE
    shown = terminal("audit", "prove", run.folder, "7", "-o", out)
    assert f"audit verify {out} --key {key}" in shown
    shown = terminal("audit", "verify", out, "--key", key)
    assert "PASS: the entry is in the log" in shown
    assert entry.id in shown
    assert entry.member in shown
    answer = terminal.json("audit", "verify", out, "--key", key)
    assert (answer["result"], answer["entry"]["index"], answer["entry"]["id"]) == ("PASS", 7, entry.id)
    terminal("audit", "verify", out, code=2)
    assert "key-missing" in terminal.err
    (tmp_path / KEY_FILE).write_bytes(key.read_bytes())
    assert "PASS, integrity only" in terminal("audit", "verify", out)
    terminal("audit", "verify", out, "--head", out, code=2)
    out.write_text(out.read_text().replace("index 7", "index 6"))
    assert "FAIL: " in terminal("audit", "verify", out, "--key", key, code=1)
    assert terminal.json("audit", "verify", out, "--key", key, code=1)["entry"] is None
