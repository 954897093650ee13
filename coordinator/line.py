# SPDX-License-Identifier: Apache-2.0
"""A line to a worker on this machine: a Unix socket that carries small calls and their answers.

Through Ray a call wakes half a dozen threads of both processes one after the other, which costs 2 to 3 ms in the midst of a
round; over a socket it wakes two. Ray starts, places, watches and ends the workers, and carries whatever is large.
The socket lies in a folder that nobody else can enter; what arrives is JSON of bounded length, never unpickled: a worker
runs a task's code, and this process holds keys.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any, Final

from coordinator.wire import read_answer, read_call, write_answer, write_call
from identity.errors import Error

LONGEST: Final = 1 << 26
"""Bytes of a call: 256 orders have 100 kB, an agreement of ten thousand parties 600."""
LONGEST_ANSWER: Final = 1 << 22
"""Bytes of an answer: 256 results have 100 kB."""
STALL_SECONDS: Final = 10
"""Nobody waits longer for a worker that does not read, or that stops in the middle of an answer: it has been stopped."""


class Line:
    """This process's end. As an object with a ``fileno`` it can be waited for."""

    def __init__(self, path: str) -> None:
        """Raises OSError where nobody listens."""
        with socket.socket(socket.AF_UNIX) as made:
            for bound in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                made.setsockopt(socket.SOL_SOCKET, bound, struct.pack("ll", STALL_SECONDS, 0))
            made.connect(path)
            self._connection = Connection(made.detach())
        self._asked: tuple[int, str, Sequence[Any]] = 0, "", ()

    def fileno(self) -> int:
        """The socket's number."""
        return self._connection.fileno()

    def ask(self, method: str, *arguments: Any) -> None:
        """Send a call; the answer to the one before has been read. Raises OSError where the worker is gone or stopped, or
        the call is too long."""
        number = self._asked[0] + 1
        data = write_call(number, method, arguments)
        if len(data) > LONGEST:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        self._asked = number, method, arguments
        self._connection.send_bytes(data)

    @property
    def answered(self) -> bool:
        """Whether there is something to read: an answer, or that the worker is gone."""
        return self._connection.poll()

    def answer(self) -> Any:
        """The answer to the last call, or the ``Error`` that it raised. Raises EOFError, OSError where the worker is gone or
        stopped."""
        return read_answer(self._connection.recv_bytes(LONGEST_ANSWER), *self._asked)

    def close(self) -> None:
        """Hang up: the worker then serves its other callers."""
        self._connection.close()


class Exchange:
    """A worker's end: it takes calls on a line until the caller hangs up, one caller after the other."""

    def __init__(self, path: str) -> None:
        """Listen, in the place of whoever had this process's number before. Raises OSError."""
        Path(path).unlink(missing_ok=True)
        self._listener = Listener(path, "AF_UNIX", backlog=1)

    def serve(self, carry_out: Callable[..., Any]) -> None:
        """Carry out the calls of the next caller, until it hangs up. Raises what cannot be read, or written as an answer."""
        with self._listener.accept() as connection, suppress(EOFError, ConnectionError):
            while True:
                number, method, arguments = read_call(connection.recv_bytes(LONGEST))
                try:
                    answer = carry_out(method, *arguments)
                except Error as error:
                    answer = error
                connection.send_bytes(write_answer(number, answer))
