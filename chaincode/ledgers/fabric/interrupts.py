# SPDX-License-Identifier: Apache-2.0
"""Keeps Ctrl-C out of gRPC."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def uninterrupted(call: Callable[[], T]) -> T:
    """What a call into gRPC gives, made in another thread than the main one, which alone Ctrl-C interrupts.

    gRPC is left with a lock that is held for ever, or a call that nobody drives, where an interrupt meets it: then neither the
    channel nor the process ends.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    future = Future[T]()

    def carry_out() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # for the main thread
            future.set_exception(error)

    threading.Thread(target=carry_out, daemon=True).start()
    return future.result()
