# SPDX-License-Identifier: Apache-2.0
"""Seconds of a call that does nothing: over a socket to another process, and of Ray. The medians of many, one after the other.

python -m ops.bench.bare_calls
"""

import json
import logging
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

from ops import settings

CALLS, WARM = 300, 50
_ECHO = """
import socket, sys
with socket.socket(fileno=int(sys.argv[1])) as end:
    while data := end.recv(64):
        end.sendall(data)
"""


def socket_seconds() -> float:
    """From sending a byte to another process to having it back."""
    here, there = socket.socketpair()
    with here, there:
        command = [sys.executable, "-c", _ECHO, str(there.fileno())]
        with subprocess.Popen(command, pass_fds=[there.fileno()]):

            def call() -> None:
                here.sendall(b"x")
                here.recv(1)

            taken = _median(call)
            here.shutdown(socket.SHUT_WR)
            return taken


def ray_seconds() -> float:
    """From calling an actor's empty method to having its answer, in a Ray of its own."""
    settings.prepare_ray(secrets.token_hex(32))  # before Ray is imported
    import ray  # noqa: PLC0415

    class Idle:
        """Does nothing when it is told to."""

        @ray.method
        def call(self) -> None:
            """Do nothing."""

    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        actor = ray.remote(Idle).remote()
        return _median(lambda: ray.get(actor.call.remote()))
    finally:
        ray.shutdown()


def _median(call: Callable[[], object]) -> float:
    spans = []
    for _ in range(WARM + CALLS):
        begin = time.perf_counter()
        call()
        spans.append(time.perf_counter() - begin)
    return median(spans[WARM:])


if __name__ == "__main__":
    print(json.dumps([socket_seconds(), ray_seconds()]))
