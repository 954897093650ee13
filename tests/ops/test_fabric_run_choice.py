# SPDX-License-Identifier: Apache-2.0
"""Which ledger a run is on, and what its operator is told of a network that is not all there: without a network."""

from pathlib import Path

import pytest

from chaincode.ledgers.replica import Replica
from chaincode.ledgers.sqlite import SqliteLedger
from identity.errors import EvidenceError, OutcomeUnknown, UsageError
from ops import channel_run
from ops.channel_run import ChannelRun
from ops.ledger_network import Channel, Trouble, choose
from ops.run_folder import RunFolder


@pytest.fixture
def place(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def test_without_options_a_run_is_on_the_embedded_ledger(place: RunFolder) -> None:
    assert choose(place, None, None, None) is None


def test_a_local_network_is_one_that_a_run_may_start(place: RunFolder) -> None:
    assert choose(place, "fabric", None, None) == Channel(Path(".fabric/profile.json"), Path(".fabric"))
    assert choose(place, None, "net", None) == Channel(Path("net/profile.json"), Path("net"))
    assert choose(place, None, None, "net.json") == Channel(Path("net.json"), None)


@pytest.mark.parametrize(
    "options", [("sqlite", None, None), ("embedded", "net", None), ("embedded", None, "p"), (None, "net", "p")]
)
def test_options_that_mean_nothing_together(place: RunFolder, options: tuple[str | None, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        choose(place, *options)
    assert caught.value.code == "run-ledger"


def test_a_run_stays_on_the_ledger_that_it_began_on(place: RunFolder) -> None:
    channel_run.write_place(ChannelRun(place.path, place.path / "network" / "profile.json", "coordinator"))
    found = choose(place, None, None, None)
    assert found is not None
    assert found.profile == place.path / "network" / "profile.json"
    with pytest.raises(UsageError) as caught:
        choose(place, "embedded", None, None)
    assert caught.value.code == "run-other-ledger"
    place.channel_file.unlink()
    place.ledger.write_bytes(b"a ledger")
    with pytest.raises(UsageError) as caught:
        choose(place, "fabric", None, None)
    assert caught.value.code == "run-other-ledger"


def test_an_error_keeps_its_kind_and_says_that_the_run_goes_on() -> None:
    said: list[str] = []
    error = OutcomeUnknown("fabric-outcome-unknown", "It was sent.", next="as it was")
    explained = Trouble(Channel(Path("p.json"), None), said.append).explained(error)
    assert type(explained) is OutcomeUnknown
    assert explained.code == error.code
    assert explained.message.startswith("It was sent.")
    assert "the same command goes on" in explained.message
    assert said == []
    assert explained.next == "as it was"


@pytest.mark.parametrize("next_", [None, "fedledger fabric status"])
def test_of_a_network_that_is_elsewhere_its_operators_are_asked(next_: str | None) -> None:
    error = OutcomeUnknown("fabric-outcome-unknown", "It was sent.", next=next_)
    explained = Trouble(Channel(Path("p.json"), None), lambda _text: None).explained(error)
    assert "operators" in str(explained.next)


def test_a_replica_takes_nothing_by_submission_and_replays_one_log(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Replica.open(path, origin="fedledger/x/channel/code").close()
    with SqliteLedger.open(path) as ledger:
        assert ledger.size == 0
        assert ledger.vkey == ""
    with pytest.raises(UsageError) as caught:
        SqliteLedger.open(path, sign=bytes, clock=lambda: 0)
    assert caught.value.code == "ledger-replica"
    with pytest.raises(EvidenceError) as other:
        Replica.open(path, origin="fedledger/y/channel/code")
    assert other.value.code == "replica-other"
