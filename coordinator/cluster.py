# SPDX-License-Identifier: Apache-2.0
"""The cluster: few warm worker processes on Ray that train, verify, sum and finish. It
and ``coordinator.workers``, the pool that it starts, are the only modules of the product that import ray.

This process stays free of torch and of the task: it moves references to models and sums, never their values.
"""

import ctypes
import logging
import secrets
import shutil
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import ray
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled
from ray.exceptions import RayError
from ray.job_config import JobConfig

from chaincode.threads import CORES
from coordinator.dispatch import Dispatch
from coordinator.jobs import ClusterSettings
from coordinator.processes import end_orphans, make_folder, record_processes
from coordinator.workers import Workers, error_line
from identity.errors import Unavailable, UsageError

_PACKAGES = str(Path(__file__).resolve().parent.parent)  # where workers, too, find this code


def _silence() -> None:
    """Stop Ray's thread that prints what happens to workers into this process's output, where no option stops it.

    What matters of it reaches the caller as an ``Error``.
    """
    joined: Any = ray._private.worker.global_worker
    joined.threads_stopped.set()
    joined.gcs_error_subscriber.close()


def _init(**options: Any) -> None:
    """``ray.init``, and this process answers SIGTERM as before: Ray would have it end with a dump of its own.

    Through Python's C interface, since ``signal.signal`` is for the main thread alone.
    """
    answer, keep = ctypes.pythonapi.PyOS_getsig, ctypes.pythonapi.PyOS_setsig
    answer.restype, keep.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
    before = answer(signal.SIGTERM)
    try:
        ray.init(**options)
    finally:
        keep(signal.SIGTERM, before)


class Cluster(Dispatch):
    """A run's cluster: ``Trainer``, ``Aggregator``, and what describes the task. A context manager.

    ``start`` returns at once; everything else waits for what it needs. Without an address it is a Ray of our own,
    of which nothing is left at the end; with one it joins that Ray and leaves it again.
    """

    def __init__(self, settings: ClusterSettings, *, tell: Callable[[str], None] = lambda _: None) -> None:
        """Nothing is started yet. ``tell`` is told, in words, when a worker was lost and replaced."""
        super().__init__(self._pool, settings.sites, settings.tries)
        self._settings, self._tell, self._folder, self._joined = settings, tell, "", False
        self._starting: Future[Workers] | None = None
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to start Ray and the workers, and end what an earlier run of ours left behind."""
        self._starting, self._closed = Future(), threading.Event()
        threading.Thread(target=self._live, args=(self._starting, self._closed), name="cluster", daemon=True).start()

    def ready(self) -> None:
        """Wait until every worker is warm.

        Raises:
            UsageError: ``task-*``: the task cannot be used; ``ray-address``; ``ray-open``: a Ray of our own would run
                code for whoever connects.
            Unavailable: ``ray-start``, ``worker-start``.
        """
        self._pool().ready()

    def close(self) -> None:
        """End the workers and leave Ray; one of our own is ended with all of its processes."""
        if self._starting is None:
            return
        starting, self._starting = self._starting, None
        if starting.exception() is None:
            starting.result().end()
        if self._joined:
            ray.shutdown()
            self._joined = False
        self._closed.set()
        if self._folder:
            end_orphans(self._settings.processes)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _live(self, starting: Future[Workers], closed: threading.Event) -> None:
        """Connect, and stay until the end: the kernel ends Ray's processes with the thread that started them."""
        try:
            starting.set_result(self._connect())
        except BaseException as error:
            starting.set_exception(error)
        closed.wait()

    def _pool(self) -> Workers:
        if self._starting is None:
            raise Unavailable("cluster-closed", "The cluster has not been started, or has been closed.")
        return self._starting.result()

    def _connect(self) -> Workers:
        """Start or join Ray, and let the workers start. Raises as ``ready``."""
        settings = self._settings
        end_orphans(settings.processes)
        label = " ".join(("fedledger", *settings.labels.values()))
        common: dict[str, Any] = {
            "namespace": f"fedledger-{secrets.token_hex(8)}",
            "job_config": JobConfig(
                metadata={"product": "fedledger", **settings.labels}, _py_driver_sys_path=[_PACKAGES]
            ),
            "log_to_driver": False,
            "logging_level": logging.CRITICAL,
            # A hook of the environment could ship the working folder, keys and all, to other machines.
            "_skip_env_hook": True,
        }
        if ray.is_initialized():
            raise Unavailable(
                "ray-start", "This process has joined a Ray already; one process has one cluster at a time."
            )
        # Ray keeps the first token that it read; a second cluster of one process may have another.
        AuthenticationTokenLoader.instance().reset_cache()
        self._joined = True
        try:
            if settings.address is not None:
                settings.reach()
                _init(address=settings.address, **common)
                cores = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
            else:
                cores = CORES
            workers = min(settings.workers or cores, len(settings.sites))
            if settings.address is None:
                self._start_ray(workers, common)
            _silence()
        except (RayError, OSError, OverflowError, ValueError, RuntimeError) as error:
            act = f"join {settings.address}" if settings.address else "start"
            raise Unavailable(
                "ray-start", f"Ray: cannot {act}: {error_line(error.__cause__ or error, -1)}", next="fedledger doctor"
            ) from error
        return Workers(settings, workers, label, self._folder, self._tell)

    def _start_ray(self, workers: int, common: dict[str, Any]) -> None:
        """Start a Ray of our own, whose files lie in a folder that nobody else can enter."""
        if not is_token_auth_enabled():
            message = "Ray runs code for whoever connects, and its token mode is off. Example: RAY_AUTH_MODE=token"
            raise UsageError("ray-open", message, next="unset RAY_AUTH_MODE")
        self._folder = make_folder()
        record_processes(self._settings.processes, self._folder)
        folder = f"{self._folder}/r"  # Ray opens the folder that it is given to everybody: one within ours
        _init(address="local", num_cpus=workers, include_dashboard=self._settings.dashboard, _temp_dir=folder, **common)
        record_processes(self._settings.processes, self._folder)
