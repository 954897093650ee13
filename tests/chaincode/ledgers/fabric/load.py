# SPDX-License-Identifier: Apache-2.0
"""Clients that go on submitting while something is done to a real network, and what was acknowledged to them."""

import threading
import time
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Self

from chaincode.entries import open_entry
from chaincode.ledgers.fabric.ledger import FabricLedger
from ops.fabric import network as networks
from ops.fabric import processes
from ops.fabric.existing import Network
from tests.chaincode.ledgers.hosts import accepted
from tests.chaincode.ledgers.stream import Stream, person

_sites = count(1)


def admission(stream: Stream, name: str) -> bytes:
    """An admission of now: these tests take longer than an entry's time may be off."""
    return stream.admit(person(name), at=int(time.time()))


class Load:
    """While it is open, each of some threads admits one member after the other, by one of the clients in turn."""

    def __init__(self, stream: Stream, clients: Sequence[FabricLedger], threads: int = 4) -> None:
        self.acknowledged: dict[int, bytes] = {}
        self.errors: list[Exception] = []
        self._stream, self._clients, self._ending = stream, clients, threading.Event()
        self._counted = threading.Condition()
        self._threads = [threading.Thread(target=self._work, args=(clients[i % len(clients)],)) for i in range(threads)]

    def __enter__(self) -> Self:
        self._admit(self._clients[0])  # the load's first entry
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is under way."""
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int, seconds: float = 60.0) -> None:
        """Wait until so many more entries than now are acknowledged."""
        with self._counted:
            wanted = len(self.acknowledged) + more
            assert self._counted.wait_for(lambda: self.errors or len(self.acknowledged) >= wanted, seconds)

    def check(self, *ledgers: FabricLedger) -> None:
        """Each ledger has every acknowledged entry where its receipt says, once, and none beside from the load's first on.

        What another client was told of, a peer may have a moment later. So each has a last entry acknowledged first: the
        channel ordered it behind all of them, and no ledger leaves out what is in front of its own receipt.
        """
        assert self.errors == []
        last = self._admit(ledgers[0])
        for ledger in ledgers:
            accepted(ledger.submit([last]))
            stored = list(ledger.entries())
            assert misplaced(self.acknowledged, stored) == []
            assert sorted(self.acknowledged) == list(range(min(self.acknowledged), len(stored)))

    def _admit(self, client: FabricLedger) -> bytes:
        envelope = admission(self._stream, f"load {next(_sites)}")
        (receipt,) = accepted(client.submit([envelope]))
        with self._counted:
            assert receipt.index not in self.acknowledged, receipt
            self.acknowledged[receipt.index] = envelope
        return envelope

    def _work(self, client: FabricLedger) -> None:
        while not self._ending.is_set():
            try:
                self._admit(client)
            except Exception as error:  # the test tells
                self.errors.append(error)
                return
            finally:
                with self._counted:
                    self._counted.notify_all()


def misplaced(acknowledged: Mapping[int, bytes], stored: Sequence[bytes]) -> list[str]:
    """The acknowledged entries that are not under their numbers, in words: where they are, or that they are lost."""
    places: dict[str, list[int]] = {}
    for number, envelope in enumerate(stored):
        places.setdefault(open_entry(envelope).id, []).append(number)
    return [
        f"entry {entry[:12]} was acknowledged as number {number} and is at {places.get(entry, 'none: LOST')}"
        f" of {len(stored)}"
        for number, entry in sorted((number, open_entry(envelope).id) for number, envelope in acknowledged.items())
        if places.get(entry) != [number]
    ]


class Killed:
    """Nodes that do not run meanwhile."""

    def __init__(self, network: Network, *names: str) -> None:
        self.network, self.names = network, names

    def __enter__(self) -> None:
        for name in self.names:
            assert networks.kill(self.network.folder, name)

    def __exit__(self, *_: object) -> None:
        for name in self.names:
            networks.start(self.network.folder, name)


def kill_everything(network: Network) -> None:
    for node in network.nodes:
        assert processes.end(node.folder, grace=0)
