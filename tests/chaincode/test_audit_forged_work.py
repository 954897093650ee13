# SPDX-License-Identifier: Apache-2.0
"""Forged updates, results and releases in logs that are consistent: each is found, and what differs is named."""

from pathlib import Path
from typing import Any

import pytest

from chaincode import artefacts
from chaincode.audit import ABSENT, FAIL, PASS, release_claim
from chaincode.audit.result_claims import Results, difference
from chaincode.bundle import open_bundle
from chaincode.chunks import chunk_root
from chaincode.models import Tensor, model_digest
from chaincode.proofs import ScannedLog, make_entry_proof
from tests.chaincode.audit_evidence import (
    CARD,
    INITIAL,
    Run,
    audit_bundle,
    bundle_of,
    claim,
    files_of,
    found,
    head_of,
    judged,
    verdicts,
    where,
    whole_run,
)  # fmt: skip
from tests.chaincode.contract.agreements import DELIVER


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return whole_run(tmp_path_factory.mktemp("forged") / "run")


# Updates and results


def test_a_swapped_blob_with_an_index_line_that_fits(tmp_path: Path, run: Run) -> None:
    files = files_of(run)
    commits = [run.world.entries[run.index("commit", n)] for n in range(2)]
    mine, other = (artefacts.blob(c.subjects["update"]) for c in commits)
    report = judged(tmp_path, {**files, mine: files[other]})
    assert found(report) == {"7:update-digest"}
    finding = claim(report, 7).findings[0]
    assert finding.where == f"blob {commits[0].subjects['update']}"
    assert f"entry {run.index('commit')}," in finding.what
    assert "round 1" in claim(report, 8).missing[0]


@pytest.mark.parametrize("body", [b"", b"PK\x03\x04", b"\x80\x04.", b"{}\n", b"x" * 5000])
def test_hostile_bytes_for_a_blob(tmp_path: Path, run: Run, body: bytes) -> None:
    name = artefacts.blob(run.world.entries[run.index("commit", 5)].subjects["update"])
    report = judged(tmp_path, {**files_of(run), name: body})
    assert verdicts(report)[7] == FAIL
    assert name.removeprefix("blobs/") in where(report)


