# SPDX-License-Identifier: Apache-2.0
"""``fedledger credential verify``: our judgement and DIDKit's on membership credentials, and the ledger's standing."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from chaincode.author import read_all
from chaincode.files import read_bounded
from chaincode.rules.common import standing
from chaincode.state import DidOwner, Member, did_key, member_key
from identity import jws
from identity.credentials import Membership
from identity.didkit_check import Verdict, verify_both
from identity.errors import CredentialError, EvidenceError, UsageError
from ops import output, run_folder
from ops.names import Names
from ops.options import JsonOption
from ops.source import Source, opened

app = typer.Typer(add_completion=False)

_LIMIT = 64 * 1024
NOT_CHECKED = "signature valid, ISSUER NOT CHECKED"

FilesArgument = Annotated[
    list[Path], typer.Argument(metavar="FILE", help="Credentials: VC-JWT files.", show_default=False)
]
InOption = Annotated[
    str | None,
    typer.Option(
        "--in",
        metavar="PATH",
        help="The run or bundle whose authority and members count; else the current folder or the newest run.",
    ),
]


@dataclass(frozen=True, slots=True)
class Judged:
    """A credential as three judge it: we, DIDKit, and the ledger where there is one.

    ``ok`` is never true without a ledger: a credential that vouches for its own issuer proves nothing.
    """

    file: Path
    verdict: Verdict
    stated: Mapping[str, Any]
    ledger: str
    ok: bool


@app.callback()
def credential() -> None:
    """Check membership credentials."""


@app.command()
def verify(files: FilesArgument, ledger: InOption = None, as_json: JsonOption = False) -> None:
    """Show our verdict, DIDKit's, and the ledger's."""
    tokens = [_read(path) for path in files]
    now = int(time.time())
    alone = ledger is None and not _has_run()
    if alone:
        judged = [_alone(path, token, now) for path, token in zip(files, tokens, strict=True)]
    else:
        with opened(ledger, announce=not as_json) as source:
            judged = _on_ledger(source, files, tokens, now)
    if as_json:
        output.emit_json("credential", {"credentials": [_as_json(one) for one in judged], "at": now})
    else:
        _show(judged)
    if not all(one.ok for one in judged):
        raise typer.Exit(1)


def _has_run() -> bool:
    """Whether there is a run to ask that nobody had to name."""
    try:
        run_folder.resolve()
    except UsageError:
        return False
    return True


def _read(path: Path) -> str:
    data = read_bounded(path, _LIMIT)
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError:
        return data.decode("ascii", "replace")  # the judges refuse it, by its format


def _stated(token: str) -> Mapping[str, Any]:
    """What a credential says of itself; nobody has checked it."""
    try:
        claims = jws.split(token).claims
    except CredentialError:
        return {}
    vc = claims.get("vc")
    subject = vc.get("credentialSubject") if isinstance(vc, dict) else None
    subject = subject if isinstance(subject, dict) else {}
    return {
        "issuer": claims.get("iss"),
        "subject": claims.get("sub"),
        **{k: subject.get(k) for k in ("role", "organisation", "federation")},
    }


def _alone(path: Path, token: str, now: int) -> Judged:
    """Without a ledger there is nobody to trust: the issuer and the federation are those that it names itself."""
    stated = _stated(token)
    issuer, federation = stated.get("issuer"), stated.get("federation")
    issuers = [issuer] if isinstance(issuer, str) else []
    verdict = verify_both([token], issuers=issuers, federation=str(federation), now=now)[0]
    return Judged(path, verdict, stated, "", ok=False)


def _on_ledger(source: Source, files: list[Path], tokens: list[str], now: int) -> list[Judged]:
    federation = Names(source).federation
    if federation is None:
        raise EvidenceError("not-founded", "The ledger has no federation whose authority could be asked.")
    verdicts = verify_both(tokens, issuers=federation.authority, federation=federation.id, now=now)
    judged = []
    for path, token, verdict in zip(files, tokens, verdicts, strict=True):
        says, good = _standing(source, verdict.membership, now) if verdict.membership else ("not looked up", False)
        judged.append(Judged(path, verdict, _stated(token), says, good))
    return judged


def _standing(source: Source, membership: Membership, now: int) -> tuple[str, bool]:
    """The ledger's word on an accepted credential."""
    owner = read_all(source, DidOwner, {"": did_key(membership.subject)})[""]
    member = read_all(source, Member, {"": member_key(owner.member)})[""] if owner else None
    if owner is None or member is None:
        return "no member: it was never admitted", False
    if member.credential != membership.digest:
        return f"a member, but admitted with another credential ({output.short(member.credential)})", False
    if member.did != membership.subject:
        return f"the member has another key in force ({output.short_did(member.did)})", False
    if (member.role, member.organisation) != (membership.role, membership.organisation):
        return f"admitted as {member.role} of {member.organisation}", False
    if code := standing(member, now):
        return f"not in standing [{code}]", False
    return f"{member.role} in standing until {output.when(member.not_after)}", True


def _as_json(one: Judged) -> dict[str, Any]:
    membership, theirs = one.verdict.membership, one.verdict.theirs
    return {
        "file": str(one.file), "accepted": one.ok, "issuer_checked": bool(one.ledger), "ours": one.verdict.ours, "didkit": theirs.verdict, "didkit_detail": theirs.detail,
        "error": one.verdict.error.code if one.verdict.error else None, "ledger": one.ledger or None, "stated": dict(one.stated),
        "digest": membership.digest if membership else None,
        "not_before": membership.not_before if membership else None, "not_after": membership.not_after if membership else None,
    }  # fmt: skip


def _result(one: Judged) -> str:
    if one.ok:
        return "accepted"
    return "REFUSED" if one.ledger or one.verdict.membership is None else NOT_CHECKED


def _show(judged: list[Judged]) -> None:
    for one in judged:
        membership, theirs = one.verdict.membership, one.verdict.theirs
        second = "not available" if theirs.verdict == "not-available" else theirs.verdict
        output.facts([
            ("file", one.file),
            *((name, one.stated.get(name) or "?") for name in ("subject", "role", "organisation", "federation", "issuer")),
            *([("valid", f"{output.when(membership.not_before)} to {output.when(membership.not_after)}"),
               ("digest", membership.digest)] if membership else []),
            ("our verdict", one.verdict.ours if one.ledger or membership is None else "signature and dates valid"),
            ("second opinion (DIDKit)", f"{second}{f': {theirs.detail}' if theirs.detail else ''}"),
            *([("error", str(one.verdict.error))] if one.verdict.error else []),
            ("ledger", one.ledger or "not asked: there is no run here, and no --in was given"),
            ("result", _result(one)),
        ])  # fmt: skip
        output.line()
    if not all(one.ledger for one in judged):
        output.note(
            "The issuer is the one that each credential names itself: --in PATH asks a federation's ledger who may issue."
        )
