# SPDX-License-Identifier: Apache-2.0
"""``fedledger status``: where the rounds stand, what happens next, and who is late."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from chaincode import checkpoints, state
from chaincode.author import read_all
from chaincode.entries import Entry
from chaincode.rules.common import standing
from chaincode.state import Release, Result
from coordinator.rounds import next_step
from coordinator.steps import Abort, Collect, Finished, Gathered, Open, Record, Seal, Step, Stuck, Train, Wait
from identity.errors import CredentialError, Unavailable, UsageError
from identity.keys import Keystore
from identity.wording import counted
from ops import federation_file, lineage, output, run_folder
from ops.commands.agreement import choose
from ops.entry_text import metrics, reasons
from ops.names import Names
from ops.options import JsonOption, PathArgument
from ops.run_folder import RunFolder
from ops.source import Source, opened, read
from participant.agent import RoundView, read_round

app = typer.Typer(add_completion=False)

_SITES = 50  # that are shown to people, those with a problem first

AgreementOption = Annotated[
    str | None, typer.Option("--agreement", metavar="DIGEST", help="Which one, by the first digits; else the latest.")
]
RoundsOption = Annotated[int, typer.Option("--limit", min=0, help="At most so many rounds, the newest; 0 for all.")]


@dataclass(frozen=True, slots=True)
class Overview:
    """One agreement as it stands at a UTC second."""

    proposal: Entry
    view: RoundView
    step: Step
    now: int

    @property
    def late(self) -> list[str]:
        """The members whose commitment is due and not there."""
        head = self.view.head
        overdue = head.state == "open" and self.now > head.commit_by
        return [m for m, seat in self.view.seats.items() if overdue and seat is not None and seat.state == "open"]


@app.command()
def status(
    path: PathArgument = None,
    *,
    agreement: AgreementOption = None,
    limit: RoundsOption = 20,
    as_json: JsonOption = False,
) -> None:
    """Show rounds, sites, what happens next, and who is late."""
    now = int(time.time())
    with opened(path, announce=not as_json) as source:
        names = Names(source)
        agreements = lineage.agreements(source)
        overview = _overview(source, choose(agreements, agreement), now) if agreements else None
        run = None if path is not None and Path(path).is_file() else run_folder.resolve(path)
        holder = run.holder() if run else None
        if as_json:
            output.emit_json("status", _as_json(source, names, overview, limit, holder))
            return
        _show_ledger(source, names, agreements)
        if overview is None:
            output.line()
            output.line("next: an agreement is proposed", "bold")
        else:
            _show_rounds(source, names, overview, limit)
            _show_sites(names, overview)
            _show_next(names, overview)
        if holder is not None:
            output.line(f"at work: process {holder or 'unknown'}")
        elif run is not None and not (overview and isinstance(overview.step, Finished | Stuck)):
            _show_resume(run)


def _overview(source: Source, agreement: str, now: int) -> Overview:
    _, proposal = lineage.proposal(source, agreement)
    view = read_round(source, agreement, proposal.body["terms"]["parties"])
    # What a coordinator would do that started now; the sites' deliveries are not on the ledger.
    return Overview(proposal, view, next_step(view, Gathered(), now, now), now)


def _show_ledger(source: Source, names: Names, agreements: Sequence[str]) -> None:
    head = checkpoints.stated_head(source.checkpoint())
    federation = names.federation
    output.facts([
        ("federation", federation.id if federation else "not founded"),
        ("log", f"{head.origin}, {counted(head.size, 'entry')}, root {head.root.hex()}"),
        ("last entry", output.when(read(source, source.size - 1)[1].at) if source.size else "none"),
        ("witnesses", f"{counted(len(federation.cosigners), 'cosigner')}, quorum {federation.quorum}" if federation else "none"),
        ("agreements", [output.short(a) for a in agreements] or ["none"]),
    ])  # fmt: skip


def _show_rounds(source: Source, names: Names, overview: Overview, limit: int) -> None:
    view, terms = overview.view, overview.proposal.body["terms"]
    title = f'Agreement {output.short(view.agreement)} "{terms["title"]}": {view.head.state}, round {view.head.round} of {view.terms.rounds}'
    rows = [(r["round"], r["state"], r["attempts"], r["included"], reasons([*r["out"], *r["omitted"]], names) or "nobody", r["examples"],
             metrics(r["metrics"]), output.short(r["model"]), "yes" if r["released"] else "")
            for r in _rounds(source, view, limit)]  # fmt: skip
    output.line()
    output.table(
        ("round", "state", "attempts", "updates", "left out", "examples", "held-out", "model", "released"),
        rows,
        title=title,
        drop=("attempts", "examples", "model", "released"),
    )
    if limit and view.head.round > limit:
        output.note(
            f"Only the newest {counted(limit, 'round is', 'rounds are')} shown, of {view.head.round}; --limit 0 shows all."
        )


def _rounds(source: Source, view: RoundView, limit: int) -> list[dict[str, Any]]:
    """The newest rounds, oldest first."""
    head, a = view.head, view.agreement
    numbers = range(max(1, head.round - limit + 1) if limit else 1, head.round + 1)
    results = read_all(source, Result, {str(n): state.result_key(a, n) for n in numbers})
    releases = read_all(source, Release, {str(n): state.release_key(a, n) for n in numbers})
    rows = []
    for n in numbers:
        result, body = results[str(n)], {}
        if result is not None:
            body = dict(read(source, result.entry)[1].body)
        attempt = result.attempt if result else head.attempt
        rows.append({
            "round": n, "state": "recorded" if result else head.state, "attempts": attempt, "out": _sealed_out(source, a, n, attempt),
            "included": len(body.get("included", [])), "omitted": body.get("omitted", []), "examples": body.get("examples", 0),
            "metrics": body.get("metrics", {}), "model": result.model if result else "", "released": releases[str(n)] is not None,
        })  # fmt: skip
    return rows


def _sealed_out(source: Source, agreement: str, round_: int, attempt: int) -> list[dict[str, str]]:
    """Who was on the roster of an attempt and not in its cohort, and why; nobody before the seal."""
    seals = (read(source, logged.index)[1] for logged in source.find("seal", agreement=agreement, round=round_))
    return next((entry.body["out"] for entry in seals if entry.body["attempt"] == attempt), [])


def _sites(names: Names, overview: Overview) -> list[dict[str, Any]]:
    """Every party with its place in the present attempt, those that a reader looks for first."""
    view, late = overview.view, set(overview.late)
    names.learn(view.parties)
    rows = []
    for m, party in view.parties.items():
        seat, member = view.seats[m], view.members[m]
        rows.append({
            "member": m, "organisation": names.organisation(m), "agreement": party.state if party else "unknown",
            "standing": standing(member, overview.now) or "in standing", "seat": seat.state if seat else "absent",
            "reason": seat.reason if seat else "", "update": seat.update if seat else "", "examples": seat.examples if seat else 0,
            "claim": seat.claim if seat else "", "late": m in late,
        })  # fmt: skip
    settled = ("in", "committed")
    return sorted(rows, key=lambda r: (not r["late"], r["seat"] in settled, r["organisation"], r["member"]))


def _show_sites(names: Names, overview: Overview) -> None:
    rows, head = _sites(names, overview), overview.view.head
    counts = ", ".join(f"{count} {name}" for name, count in sorted(Counter(r["seat"] for r in rows).items()))
    shown = [(r["organisation"], output.short_did(r["member"]), r["agreement"], r["standing"],
              "LATE" if r["late"] else " ".join(filter(None, [r["seat"], r["reason"]])), output.short(r["update"]), r["examples"] or "")
             for r in rows[:_SITES]]  # fmt: skip
    output.line()
    output.table(("site", "did", "agreement", "standing", "seat", "update", "examples"), shown,
                 title=f"Sites in round {head.round} attempt {head.attempt}: {counts}",
                 drop=("agreement", "examples", "update", "standing"))  # fmt: skip
    if len(rows) > _SITES:
        output.note(f"Only {_SITES} of {len(rows)} sites are shown; --json has all.")


def _show_next(names: Names, overview: Overview) -> None:
    output.line()
    output.line(f"next: {_next(names, overview)}", "bold")
    if overview.late:
        output.line(f"late: {_some(names, overview.late)}", "bold yellow")


def _show_resume(run: RunFolder) -> None:
    """The command with which an interrupted run goes on: with the file that it keeps, where that has its task beside it."""
    with suppress(UsageError):
        file = federation_file.load(run.federation_file)
        whole = file.task_file is None or file.task_file.is_file()
        output.line("nobody is at work; it goes on with:")
        unlock = ("--passphrase-file", "FILE") if _is_encrypted(run) else ()
        output.next_command("run", run.federation_file if whole else "FILE", "--dir", run.path, *unlock)
        if not whole:
            output.line(f"FILE is the federation file that it began with: its task, {file.task}, lies beside that one.")


def _is_encrypted(run: RunFolder) -> bool:
    """Whether the run's keys need a passphrase, as far as can be told."""
    with suppress(CredentialError, Unavailable):
        return Keystore.is_encrypted(run.keystore)
    return False


