# SPDX-License-Identifier: Apache-2.0
"""The cluster: few warm worker processes on Ray that train, verify, sum and finish. The sole importer of ray.

This process stays free of torch and of the task: it moves references to models and sums, never their values.
"""

import importlib
import logging
import math
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import ray
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled
from ray.exceptions import GetTimeoutError, RayError
from ray.job_config import JobConfig

from chaincode.threads import CORES
from coordinator.dispatch import Dispatch
from coordinator.jobs import ClusterSettings
from coordinator.pool import DIED, LATE, Call, Reference, Slot, error_line
from coordinator.processes import end_orphans, make_folder, record_processes
from coordinator.wire import pack, unpack
from identity.errors import Error, Unavailable, UsageError

_PACKAGES = str(Path(__file__).resolve().parent.parent)  # where workers, too, find this code


class _Actor:
    """What Ray runs in a worker process. It loads the code that needs torch there, and only there."""

    def __init__(self) -> None:
        self._host = importlib.import_module("coordinator.worker").Host()

    def call(self, method: str, *arguments: Any) -> Any:
        return self._host.call(method, *map(unpack, arguments))


class _Workers:
    """The pool of ``coordinator.dispatch`` on Ray: one actor per slot."""

    def __init__(self, settings: ClusterSettings, workers: int, label: str) -> None:
        """Start the workers without waiting for them."""
        self.workers = workers
        self._settings, self._label, self._code = settings, label, ""
        self._actor = ray.remote(_Actor)
        self._slots = [Slot(number) for number in range(workers)]
        for slot in self._slots:
            self._open(slot)

    def ready(self) -> None:
        """See ``Cluster.ready``."""
        for slot in self._slots:
            while slot.opening is not None:
                ray.wait([slot.opening], timeout=max(0.0, slot.until - time.monotonic()))
                self._opened(slot)

    def run(self, calls: deque[Call], limit: Callable[[Call], float]) -> Iterator[tuple[Call, Any]]:
        """See ``Pool.run``. A run that was given up before its end loses its workers when the next one begins."""
        trouble: Error = Unavailable("worker-start", "There is no worker.")
        for slot in self._slots:
            if slot.handle is None or slot.call is not None:
                slot.deaths = 0
                self._open(slot)
        while calls or any(slot.call for slot in self._slots):
            self.begin(calls, limit)
            waiting = {slot.opening if slot.call is None else slot.answer: slot for slot in self._slots}
            waiting.pop(None, None)
            if not waiting:
                raise trouble
            patience = min(slot.until for slot in waiting.values()) - time.monotonic()
            ready, _ = ray.wait(
                list(waiting), timeout=None if patience == math.inf else max(0.0, patience), fetch_local=False
            )
            for slot in [waiting[reference] for reference in ready] or list(waiting.values()):
                if not ready and slot.until > time.monotonic():
                    continue
                if slot.call is not None:
                    yield self._finished(slot, slot.call)
                    continue
                try:
                    self._opened(slot)
                except Error as error:
                    trouble = error

    def end(self) -> None:
        """End every worker, whatever it does."""
        for slot in self._slots:
            self._end(slot)

    def _open(self, slot: Slot) -> None:
        """Start a worker in a slot, in the place of the one before."""
        self._end(slot)
        slot.generation += 1
        name = f"{self._label} worker {slot.number}.{slot.generation}"
        slot.handle = self._actor.options(name=name, num_cpus=1, scheduling_strategy="SPREAD").remote()
        slot.opening = slot.handle.call.options(name=f"{self._label} open").remote("open", self._settings)
        slot.until = time.monotonic() + self._settings.start_seconds

    def _end(self, slot: Slot) -> None:
        if slot.handle is not None:
            ray.kill(slot.handle)
        slot.handle = slot.opening = slot.call = slot.answer = None
        slot.until = math.inf

    def _opened(self, slot: Slot) -> None:
        """Take a worker's hello; one that died is started again a few times, its machine may have gone with it.

        Raises as ``Cluster.ready``; the slot is empty then.
        """
        hello = _value(slot.opening)
        if isinstance(hello, Error):
            slot.deaths += hello.code == DIED
            if hello.code == DIED and slot.deaths < self._settings.tries:
                self._open(slot)
                return
            self._end(slot)
            if hello.code not in (DIED, LATE):
                raise hello
            message = f"Worker {slot.number} did not start in {self._settings.start_seconds:.0f} s: {hello.message}"
            raise Unavailable("worker-start", message, next="fedledger doctor")
        code, _ = hello
        if code != (self._code or code):
            self._end(slot)
            raise UsageError(
                "task-changed", f"The source of task {self._settings.task.reference} has changed during the run."
            )
        self._code, slot.opening, slot.until, slot.deaths = code, None, math.inf, 0

    def begin(self, calls: deque[Call], limit: Callable[[Call], float]) -> None:
        """See ``Pool.begin``; each call goes to the worker that is best for it where that is idle."""
        idle = {s.number: s for s in self._slots if s.handle is not None and s.opening is None and s.call is None}
        while calls and idle:
            call = calls.popleft()
            slot = idle.pop(call.slot if call.slot in idle else next(iter(idle)))
            method = slot.handle.call.options(name=call.name, num_returns=call.returns)
            references = method.remote(call.method, *map(pack, call.arguments))
            slot.answer, *call.kept = references if call.returns > 1 else [references]
            slot.call, slot.until = call, time.monotonic() + limit(call)

    def _finished(self, slot: Slot, call: Call) -> tuple[Call, Any]:
        """A call and its result; a worker that is lost or late is replaced."""
        result = _value(slot.answer)
        slot.call, slot.answer, slot.until = None, None, math.inf
        if isinstance(result, Error) and result.code in (DIED, LATE):
            self._open(slot)
        return call, result


