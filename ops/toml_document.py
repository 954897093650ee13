# SPDX-License-Identifier: Apache-2.0
"""A TOML file written by a person, and where in it each value stands, so that a mistake can be shown.

``tomllib`` does not keep positions. The line of a value is the line from which on the file, read from its
beginning, holds the value: the parser itself says so, also for dotted keys, inline tables and values over many lines.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn

from identity.errors import UsageError

MAX_BYTES = 64 * 1024
_MAX_READINGS = 100  # of parts of the file, to find one line: bounds what a hostile file costs
_AT_LINE = re.compile(r" ?\(at line (\d+), column (\d+)\)$")


@dataclass(frozen=True, slots=True)
class Document:
    """A file that was read. ``values`` is what it holds: numbers with a point are ``Decimal``; ``data`` its bytes."""

    path: Path
    data: bytes = field(repr=False)
    values: dict[str, Any]

    def line_of(self, keys: Sequence[str]) -> int:
        """The line (from 1) on which the value under nested keys begins; the nearest one outside where it is not there."""
        # Not splitlines(), which knows more ends of lines than TOML.
        lines = self.data.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
        while keys:
            if (found := _find(lines, keys)) is not None:
                return found
            keys = keys[:-1]
        return 1

    def refuse(self, code: str, keys: Sequence[str], problem: str, *, allowed: str, example: str) -> NoReturn:
        """Raise the UsageError for a mistake at the value under ``keys``."""
        fail(code, self.path, self.line_of(keys), problem, allowed=allowed, example=example)


def fail(code: str, path: Path, line: int, problem: str, *, allowed: str, example: str) -> NoReturn:
    """Raise a UsageError that says where, what is wrong, what is allowed, and how it looks when it is right."""
    where = f"{path}:{line}" if line else str(path)
    raise UsageError(code, f"{where}: {problem}\nallowed: {allowed}\nexample: {example}")


def read(path: Path) -> Document:
    """Read a file.

    Raises:
        UsageError: ``file-missing``, ``file-not-regular`` (a folder, a pipe), ``file-unreadable``, ``file-too-large``,
            ``file-not-utf8``, ``file-syntax``.
    """
    data = _read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        fail(
            "file-not-utf8",
            path,
            line,
            "this is not text in UTF-8",
            allowed="a TOML file in UTF-8",
            example='name = "demo"',
        )
    try:
        return Document(path, data, _parse(text))
    except RecursionError:
        _refuse_syntax(path, 1, "nested too deeply")
    except ValueError as error:  # TOMLDecodeError is one; a number of 5000 digits is a plain one
        found = _AT_LINE.search(str(error))
        line = int(found[1]) if found else data.count(b"\n") + 1
        why = _AT_LINE.sub("", str(error))
        _refuse_syntax(path, line, f"{why} (column {found[2]})" if found else why)


def _refuse_syntax(path: Path, line: int, why: str) -> NoReturn:
    allowed = "NAME = VALUE, with text in double quotes, numbers and true or false without"
    fail("file-syntax", path, line, f"not TOML: {why}", allowed=allowed, example='name = "demo"')


def _read_bytes(path: Path) -> bytes:
    allowed, example = "a federation file", "fedledger new my-federation"
    try:
        if path.exists() and not path.is_file():
            fail("file-not-regular", path, 0, "this is not a file", allowed=allowed, example=example)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        fail("file-missing", path, 0, "there is no such file", allowed=allowed, example=example)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = error.strerror if isinstance(error, OSError) else str(error)
        fail("file-unreadable", path, 0, f"the file cannot be read: {why}", allowed=allowed, example=example)
    if len(data) > MAX_BYTES:
        fail(
            "file-too-large",
            path,
            0,
            f"more than {MAX_BYTES} bytes",
            allowed="some dozen lines of TOML",
            example=example,
        )
    return data


def _parse(text: str) -> dict[str, Any]:
    return tomllib.loads(text, parse_float=Decimal)


def _find(lines: list[str], keys: Sequence[str]) -> int | None:
    """The first line (from 1) of the shortest beginning of the file that holds the value."""
    readings = 0
    for start, line in enumerate(lines):
        if keys[-1] not in line:
            continue
        readings += 1
        if not _reads(lines[:start]):
            continue  # the middle of a value over many lines
        for end in range(start + 1, len(lines) + 1):
            readings += 1
            if readings > _MAX_READINGS:
                return None
            if _reads(beginning := lines[:end]):
                if _holds(_parse("\n".join(beginning)), keys):
                    return start + 1
                break
    return None


def _reads(lines: list[str]) -> bool:
    try:
        _parse("\n".join(lines))
    except (ValueError, RecursionError):
        return False
    return True


def _holds(value: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return False
        value = value[key]
    return True
