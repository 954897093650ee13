# SPDX-License-Identifier: Apache-2.0
"""A cluster without Ray: the same dispatch on one spawned process, so that this process stays free of torch."""

import importlib
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Self

from coordinator.dispatch import Dispatch
from coordinator.jobs import ClusterSettings
from coordinator.pool import DIED, LATE, Call
from identity.errors import Error, Unavailable

_HOST: list[Any] = []


def _call(settings: ClusterSettings, method: str, arguments: tuple[Any, ...]) -> Any:
    if not _HOST:
        host = importlib.import_module("coordinator.host").Host()  # torch, in that process only
        host.call("open", settings)
        _HOST.append(host)
    return _HOST[0].call(method, *arguments)


class _OneProcess:
    """A pool of as many workers as are asked for, in name: one process carries out all calls, in turn."""

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        self.workers = settings.workers or 1
        self._process = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))

    def run(self, calls: deque[Call], limit: Callable[[Call], float]) -> Iterator[tuple[Call, Any]]:
        while calls:
            call = calls.popleft()
            seconds = limit(call)
            future = self._process.submit(_call, self._settings, call.method, tuple(call.arguments))
            yield call, self._result(call, future, None if seconds == float("inf") else seconds)

    def begin(self, calls: deque[Call], limit: Callable[[Call], float]) -> None:
        """Nothing to do: one process carries out all calls, in turn."""

    def poll(self, seconds: float) -> bool:
        return False

    def _result(self, call: Call, future: Future[Any], seconds: float | None) -> Any:
        try:
            result = future.result(seconds)
        except Error as error:
            return error
        except TimeoutError:
            self.end()
            self._process = self._start()
            return Unavailable(LATE, "The worker did not answer in time.")
        except BrokenProcessPool as error:
            self._process = self._start()
            return Unavailable(DIED, str(error))
        if call.returns == 1:
            return result
        first, *call.kept = result
        return first

    def end(self) -> None:
        for process in list((self._process._processes or {}).values()):
            process.kill()
        self._process.shutdown()


class LocalCluster(Dispatch):
    """``coordinator.cluster.Cluster`` without Ray: ``Trainer``, ``Aggregator``, ``describe`` and ``baselines``."""

    def __init__(self, settings: ClusterSettings) -> None:
        super().__init__(lambda: self._workers, settings.sites, settings.tries)
        self._workers = _OneProcess(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Nothing to do: the process starts with the first call."""

    def ready(self) -> None:
        """As ``start``."""

    def close(self) -> None:
        self._workers.end()
