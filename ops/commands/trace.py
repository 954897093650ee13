# SPDX-License-Identifier: Apache-2.0
"""``fedledger trace``: the compliance officer's question, in both directions.

From a model to every round, update, site, credential and agreement behind it; from a site or an update to every model
that it went into, which is what a withdrawal would touch.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from chaincode import models
from chaincode.entries import Entry
from identity.errors import UsageError
from ops import lineage, output
from ops.entry_text import metrics
from ops.lineage import INCLUDED, Contribution, Recorded, Use
from ops.names import Names
from ops.options import JsonOption, PathArgument
from ops.source import Source, digest, opened, read

app = typer.Typer(add_completion=False)

ModelOption = Annotated[str | None, typer.Option("--model", metavar="DIGEST", help="What is behind this model: its digest, or its file.")]
DidOption = Annotated[str | None, typer.Option("--did", metavar="MEMBER", help="Where a member's updates went: a DID, or its name.")]
UpdateOption = Annotated[str | None, typer.Option("--update", metavar="DIGEST", help="Where this update went.")]


@app.command()
def trace(
    path: PathArgument = None, *, model: ModelOption = None, did: DidOption = None, update: UpdateOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Show what is behind a model, or where an update went."""
    if sum(option is not None for option in (model, did, update)) != 1:
        raise UsageError("usage", "Say one of --model, --did and --update.", next=output.command_line("trace", "--help"))
    with opened(path) as source:
        names = Names(source)
        if model is not None:
            _back(source, names, _model(source, model), as_json)
        elif did is not None:
            member = names.find(did)
            _forward(source, names, list(lineage.contributions_of(source, member)), {"member": member}, as_json)
        elif update is not None:
            wanted = digest(source, update, "an update")
            commits = lineage.commits_to(source, wanted)
            if not commits:
                raise UsageError("update-unknown", f"Nobody committed to an update {wanted}.")
            found = [lineage.contribution(source, commit) for commit in commits]
            _forward(source, names, found, {"update": wanted}, as_json)


def _model(source: Source, text: str) -> str:
    return models.digest_file(text) if Path(text).is_file() else digest(source, text, "a model")


def _back(source: Source, names: Names, model: str, as_json: bool) -> None:
    rounds = list(lineage.ancestry(source, model))
    proposals = lineage.proposals(source)
    used = {r.agreement for r in rounds} | {a for a, p in proposals.items() if p.subjects["initial-model"] == model}
    agreements = {a: p for a, p in proposals.items() if a in used}
    members = sorted({c.member for r in rounds for c in r.contributions if c.outcome == INCLUDED})
    names.learn(members)
    admissions = _admissions(source)
    releases = [e for i in source.by_subject(model) if (e := read(source, i)[1]).kind == "release" and e.subjects["model"] == model]
    if as_json:
        output.emit_json("trace", {
            "model": model, "released": [e.id for e in releases], "rounds": [asdict(r) for r in rounds],
            "agreements": [_agreement(source, a, p) for a, p in agreements.items()],
            "sites": [{"member": m, "organisation": names.organisation(m), "credentials": admissions.get(m, [])} for m in members],
            "initial": _initial(rounds, model),
        })  # fmt: skip
        return
    output.facts([("model", model), ("released", [f"by entry {e.id} at {output.when(e.at)}" for e in releases] or ["no"])])
    output.line()
    output.table(
        ("round", "recorded", "agreement", "updates", "base", "model", "held-out", "entry"),
        [(r.round, output.when(r.at), output.short(r.agreement), sum(c.outcome == INCLUDED for c in r.contributions),
          output.short(r.base), output.short(r.model), metrics(r.metrics), output.short(r.entry)) for r in rounds],
        title=f"Rounds behind it, the latest first; they began with the initial model {output.short(_initial(rounds, model))}",
    )  # fmt: skip
    output.line()
    rows = [(c, r) for r in rounds for c in r.contributions]
    output.table(_COLUMNS, [_row(names, c) for c, _ in rows], title="Updates that were committed for them")
    output.line()
    output.table(("site", "did", "updates", "most examples", "credentials"), [
        (names.organisation(m), m, *_totals(rows, m), ", ".join(output.short(a["credential"]) for a in admissions.get(m, [])))
        for m in members
    ], title="Sites whose data is in it")  # fmt: skip
    for a, proposal in agreements.items():
        output.line()
        _show_agreement(_agreement(source, a, proposal), names)


