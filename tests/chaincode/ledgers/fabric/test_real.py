# SPDX-License-Identifier: Apache-2.0
"""The Fabric ledger on real peers and orderers: clients of several organisations at once, large batches, killed processes."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chaincode import log
from chaincode.ledgers.fabric import gateway
from chaincode.ledgers.fabric.gateway import CallFailed
from chaincode.ledgers.fabric.ledger import FabricLedger
from chaincode.ledgers.fabric.messages import propose
from chaincode.ledgers.fabric.profile import Profile
from chaincode.ledgers.fabric.refusals import diagnose
from chaincode.ledgers.fabric.sending import Patience
from identity.errors import OutcomeUnknown, Rejected, Unavailable
from ops.fabric import network as networks
from ops.fabric.existing import Network
from tests.chaincode.ledgers.hosts import accepted, codes
from tests.chaincode.ledgers.stream import person
from tests.fabric_ledgers import fresh, opened, origin_of, stream_of
from tests.fakes.memory_ledger import MemoryLedger

ORDERER = "orderer-1"


@pytest.fixture
def profile(real_network: Network) -> Profile:
    return fresh(real_network)


@pytest.fixture
def ledger(profile: Profile) -> Iterator[FabricLedger]:
    with opened(profile) as made:
        yield made


def names(network: Network) -> list[str]:
    return [one.name for one in network.plan.organisations]


class Killed:
    """A node that does not run meanwhile."""

    def __init__(self, network: Network, name: str) -> None:
        self.network, self.name = network, name

    def __enter__(self) -> None:
        assert networks.kill(self.network.folder, self.name)

    def __exit__(self, *_: object) -> None:
        networks.start(self.network.folder, self.name)


def test_a_large_round_is_the_same_as_in_memory(profile: Profile, ledger: FabricLedger) -> None:
    stream = stream_of(profile, sites=300)
    whole = stream.whole(rounds=1)
    memory = MemoryLedger(origin=origin_of(profile), log_key=None, clock=lambda: stream.at)
    outcomes = ledger.submit(whole)
    stored = list(ledger.entries())
    assert sorted(stored) == sorted(whole)
    assert [stored[receipt.index] for receipt in accepted(outcomes)] == whole
    accepted(memory.submit(stored))
    assert log.root([log.leaf_hash(envelope) for envelope in stored]) == memory.root()
    state = dict(memory.state_items())
    assert ledger.get(state.keys()) == state


def test_clients_of_two_organisations_write_at_once(profile: Profile) -> None:
    """Entries that read one key and write others; then many that write the very same key, so that versions conflict."""
    stream = stream_of(profile)
    with opened(profile, 0) as one, opened(profile, 1) as two, ThreadPoolExecutor(8) as threads:
        accepted(one.submit([stream.found]))
        admissions = [stream.admit(person(f"site {i}")) for i in range(24)]
        sent = threads.map(lambda i: (one, two)[i % 2].submit([admissions[i]])[0], range(24))
        assert sorted(receipt.index for receipt in accepted(list(sent))) == list(range(1, 25))
        policy = {"authority": [stream.authority.did], "cosigners": [], "quorum": 0}
        amendments = [stream.entry("amend", stream.authority, {}, {**policy, "skew": 60 + i}) for i in range(6)]
        sent = threads.map(lambda i: (one, two)[i % 2].submit([amendments[i]])[0], range(6))
        assert sorted(receipt.index for receipt in accepted(list(sent))) == list(range(25, 31))
        last = [stream.admit(person("last"))]
        assert accepted(one.submit(last)) == accepted(two.submit(last))  # now each knows of all that the other was told
        assert list(one.entries()) == list(two.entries())
        keys = ["federation", f"member/{person('site 0').did}"]
        assert one.get(keys) == two.get(keys)


def test_refusals_of_a_large_batch_arrive(profile: Profile, ledger: FabricLedger) -> None:
    """They travel in an error's header, through two programs that bound headers."""
    stream = stream_of(profile)
    whole = stream.whole(rounds=1)
    accepted(ledger.submit(whole))
    refused = [stream.open(n) for n in range(10, 110)]
    outcomes = ledger.submit(refused)
    assert codes(outcomes) == ["wrong-round"] * 100
    assert all(isinstance(one, Rejected) and "round" in one.message for one in outcomes)
    with opened(profile, 1) as other:
        assert [one.index for one in accepted(other.submit(whole))] == list(range(len(whole)))


