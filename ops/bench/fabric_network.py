# SPDX-License-Identifier: Apache-2.0
"""The network of the Fabric benchmark: three organisations, one Raft orderer; its memory and its blocks."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from chaincode.ledgers.fabric.asking import Asking
from chaincode.ledgers.fabric.gateway import Peer
from chaincode.ledgers.fabric.identity import load_member
from chaincode.ledgers.fabric.profile import Profile
from coordinator.processes import PROC
from ops.fabric import network, processes
from ops.fabric.existing import Network
from ops.fabric.network import Wanted
from ops.fabric.nodes import GO_MEMORY

SECONDS = 60.0
_USER = 11
"""The time spent in the program among the fields of ``stat`` behind the command's name; in the kernel is the next one."""
LIMITS = {kind: int(text.removesuffix("MiB")) << 20 for kind, text in GO_MEMORY.items()}
"""What each kind of node is told to stay below, in bytes."""
PAGE = """# The Fabric ledger, measured

This page is written by `make bench-fabric`, in one run on one machine; do not edit it. Times depend on the machine, on
which peers, orderer, contract servers and client share the cores: compare the ratios. Three organisations, two of which
endorse a transaction; one Raft orderer that cuts a block after 100 ms. A round is three steps that wait for one another:
the commitments, the seal, the record with the next opening. The network alone does the same transactions, of the same bytes, with a function that
does nothing. Medians of turns: embedded ledger, network alone, Fabric.

Commitments a second stand beside two floors. A transaction for each commitment that does nothing is the network as a client
without batches meets it: the ratio says what batches win. The same bytes in as many transactions that do nothing are the
meaningful floor for the contract: what is missing to 1 is what the contract, its keys and its signatures cost. The tables
below the goals say where that goes, and what was tried.
"""


def up(folder: Path) -> Network:
    """Bring the network up."""
    return network.up(folder, Wanted("raft", 3), lambda _: None)


def memory(here: Network) -> dict[str, tuple[int, int]]:
    """The bytes that each node has resident, and of these the anonymous ones."""
    found = {}
    for name, folder in _processes(here):
        lines = (folder / "status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in lines if ":" in line)
        found[name] = (_bytes(fields["VmRSS"]), _bytes(fields["RssAnon"]))
    return found


def processor_seconds(here: Network) -> dict[str, float]:
    """The processor time so far of this process (``client``), and of the nodes of each kind together."""
    found = {"client": time.process_time()}
    for name, folder in _processes(here):
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        kind = name.partition("-")[0]
        found[kind] = found.get(kind, 0.0) + (int(fields[_USER]) + int(fields[_USER + 1])) / os.sysconf("SC_CLK_TCK")
    return found


def _processes(here: Network) -> Iterator[tuple[str, Path]]:
    """Each node that runs, and what the kernel says of its process."""
    for node in here.nodes:
        process = processes.running(node.folder)
        if process is not None:
            yield node.name, PROC / str(process.pid)


def _bytes(text: str) -> int:
    return int(text.split(maxsplit=1)[0]) << 10


def blocks(profile: Profile, organisation: str) -> list[bytes]:
    """The blocks of the channel, as an organisation's peer shows them. Raises Unavailable."""
    own = profile.organisation(organisation)
    peer = Peer(own.peers[0])
    try:
        asking = Asking(load_member(own), profile.channel)
        return list(asking.blocks([peer], 0, None, lambda block, *_: block.SerializeToString(), turn=SECONDS))
    finally:
        peer.close()
