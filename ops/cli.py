# SPDX-License-Identifier: Apache-2.0
"""The entry point: what takes long is begun before the command line is loaded, which takes a tenth of a second."""

import gc
import sys
from contextlib import nullcontext
from importlib import import_module

from chaincode.process import collect_rarely

_BEGUN = "audit"  # the one command for which there is something to begin, and whose beginning is loaded


def main() -> None:
    """The entry point of the ``fedledger`` script."""
    collect_rarely()
    arguments = sys.argv[1:]
    with import_module("ops.ahead").begun(arguments) if _BEGUN in arguments[:1] else nullcontext() as begun:
        code = import_module("ops.command_line").run(arguments, begun)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        import_module("ops.output").write("")
    gc.freeze()  # what is left goes with the process: to look through it for garbage at the exit takes a tenth of a query
    sys.exit(code)


if __name__ == "__main__":
    main()
