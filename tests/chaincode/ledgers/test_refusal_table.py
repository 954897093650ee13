# SPDX-License-Identifier: Apache-2.0
"""The whole refusal table of the contract, on every ledger: the same code, and nothing written.

The doors stand open here (the hosts' own codes have their rows in the conformance suite): the table's worlds live at other
times, which a real peer would refuse before any chaincode is asked. So Fabric is the double network here, with the real
chaincode server before it; a row for each kind of entry runs on the real network.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaincode import fabric_transaction
from chaincode.entries import Entry, open_entry
from chaincode.kinds import KINDS
from chaincode.ledgers import Door, Ledger, Receipt
from identity.errors import Rejected
from ops.fabric.existing import Network
from tests import fabric_ledgers
from tests.chaincode.contract.memory import Memory
from tests.chaincode.contract.refusals import ROWS
from tests.chaincode.contract.rows import Row
from tests.chaincode.contract.world import World
from tests.chaincode.ledgers.fabric.hosts import fabric
from tests.chaincode.ledgers.hosts import Clock, accepted, embedded, memory
from tests.fakes.fabric_world import Double, double

HANDMADE = 2
"""At most so many rows have a state that no entries make, and are the contract's own tests alone."""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Double]:
    with double(tmp_path_factory.mktemp("double")) as made:
        yield made


@pytest.fixture(autouse=True)
def open_doors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Door, "refusal", lambda *_: None)
    monkeypatch.setattr(fabric_transaction, "_place", lambda _: "")


def refused_by(row: Row, world: World) -> bytes:
    """The envelope that the row refuses."""
    submitted: list[bytes] = []
    original = world.submit
    world.submit = lambda *envelopes: submitted.extend(envelopes) or original(*envelopes)  # type: ignore[method-assign,func-returns-value]
    with pytest.raises(Rejected):
        row.refused(world)
    return submitted[-1]


def from_entries(world: World) -> bool:
    """Whether the world's state is what its entries make of an empty one."""
    try:
        return World().submit(*world.envelopes).values == world.values
    except Rejected:
        return False


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.code}: {row.what}")
def test_every_ledger_refuses_with_the_same_code(row: Row, tmp_path: Path, network: Double) -> None:
    world = row.before()
    if not from_entries(world):
        pytest.skip("the row's state is written by hand")
    envelope = refused_by(row, world)
    chaincode = f"row-{ROWS.index(row)}"
    with embedded(tmp_path, Clock()) as stored, fabric(network.named(chaincode), Clock()) as remote:
        for ledger in (memory(tmp_path, Clock()), stored, remote):
            check(ledger, world, envelope, row.code)


def check(ledger: Ledger, world: World, envelope: bytes, code: str) -> None:
    receipts = accepted(ledger.submit(world.envelopes)) if world.envelopes else []
    (outcome,) = ledger.submit([envelope])
    if code == "duplicate-entry":
        assert isinstance(outcome, Receipt)
        assert outcome in receipts
    else:
        assert isinstance(outcome, Rejected)
        assert outcome.code == code
        assert outcome.message
    assert ledger.get(world.values.keys()) == world.values
    assert list(ledger.entries()) == world.envelopes


# On a real network


@contextmanager
def worlds_of_now(origin: str) -> Iterator[None]:
    """Worlds that are made meanwhile begin now, and found the log of this name."""
    defaults = Memory.__init__.__kwdefaults__
    kept = dict(defaults)
    defaults.update(now=int(time.time()), policy={"origin": origin})
    try:
        yield
    finally:
        defaults.update(kept)


def first_of(kind: str, origin: str) -> tuple[Row, World, Entry] | None:
    """The first row that refuses an entry of this kind and whose entries a peer's clock lets pass."""
    for row in ROWS:
        world = row.before()
        start = int(time.time())
        times = [*(entry.at for entry in world.entries), world.now]
        if world.policy == {"origin": origin} and max(times) - min(times) < 60 and from_entries(world):
            entry = open_entry(refused_by(row, world))
            if entry.kind == kind and abs(entry.at - start) < 600 and row.code != "duplicate-entry":
                return row, world, entry
    return None


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_real_network_refuses_with_the_same_code(kind: str, real_network: Network) -> None:
    profile = fabric_ledgers.fresh(real_network)
    with worlds_of_now(fabric_ledgers.origin_of(profile)):
        found = first_of(kind, fabric_ledgers.origin_of(profile))
    assert found is not None
    row, world, entry = found
    clock = Clock(now=world.now)
    with fabric(profile, clock) as ledger:
        accepted(ledger.submit(world.envelopes))
        clock.now = entry.at
        check(ledger, world, entry.envelope, row.code)


def test_few_rows_are_left_out() -> None:
    assert sum(not from_entries(row.before()) for row in ROWS) <= HANDMADE
