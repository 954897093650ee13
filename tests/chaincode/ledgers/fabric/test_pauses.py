# SPDX-License-Identifier: Apache-2.0
"""Waiting between attempts: bounded, growing, and over at once when the ledger is closed."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from chaincode.ledgers.fabric.ledger import FabricLedger
from chaincode.ledgers.fabric.pauses import Pauses
from chaincode.ledgers.fabric.sending import Patience
from identity.errors import OutcomeUnknown, Unavailable
from tests.chaincode.ledgers.fabric.trouble import AWAY, WHOLE
from tests.chaincode.ledgers.hosts import Clock
from tests.fakes.fabric_world import Double


class Told:
    """An event that is never set, and keeps how long each pause would have been."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        return False


def test_there_is_one_attempt_at_least_and_none_after_the_end() -> None:
    assert list(Pauses().until(time.monotonic() - 1.0)) == [1]
    end = time.monotonic() + 0.05
    begun = [time.monotonic() for _ in Pauses(0.01, 0.02).until(end)]
    assert len(begun) > 1
    assert begun[-2] < end


def test_pauses_grow_with_jitter_up_to_the_longest() -> None:
    told = Told()
    attempts = Pauses(0.1, 1.0, told).until(time.monotonic() + 1000.0, most=8)  # type: ignore[arg-type]
    assert list(attempts) == [1, 2, 3, 4, 5, 6, 7, 8]
    longest = [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]
    assert all(most / 2 <= pause <= most for pause, most in zip(told.pauses, longest, strict=True))
    assert len({pause / most for pause, most in zip(told.pauses, longest, strict=True)}) == 7


def test_no_pause_goes_beyond_the_end() -> None:
    told = Told()
    next(attempts := Pauses(100.0, 100.0, told).until(time.monotonic() + 1.0))  # type: ignore[arg-type]
    next(attempts)
    assert told.pauses[0] <= 1.0


def test_who_closes_ends_the_pause_that_is_under_way() -> None:
    pauses = Pauses(60.0, 60.0)
    attempts = pauses.until(time.monotonic() + 60.0)
    assert next(attempts) == 1
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(next, attempts, None)
        pauses.closing.set()
        assert waiting.result(10) is None


@pytest.mark.parametrize("step", ["endorse", "blocks"])
def test_a_ledger_that_is_closed_stops_trying(network: Double, step: str) -> None:
    """A thread that waits for peers to come back does not hold up who hangs up."""
    patient = Patience(total=600.0, call=600.0, first_pause=60.0, longest_pause=60.0)
    asked = [threading.Event() for _ in network.gateways]

    def away(event: threading.Event) -> Callable[[str, str], None]:
        def fault(at: str, _txid: str) -> None:
            if at == step:
                event.set()
                raise AWAY

        return fault

    for gateway, event in zip(network.gateways, asked, strict=True):
        gateway.fault = away(event)
    ledger = FabricLedger.open(network.profile, "Org1", clock=Clock(), patience=patient)
    with ThreadPoolExecutor(1) as threads:
        tried = threads.submit(ledger.submit, WHOLE[:1])
        assert all(event.wait(10) for event in asked)
        ledger.close()
        error = tried.exception(30)
    assert isinstance(error, Unavailable)
    assert isinstance(error, OutcomeUnknown) == (step == "blocks")
