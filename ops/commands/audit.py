# SPDX-License-Identifier: Apache-2.0
"""``fedledger audit``: verify a run or a bundle claim by claim, export a run as a bundle, prove a single entry.

What the commands do is in ``ops.audits`` and ``ops.audit_files``, loaded when a command runs: a bundle is hashed meanwhile
(``ops.ahead``).
"""

from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from ops import settings
from ops.ahead import Begun, open_ahead
from ops.options import JsonOption, PathAndEntry, PathArgument

app = typer.Typer(add_completion=False)

HeadOption = Annotated[
    Path | None,
    typer.Option(
        "--head", metavar="CHECKPOINT", help="A head that was held outside: a checkpoint, a proof or an older bundle."
    ),
]
KeyOption = Annotated[
    Path | None,
    typer.Option("--key", help="The federation.vkey that you trust; else FEDLEDGER_KEY, else the evidence's own."),
]
RecomputeOption = Annotated[
    bool,
    typer.Option("--recompute/--no-recompute", help="Whether to compute the results again, for which numpy is loaded."),
]
EntryArgument = Annotated[
    list[str],
    typer.Argument(metavar="ENTRY", help="An entry's index, or the first digits of its id.", show_default=False),
]
OutOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="FILE", help="The file to write.", show_default=False)
]


@app.callback()
def commands() -> None:
    """Verify a run or a bundle, export it, prove an entry."""


@app.command()
def verify(
    ctx: typer.Context, path: PathArgument = None, head: HeadOption = None, key: KeyOption = None,
    recompute: RecomputeOption = True, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Judge every claim about a run or a bundle, or a proof file of one entry, with what each rests on."""
    settings.prepare_numpy()
    with ExitStack() as stack:
        begun: Begun = ctx.obj or {}
        bundle = None if path is None else (begun or open_ahead(path, stack)).get(path)
        code = import_module("ops.audits").verify(
            path, bundle, head=head, key=key, recompute=recompute, as_json=as_json
        )
    if code:
        raise typer.Exit(code)


@app.command()
def export(out: OutOption, path: PathArgument = None) -> None:
    """Write everything that verification needs into one file."""
    _files().export(out, path)


@app.command(cls=PathAndEntry)
def prove(arguments: EntryArgument, out: OutOption) -> None:
    """Write the proof that one entry is in the log, for somebody who has the federation's key alone."""
    _files().prove(arguments, out)


@app.command("head")
def keep_head(out: OutOption, path: PathArgument = None) -> None:
    """Write the log's present signed checkpoint, to keep elsewhere."""
    _files().keep_head(out, path)


def _files() -> Any:
    """What the commands that write a file do."""
    return import_module("ops.audit_files")
