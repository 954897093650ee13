# SPDX-License-Identifier: Apache-2.0
"""One Ray for all tests of this folder that join one, and what Ray reads before it is imported."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

os.environ.setdefault("RAY_AUTH_TOKEN", "5" * 64)
os.environ.update({"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"})


@pytest.fixture(scope="session")
def nodes() -> Iterator[Any]:
    """A Ray of several nodes on this machine: a head without cores, and one node with three."""
    from ray.cluster_utils import Cluster as Nodes

    quick = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}  # to see that a node has gone
    made = Nodes(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
    )
    made.add_node(num_cpus=3)
    yield made
    made.shutdown()
