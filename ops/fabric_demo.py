# SPDX-License-Identifier: Apache-2.0
"""``fedledger fabric demo``: the demonstration on a Fabric network of three organisations, one of whose peers is killed in mid-run.

The same federation file as ``make demo``, and the same model in the end. The network is started for it and stopped after it.
"""

import secrets
from functools import partial
from importlib import import_module
from pathlib import Path

from coordinator.steps import Event
from ops import output, settings
from ops.commands import run
from ops.fabric import network as networks
from ops.fabric.profile import FILE as PROFILE
from ops.federation_file import load, locate
from ops.ledger_network import Channel
from ops.narrator import Narrator
from ops.run_folder import RunFolder

FOLDER = "fabric-demo"
PEER, ROUND = "peer-hospitals-1", 4


class PeerKilled:
    """Kills a peer when a round's sites train, and starts it again when the round is recorded; tells everything on."""

    def __init__(self, folder: Path, narrator: Narrator) -> None:
        self._folder, self._narrator = folder, narrator

    def __call__(self, event: Event) -> None:
        self._narrator(event)
        if (event.kind, event.round) == ("train", ROUND) and networks.kill(self._folder, PEER):
            self._narrator.say(f"  SIMULATED FAULT: {PEER} is killed (SIGKILL), with round {ROUND} under way", "yellow")
        if (event.kind, event.round) == ("record", ROUND) and networks.start(self._folder, PEER):
            self._narrator.say(f"  {PEER} is started again, and reads what it missed", "yellow")


def demonstrate() -> int:
    """Run, audit, stop the network; the audit's exit code."""
    run.interrupt_on_term()
    federation = load(locate("demo"))
    place = RunFolder(Path(settings.text("runs") or "runs") / FOLDER)
    folder = place.path / "network"
    narrator = Narrator(federation.rounds)
    run.banner(narrator, federation, place)
    narrator.say(
        f"  SIMULATED FAULT: in round {ROUND} the peer of hospitals-1 is killed, and started again after it", "yellow"
    )
    settings.prepare_ray(secrets.token_hex(32))
    home = run.home_of(federation, Channel(folder / PROFILE, folder, stays=False), narrator)
    runner = import_module("ops.runner")
    begin = partial(runner.Run, federation, place, runner.Options(), home=home, watch=PeerKilled(folder, narrator))
    try:
        with narrator:
            finished = begin(narrator).carry_out()
        code = run.conclude(finished, as_json=False)
    finally:
        if folder.exists() and (ended := networks.down(folder, wipe=False, say=narrator.say)):
            output.note(f"stopped the network: {', '.join(ended)}")
    output.line(
        "The same model as `make demo` releases, digit for digit: compare `fedledger status runs/demo` after it."
    )
    return code
