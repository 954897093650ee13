# SPDX-License-Identifier: Apache-2.0
"""``fedledger trace``: the compliance officer's question, in both directions.

From a model to every round, update, site, credential and agreement behind it; from a site or an update to every model
that it went into, which is what a withdrawal would touch.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from chaincode import models
from chaincode.entries import Entry
from identity.errors import EvidenceError, UsageError
from identity.wording import counted
from ops import lineage, mentions, output, run_folder, uses
from ops.entry_text import metrics
from ops.lineage import INCLUDED, Contribution, Recorded
from ops.names import Names
from ops.options import JsonOption, PathArgument
from ops.source import Source, digest, next_for, opened, read_many

app = typer.Typer(add_completion=False)

Answer = dict[str, Any]

_UNKNOWN = {"digest-unknown", "model-unknown", "update-unknown", "member-unknown"}
_RUNS = 5  # so many others are named

ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="DIGEST", help="What is behind this model: its digest, or its file.")
]
DidOption = Annotated[
    str | None, typer.Option("--did", metavar="MEMBER", help="Where a member's updates went: a DID, or its name.")
]
RoundsOption = Annotated[int, typer.Option("--limit", min=0, help="At most so many rounds, the newest; 0 for all.")]
UpdateOption = Annotated[str | None, typer.Option("--update", metavar="DIGEST", help="Where this update went.")]


@app.command()
def trace(
    path: PathArgument = None, *, model: ModelOption = None, did: DidOption = None, update: UpdateOption = None,
    limit: RoundsOption = 1000, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Show what is behind a model, or where an update went."""
    options = {"--model": model, "--did": did, "--update": update}
    asked = [(name, value) for name, value in options.items() if value is not None]
    if len(asked) != 1:
        raise UsageError(
            "usage", "Say one of --model, --did and --update.", next=output.command_line("trace", "--help")
        )
    with opened(path, announce=not as_json) as source, _saying_where(source, asked[0]):
        names = Names(source)
        if model is not None:
            answer = _back(source, names, _model(source, model), limit)
        elif did is not None:
            answer = _from_member(source, names.find(did), limit)
        else:
            answer = _from_update(source, digest(source, update or "", "an update"), limit)
        if as_json:
            output.emit_json("trace", answer)
            return
        (_show_back if model is not None else _show_forward)(answer, names)
        if answer["more"]:
            of = f", of {answer['behind']}" if "behind" in answer else ""
            output.note(f"Only the newest {counted(limit, 'round is', 'rounds are')} shown{of}; --limit 0 shows all.")


@contextmanager
def _saying_where(source: Source, asked: tuple[str, str]) -> Iterator[None]:
    """Say where something was looked for that is not there, and where else to look if nobody had said where."""
    try:
        yield
    except UsageError as error:
        if error.code not in _UNKNOWN:
            raise
        others = [folder for folder in run_folder.runs() if str(folder) != source.place] if source.given is None else []
        where = f"looked in: {source.place}"
        if others:
            more = f" and {len(others) - _RUNS} more" if len(others) > _RUNS else ""
            where += f"\nother runs: {', '.join(map(str, others[:_RUNS]))}{more}"
        next_ = output.command_line("trace", "RUN", *asked) if others else error.next
        raise UsageError(error.code, f"{error.message}\n{where}", next=next_) from error


def _model(source: Source, text: str) -> str:
    if not Path(text).is_file():
        return digest(source, text, "a model")
    try:
        return models.digest_file(text)
    except EvidenceError as error:
        raise EvidenceError(error.code, f"{text} is no model that can be read. {error.message}") from error


