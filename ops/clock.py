# SPDX-License-Identifier: Apache-2.0
"""The clock of this machine: what time it is, and waiting for an agreed deadline."""

import time


def utc() -> int:
    """Seconds of UTC."""
    return int(time.time())


def wait_until(second: int) -> None:
    """Sleep until a UTC second begins: an agreed deadline, for which nothing but time can come."""
    while (left := second - time.time()) > 0:
        time.sleep(min(left, 1.0))
