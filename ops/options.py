# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands share."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from identity.errors import UsageError

PathArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="PATH", help="A run folder or an exported bundle; without it, the current folder or the newest run."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]
LimitOption = Annotated[int, typer.Option("--limit", min=0, help="At most so many lines, the newest; 0 for all.")]


class PathAndEntry(TyperCommand):
    """A command whose arguments are ``[PATH] ENTRY``, which the parser knows only as a list of texts."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage as it is meant."""
        return [self.options_metavar or "", "[PATH] ENTRY"]


def path_and(arguments: Sequence[str], what: str) -> tuple[str | None, str]:
    """The two values of ``[PATH] WHAT``, of which the first may be left out.

    Raises:
        UsageError: ``usage`` for more than two.
    """
    if len(arguments) > 2:
        raise UsageError("usage", f"Expected [PATH] {what}, got {len(arguments)} values.")
    return (arguments[0] if len(arguments) > 1 else None), arguments[-1]