def _back(source: Source, names: Names, model: str, limit: int) -> Answer:
    rounds = list(lineage.ancestry(source, model, limit))
    behind = lineage.length(source, model) if len(rounds) == limit else len(rounds)
    used = {r.agreement: lineage.proposal(source, r.agreement) for r in rounds} | lineage.starters(source, model)
    members = sorted({c.member for r in rounds for c in r.contributions if c.outcome == INCLUDED})
    names.learn(members)
    admissions = _admissions(source)
    about = [entry for _, entry in read_many(source, source.by_subject(model))]
    more = behind > len(rounds)
    return {
        "model": model, "rounds": list(map(_round, rounds)), "more": more, "behind": behind,
        "released": [{"entry": e.id, "at": e.at} for e in about if e.kind == "release" and e.subjects["model"] == model],
        "agreements": [_agreement(source, a, p) for a, (_, p) in sorted(used.items(), key=lambda item: item[1][0])],
        "sites": [{"member": m, "organisation": names.organisation(m), "credentials": admissions.get(m, [])} for m in members],
        "initial": None if more else rounds[-1].base if rounds else model,
    }  # fmt: skip


def _from_member(source: Source, member: str, limit: int) -> Answer:
    found = uses.contributions_of(source, member, limit + 1 if limit else 0)
    answer = {"member": member} | _uses(source, found, uses.first_included(source, member), limit)
    concerned = mentions.about(
        source, member, [{"kind": kind} for kind in ("open", "seal", "record")], None, limit + 1 if limit else 0
    )
    left_out = [
        {"agreement": e.agreement, "round": e.body["round"], "attempt": e.body["attempt"], "at": e.at, "entry": e.id,
         "reason": mentions.left_out(e, member)} for _, e in concerned
    ]  # fmt: skip
    shown = left_out[-limit if limit else None :]
    return answer | {"left_out": shown, "more": answer["more"] or len(shown) < len(left_out)}


def _from_update(source: Source, update: str, limit: int) -> Answer:
    found = uses.contributions(source, uses.commits_to(source, update))
    if not found:
        raise UsageError(
            "update-unknown",
            f"Nobody committed to an update {update}.",
            next=next_for(source, "log", "--kind", "commit"),
        )
    return {"update": update} | _uses(
        source, found, {c.agreement: c.round for c in found if c.outcome == INCLUDED}, limit
    )


def _uses(source: Source, found: Sequence[Contribution], first: Mapping[str, int], limit: int) -> Answer:
    direct = {(c.agreement, c.round) for c in found if c.outcome == INCLUDED}
    used = uses.uses(source, first, direct, limit + 1 if limit else 0)
    more = bool(limit) and max(len(found), len(used)) > limit
    shown = slice(-limit if limit else None, None)
    return {"updates": list(map(_row, found[shown])), "models": list(map(_row, used[shown])), "more": more}


def _row(value: Contribution | Recorded | uses.Use) -> Answer:
    """The fields as they are: ``asdict`` copies each, which for a thousand updates takes a tenth of the whole answer's time."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _round(recorded: Recorded) -> Answer:
    return _row(recorded) | {"contributions": list(map(_row, recorded.contributions))}


def _admissions(source: Source) -> dict[str, list[dict[str, Any]]]:
    """The credentials with which each member was admitted, oldest first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for _, entry in read_many(source, source.newest({"kind": "admit"}, None, 0)):
        body = entry.body
        found.setdefault(body["admits"], []).append({
            "credential": entry.subjects["credential"], "entry": entry.id, "not_before": body["not_before"],
            "not_after": body["not_after"],
        })  # fmt: skip
    return found


def _agreement(source: Source, agreement: str, proposal: Entry) -> dict[str, Any]:
    terms = proposal.body["terms"]
    signed = read_many(source, source.newest({"kind": "sign", "agreement": agreement}, None, 0))
    signers = {entry.member: entry.id for _, entry in signed}
    shown = ("title", "purpose", "legal_basis", "data_categories", "model_users", "coordinator", "task")
    return {"agreement": agreement, "entry": proposal.id, **{k: terms[k] for k in shown}, "signed": signers}


