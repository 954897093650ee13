# SPDX-License-Identifier: Apache-2.0
"""A run in a process of its own that kills itself with SIGKILL at a chosen event; run by ``test_kill.py``.

    python -m tests.ops.killed_run FILE FOLDER [KIND ROUND]

Prints ``ack SIZE`` for every event: so many entries had been acknowledged by then.
"""

import os
import secrets
import signal
import sys
from pathlib import Path

from ops import settings

settings.prepare_ray(secrets.token_hex(32))

from chaincode.ledgers.sqlite import SqliteLedger  # noqa: E402
from coordinator.steps import Event  # noqa: E402
from ops.federation_file import load  # noqa: E402
from ops.narrator import Narrator  # noqa: E402
from ops.run_folder import RunFolder  # noqa: E402
from ops.runner import Options, Run  # noqa: E402


def main(file: str, folder: str, *deadly: str) -> None:
    federation, place = load(file), RunFolder(Path(folder))
    narrator = Narrator(federation.rounds)

    def watch(event: Event) -> None:
        narrator(event)
        with SqliteLedger.open(place.ledger) as ledger:
            print("ack", ledger.size, event.kind, event.round, flush=True)
        if deadly == (event.kind, str(event.round)):
            os.kill(os.getpid(), signal.SIGKILL)

    with narrator:
        finished = Run(federation, place, Options(baselines=False), narrator, watch=watch).carry_out()
    print("model", finished.release.model, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