def _some(names: Names, members: Sequence[str]) -> str:
    named = sorted(names.organisation(m) for m in members[:5])
    return ", ".join(named) + (f" and {len(members) - 5} more" if len(members) > 5 else "")


def _next(names: Names, overview: Overview) -> str:
    """What happens next, in words."""
    head = overview.view.head
    if head.state == "closed":
        return "nothing: a newer agreement goes on from this one"
    match overview.step:
        case Open(round=n, attempt=t, roster=roster):
            return f"round {n} attempt {t} is opened to {counted(len(roster), 'site')}"
        case Train(silent=members) | Wait(members=members):
            return f"{_some(names, members)} commit until {output.when(head.commit_by)}"
        case Seal(cohort=cohort, out=out):
            return (
                f"round {head.round} is sealed with {counted(len(cohort), 'update')}, {counted(len(out), 'site')} out"
            )
        case Collect(members=members):
            return f"{_some(names, members)} deliver until {output.when(head.deliver_by)}; then round {head.round} is recorded"
        case Record():
            return f"round {head.round} is recorded"
        case Abort(reason=reason):
            return f"attempt {head.attempt} of round {head.round} is given up ({reason}), and the next one opened"
        case Stuck():
            return f"nothing can: round {head.round} was given up {counted(head.attempt, 'time')}, and no further attempt is agreed"
        case Finished():
            return "nothing: every agreed round is recorded"


def _as_json(source: Source, names: Names, overview: Overview | None, limit: int, holder: int | None) -> dict[str, Any]:
    federation = names.federation
    value: dict[str, Any] = {
        "federation": federation.id if federation else None, "origin": federation.origin if federation else None,
        "size": source.size, "checkpoint": source.checkpoint(), "process": holder,
    }  # fmt: skip
    if overview is None:
        return {**value, "agreement": None, "next": {"step": "propose", "says": "an agreement is proposed"}, "late": []}
    view = overview.view
    return {
        **value, "agreement": view.agreement, "state": view.head.state, "round": view.head.round, "attempt": view.head.attempt,
        "of": view.terms.rounds, "commit_by": view.head.commit_by or None, "deliver_by": view.head.deliver_by or None,
        "rounds": _rounds(source, view, limit), "sites": _sites(names, overview),
        "next": {"step": type(overview.step).__name__.lower(), "says": _next(names, overview)}, "late": overview.late,
    }  # fmt: skip
