# SPDX-License-Identifier: Apache-2.0
"""``fedledger new``: the two files that a federation of one's own starts from."""

from pathlib import Path
from string import Template
from typing import Annotated

import typer

from chaincode import schema
from identity.errors import EvidenceError, UsageError
from ops import output
from ops.federation_file import SHIPPED

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
FILES = {"federation.toml": "federation.toml.txt", "task.py": "task.py.txt"}
RESERVED = {"runs"}  # where every run's folder lies

app = typer.Typer(add_completion=False)


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", show_default=False, help="The federation's name, and the folder to write.")
    ],
) -> None:
    """Write a new federation's file and a task to start from."""
    folder = Path(name)
    _check_name(folder.name)
    if _is_taken(folder):
        raise UsageError(
            "new-exists", f"{folder} exists and is not an empty folder; nothing is overwritten.",
            next=output.command_line("new", f"{name}-2"),
        )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for path, template in zip(_paths(folder), FILES.values(), strict=True):
        text = Template((TEMPLATES / template).read_text(encoding="utf-8"))
        with path.open("x", encoding="utf-8") as file:
            file.write(text.safe_substitute(name=folder.name))
        output.line(f"wrote {path}")
    output.line()
    output.line("Run it as it is, then make the task your own:")
    output.next_command("run", folder / "federation.toml")


def _paths(folder: Path) -> list[Path]:
    return [folder / name for name in FILES]


def _is_taken(folder: Path) -> bool:
    if folder.is_dir():
        return any(folder.iterdir())
    return folder.exists() or folder.is_symlink()


def _check_name(name: str) -> None:
    if name in RESERVED or (SHIPPED / f"{name}.toml").is_file():
        raise UsageError(
            "new-name", f"{name!r} already means something to this program.\nallowed: any other name\nexample: my-{name}",
            next=output.command_line("new", f"my-{name}"),
        )  # fmt: skip
    try:
        schema.slug(name, "NAME")
    except EvidenceError as error:
        raise UsageError(
            "new-name", f"{name[:64]!r} cannot name a federation.\nallowed: {error.message.partition('must be ')[2]}\n"
            "example: my-federation", next=output.command_line("new", "my-federation"),
        ) from error  # fmt: skip
