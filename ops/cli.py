# SPDX-License-Identifier: Apache-2.0
"""The entry point: what takes long is begun before the command line is loaded, which takes a tenth of a second."""

import gc
import signal
import sys
from contextlib import nullcontext
from importlib import import_module

from chaincode.process import collect_rarely
from ops.exit_codes import INTERRUPTED

_BEGUN = "audit"  # the one command for which there is something to begin, and whose beginning is loaded


def main() -> None:
    """The entry point of the ``fedledger`` script."""
    try:
        code = _run(sys.argv[1:])
        if code == INTERRUPTED:
            _ignore_interrupts()
    except KeyboardInterrupt:  # before there is a command that could say more, or once more after it
        _ignore_interrupts()
        code = INTERRUPTED
    gc.freeze()  # what is left goes with the process: to look through it for garbage at the exit takes a tenth of a query
    sys.exit(code)


def _ignore_interrupts() -> None:
    """Let nobody who presses Ctrl-C again interrupt the tidying up, which is short."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(arguments: list[str]) -> int:
    """Carry out a command line; its exit code."""
    collect_rarely()
    with import_module("ops.ahead").begun(arguments) if _BEGUN in arguments[:1] else nullcontext() as begun:
        code: int = import_module("ops.command_line").run(arguments, begun)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        import_module("ops.output").write("")
    return code


if __name__ == "__main__":
    main()
