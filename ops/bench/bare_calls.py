# SPDX-License-Identifier: Apache-2.0
"""Seconds of a call of Ray that does nothing, in a Ray of its own: the median of many, one after the other.

python -m ops.bench.bare_calls
"""

import logging
import secrets
import time
from statistics import median

from ops import settings

CALLS, WARM = 300, 50


def call_seconds() -> float:
    """The median seconds from calling an actor's empty method to having its answer."""
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
        spans = []
        for _ in range(WARM + CALLS):
            begin = time.perf_counter()
            ray.get(actor.call.remote())
            spans.append(time.perf_counter() - begin)
        return median(spans[WARM:])
    finally:
        ray.shutdown()


if __name__ == "__main__":
    print(call_seconds())
