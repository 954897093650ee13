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
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Listener, wait
from pathlib import Path
from typing import Any, Final

from coordinator.wire import read_answer, read_call, write_answer, write_call
from identity.errors import Error

LONGEST: Final = 1 << 26
"""Bytes of a call: 256 orders have 100 kB, an agreement of ten thousand parties 600."""
LONGEST_ANSWER: Final = 1 << 22
"""Bytes of an answer: 256 results have 100 kB."""
STALL_SECONDS: Final = 10
"""Nobody waits longer for a worker that does not read, or for the end of an answer that has begun: it has been stopped, or says a
byte now and then, which would hold a round beyond its deadline."""
LOOK_SECONDS: Final = 0.001
"""For what is there already to be taken in."""
_LENGTH: Final = 4
"""Bytes before each message that say how long it is, as ``Connection`` writes them."""


class Line:
    """This process's end. As an object with a ``fileno`` it can be waited for."""

    def __init__(self, path: str) -> None:
        """Raises OSError where nobody listens."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._asked = 0  # the last call's number
        self._came = bytearray()  # of the answer, so far
        try:
            self._bound(socket.SO_SNDTIMEO, time.monotonic() + STALL_SECONDS)
            self._socket.connect(path)
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        """The socket's number."""
        return self._socket.fileno()

    def ask(self, method: str, *arguments: Any) -> None:
        """Send a call; the answer to the one before has been read. Raises OSError where the worker is gone or stopped, or
        the call is too long."""
        number = self._asked + 1
        data = write_call(number, method, arguments)
        if len(data) > LONGEST:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        self._asked = number
        until = time.monotonic() + STALL_SECONDS
        rest = memoryview(len(data).to_bytes(_LENGTH, "big") + data)
        while rest:
            self._bound(socket.SO_SNDTIMEO, until)
            rest = rest[self._socket.send(rest) :]

    @property
    def answered(self) -> bool:
        """Whether there is something to read: an answer, or that the worker is gone."""
        return self.complete or bool(wait([self._socket], 0))

    @property
    def complete(self) -> bool:
        """Whether all of the answer is here already, and nothing more comes."""
        return len(self._came) >= _LENGTH and self._missing() == 0

    def arrives(self, seconds: float) -> bool:
        """Whether all of the answer comes within so many seconds; what has come already is taken in also where they are none. If not,
        ``answer`` still reads it, or says that the worker is gone."""
        with suppress(EOFError, OSError):
            self._receive(time.monotonic() + max(seconds, LOOK_SECONDS))
        return self.complete

    def answer(self) -> Any:
        """The answer to the last call, or the ``Error`` that it raised. Raises EOFError, OSError where the worker is gone, or has not
        said all of it in STALL_SECONDS."""
        self._receive(time.monotonic() + STALL_SECONDS)
        data, self._came = bytes(self._came[_LENGTH:]), bytearray()
        return read_answer(data, self._asked)

    def _receive(self, until: float) -> None:
        """Receive the rest of the answer, before a time on the monotonic clock. Raises EOFError, OSError."""
        while missing := self._missing():
            if missing > LONGEST_ANSWER:
                raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
            self._bound(socket.SO_RCVTIMEO, until)
            if not (came := self._socket.recv(missing)):
                raise EOFError
            self._came += came

    def _missing(self) -> int:
        """How many bytes of the answer's length, or of the rest, are still to come."""
        if len(self._came) < _LENGTH:
            return _LENGTH - len(self._came)
        return _LENGTH + int.from_bytes(self._came[:_LENGTH], "big") - len(self._came)

    def _bound(self, what: int, until: float) -> None:
        """Let the kernel give up sending or receiving at a time on the monotonic clock. Raises OSError where that is past."""
        if (micros := int((until - time.monotonic()) * 1e6)) <= 0:  # 0 would be for ever
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self._socket.setsockopt(socket.SOL_SOCKET, what, struct.pack("ll", *divmod(micros, 1_000_000)))

    def close(self) -> None:
        """Hang up: the worker then serves its other callers."""
        self._socket.close()


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
