# SPDX-License-Identifier: Apache-2.0
"""The audit's claims about people: credentials that do not bear an admission out, and signatures that are not there."""

from pathlib import Path
from typing import Any

import pytest

from chaincode.audit.folder_source import folder_source
from chaincode.audit.member_claims import check_credentials, check_signatures
from chaincode.audit.replay import Replay, replay
from chaincode.audit.report import Draft
from chaincode.audit.source import Source
from chaincode.notes import parse_vkey
from chaincode.trust import KEY_FILE, FederationKey, format_key
from tests.chaincode.audit_evidence import (
    VKEY,
    Run,
    claim,
    files_of,
    found,
    judged,
    where,
    whole_run,
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return whole_run(tmp_path_factory.mktemp("tamper") / "run")


def test_a_credential_of_another_member(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.world.wait(1).found()
    other = run.admit("coordinator")
    (run.folder / KEY_FILE).write_text(format_key(FederationKey(parse_vkey(VKEY), run.world.federation)))
    digest = run.world.entries[-1].subjects["credential"]
    run.admit(1, keep=False, credential=digest)
    report = run.write().audit()
    differing = [f for f in claim(report, 5).findings if f.code == "credential-differs"]
    assert {f.where for f in differing} == {f"credentials/{digest}.jwt of entry 2 ({run.world.entries[2].id[:12]})"}
    assert {f.what.split()[3] for f in differing} == {"subject", "role", "organisation"}
    assert other


def test_a_member_may_be_admitted_ahead_of_time(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    run.world.wait(1).found()
    (run.folder / KEY_FILE).write_text(format_key(FederationKey(parse_vkey(VKEY), run.world.federation)))
    run.admit(1, at=1_800_000_000 - 4000)
    assert not found(run.write().audit())


@pytest.mark.parametrize(("changes", "code"), [
    ({"role": "auditor"}, "credential-differs"),
    ({"organisation": "Another hospital"}, "credential-differs"),
    ({"not_after": 1_800_000_100}, "credential-differs"),
    ({"issuer": "site-02"}, "credential-issuer-untrusted"),
    ({"at": 1_800_000_000 + 90 * 86_400 + 61}, "credential-expired"),
])  # fmt: skip
def test_a_credential_that_does_not_bear_the_admission_out(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    run = Run(tmp_path / "run")
    run.world.wait(1).found()
    (run.folder / KEY_FILE).write_text(format_key(FederationKey(parse_vkey(VKEY), run.world.federation)))
    run.admit(1, **changes)
    report = run.write().audit()
    assert found(report) == {f"5:{code}"}
    assert run.world.entries[1].subjects["credential"] in where(report)


def test_a_credential_with_other_bytes(tmp_path: Path, run: Run) -> None:
    files = files_of(run)
    first, second = [name for name in sorted(files) if name.startswith("credentials/")][:2]
    for body in (files[second], b"\xff\xfe", b"", b"x" * 70_000):
        report = judged(tmp_path, {**files, first: body})
        assert found(report) == {"5:credential-digest"}
        assert first in where(report)


def replayed(run: Run, source: Source) -> Replay:
    drafts = [Draft(n) for n in (3, 4, 1)]
    done = replay(
        source.entries(), source.observer(), lambda *_: None, form=drafts[0], rules=drafts[1], whole=drafts[2]
    )
    assert not any(draft.failed for draft in drafts)
    return done


def test_the_people_claims_do_not_lean_on_the_contract(run: Run) -> None:
    """What the contract refuses anyway is judged a second time, from the facts alone."""
    with folder_source(run.folder) as source:
        facts = replayed(run, source).facts
        agreement = facts.agreements[run.world.digest]
        member = run.world.name(1)
        ref = agreement.signed.pop(member)
        draft = Draft(6)
        check_signatures(draft, facts)
        codes = {f.code for f in draft.claim().findings}
        assert codes == {"agreement-not-signed"}
        agreement.signed[member] = ref
        agreement.withdrawn[member] = ref
        draft = Draft(6)
        check_signatures(draft, facts)
        assert {f.code for f in draft.claim().findings} == {"agreement-left"}
        facts.acted_after_revocation.append((ref, member))
        draft = Draft(5)
        check_credentials(draft, source, facts, lambda *_: None)
        assert [f.code for f in draft.claim().findings] == ["acted-after-revocation"]
