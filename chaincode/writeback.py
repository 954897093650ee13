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
    from pathlib import Path

_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE, sync_file_range(2)
_start = getattr(ctypes.CDLL(None), "sync_file_range", None) if os.name == "posix" else None
if _start is not None:
    _start.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)


def start_writing_back(handle: int) -> None:
    """Have an open file's bytes written to the disk from now on, without waiting for it.

    The fsync that must come later finds little left to do; what goes wrong on the disk is reported by that fsync.
    """
    if _start is not None:
        _start(handle, 0, 0, _WRITE)


def forget(path: Path | str) -> None:
    """Have a file's pages that are on the disk already leave the memory; the next file that is written gets them.

    A page that nobody has used before is many times as expensive as one that was just given back.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
