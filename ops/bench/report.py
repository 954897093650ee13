# SPDX-License-Identifier: Apache-2.0
"""What a benchmark reports: rows of a measured ratio beside its goal, and the tables that are made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Better = Literal["at-most", "at-least"]


@dataclass(frozen=True, slots=True)
class Row:
    """One goal: ``ours`` and ``limit`` as people read them (with units), ``ratio`` ours to the limit or the limit to ours
    as ``what`` says, ``goal`` the ratio that is wanted ``better`` "at-most" or "at-least"."""

    what: str
    ours: str
    limit: str
    ratio: float
    goal: float
    better: Better
    reached: bool
    note: str = ""


def row(  # noqa: PLR0917  (a table's cells, in the order of its columns)
    what: str, ours: str, limit: str, ratio: float, goal: float, better: Better, note: str = ""
) -> Row:
    """A row that judges itself."""
    reached = ratio <= goal if better == "at-most" else ratio >= goal
    return Row(what, ours, limit, ratio, goal, better, reached, note)


@dataclass(frozen=True, slots=True)
class Table:
    """A table for a terminal and for a page; cells are text as people read it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def goals_table(title: str, rows: Sequence[Row], note: str = "") -> Table:
    """Rows with their verdicts."""
    return Table(title, ("what", "ours", "beside", "ratio", "goal", "verdict", "note"), tuple(map(_goal, rows)), note)


def _goal(row: Row) -> tuple[str, ...]:
    sign = "≤" if row.better == "at-most" else "≥"
    verdict = "reached" if row.reached else "not reached"
    return row.what, row.ours, row.limit, f"{row.ratio:.2f}", f"{sign} {row.goal:g}", verdict, row.note


def markdown(table: Table) -> str:
    """The table for a page."""
    lines = [f"### {table.title}", "", _line(table.columns), "|" + " --- |" * len(table.columns)]
    lines += [_line(cells) for cells in table.rows]
    return "\n".join([*lines, "", *([table.note, ""] if table.note else [])])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def seconds(value: float) -> str:
    """A time with three digits: ``2.71 ms``, ``104 ms``, ``13.5 s``."""
    scaled, unit = (value * 1e3, "ms") if value < 1 else (value, "s")
    return f"{scaled:.3g} {unit}" if scaled < 1000 else f"{scaled:.0f} {unit}"


def size(value: float) -> str:
    """Bytes as GB or MB, of powers of ten."""
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"
