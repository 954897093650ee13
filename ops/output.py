# SPDX-License-Identifier: Apache-2.0
"""What people and programs see: results on stdout, everything else on stderr, nothing hostile on either.

On a terminal tables and colours, elsewhere (or with NO_COLOR) plain text. Text from a ledger, a bundle or a file
is somebody's word: each character that a terminal would act upon, or not show, is written as an escape, and
markup is never interpreted.
"""

import json
import os.path
import shlex
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, NoReturn, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

PROGRAM = "fedledger"
SHORT = 12  # characters of a digest in a table; any prefix that is unique can be pasted back
_PIPE_CLOSED = 141  # what a shell reports for SIGPIPE
_GAP = "  "
_BETWEEN = 3  # what the table's frame takes for each column
_SHORT_VALUE = 20  # characters: a time, a member's name


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        _end_quietly()


def stdout() -> Console:
    """The console for results. Made when asked for, so that it follows a replaced ``sys.stdout``."""
    _escape_unencodable(sys.stdout)
    return _Console(highlight=False, emoji=False, soft_wrap=True)


def stderr() -> Console:
    """The console for progress, notes and errors."""
    _escape_unencodable(sys.stderr)
    return _Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)


def _escape_unencodable(stream: TextIO) -> None:
    """What the terminal's encoding has no character for is written as an escape; it is no reason to fail."""
    if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")


def clean(value: object) -> str:
    """The value as text that a terminal only shows: control, format, bidirectional and unassigned characters,
    half surrogates and line separators become escapes such as ``\\x1b``; every kind of space becomes a space."""
    text = str(value)
    return text if text.isprintable() else "".join(map(_clean_character, text))


def _clean_character(character: str) -> str:
    if character.isprintable():
        return character
    if unicodedata.category(character) == "Zs":
        return " "
    return character.encode("unicode_escape").decode("ascii")


def short(digest: str) -> str:
    """The beginning of a digest, for tables."""
    return digest[:SHORT]


def short_did(did: str) -> str:
    """A did:key for tables: its end, which differs from key to key, where the beginning does not."""
    return f"…{did[-8:]}" if did.startswith("did:key:") else did