def _show_back(answer: Answer, names: Names) -> None:
    rounds = answer["rounds"]
    released = [f"by entry {e['entry']} at {output.when(e['at'])}" for e in answer["released"]]
    output.facts([("model", answer["model"]), ("released", released or ["no"])])
    output.line()
    began = f"; they began with the initial model {output.short(answer['initial'])}" if answer["initial"] else ""
    output.table(
        ("round", "recorded", "agreement", "updates", "base", "model", "held-out", "entry"),
        [(r["round"], output.when(r["at"]), output.short(r["agreement"]), len(_included(r["contributions"])), output.short(r["base"]),
          output.short(r["model"]), metrics(r["metrics"]), output.short(r["entry"])) for r in rounds],
        title=f"Rounds behind it, the latest first{began}", drop=("entry", "recorded", "base", "agreement"),
    )  # fmt: skip
    committed = [c for r in rounds for c in r["contributions"]]
    _show_updates(committed, names, "Updates that were committed for them")
    output.line()
    own = {
        m: [c["examples"] for c in _included(committed) if c["member"] == m]
        for m in {s["member"] for s in answer["sites"]}
    }
    output.table(("site", "did", "updates", "most examples", "credentials"), [
        (s["organisation"], s["member"], len(own[s["member"]]), max(own[s["member"]]),
         ", ".join(output.short(c["credential"]) for c in s["credentials"])) for s in answer["sites"]
    ], title="Sites whose data is in it", drop=("most examples", "updates", "credentials"))  # fmt: skip
    for agreement in answer["agreements"]:
        output.line()
        _show_agreement(agreement, names)


def _included(contributions: Sequence[Answer]) -> list[Answer]:
    return [c for c in contributions if c["outcome"] == INCLUDED]


def _place(value: Answer) -> str:
    return str(value["round"]) if value["attempt"] == 1 else f"{value['round']}.{value['attempt']}"


def _show_updates(contributions: Sequence[Answer], names: Names, title: str) -> None:
    names.learn({c["member"] for c in contributions})
    output.line()
    output.table(("round", "site", "update", "examples", "committed", "outcome", "entry"), [
        (_place(c), names.organisation(c["member"]), output.short(c["update"]),
         c["examples"], output.when(c["at"]), "in the model" if c["outcome"] == INCLUDED else c["outcome"], output.short(c["entry"]))
        for c in contributions
    ], title=title, drop=("committed", "entry", "examples"))  # fmt: skip


def _show_agreement(value: Answer, names: Names) -> None:
    output.facts([
        ("agreement", value["agreement"]), ("proposed by", f"{names(value['coordinator'])}, entry {output.short(value['entry'])}"),
        ("title", value["title"]), ("purpose", value["purpose"]), ("legal basis", value["legal_basis"]),
        ("data", value["data_categories"]), ("task", f"{value['task']['name']} {value['task']['version']}, code {value['task']['code']}"),
        ("signed by", [f"{names(m)}, entry {output.short(e)}" for m, e in value["signed"].items()]),
    ])  # fmt: skip


def _show_forward(answer: Answer, names: Names) -> None:
    member = answer.get("member")
    output.facts([("member", f"{member}  {names.organisation(member)}") if member else ("update", answer["update"])])
    _show_updates(answer["updates"], names, f"Updates that were committed: {len(answer['updates'])}")
    if left_out := answer.get("left_out"):
        output.line()
        output.table(("round", "at", "agreement", "why", "entry"), [
            (_place(r), output.when(r["at"]), output.short(r["agreement"]), r["reason"], output.short(r["entry"])) for r in left_out
        ], title=f"Rounds that it was left out of: {len(left_out)}", drop=("at", "agreement"))  # fmt: skip
    output.line()
    output.table(("agreement", "round", "model", "how", "released"), [
        (output.short(u["agreement"]), u["round"], output.short(u["model"]), "in the round's sum" if u["direct"] else "through the base model",
         "released" if u["released"] else "") for u in answer["models"]
    ], title=f"Models that have them inside: {len(answer['models'])}", drop=("agreement", "how"))  # fmt: skip
