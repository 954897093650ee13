# SPDX-License-Identifier: Apache-2.0
"""A run on a Fabric network that it hurts itself at chosen events, in a process of its own; run by ``test_fabric_run.py``.

    python -m tests.ops.hurt_run FILE FOLDER PROFILE NETWORK [KIND:ROUND:ACTION[:NODE]]...

    kill        kill a node
    start       start a node
    bounce      kill a node, and start it a second later
    armed       kill a node when the orderers have taken the next transaction, and start it four seconds later
    everything  kill every node and this process, when the orderers have taken the next transaction

Prints ``ack SIZE KIND ROUND`` for every event: so many entries had been acknowledged by then.
"""

import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from ops import settings

settings.prepare_ray(secrets.token_hex(32))
settings.prepare_grpc()

from chaincode.ledgers.fabric.gateway import Peer  # noqa: E402
from chaincode.ledgers.sqlite import SqliteLedger  # noqa: E402
from coordinator.steps import Event  # noqa: E402
from ops.fabric import existing, network  # noqa: E402
from ops.federation_file import load  # noqa: E402
from ops.ledger_fabric import OnChannel  # noqa: E402
from ops.ledger_network import Channel  # noqa: E402
from ops.narrator import Narrator  # noqa: E402
from ops.run_folder import RunFolder  # noqa: E402
from ops.runner import Options, Run  # noqa: E402

AWAY_SECONDS, LONG_SECONDS = 1.0, 4.0


class Hurting:
    """Watches a run, and carries out what is asked for at each event."""

    def __init__(self, network_folder: Path, place: RunFolder, narrator: Narrator, wanted: list[list[str]]) -> None:
        self._network, self._place, self._narrator, self._wanted = network_folder, place, narrator, wanted
        self._armed: Callable[[], None] | None = None
        taken = Peer.submit

        def submit(peer: Peer, *arguments: object) -> None:
            taken(peer, *arguments)  # type: ignore[arg-type]
            if self._armed is not None:
                act, self._armed = self._armed, None
                act()

        Peer.submit = submit  # type: ignore[method-assign]

    def __call__(self, event: Event) -> None:
        self._narrator(event)
        with SqliteLedger.open(self._place.ledger) as ledger:
            print("ack", ledger.size, event.kind, event.round, flush=True)
        for kind, number, action, *node in self._wanted:
            if (kind, number) == (event.kind, str(event.round)):
                getattr(self, action)(*node)

    def kill(self, node: str) -> None:
        assert network.kill(self._network, node)

    def start(self, node: str) -> None:
        network.start(self._network, node)

    def bounce(self, node: str, seconds: float = AWAY_SECONDS) -> None:
        self.kill(node)
        threading.Timer(seconds, self.start, [node]).start()

    def armed(self, node: str) -> None:
        self._armed = lambda: self.bounce(node, LONG_SECONDS)

    def everything(self) -> None:
        """At the next transaction that the orderers take: nobody hears what became of it."""

        def act() -> None:
            for node in existing.opened(self._network).nodes:
                network.kill(self._network, node.name)
            os.kill(os.getpid(), signal.SIGKILL)

        self._armed = act


def main(file: str, folder: str, profile: str, network_folder: str, *wanted: str) -> None:
    federation, place = load(file), RunFolder(Path(folder))
    narrator = Narrator(federation.rounds)
    watch = Hurting(Path(network_folder), place, narrator, [one.split(":") for one in wanted])
    home = OnChannel(federation.name, Channel(Path(profile), Path(network_folder)), narrator.say)
    with narrator:
        finished = Run(federation, place, Options(baselines=False), narrator, watch=watch, home=home).carry_out()
    print("model", finished.release.model, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