def when(seconds: int) -> str:
    """UTC seconds since 1970 as ``2026-11-23 00:41:00Z``."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s"


def line(text: object = "", style: str = "", *, to: Console | None = None) -> None:
    """One line of text, made safe; ``style`` is for terminals."""
    console = to or stdout()
    if console.is_terminal:
        console.print(Text(clean(text), style=style))
    else:  # the same text, in a tenth of the time
        write(f"{clean(text)}\n", to=console.file)


def note(text: object, style: str = "") -> None:
    """One line on stderr."""
    line(text, style, to=stderr())


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "", drop: Sequence[str] = ()
) -> None:
    """A table of safe cells: drawn on a terminal, elsewhere in aligned columns that nothing cuts short.

    Where a terminal is too narrow, it goes without the columns ``drop``, one after the other, and then shows each row
    on lines of its own. Text is wrapped at words; ids, digests and other short values stand on one line.
    """
    console = stdout()
    cells = [[clean(cell) for cell in row] for row in rows]
    if not console.is_terminal:
        _plain_table(columns, cells, title, console)
        return
    kept = list(range(len(columns)))
    for name in (*drop, None):
        if sum(_least(columns[i], [row[i] for row in cells]) + _BETWEEN for i in kept) <= console.width:
            _draw(console, [columns[i] for i in kept], [[row[i] for i in kept] for row in cells], title)
            if left := [name for i, name in enumerate(columns) if i not in kept]:
                line(
                    f"not shown for want of room: {', '.join(left)} (a wider terminal shows them, or --json)",
                    "dim",
                    to=console,
                )
            return
        kept = [i for i in kept if columns[i] != name]
    if title:
        line(title, to=console)
    for row in cells:
        facts([(columns[i], row[i]) for i in kept])
        line(to=console)


def _is_rigid(values: Sequence[str]) -> bool:
    """Whether a column is never wrapped: it holds single words or short values."""
    return all(len(value) <= _SHORT_VALUE or " " not in value for value in values)


def _least(name: str, values: Sequence[str]) -> int:
    """The least width of a column that breaks no word of less than ordinary length."""
    if _is_rigid(values):
        return max(map(cell_len, [name, *values]))
    return max(cell_len(word) for value in [name, *values] for word in [*value.split(), "-" * _SHORT_VALUE])


def _draw(console: Console, columns: Sequence[str], cells: list[list[str]], title: str) -> None:
    from rich import box  # noqa: PLC0415 (most commands draw no table)
    from rich.table import Table  # noqa: PLC0415

    heading = Text(clean(title)) if title else None
    drawn = Table(title=heading, title_justify="left", header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        values = [row[number] for row in cells]
        drawn.add_column(Text(column), overflow="fold", no_wrap=_is_rigid(values), min_width=_least(column, values))
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    console.print(drawn, soft_wrap=False)


def _plain_table(columns: Sequence[str], cells: list[list[str]], title: str, console: Console) -> None:
    if title:
        line(title, to=console)
    lines = [[column.upper() for column in columns], *cells]
    widths = [max(len(row[i]) for row in lines) for i in range(len(columns))]
    texts = (_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in lines)
    # At once: each line of its own would be written through to the reader.
    write("".join(f"{text.rstrip()}\n" for text in texts))


def facts(pairs: Iterable[tuple[str, object]]) -> None:
    """Named values, one a line, the names in one column. A list gives one line for each of its items."""
    shown = [(name, value if isinstance(value, list | tuple) else [value]) for name, value in pairs]
    width = max((len(name) for name, _ in shown), default=0)
    console = stdout()
    for name, values in shown:
        for position, value in enumerate(values or ["none"]):
            label = Text((name if position == 0 else "").ljust(width), style="bold")
            first, *more = _wrapped(clean(value), width + len(_GAP), console)
            console.print(label.append(_GAP + first, style="not bold"))
            for rest in more:
                console.print(Text(" " * width + _GAP + rest))


def paragraph(text: object, style: str = "", *, indent: str = "") -> None:
    """Text that a terminal shows wrapped at words, each line behind ``indent``; elsewhere one line. Not for commands."""
    console = stdout()
    for part in _wrapped(clean(text), len(indent), console):
        line(indent + part, style, to=console)


def _wrapped(text: str, indent: int, console: Console) -> list[str]:
    """The text in lines that fit beside an indentation on a terminal; longer words, such as DIDs, stay whole."""
    if not console.is_terminal or cell_len(text) + indent <= console.width:
        return [text]
    width = max(console.width - indent, _SHORT_VALUE)
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [text]


def emit_json(command: str, value: Mapping[str, Any], *, version: int = 1) -> None:
    """The result for programs: one object whose first field is ``{"fedledger": "<command>/v<version>"}``.

    ASCII only, so that no terminal acts upon it. Fields may be added within a version, never changed or removed.
    """
    document = {"fedledger": f"{command}/v{version}", **value}
    write(json.dumps(document, indent=2) + "\n")


def write(text: str, *, to: IO[str] | None = None) -> None:
    """Raw text, on stdout if nowhere else; ends quietly where the reader has gone (``fedledger log | head``)."""
    stream = to or sys.stdout
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _end_quietly()


def _end_quietly() -> NoReturn:
    # What is still buffered has no reader: without this the interpreter would complain at its exit.
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
    raise SystemExit(_PIPE_CLOSED)


def command_line(*arguments: object) -> str:
    """A command of this program as it can be pasted into the shell in the current folder.

    Where the shell would not find this installation's ``fedledger``, its path from here is written out.
    """
    return shlex.join([*_program(), *map(str, arguments)])


def _program() -> list[str]:
    here = Path(sys.argv[0])
    script = here if here.name == PROGRAM and here.is_file() else Path(sys.executable).parent / PROGRAM
    if not script.is_file():
        return [relative(sys.executable), "-m", "ops.cli"]
    found = shutil.which(PROGRAM)
    if found is not None and Path(found).resolve() == script.resolve():
        return [PROGRAM]
    return [relative(script)]


def relative(path: Path | str) -> str:
    """The path as it is shortest to type: from the current folder where it lies below it."""
    absolute = os.path.abspath(path)
    with suppress(OSError, ValueError):
        below = os.path.relpath(absolute)
        if not below.startswith(os.pardir):
            # A bare name would be looked up on PATH, or taken for an option.
            return below if os.sep in below and not below.startswith("-") else os.path.join(os.curdir, below)
    return absolute


def next_command(*arguments: object) -> None:
    """Print a command to run next, as it can be pasted."""
    line(f"  {command_line(*arguments)}", "cyan")
