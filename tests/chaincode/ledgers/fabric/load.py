# SPDX-License-Identifier: Apache-2.0
"""Clients that go on submitting while something is done to a real network, and what was acknowledged to them."""

import threading
import time
from collections.abc import Sequence
from itertools import count
from typing import Self

from chaincode.entries import open_entry
from chaincode.ledgers import Receipt
from chaincode.ledgers.fabric.ledger import FabricLedger
from ops.fabric import network as networks
from ops.fabric import processes
from ops.fabric.existing import Network
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
        self._stream, self._ending = stream, threading.Event()
        self._counted = threading.Condition()
        self._threads = [threading.Thread(target=self._work, args=(clients[i % len(clients)],)) for i in range(threads)]

    def __enter__(self) -> Self:
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

    def check(self, ledger: FabricLedger, *, before: int) -> None:
        """Every acknowledged entry is where its receipt says, once, and there is no other after the first ones."""
        assert self.errors == []
        stored = list(ledger.entries())
        assert [stored[i] for i in sorted(self.acknowledged)] == [
            self.acknowledged[i] for i in sorted(self.acknowledged)
        ]
        assert sorted(self.acknowledged) == list(range(before, len(stored)))
        assert len({open_entry(envelope).id for envelope in stored}) == len(stored)

    def _work(self, client: FabricLedger) -> None:
        while not self._ending.is_set():
            envelope = admission(self._stream, f"load {next(_sites)}")
            try:
                (outcome,) = client.submit([envelope])
                assert isinstance(outcome, Receipt), outcome
                with self._counted:
                    self.acknowledged[outcome.index] = envelope
            except Exception as error:  # the test tells
                self.errors.append(error)
                return
            finally:
                with self._counted:
                    self._counted.notify_all()


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
