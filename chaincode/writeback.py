# SPDX-License-Identifier: Apache-2.0
"""Advice to the system about files that were just written: when to put them on the disk, and when to forget them.

Nothing here changes what a file holds or makes it durable (`os.fsync` does), and nothing here fails: where the system
knows no such advice, nothing happens. Kept apart because ctypes takes time to load.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE, sync_file_range(2)
_start = getattr(ctypes.CDLL(None), "sync_file_range", None) if os.name == "posix" else None
if _start is not None:
    _start.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def start_writing_back(path: Path | str, start: int = 0, size: int = 0) -> None:
    """Have a file's bytes written to the disk from now on, without waiting for it: ``size`` from ``start`` on, 0 for all.

    The fsync that must come later finds little left to do; what goes wrong on the disk is reported by that fsync.
    """
    begin = _start
    if begin is not None:
        _advise(path, lambda handle: begin(handle, start, size, _WRITE))


def forget(path: Path | str, start: int = 0, size: int = 0) -> None:
    """Have a file's pages that are on the disk already leave the memory; the next file that is written gets them.

    Those of ``size`` bytes from ``start`` on, or to the end where that is 0. A page that nobody has used before is many times as
    expensive as one that was just given back.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    _advise(path, lambda handle: os.posix_fadvise(handle, start, size, os.POSIX_FADV_DONTNEED))


def _advise(path: Path | str, act: Callable[[int], object]) -> None:
    """Act on a file's handle; what fails is left at that."""
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            act(handle)
        finally:
            os.close(handle)
