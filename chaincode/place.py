# SPDX-License-Identifier: Apache-2.0
"""Where a blob's bytes are: a file of its own, or a part of one that it shares. Standard library only."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaincode.files import mapped

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)  # no slots: its fields are taken by ``vars``, where it is sent
class Place:
    """Where a blob's bytes are: ``size`` bytes from ``offset`` of a file, or all of a file where ``size`` is -1."""

    path: str
    offset: int = 0
    size: int = -1

    @contextmanager
    def open(self) -> Iterator[memoryview]:
        """The bytes, mapped read-only and NOT verified; see `files.mapped`, which says what is raised."""
        with mapped(self.path) as data:
            yield self.cut(data)

    def cut(self, data: memoryview) -> memoryview:
        """The blob's part of its file's bytes; shorter where the file ends before it."""
        return data if self.size < 0 else data[self.offset : self.offset + self.size]
