# SPDX-License-Identifier: Apache-2.0
"""``fedledger show``: one entry in full."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from ops import entry_text, output
from ops.commands.log import facts
from ops.names import Names
from ops.options import JsonOption, PathAndEntry, path_and
from ops.source import opened, read, which

app = typer.Typer(add_completion=False)

_LISTED = 20  # items of a list that are shown to people

EntryArgument = Annotated[
    list[str],
    typer.Argument(metavar="ENTRY", help="An entry's index, or the first digits of its id.", show_default=False),
]


@app.command(cls=PathAndEntry)
def show(arguments: EntryArgument, as_json: JsonOption = False) -> None:
    """Show one entry in full."""
    path, text = path_and(arguments, "ENTRY")
    with opened(path, announce=not as_json) as source:
        logged, entry = read(source, which(text, source.size))
        names = Names(source)
        names.learn(entry_text.members_of(entry))
        if as_json:
            value = {"index": logged.index, **facts(entry), "body": entry.body, "envelope": json.loads(logged.envelope)}
            output.emit_json("show", value)
            return
        output.facts([
            ("entry", entry.id),
            ("index", f"{logged.index} of {source.size}"),
            ("kind", entry.kind),
            ("says", entry_text.summary(entry, names)),
            ("member", f"{names.organisation(entry.member)}  {entry.member}"),
            ("signed by", f"{entry.did}  (signature verified)"),
            ("at", output.when(entry.at)),
            ("federation", entry.federation),
            *((name, digest) for name, digest in entry.subjects.items() if name != "federation"),
        ])  # fmt: skip
        output.line()
        output.facts(_lines(entry.body))
        output.line()
        output.next_command("audit", "prove", *([path] if path else []), entry.id[:16], "-o", f"{entry.id[:12]}.proof")


def _lines(body: Any, prefix: str = "") -> Iterator[tuple[str, object]]:
    """The fields of a body, the nested ones by their path; long lists say how long they are."""
    for name, value in body.items():
        label = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            yield from _lines(value, f"{label}.")
        elif isinstance(value, list):
            shown = [_item(item) for item in value[:_LISTED]]
            yield (
                label,
                [*shown, *([f"and {len(value) - _LISTED} more; --json shows all"] if len(value) > _LISTED else [])],
            )
        else:
            yield label, _item(value)


def _item(value: object) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{name} {_item(inner)}" for name, inner in value.items())
    return "none" if value in (None, {}) else str(value).lower() if isinstance(value, bool) else str(value)
