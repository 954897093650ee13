# SPDX-License-Identifier: Apache-2.0
"""What goes between the process that drives a run and the processes that train and aggregate: plain values."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from chaincode.agreement import TensorSpec
from identity.errors import UsageError
from participant.tasks import TaskLocation

REACH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """How a run's cluster is made.

    ``task`` says where the task is; a worker loads it from there. ``sites`` are the names of all sites in the
    federation file's order, ``seed`` the file's. ``models`` and ``blobs`` are the run's stores, ``processes`` the
    file that records our own cluster's processes; on several machines all of them must see these paths. ``address``
    attaches to a cluster that runs already. ``workers`` is None for one per core, at most one per site. ``labels``
    are shown with the job. ``tries`` bounds how often an order is tried whose worker dies.
    """

    task: TaskLocation
    sites: tuple[str, ...]
    seed: int
    models: str
    blobs: str
    processes: str
    workers: int | None = None
    address: str | None = None
    dashboard: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    tries: int = 3
    start_seconds: float = 120.0

    def reach(self) -> None:
        """Check that somebody listens at the address, which Ray itself would try for many minutes.

        Raises:
            UsageError: ``ray-address``. OSError, OverflowError: nobody does.
        """
        if self.address is None or self.address == "auto":
            return
        host, _, port = self.address.rpartition(":")
        if not host or "/" in host or not port.isdecimal():
            message = f"{self.address[:200]!r} is no address of a Ray cluster. Allowed: HOST:PORT, or auto."
            raise UsageError("ray-address", f"{message} Example: 10.0.0.5:6379")
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """What an agreement says of a task: ``code`` is the digest of its source, ``initial`` of its initial model, which
    lies in the model store; ``evaluation`` of the held-out data, empty where there is none. ``metrics`` are the
    initial model's, as decimals."""

    name: str
    version: str
    code: str
    specs: tuple[TensorSpec, ...]
    initial: str
    evaluation: str
    metrics: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Baselines:
    """Held-out metrics, as decimals, without a federation: each site by its name on its own data, and one model on
    the data of all."""

    alone: Mapping[str, Mapping[str, str]]
    pooled: Mapping[str, str]

    def mean(self, metric: str) -> float:
        """The mean over the sites."""
        values = self._values(metric)
        return sum(values) / len(values)

    def worst(self, metric: str) -> float:
        """The worst site's: the largest of a loss, the smallest of anything else."""
        return (max if metric.endswith("loss") else min)(self._values(metric))

    def _values(self, metric: str) -> list[float]:
        return [float(metrics[metric]) for metrics in self.alone.values()]
