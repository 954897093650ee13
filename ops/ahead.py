# SPDX-License-Identifier: Apache-2.0
"""What is begun before the command line is loaded and understood: a bundle that is to be audited is hashed meanwhile.

A guess at what the command line means costs nothing but the work done until its end, wherever it is wrong: the command takes what
was begun only for the very file that it is about.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from chaincode.bundle import is_bundle, open_bundle
from identity.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chaincode.bundle import Bundle

_AUDIT = ["audit", "verify"]
_WITH_FILES = ("--head", "--key")  # options of it that are followed by a file of their own

Begun = dict[str, "Bundle"]
"""Bundles that are open and being hashed, by the paths that were given."""


@contextmanager
def begun(arguments: Sequence[str]) -> Iterator[Begun]:
    """Begin what the arguments ask for, as far as that can be told without their parser."""
    with ExitStack() as stack:
        path = _audited(arguments)
        yield {} if path is None else open_ahead(path, stack)


def open_ahead(path: str, stack: ExitStack) -> Begun:
    """The bundle at a path, which threads hash from now on; nothing where there is none that can be opened."""
    with suppress(EvidenceError, OSError, ValueError):  # which the audit itself will report
        if is_bundle(Path(path)):
            return {path: stack.enter_context(open_bundle(Path(path), ahead=True))}
    return {}


def _audited(arguments: Sequence[str]) -> str | None:
    """The path that is audited, if one is."""
    if list(arguments[: len(_AUDIT)]) != _AUDIT:
        return None
    before = ""
    for argument in arguments[len(_AUDIT) :]:
        if not argument.startswith("-") and before not in _WITH_FILES:
            return argument
        before = argument
    return None