_COLUMNS = ("round", "site", "update", "examples", "committed", "outcome", "entry")


def _row(names: Names, c: Contribution) -> tuple[object, ...]:
    place = f"{c.round}" if c.attempt == 1 else f"{c.round}.{c.attempt}"
    outcome = "in the model" if c.outcome == INCLUDED else c.outcome
    return (place, names.organisation(c.member), output.short(c.update), c.examples, output.when(c.at), outcome, output.short(c.entry))


def _totals(rows: Sequence[tuple[Contribution, Recorded]], member: str) -> tuple[int, int]:
    own = [c for c, _ in rows if c.member == member and c.outcome == INCLUDED]
    return len(own), max(c.examples for c in own)


def _initial(rounds: Sequence[Recorded], model: str) -> str:
    return rounds[-1].base if rounds else model


def _admissions(source: Source) -> dict[str, list[dict[str, Any]]]:
    """The credentials with which each member was admitted, oldest first."""
    found: dict[str, list[dict[str, Any]]] = {}
    for logged in source.find("admit"):
        entry = read(source, logged.index)[1]
        body = entry.body
        found.setdefault(body["admits"], []).append({
            "credential": entry.subjects["credential"], "entry": entry.id, "not_before": body["not_before"],
            "not_after": body["not_after"],
        })  # fmt: skip
    return found


def _agreement(source: Source, agreement: str, proposal: Entry) -> dict[str, Any]:
    terms = proposal.body["terms"]
    signers = {e.member: e.id for e in (read(source, i.index)[1] for i in source.find("sign", agreement=agreement))}
    shown = ("title", "purpose", "legal_basis", "data_categories", "model_users", "coordinator")
    return {"agreement": agreement, "entry": proposal.id, **{k: terms[k] for k in shown}, "task": terms["task"], "signed": signers}


def _show_agreement(value: dict[str, Any], names: Names) -> None:
    output.facts([
        ("agreement", value["agreement"]), ("proposed by", f"{names(value['coordinator'])}, entry {output.short(value['entry'])}"),
        ("title", value["title"]), ("purpose", value["purpose"]), ("legal basis", value["legal_basis"]),
        ("data", value["data_categories"]), ("task", f"{value['task']['name']} {value['task']['version']}, code {value['task']['code']}"),
        ("signed by", [f"{names(m)}, entry {output.short(e)}" for m, e in value["signed"].items()]),
    ])  # fmt: skip


def _forward(source: Source, names: Names, found: list[Contribution], about: dict[str, str], as_json: bool) -> None:
    used = lineage.uses(source, found)
    names.learn({c.member for c in found})
    if as_json:
        output.emit_json("trace", {**about, "updates": [asdict(c) for c in found], "models": [asdict(u) for u in used]})
        return
    output.facts([(name, f"{value}  {names.organisation(value)}" if name == "member" else value) for name, value in about.items()])
    output.line()
    output.table(_COLUMNS, [_row(names, c) for c in found], title=f"Updates that were committed: {len(found)}")
    output.line()
    output.table(("agreement", "round", "model", "how", "released"), [_use_row(u) for u in used],
                 title=f"Models that have them inside: {len(used)}")  # fmt: skip


def _use_row(use: Use) -> tuple[object, ...]:
    how = "in the round's sum" if use.direct else "through the base model"
    return output.short(use.agreement), use.round, use.model, how, "released" if use.released else ""
