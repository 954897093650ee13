# SPDX-License-Identifier: Apache-2.0
"""Many callers at once, and many entries of one caller: they share transactions, and transactions go side by side."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from chaincode.ledgers import Receipt
from chaincode.ledgers.fabric import batches
from chaincode.ledgers.fabric.ledger import FabricLedger
from chaincode.ledgers.fabric.sending import Patience
from chaincode.ledgers.fabric.together import PLACES
from identity.errors import Rejected, Unavailable
from tests.chaincode.ledgers.fabric.hosts import DOUBLE_ORIGIN
from tests.chaincode.ledgers.hosts import Clock, accepted, codes
from tests.chaincode.ledgers.stream import Stream, digest
from tests.fakes.fabric_double import Fault
from tests.fakes.fabric_world import Double, double

SITES = 40
STREAM = Stream(sites=SITES, origin=DOUBLE_ORIGIN, log_key=None)
BEFORE = [*STREAM.setup(), STREAM.open(1)]
COMMITS = [STREAM.commit(member, 1) for member in STREAM.members]
HASTE = Patience(total=1.0, first_pause=0.01, longest_pause=0.05)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Double]:
    """One organisation: there is no other peer to turn to."""
    with double(tmp_path) as made:
        yield made


@pytest.fixture
def ledger(network: Double) -> Iterator[FabricLedger]:
    with FabricLedger.open(network.profile, "Org1", clock=Clock(), patience=HASTE) as made:
        accepted(made.submit(BEFORE))
        network.gateways[0].calls.clear()
        yield made


Outcomes = Future[list[Receipt | Rejected]]


class Gate:
    """Holds every endorsement until it is opened, and knows when so many wait."""

    def __init__(self, network: Double) -> None:
        self.opened, self.waiting = threading.Event(), threading.Semaphore(0)
        network.gateways[0].fault = self._hold

    def _hold(self, step: str, _txid: str) -> None:
        if step == "endorse":
            self.waiting.release()
            assert self.opened.wait(20)

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            assert self.waiting.acquire(timeout=20)

    def submit(self, callers: ThreadPoolExecutor, ledger: FabricLedger, entries: list[bytes]) -> list[Outcomes]:
        """A caller for each entry: the first take all places, one after the other; then the others come, and wait."""
        outcomes = []
        for entry in entries[:PLACES]:
            outcomes.append(callers.submit(ledger.submit, [entry]))
            self.wait_for(1)
        outcomes += [callers.submit(ledger.submit, [entry]) for entry in entries[PLACES:]]
        end = time.monotonic() + 20
        while len(ledger._together._waiting) < len(entries) - PLACES and time.monotonic() < end:
            time.sleep(0)  # until the last caller has come
        self.opened.set()
        return outcomes


def test_callers_that_find_all_places_taken_share_a_transaction(network: Double, ledger: FabricLedger) -> None:
    with ThreadPoolExecutor(SITES) as callers:
        receipts = [accepted(one.result(20))[0] for one in Gate(network).submit(callers, ledger, COMMITS)]
    assert network.gateways[0].calls.count("submit") == PLACES + 1
    assert sorted(receipt.index for receipt in receipts) == list(range(len(BEFORE), len(BEFORE) + SITES))
    stored = list(ledger.entries())
    assert [stored[receipt.index] for receipt in receipts] == COMMITS


def test_batches_of_one_caller_go_side_by_side(
    network: Double, ledger: FabricLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 1)
    gate = Gate(network)
    with ThreadPoolExecutor(1) as caller:
        outcome = caller.submit(ledger.submit, [*COMMITS, STREAM.seal(1)])
        gate.wait_for(PLACES)
        gate.opened.set()
        receipts = accepted(outcome.result(20))
    stored = list(ledger.entries())
    assert [stored[receipt.index] for receipt in receipts] == [*COMMITS, STREAM.seal(1)]
    assert receipts[-1].index == len(stored) - 1
    assert network.gateways[0].calls.count("submit") == SITES + 1


def test_one_callers_refusal_does_not_harm_another(network: Double, ledger: FabricLedger) -> None:
    stranger = STREAM.commit(STREAM.coordinator, 1)
    other = STREAM.commit(STREAM.members[0], 1, update=digest("another"))
    with ThreadPoolExecutor(SITES + 2) as callers:
        outcomes = Gate(network).submit(callers, ledger, [*COMMITS, stranger, other])
        said = [codes(one.result(20))[0] for one in outcomes]
    assert said[1:SITES] == [""] * (SITES - 1)
    assert said[SITES] != ""
    # Of two commitments of one site, one is in: which one, the order of the callers says.
    assert sorted([said[0], said[-1]]) == ["", "conflicting-commitment"]


def test_every_caller_hears_of_an_error(network: Double, ledger: FabricLedger) -> None:
    def fault(step: str, _txid: str) -> None:
        if step == "endorse":
            raise Fault(grpc.StatusCode.UNAVAILABLE, "gone")

    network.gateways[0].fault = fault
    with ThreadPoolExecutor(SITES) as callers:
        outcomes = [callers.submit(ledger.submit, [commit]) for commit in COMMITS]
        errors = [one.exception(30) for one in outcomes]
    assert all(isinstance(error, Unavailable) and error.code == "fabric-not-endorsed" for error in errors)
