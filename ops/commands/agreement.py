# SPDX-License-Identifier: Apache-2.0
"""``fedledger agreement show``: the terms that were signed, and by whom."""

from collections import Counter
from typing import Annotated, Any

import typer

from chaincode import state
from chaincode.agreement import agreement_digest, tensor_specs
from chaincode.author import read_all
from chaincode.entries import Entry
from chaincode.state import Head, Party
from identity.errors import EvidenceError, UsageError
from identity.wording import counted
from ops import lineage, output
from ops.names import Names
from ops.options import JsonOption, PathArgument
from ops.source import opened

app = typer.Typer(add_completion=False)

_PARTIES = 50  # that are shown to people

AgreementOption = Annotated[
    str | None, typer.Option("--agreement", metavar="DIGEST", help="Which one, by the first digits; else the latest.")
]


@app.callback()
def agreement() -> None:
    """Read the agreements."""


@app.command()
def show(path: PathArgument = None, wanted: AgreementOption = None, as_json: JsonOption = False) -> None:
    """Show an agreement's terms and who has signed them."""
    with opened(path, announce=not as_json) as source:
        proposals = lineage.proposals(source)
        digest = choose(list(proposals), wanted)
        proposal = proposals[digest]
        terms = proposal.body["terms"]
        if agreement_digest(terms) != digest:
            raise EvidenceError("subject-mismatch", f"Entry {proposal.id[:12]} proposes other terms than it names.")
        parties = read_all(source, Party, {m: state.party_key(digest, m) for m in terms["parties"]})
        states = {m: party.state if party else "unknown" for m, party in parties.items()}
        head = read_all(source, Head, {"": state.head_key(digest)})[""]
        if as_json:
            value = {"agreement": digest, "entry": proposal.id, "continues": proposal.body["continues"], "terms": terms}
            output.emit_json("agreement", {**value, "parties": states, "state": head.state if head else None})
            return
        names = Names(source)
        names.learn([*terms["parties"], terms["coordinator"]])
        output.facts(_facts(digest, proposal, head, names))
        output.line()
        _show_parties(states, names)
        if len(proposals) > 1:
            output.note(f"{len(proposals)} agreements were proposed here; --agreement shows another: "
                        + ", ".join(map(output.short, proposals)))  # fmt: skip


def choose(digests: list[str], wanted: str | None) -> str:
    """The agreement that a person means: by the first digits of its digest, else the latest.

    Raises:
        UsageError: ``agreement-unknown``.
    """
    found = [d for d in digests if wanted is None or d.startswith(wanted.lower())]
    if not found or (wanted is not None and len(found) > 1):
        problem = (
            f"{len(found)} agreements begin with {wanted[:64]!r}." if wanted else "No agreement was proposed here."
        )
        raise UsageError("agreement-unknown", problem, next=output.command_line("log", "--kind", "propose"))
    return found[-1]


def _facts(digest: str, proposal: Entry, head: Head | None, names: Names) -> list[tuple[str, Any]]:
    terms, phases = proposal.body["terms"], proposal.body["terms"]["phases"]
    rule, task, wanted = terms["aggregation"], terms["task"], terms["attestations"]
    specs = tensor_specs(terms)
    rules = Counter(spec.rule for spec in specs)
    parameters = ", ".join(f"{k} {v}" for k, v in sorted(rule["parameters"].items()))
    return [
        ("agreement", f"{digest}  (the digest of these terms: checked)"),
        ("proposed", f"{output.when(proposal.at)} by {names(terms['coordinator'])}, entry {proposal.id}"),
        ("continues", proposal.body["continues"] or "no other agreement"),
        ("state", f"{head.state}, round {head.round} of {terms['rounds']}" if head else "unknown"),
        ("title", terms["title"]),
        ("purpose", terms["purpose"]),
        ("legal basis", terms["legal_basis"]),
        ("data", terms["data_categories"]),
        ("model may be used by", terms["model_users"]),
        ("valid", f"{output.when(terms['not_before'])} to {output.when(terms['not_after'])}"),
        ("evidence kept for", counted(terms["retention_days"], "day")),
        ("task", f"{task['name']} {task['version']}, seed {task['seed']}, code {task['code']}"),
        ("model", f"{counted(len(specs), 'tensor')}, {counted(sum(s.elements for s in specs), 'element')}, as {terms['model']['encoding']}: "
                  + ", ".join(f"{count} {name}" for name, count in sorted(rules.items()))),
        ("initial model", terms["model"]["initial"]),
        ("aggregation", f"{rule['rule']}; optimiser {rule['optimiser']} ({parameters}); largest weight {terms['max_weight']}"),
        ("rounds", f"{terms['rounds']}, at most {counted(terms['attempts'], 'attempt')} each"),
        ("waits", f"{phases['commit_seconds']} s for commitments, {phases['deliver_seconds']} s for deliveries, "
                  f"{phases['record_seconds']} s for the record"),
        ("takes part", f"at least {terms['min_participants']} of {len(terms['parties'])}"),
        ("attestations", f"{wanted['next_open']} before the next round, {wanted['release']} before a release"),
        ("local metrics", "recorded" if terms["share_metrics"] else "not shared"),
        ("privacy", f"{terms['privacy']['mode']}, budget {terms['privacy']['budget']}"),
        ("secure aggregation", "none: the coordinator sees single updates" if terms["secure_aggregation"]["mode"] == "none" else terms["secure_aggregation"]["mode"]),
    ]  # fmt: skip


def _show_parties(states: dict[str, str], names: Names) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in sorted(Counter(states.values()).items()))
    # Those that have not signed first: they are what a reader looks for.
    order = sorted(states, key=lambda m: (states[m] == "signed", names.organisation(m)))
    rows = [(names.organisation(m), states[m], m) for m in order[:_PARTIES]]
    output.table(("party", "state", "did"), rows, title=f"Parties: {counts}")
    if len(order) > _PARTIES:
        output.note(f"Only {_PARTIES} of {len(order)} parties are shown; --json has all.")
