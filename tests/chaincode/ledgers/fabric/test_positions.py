# SPDX-License-Identifier: Apache-2.0
"""Where entries are in a channel's log, kept between processes: a later one goes on from there, and damage costs time only."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaincode.ledgers.fabric import log
from chaincode.ledgers.fabric.positions import Positions, load, place_of, save
from identity.errors import EvidenceError
from tests.chaincode.ledgers.fabric.trouble import WHOLE, opened
from tests.chaincode.ledgers.hosts import accepted
from tests.fakes.fabric_world import Double

SEEN = Positions(5, b"\x01" * 32, {bytes([i]) * 32: i for i in range(3)}, [0, 2], [1, 4], [("one", 2), ("two", 1)])


@pytest.fixture(autouse=True)
def each_block_is_worth_keeping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "WORTH", 1)


def kept(network: Double) -> Path:
    (path,) = (network.profile.path.parent / "pending").rglob("*.positions")
    return path


def test_a_later_process_reads_only_the_blocks_that_came_since(network: Double) -> None:
    with opened(network) as ledger:
        receipts = accepted(ledger.submit(WHOLE[:6]))
    with opened(network) as later:
        network.gateways[0].calls.clear()
        assert accepted(later.submit(WHOLE[:6])) == receipts
        assert network.gateways[0].calls == []
        assert accepted(later.submit(WHOLE[6:7]))[0].index == 6
        assert list(later.entries()) == WHOLE[:7]
        assert list(later.entries(5)) == WHOLE[5:7]
        assert later.versions() == [("", 7)]
    with opened(network) as last:
        assert last._log.size == 7


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: data.replace(b'"next":', b'"nxxt":')]
)
def test_what_is_damaged_is_read_again(network: Double, damage: object) -> None:
    with opened(network) as ledger:
        receipts = accepted(ledger.submit(WHOLE[:3]))
    path = kept(network)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with opened(network) as later:
        assert later._log.size == 0
        assert accepted(later.submit(WHOLE[:3])) == receipts


def test_a_chain_that_does_not_go_on_from_what_was_kept_is_a_fork(network: Double) -> None:
    with opened(network) as ledger:
        accepted(ledger.submit(WHOLE[:3]))
    seen = load(kept(network))
    save(kept(network), Positions(seen.next, bytes(32), seen.indexes, seen.first, seen.block, seen.versions))
    with opened(network) as later, pytest.raises(EvidenceError) as caught:
        later.submit(WHOLE[3:4])
    assert caught.value.code == "fabric-fork"


def test_a_block_that_was_read_before_cannot_become_another_one(network: Double) -> None:
    with opened(network) as ledger:
        accepted(ledger.submit(WHOLE[:2]))
        ledger._log._seen.indexes = {bytes(32): 0, bytes(31) + b"\x01": 1}
        with pytest.raises(EvidenceError) as caught:
            list(ledger.entries())
    assert caught.value.code == "fabric-fork"


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    for seen in (SEEN, Positions()):
        save(tmp_path / "kept", seen)
        assert load(tmp_path / "kept") == seen
    assert load(tmp_path / "none") == Positions()
    assert place_of(tmp_path, b"one", "x") != place_of(tmp_path, b"two", "x")


@given(st.binary(max_size=200), st.integers(0, 400))
def test_any_bytes_are_no_positions(tmp_path_factory: pytest.TempPathFactory, garbage: bytes, at: int) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.positions"
    path.write_bytes(garbage)
    assert load(path) == Positions()
    save(path, SEEN)
    assert load(path) == SEEN
    data = path.read_bytes()
    path.write_bytes(data[:at] + garbage + data[at + len(garbage) :])
    assert load(path) in (SEEN, Positions())
