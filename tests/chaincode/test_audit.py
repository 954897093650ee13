# SPDX-License-Identifier: Apache-2.0
"""The audit of honest evidence: what passes, what is not in it and never called a pass, and what must stay unloaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from chaincode import artefacts
from chaincode.audit import ABSENT, FAIL, PASS, unreadable
from chaincode.audit.report import SHOWN, TITLES, Draft
from chaincode.chunks import chunk_root
from chaincode.notes import parse_vkey
from chaincode.trust import FederationKey
from tests.chaincode.audit_evidence import (
    ADAM,
    VKEY,
    Run,
    audit_bundle,
    claim,
    found,
    head_of,
    verdicts,
    whole_run,
)  # fmt: skip
from tests.chaincode.contract.agreements import COMMIT, DELIVER

HONEST = dict.fromkeys(TITLES, PASS) | {2: ABSENT, 10: ABSENT}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return whole_run(tmp_path_factory.mktemp("audit") / "run")


def test_a_run_folder_passes(run: Run) -> None:
    report = run.audit()
    assert verdicts(report) == HONEST, found(report)
    assert (report.federation, report.size, report.key) == (run.world.federation, len(run.world.entries), "evidence")
    assert "6 of 6 included updates" in claim(report, 7).summary
    assert "2 of 2 recorded rounds" in claim(report, 8).summary
    assert claim(report, 5).rests_on() == "entries 1-5"
    assert "key came with this evidence" in claim(report, 1).notes[0]


def test_its_bundle_passes_with_a_head_and_a_key_from_outside(run: Run, tmp_path: Path) -> None:
    bundle = run.export(tmp_path / "b")
    key = FederationKey(parse_vkey(VKEY), run.world.federation)
    early = head_of(run.world.envelopes[:9]).encode()
    report = audit_bundle(bundle, key=key, head=early)
    assert verdicts(report) == HONEST | {2: PASS}, found(report)
    assert report.key == "given"
    assert not claim(report, 1).notes
    assert claim(report, 2).rests_on() == "entries 0-8"
    proof = (run.folder / artefacts.RELEASED_PROOF).read_bytes()
    assert verdicts(audit_bundle(bundle, head=proof))[2] == PASS


@pytest.mark.parametrize("optimiser", [
    {"optimiser": "avg", "parameters": {"learning_rate": "1"}},
    {"optimiser": "avgm", "parameters": {"learning_rate": "1", "momentum": "0.9"}},
    ADAM,
    {**ADAM, "optimiser": "yogi"},
])  # fmt: skip
def test_every_optimiser_is_recomputed(tmp_path: Path, optimiser: dict[str, object]) -> None:
    run = Run(tmp_path / "run", aggregation={"rule": "mean", **optimiser}).rounds(3).released()
    assert verdicts(run.audit()) == HONEST
    assert claim(run.audit(), 8).summary.startswith("3 of 3")


def test_without_recomputation_results_are_not_in_this_evidence(run: Run) -> None:
    report = run.audit(recompute=False)
    assert verdicts(report) == HONEST | {8: ABSENT}
    assert "0 of 2" in claim(report, 8).summary


def test_a_run_in_progress_can_be_audited(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").opened().commit(1).write()
    report = run.audit()
    assert not report.failed, found(report)
    assert {n for n, verdict in verdicts(report).items() if verdict == ABSENT} == {2, 7, 8, 9, 10}


def test_deleted_artefacts_are_not_in_this_evidence_and_never_a_pass(tmp_path: Path) -> None:
    run = whole_run(tmp_path / "run")
    commit = run.world.entries[run.index("commit", 4)]
    run.blobs.path(commit.subjects["update"]).unlink()
    (run.folder / artefacts.RELEASED_CARD).unlink()
    token = run.world.entries[2].subjects["credential"]
    (run.folder / artefacts.credential(token)).unlink()
    for report in (run.audit(), audit_bundle(run.export(tmp_path / "b"))):
        assert verdicts(report) == HONEST | {5: ABSENT, 7: ABSENT, 8: ABSENT, 9: ABSENT}
        assert commit.subjects["update"] in claim(report, 7).missing[0]
        assert "1 of 2 recorded rounds" in claim(report, 8).summary
        assert token in claim(report, 5).missing[0]


def test_without_the_first_round_the_rest_is_recomputed_from_stored_models_and_states(tmp_path: Path) -> None:
    run = whole_run(tmp_path / "run", rounds=3)
    for nth in range(3):
        run.blobs.path(run.world.entries[run.index("commit", nth)].subjects["update"]).unlink()
    assert "2 of 3 recorded rounds" in claim(run.audit(), 8).summary
    state = run.world.entries[run.index("record")].subjects["optimiser-state"]
    run.blobs.path(state).unlink()
    report = run.audit()
    assert "1 of 3 recorded rounds" in claim(report, 8).summary
    assert any(state in missing for missing in claim(report, 8).missing)


def test_results_are_recomputed_from_the_first_model_where_the_later_ones_were_deleted(tmp_path: Path) -> None:
    run = whole_run(tmp_path / "run", rounds=3)
    for nth in range(3):
        (run.folder / artefacts.model(run.world.entries[run.index("record", nth)].subjects["model"])).unlink()
    assert claim(run.audit(), 8).summary.startswith("3 of 3")


def test_omissions_are_shown_with_author_reason_rule_and_contest(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").opened().commit(1, 2).commit(3, keep=False).sealed()
    run.world.wait(1).claim(3)
    run.world.wait(DELIVER)
    run.recorded(omit={3: "not-delivered"}).released()
    report = run.audit()
    assert verdicts(report) == HONEST, found(report)
    (note,) = claim(report, 7).notes
    record, contest = run.world.entries[run.index("record")], run.index("claim")
    for part in (
        run.world.name(3),
        f"by {record.member}",
        "as not-delivered",
        "R2: ",
        record.id[:12],
        f"contested by entry {contest} ",
        "(bare)",
    ):
        assert part in note
    assert "Omitted after it: 1." in claim(report, 7).summary


def test_an_invalid_update_that_was_kept_bears_its_omission_out(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").opened().commit(1, 2)
    wrong = run.blob(3, base="0" * 64)
    run.commit(3, blob=wrong).sealed()
    run.world.wait(DELIVER + 1)
    run.recorded(omit={3: "invalid-update"}).released()
    report = run.audit()
    assert verdicts(report) == HONEST, found(report)
    assert any("bears the omission out" in note and "update-header" in note for note in claim(report, 7).notes)
    run.blobs.path(chunk_root(wrong)).unlink()
    report = run.audit()
    assert verdicts(report) == HONEST | {7: ABSENT}
    assert chunk_root(wrong) in claim(report, 7).missing[0]


def test_an_update_beyond_the_clip_is_found_with_and_without_numpy(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").opened().commit(1, 2)
    beyond = bytearray(run.blob(3))
    beyond[-4:] = (2**16 + 1).to_bytes(4, "little")
    run.commit(3, blob=bytes(beyond)).sealed()
    run.world.wait(DELIVER + 1)
    run.recorded(omit={3: "invalid-update"}).released()
    for recompute in (True, False):
        notes = claim(run.audit(recompute=recompute), 7).notes
        assert any("update-beyond-clip" in note for note in notes), notes


def test_what_was_delivered_and_discarded_is_shown(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").opened().commit(1, 2).commit(3, keep=False).sealed()
    run.world.wait(DELIVER + 1).abort()
    run.rounds(1).released()
    report = run.audit()
    assert verdicts(report) == HONEST, found(report)
    (note,) = claim(report, 7).notes
    assert "delivered and discarded; 2 of 3 updates of the cohort are kept here" in note
    assert "Sealed attempts given up: 1." in claim(report, 7).summary


def test_commitments_that_the_seal_left_out_are_shown(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").opened().commit()
    run.world.wait(1).revoke(3)
    run.sealed().recorded().released()
    report = run.audit()
    assert verdicts(report) == HONEST, found(report)
    assert "left out of the cohort as revoked although it had committed" in claim(report, 7).notes[0]
    assert "was revoked" in claim(report, 5).notes[0]


def test_a_revoked_site_may_still_claim_what_it_delivered(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").opened().commit().sealed()
    run.world.wait(1).revoke(3).claim(3)
    run.recorded().released()
    assert verdicts(run.audit()) == HONEST


def test_silent_and_declining_sites_need_no_update(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", sites=4).opened().commit(1, 2)
    run.world.decline(3).wait(COMMIT + 1)
    run.sealed().recorded().released()
    report = run.audit()
    assert verdicts(report) == HONEST
    assert [note.partition(" as ")[2].partition(" (")[0] for note in claim(report, 7).notes] == ["declined", "silent"]


def test_rotated_lost_and_renewed_keys_are_no_finding(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").agreed()
    run.world.wait(1).rotate(1)
    lost = run.world._new_key(2)
    run.world.keys(2).append(lost)
    run.admit(2, new_did=lost.did)
    run.rounds(1).released()
    report = run.audit()
    assert verdicts(report) == HONEST, found(report)
    assert "6 of 6 admissions" in claim(report, 5).summary


def test_a_continued_agreement_inherits_model_and_state(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").rounds(1)
    older, model = run.world.digest, run.world.head.base
    run.world.wait(1).propose(continues=older, terms={"title": "The second", "model": {"initial": model}})
    run.world.agreed()
    run.rounds(1).released()
    report = run.audit()
    assert verdicts(report) == HONEST, found(report)
    assert "under 2 agreements" in claim(report, 6).summary


def test_attestations_are_listed(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").rounds(1)
    run.world.wait(1).attest("auditor").attest(1, sum="0" * 64, verdict="disputes")
    report = run.write().audit()
    assert [words.split()[-7] for words in report.attestations] == ["agrees", "disputes"]


def test_a_large_cohort_is_summed_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaincode.audit.round_claims._TOGETHER", 2)
    run = whole_run(tmp_path / "run", rounds=1, sites=5)
    assert verdicts(run.audit()) == HONEST


CODE = """
import sys
from pathlib import Path
from ops import command_line as cli
code = cli.run(["audit", "verify", {path!r}, "--json", *{options!r}])
heavy = sorted({{name.partition(".")[0] for name in sys.modules}} & {{"numpy", "torch", "ray", "fastapi", "didkit", "sklearn"}})
sys.stderr.write(f"{{code}} {{heavy}}")
"""


@pytest.mark.parametrize(("options", "heavy"), [(["--no-recompute"], []), ([], ["numpy"])])
def test_only_recomputation_loads_numpy_and_nothing_loads_torch_or_ray(
    run: Run, tmp_path: Path, options: list[str], heavy: list[str]
) -> None:
    bundle = run.export(tmp_path / "b")
    code = CODE.format(path=str(bundle), options=options)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == f"0 {heavy}"


def test_an_audit_writes_nothing(run: Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    run.audit()
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before


def test_progress_is_reported(run: Run) -> None:
    stages: dict[str, tuple[int, int]] = {}
    run.audit(progress=lambda stage, done, total: stages.__setitem__(stage, (done, total)))
    assert stages == {"replaying entries": (0, 0), "verifying credentials": (5, 5), "verifying updates": (6, 6)}


def test_evidence_that_cannot_be_opened_fails_and_judges_nothing() -> None:
    report = unreadable("index line", "bundle-index", "No bundle.")
    assert verdicts(report) == {1: FAIL} | dict.fromkeys(range(2, 11), ABSENT)
    assert report.failed


def test_a_claim_lists_a_bounded_number_of_findings() -> None:
    draft = Draft(1)
    for number in range(SHOWN + 5):
        draft.fail("code", f"entry {number}", "differs")
        draft.note("n")
    made = draft.claim()
    assert len(made.findings) == SHOWN + 1
    assert "5 more" in made.findings[-1].what
    assert made.notes[-1] == "and 5 more"


@pytest.mark.parametrize(("indexes", "words"), [
    ([], ""), ([4], "entry 4"), ([4, 5, 6], "entries 4-6"), ([9, 1, 2, 4], "entries 1-2, 4, 9"),
    (range(0, 40, 2), "entries 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22 and 8 more runs"),
])  # fmt: skip
def test_entries_are_named_in_words(indexes: list[int], words: str) -> None:
    draft = Draft(1)
    draft.rest(*indexes)
    assert draft.claim().rests_on() == words