def test_a_result_off_by_one_in_one_coordinate_in_a_consistent_forged_log(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").opened().commit().sealed()
    true = run.recompute()
    weight = bytearray(true.model["weight"].data)
    weight[16] ^= 1  # the last bit of element 4
    forged = {**true.model, "weight": Tensor("float32", (2, 3), memoryview(bytes(weight)))}
    run.recorded(model=run.keep(forged))
    run.state, run.models[run.world.head.base] = true.state, forged
    run.rounds(1).released()
    report = run.audit()
    assert found(report) == {"8:result-differs"}
    (finding,) = claim(report, 8).findings
    assert finding.where == f"entry {run.index('record')} ({run.world.entries[run.index('record')].id[:12]})"
    assert f"says model {model_digest(forged)}, the included updates give {true.model_digest}" in finding.what
    assert "tensor weight, element 4" in finding.what
    assert "1 of 2" in claim(report, 8).summary


@pytest.mark.parametrize("recompute", [True, False])
def test_an_included_update_beyond_the_clip_is_named_among_good_ones(tmp_path: Path, recompute: bool) -> None:
    run = Run(tmp_path / "run").opened().commit(1, 2)
    beyond = bytearray(run.blob(3))
    beyond[-4:] = (2**16 + 1).to_bytes(4, "little")
    run.commit(3, blob=bytes(beyond)).sealed()
    others = run.recompute({run.world.name(3)})
    run.world.wait(1).record(sum=others.sum, model=run.keep(others.model), optimiser_state=others.optimiser or None)
    report = run.write().audit(recompute=recompute)
    (finding,) = claim(report, 7).findings
    assert (finding.code, finding.where) == ("update-beyond-clip", f"blob {chunk_root(beyond)}")
    assert "2 of 3 included updates verified" in claim(report, 7).summary
    assert claim(report, 8).findings == (), "one bad update is no finding against the sum of all"
    assert claim(report, 8).verdict == ABSENT


@pytest.mark.parametrize("what", ["sum", "optimiser_state"])
def test_a_forged_sum_or_optimiser_state(tmp_path: Path, what: str) -> None:
    forged: dict[str, Any] = {what: "0" * 64}
    run = Run(tmp_path / "run").opened().commit().sealed().recorded(**forged).released()
    report = run.audit()
    assert found(report) == {"8:result-differs"}
    assert f"the record says {what.replace('_', '-')} {'0' * 64}" in claim(report, 8).findings[0].what


def test_an_update_that_was_counted_with_another_weight_or_not_at_all(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").opened().commit().sealed()
    partial = run.recompute({run.world.name(3)})
    run.recorded(sum=partial.sum, model=run.keep(partial.model), optimiser_state=partial.optimiser)
    assert found(run.released().audit()) == {"8:result-differs"}


@pytest.mark.parametrize("reason", ["not-delivered", "digest-mismatch"])
def test_bytes_that_are_here_now_do_not_show_when_they_were_delivered(tmp_path: Path, reason: str) -> None:
    run = Run(tmp_path / "run").opened().commit().sealed()
    run.world.wait(DELIVER + 1)
    run.recorded(omit={3: reason}).released()
    report = run.audit()
    assert not found(report)
    assert any("is here and is what entry" in note for note in claim(report, 7).notes)


def test_a_file_that_cannot_be_read_does_not_bear_an_omission_out(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").opened().commit().sealed()
    run.world.wait(DELIVER + 1)
    run.recorded(omit={3: "invalid-update"}).released()
    commit = next(e for e in run.world.entries if e.kind == "commit" and e.member == run.world.name(3))
    update = commit.subjects["update"]
    blob = run.folder / "blobs" / update[:2] / update[2:4] / update
    blob.unlink()
    blob.mkdir()
    assert found(run.audit()) == {"7:file-not-regular"}


def test_a_sealed_round_that_was_left_as_it_is_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").opened().commit().sealed()
    assert any("neither recorded nor given up" in note for note in claim(run.write().audit(), 7).notes)


def test_a_key_that_the_authority_put_in_the_place_of_anothers_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").opened()
    run.world.wait(1).lose_key(1)
    assert any("ask the member" in note for note in claim(run.write().audit(), 5).notes)


def test_a_forged_omission(tmp_path: Path) -> None:
    reason = "invalid-update"
    run = Run(tmp_path / "run").opened().commit().sealed()
    run.world.wait(DELIVER + 1)
    run.recorded(omit={3: reason}).released()
    report = run.audit()
    assert found(report) == {"7:omission-unfounded"}
    (finding,) = claim(report, 7).findings
    assert finding.where == f"entry {run.index('record')} ({run.world.entries[run.index('record')].id[:12]})"
    assert run.world.name(3) in finding.what
    assert reason in finding.what


def test_an_included_update_that_the_agreement_does_not_allow(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").opened().commit(1, 2)
    wrong = run.blob(3, round=7)
    run.commit(3, blob=wrong).sealed()
    true = run.recompute({run.world.name(3)})
    run.world.wait(1).record(sum=true.sum, model=run.keep(true.model), optimiser_state=true.optimiser)
    run.result = true
    report = run.released().audit()
    assert found(report) == {"7:update-header"}
    assert "says round 7; the ledger says 1" in claim(report, 7).findings[0].what


@pytest.mark.parametrize(
    "body", [b"", b"PK\x03\x04 zip", b"\x80\x04. pickle", b"\xff" * 8, (1 << 19).to_bytes(8, "little") + b"{" * 4000]
)
def test_hostile_bytes_for_a_model(tmp_path: Path, run: Run, body: bytes) -> None:
    name = artefacts.model(run.world.entries[run.index("record")].subjects["model"])
    files = files_of(run)
    for recompute in (True, False):
        report = judged(tmp_path, {**files, name: body}, recompute=recompute)
        assert verdicts(report)[8] == FAIL
        assert name in where(report)
    report = judged(tmp_path, {**files, artefacts.RELEASED_MODEL: body})
    assert verdicts(report)[9] == FAIL
    assert artefacts.RELEASED_MODEL in where(report)


def test_a_model_under_another_ones_digest(tmp_path: Path, run: Run) -> None:
    files = files_of(run)
    one, other = (artefacts.model(run.world.entries[run.index("record", n)].subjects["model"]) for n in range(2))
    report = judged(tmp_path, {**files, one: files[other]})
    assert found(report) == {"8:model-digest"}
    assert where(report) == one
    assert "2 of 2" in claim(report, 8).summary  # the chain of recomputed models needs no stored one


def test_an_optimiser_state_with_other_bytes(tmp_path: Path, run: Run) -> None:
    name = artefacts.blob(run.world.entries[run.index("record")].subjects["optimiser-state"])
    for recompute in (True, False):
        report = judged(tmp_path, {**files_of(run), name: b"x" * 96}, recompute=recompute)
        assert found(report) == {"8:blob-digest"}
        assert where(report) == name


@pytest.mark.parametrize("forged", [[], ["model"], ["initial"], ["update"], ["model", "update"]])
def test_a_result_that_is_made_at_once_changes_nothing_in_the_report(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, forged: list[str]
) -> None:
    record, files = run.world.entries[run.index("record")], files_of(run)
    names = {
        "model": artefacts.model(record.subjects["model"]),
        "initial": artefacts.model(model_digest(INITIAL)),
        "update": artefacts.blob(run.world.entries[run.index("commit")].subjects["update"]),
    }
    for name in forged:
        files[names[name]] = files[names[name]][:-1] + b"x"
    done, real = list[bool](), Results._at_once
    monkeypatch.setattr(Results, "_at_once", lambda *a: done.append(real(*a)) or done[-1])
    report = judged(tmp_path, files)
    assert (True in done) is (not forged)
    monkeypatch.setattr(Results, "_at_once", lambda *_: False)
    assert judged(tmp_path, files) == report
    assert report.failed is bool(forged)


# The release


@pytest.mark.parametrize(("name", "body", "code"), [
    (artefacts.RELEASED_CARD, CARD + b"and more", "release-card"),
    (artefacts.RELEASED_PROOF, b"no proof", "proof-malformed"),
    (artefacts.RELEASED_PROOF, b"\xff", "proof-not-utf8"),
])  # fmt: skip
def test_a_release_with_another_card_or_proof(tmp_path: Path, run: Run, name: str, body: bytes, code: str) -> None:
    report = judged(tmp_path, {**files_of(run), name: body})
    assert found(report) == {f"9:{code}"}
    assert where(report) == name


def test_a_released_model_is_hashed_once_and_is_not_believed_to_be_what_the_index_says(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, hashed = files_of(run), list[Any]()
    monkeypatch.setattr(release_claim, "model_digest", lambda *a, **b: hashed.append(a) or model_digest(*a, **b))
    assert verdicts(judged(tmp_path, files))[9] == PASS
    assert hashed == []
    bundle = bundle_of(tmp_path / "altered", files)
    data = bytearray(bundle.read_bytes())
    with open_bundle(bundle) as opened:
        released = opened.files[artefacts.RELEASED_MODEL]
    data[released.offset + released.length - 1] ^= 1
    bundle.write_bytes(data)
    report = audit_bundle(bundle)
    assert found(report) == {"1:bundle-digest", "9:release-model"}
    assert len(hashed) == 1


def test_a_release_with_the_model_of_another_round(tmp_path: Path, run: Run) -> None:
    files = files_of(run)
    early = artefacts.model(run.world.entries[run.index("record")].subjects["model"])
    report = judged(tmp_path, {**files, artefacts.RELEASED_MODEL: files[early]})
    assert found(report) == {"9:release-model"}
    assert early[7:71] in claim(report, 9).findings[0].what


def test_a_proof_of_another_entry_or_under_another_head(tmp_path: Path, run: Run) -> None:
    files, envelopes = files_of(run), run.world.envelopes
    other = make_entry_proof(ScannedLog(envelopes, run.note, lambda *_: True), 3).encode()
    assert found(judged(tmp_path, {**files, artefacts.RELEASED_PROOF: other})) == {"9:release-proof"}
    forked = [*envelopes[:5], envelopes[6], *envelopes[6:]]
    proof = make_entry_proof(ScannedLog(forked, head_of(forked), lambda *_: True), len(forked) - 1).encode()
    assert found(judged(tmp_path, {**files, artefacts.RELEASED_PROOF: proof})) == {"9:release-proof-head"}


def test_files_of_a_release_without_a_release(tmp_path: Path) -> None:
    run = Run(tmp_path / "run").rounds(1).write()
    (run.folder / artefacts.RELEASED_CARD).write_bytes(CARD)
    assert found(run.audit()) == {"9:release-unknown"}


def test_where_models_differ() -> None:
    one = {"a": Tensor("float32", (2,), memoryview(bytes(8))), "b": Tensor("int64", (), memoryview(bytes(8)))}
    assert difference(one, one) == ""
    assert "a, element 1" in difference(one, {**one, "a": Tensor("float32", (2,), memoryview(bytes(7) + b"\1"))})
    assert "b, element 0" in difference(one, {**one, "b": Tensor("int64", (), memoryview(b"\1" + bytes(7)))})
    assert "Tensor b is not in both" in difference(one, {"a": one["a"]})


def test_the_verdict_is_pass_where_nothing_was_forged(tmp_path: Path, run: Run) -> None:
    report = judged(tmp_path, files_of(run, run.world.envelopes))
    assert not report.failed
    assert [verdicts(report)[n] for n in range(3, 10)] == [PASS] * 7