def _value(reference: Reference) -> Any:
    """The value behind a reference, or the ``Error`` that came instead; LATE where there is nothing yet."""
    try:
        return ray.get(reference, timeout=0)
    except GetTimeoutError:
        return Unavailable(LATE, "The worker did not answer in time.")
    except RayError as error:
        cause = getattr(error, "cause", None)  # what the worker's code raised
        return cause if isinstance(cause, Error) else Unavailable(DIED, f"The worker died: {error_line(error, 0)}")


def _silence() -> None:
    """Stop Ray's thread that prints what happens to workers into this process's output, where no option stops it.

    What matters of it reaches the caller as an ``Error``.
    """
    joined: Any = ray._private.worker.global_worker
    joined.threads_stopped.set()
    joined.gcs_error_subscriber.close()


class Cluster(Dispatch):
    """A run's cluster: ``Trainer``, ``Aggregator``, and what describes the task. A context manager.

    ``start`` returns at once; everything else waits for what it needs. Without an address it is a Ray of our own,
    of which nothing is left at the end; with one it joins that Ray and leaves it again.
    """

    def __init__(self, settings: ClusterSettings) -> None:
        """Nothing is started yet."""
        super().__init__(self._pool, settings.sites, settings.tries)
        self._settings, self._folder, self._joined = settings, "", False
        self._starting: Future[_Workers] | None = None
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

    def _live(self, starting: Future[_Workers], closed: threading.Event) -> None:
        """Connect, and stay until the end: the kernel ends Ray's processes with the thread that started them."""
        try:
            starting.set_result(self._connect())
        except BaseException as error:
            starting.set_exception(error)
        closed.wait()

    def _pool(self) -> _Workers:
        if self._starting is None:
            raise Unavailable("cluster-closed", "The cluster has not been started, or has been closed.")
        return self._starting.result()

    def _connect(self) -> _Workers:
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
                ray.init(address=settings.address, **common)
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
        return _Workers(settings, workers, label)

    def _start_ray(self, workers: int, common: dict[str, Any]) -> None:
        """Start a Ray of our own, whose files lie in a folder that nobody else can enter."""
        if not is_token_auth_enabled():
            message = "Ray runs code for whoever connects, and its token mode is off. Example: RAY_AUTH_MODE=token"
            raise UsageError("ray-open", message, next="unset RAY_AUTH_MODE")
        self._folder = make_folder()
        record_processes(self._settings.processes, self._folder)
        folder = f"{self._folder}/r"  # Ray opens the folder that it is given to everybody: one within ours
        ray.init(
            address="local", num_cpus=workers, include_dashboard=self._settings.dashboard, _temp_dir=folder, **common
        )
        record_processes(self._settings.processes, self._folder)
