# SPDX-License-Identifier: Apache-2.0
"""How a process's worker is reached: by a method's name, through whoever started the process or over a line."""

import os
from typing import Any

from coordinator.jobs import ClusterSettings
from coordinator.line import Exchange
from coordinator.worker import Worker
from identity.errors import Error
from participant.failures import describe_failure


class Host:
    """Holds a process's worker for whoever reaches it by a method's name; all that it raises is an ``Error``."""

    def __init__(self) -> None:
        self._worker: Worker | None = None
        self._exchange: Exchange | None = None

    def call(self, method: str, *arguments: Any) -> Any:
        """Make the worker, take calls from a line, or call a method of the worker.

        Raises:
            Error: the method's own, or ``worker-failed`` with the text of what was raised.
        """
        try:
            match method:
                case "open":
                    return self._open(*arguments)
                case "serve" if self._exchange is not None:
                    return self._exchange.serve(self.call)
            return getattr(self._worker, method)(*arguments)
        except Error:
            raise
        except Exception as error:
            raise Error("worker-failed", f"A worker fails to {method}: {describe_failure(error)}") from error

    def _open(self, settings: ClusterSettings, folder: str = "") -> tuple[str, str]:
        """Make the worker, which takes lines in a folder of this machine; its hello, and where it takes them."""
        self._worker = Worker(settings)
        path = f"{folder}/line-{os.getpid()}" if folder else ""
        self._exchange = Exchange(path) if folder else None
        return self._worker.hello(), path
