# SPDX-License-Identifier: Apache-2.0
"""Settings as text: Fabric's configuration files from the templates in this folder."""

import json
from pathlib import Path
from string import Template

HERE = Path(__file__).resolve().parent


def fill(template: str, /, **values: object) -> str:
    """The template with its ``${names}`` filled in. Paths are written so that they stand between double quotes.

    Raises KeyError for a name without a value, which is a fault of the caller.
    """
    shown = {key: quoted(value)[1:-1] if isinstance(value, Path) else str(value) for key, value in values.items()}
    return Template((HERE / template).read_text(encoding="utf-8")).substitute(shown)


def quoted(path: Path) -> str:
    """A path between double quotes, as YAML reads it, whatever is in it."""
    return json.dumps(str(path))


def indented(lines: str, spaces: int) -> str:
    """The lines moved to the right, as YAML nests them."""
    return "\n".join(" " * spaces + line if line else line for line in lines.splitlines())
