# SPDX-License-Identifier: Apache-2.0
"""Ports of the loopback interface: free ones, and whether one still is."""

import secrets
import socket
from collections.abc import Collection

from identity.wording import counted

HOST = "127.0.0.1"
FIRST, LAST = 15_000, 31_999
"""Below the ranges from which systems take the ports of outgoing connections: a node that is started again after a
pause must find its port free, because the channel's configuration names it."""


def is_free(port: int) -> bool:
    """Whether nobody listens on the port."""
    with socket.socket() as probe:
        # As the nodes do: a connection that is only waiting to be forgotten holds no port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def choose(count: int, avoid: Collection[int] = ()) -> list[int]:
    """So many different free ports. They are not reserved: whoever binds first has them.

    Raises OSError where there are not so many.
    """
    found: list[int] = []
    start = FIRST + secrets.randbelow(LAST - FIRST)
    for offset in range(LAST - FIRST + 1):
        if len(found) == count:
            return found
        port = FIRST + (start - FIRST + offset) % (LAST - FIRST + 1)
        if port not in avoid and is_free(port):
            found.append(port)
    raise OSError(f"{count} ports are needed, and only {counted(len(found), 'is', 'are')} free from {FIRST} to {LAST}")


def accepts(port: int) -> bool:
    """Whether somebody answers on the port."""
    try:
        with socket.create_connection((HOST, port), timeout=1.0):
            return True
    except OSError:
        return False
