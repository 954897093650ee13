# SPDX-License-Identifier: Apache-2.0
"""``fedledger credential verify``: our verdict, DIDKit's and the ledger's, side by side."""

import time
from pathlib import Path

import pytest

from identity import credentials
from tests.chaincode.contract.world import World
from tests.ops.runs import Terminal, world, write_evidence, write_run

DAY = 86_400


def issue(here: World, who: int | str, *, by: str = "authority", **changes: object) -> str:
    now = int(time.time())
    arguments = {
        "subject": here.keys(who)[-1].did, "role": "participant", "organisation": f"site-{who:02}" if isinstance(who, int) else who,
        "federation": here.federation, "not_before": now - 300, "not_after": now + DAY,
    } | changes  # fmt: skip
    return credentials.issue(here.keys(by)[-1], **arguments)  # type: ignore[arg-type]


def admitted(here: World, who: int) -> str:
    """Renew a site's admission with a credential that exists; the credential."""
    token = issue(here, who)
    membership = credentials.verify(
        token, issuers=[here.name("authority")], federation=here.federation, now=int(time.time())
    )
    here.admit(who, credential=membership.digest, not_after=membership.not_after)
    return token


@pytest.fixture
def here() -> World:
    return world().founded()


def write(name: str, token: str) -> Path:
    Path(name).write_text(token + "\n")
    return Path(name)


def test_a_member_in_standing(terminal: Terminal, here: World, tmp_path: Path) -> None:
    good = write("good.jwt", admitted(here, 1))
    run = write_run(tmp_path / "run", here)
    for place in (run.path, write_evidence(tmp_path / "bundle", run)):
        said = terminal("credential", "verify", good, "--in", place)
        assert "our verdict              accepted" in said
        assert "second opinion (DIDKit)  " in said
        assert "participant in standing until" in said
        assert "result                   accepted" in said
    answer = terminal.json("credential", "verify", good, "--in", run.path)["credentials"][0]
    assert (answer["accepted"], answer["ours"], answer["didkit"]) == (True, "accepted", "accepted")
    assert answer["stated"]["organisation"] == "site-01"


def test_without_a_ledger_it_says_whose_word_it_takes(terminal: Terminal, here: World) -> None:
    file = write("c", issue(here, 1))
    terminal("credential", "verify", file, code=1)
    assert "not asked: there is no run here" in terminal.out
    assert "result                   signature valid, ISSUER NOT CHECKED" in terminal.out
    assert "result                   accepted" not in terminal.out
    assert "names itself" in terminal.err
    answer = terminal.json("credential", "verify", file, code=1)["credentials"][0]
    assert (answer["accepted"], answer["issuer_checked"]) == (False, False)


def test_the_run_that_is_here_is_asked(terminal: Terminal, here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    good, stranger = (
        write("good", admitted(here, 1)).absolute(),
        write("bad", issue(here, 1, by="coordinator")).absolute(),
    )
    run = write_run(Path("runs/one"), here)
    for place in (Path(), run.path):
        monkeypatch.chdir(place)
        assert "result                   accepted" in terminal("credential", "verify", good)
        assert terminal.err.startswith("reading ")
        assert "REFUSED" in terminal("credential", "verify", stranger, code=1)


def test_several_are_judged_together_and_one_bad_one_is_a_finding(
    terminal: Terminal, here: World, tmp_path: Path
) -> None:
    files = [
        write("good", admitted(here, 1)),
        write("stranger", issue(here, 1, by="coordinator")),
        write("expired", issue(here, 2, not_before=1000, not_after=2000)),
        write("other", issue(here, 2, federation="0" * 64)),
        write("unknown", issue(here, "nobody")),
        write("renewed", issue(here, 2)),
        write("no", "{}"),
        write("binary", "é"),
    ]
    revoked = write("revoked", admitted(here, 3))
    here.revoke(3)
    run = write_run(tmp_path / "run", here)
    found = terminal.json("credential", "verify", *files, revoked, "--in", run.path, code=1)["credentials"]
    assert [(one["file"], one["accepted"]) for one in found] == [
        (path.name, path.name == "good") for path in [*files, revoked]
    ]
    errors = {one["file"]: one["error"] for one in found}
    assert errors == {
        "good": None, "stranger": "credential-issuer-untrusted", "expired": "credential-expired",
        "other": "credential-federation", "unknown": None, "renewed": None, "no": "credential-format", "binary": "credential-format",
        "revoked": None,
    }  # fmt: skip
    ledger = {one["file"]: one["ledger"] for one in found}
    assert ledger["unknown"] == "no member: it was never admitted"
    assert "another credential" in ledger["renewed"]
    assert "member-revoked" in ledger["revoked"]


def test_a_key_that_is_no_longer_in_force(terminal: Terminal, here: World, tmp_path: Path) -> None:
    old = write("old", admitted(here, 1))
    here.rotate(1)
    run = write_run(tmp_path / "run", here)
    terminal("credential", "verify", old, "--in", run.path, code=1)
    assert "another key in force" in terminal.out


def test_a_hostile_credential_cannot_reach_the_terminal(terminal: Terminal) -> None:
    terminal("credential", "verify", write("hostile", "\x1b[31mred"), code=1)
    assert "\x1b" not in terminal.out