def test_what_a_foreign_client_sends_is_judged_by_the_contract(ledger: FabricLedger) -> None:
    """Arguments that our client would not send."""

    def said(*arguments: bytes) -> Any:
        proposal = propose(ledger._member, ledger._place.channel, ledger._place.chaincode, arguments, ledger._clock())
        with pytest.raises(CallFailed) as caught:
            ledger._own[0].endorse(proposal, ledger._place.channel, 10.0)
        return diagnose(caught.value)

    for hostile in [b"", b"\xff" * 100, b"{}", b"[" * 10_000]:
        (verdict,) = said(b"submit", hostile).verdicts
        assert isinstance(verdict, Rejected)
        assert verdict.message
    for arguments in [(b"submit",), (b"delete",), ()]:
        with pytest.raises(Unavailable) as caught:
            said(*arguments)
        assert caught.value.code == "fabric-chaincode-refused"


def test_entries_are_followed_as_they_come(profile: Profile, ledger: FabricLedger) -> None:
    whole = stream_of(profile).whole(rounds=1)
    accepted(ledger.submit(whole[:1]))
    with opened(profile, 1) as reader:
        following = reader.follow()
        assert next(following) == whole[0]
        accepted(ledger.submit(whole[1:4]))
        assert [next(following) for _ in range(3)] == whole[1:4]


def test_every_organisation_says_which_source_it_runs(
    real_network: Network, profile: Profile, ledger: FabricLedger
) -> None:
    digests = {ledger.source(one.msp) for one in profile.organisations}
    assert digests == {real_network.plan.contract.source}


# Processes that are killed


@pytest.mark.parametrize("what", ["peer", "chaincode"])
def test_another_organisation_serves_while_ones_own_is_down(
    real_network: Network, profile: Profile, ledger: FabricLedger, what: str
) -> None:
    whole = stream_of(profile).whole(rounds=1)
    own = names(real_network)[0]
    accepted(ledger.submit(whole[:2]))
    with Killed(real_network, f"{what}-{own}"):
        assert [one.index for one in accepted(ledger.submit(whole[2:4]))] == [2, 3]
        with opened(profile, patience=Patience(call=1.0)) as hasty, pytest.raises(Unavailable) as caught:
            hasty.get(["federation"])
        assert caught.value.code == "fabric-read"
        assert profile.organisations[0].msp in caught.value.message
    assert accepted(ledger.submit(whole[4:]))[-1].index == len(whole) - 1
    assert list(ledger.entries()) == whole
    assert ledger.get(["federation"])["federation"] is not None


def test_a_majority_goes_on_without_another_organisations_peer(
    real_network: Network, profile: Profile, ledger: FabricLedger
) -> None:
    whole = stream_of(profile).whole(rounds=1)
    with Killed(real_network, f"peer-{names(real_network)[1]}"):
        accepted(ledger.submit(whole))
    assert list(ledger.entries()) == whole


def test_too_few_peers_are_named_and_nothing_is_stored(real_network: Network, profile: Profile) -> None:
    whole = stream_of(profile).whole(rounds=1)
    _, two, three = names(real_network)
    with (
        opened(profile, patience=Patience(total=4.0)) as hasty,
        Killed(real_network, f"peer-{two}"),
        Killed(real_network, f"peer-{three}"),
        pytest.raises(Unavailable) as caught,
    ):
        hasty.submit(whole[:1])
    assert not isinstance(caught.value, OutcomeUnknown)
    assert caught.value.code == "fabric-not-endorsed"
    assert "Hospitals" in caught.value.message
    with opened(profile) as patient:
        assert [one.index for one in accepted(patient.submit(whole[:1]))] == [0]


def test_the_orderer_dies_within_the_batch_after_it_took_a_transaction(
    real_network: Network, profile: Profile, ledger: FabricLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it answered "yes" to is lost, and sent again when it is back: the same envelope."""
    whole = stream_of(profile).whole(rounds=1)
    accepted(ledger.submit(whole[:1]))
    sent: list[bytes] = []
    submit = gateway.Peer.submit

    def killing(self: Any, pending: Any, channel: str, timeout: float) -> None:
        submit(self, pending, channel, timeout)
        sent.append(pending.envelope)
        if len(sent) == 1:
            networks.kill(real_network.folder, ORDERER)
            threading.Timer(1.0, networks.start, (real_network.folder, ORDERER)).start()

    monkeypatch.setattr(gateway.Peer, "submit", killing)
    assert [one.index for one in accepted(ledger.submit(whole[1:3]))] == [1, 2]
    assert set(sent) == {sent[0]}
    assert list(ledger.entries()) == whole[:3]
    assert ledger._sender.journal.pending() == []


def test_a_client_that_is_interrupted_anywhere_ends(real_network: Network) -> None:
    module = "tests.chaincode.ledgers.fabric.interrupted"
    done = subprocess.run(
        [sys.executable, "-m", module, str(real_network.folder / "profile.json"), "60"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "ended\n", done.stderr
