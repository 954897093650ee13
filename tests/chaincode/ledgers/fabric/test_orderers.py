# SPDX-License-Identifier: Apache-2.0
"""Orderers that die under load: the leader of three that use Raft; of four that use BFT the leader, and then two."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from fabric_protos.common import common_pb2
from fabric_protos.msp import identities_pb2

from chaincode.blocks.reading import SIGNATURES
from chaincode.ledgers.fabric.gateway import CallFailed, Peer
from chaincode.ledgers.fabric.ledger import FabricLedger
from chaincode.ledgers.fabric.messages import seek_newest
from chaincode.ledgers.fabric.sending import Patience
from identity.errors import OutcomeUnknown
from ops.fabric.existing import Network
from ops.fabric.network import Wanted
from ops.fabric.readiness import commit
from tests.chaincode.ledgers.fabric.load import Killed, Load, admission, kill_everything
from tests.chaincode.ledgers.hosts import accepted
from tests.chaincode.ledgers.stream import Stream
from tests.fabric_ledgers import opened, profile_of, stream_of
from tests.fabric_network import copy_contract, owned

HASTE = Patience(total=4.0, status=1.0, longest_status=1.0)


@dataclass(frozen=True)
class Ordering:
    """A network, its founded federation, and who leads its orderers, as its newest block says."""

    network: Network
    stream: Stream
    leader: Callable[[FabricLedger], str]

    def clients(self) -> tuple[FabricLedger, FabricLedger]:
        profile = profile_of(self.network)
        return opened(profile), opened(profile, 1)


@pytest.fixture(scope="module", params=["raft3", "bft"])
def ordering(
    request: pytest.FixtureRequest, fabric_ready: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ordering]:
    """Three Raft orderers for all tests, and then four BFT orderers for all tests."""
    with owned(tmp_path_factory) as make:
        contract = copy_contract(tmp_path_factory.mktemp("contract") / "copy")
        network = make(Wanted(request.param, root=contract))
        stream = stream_of(profile_of(network))
        with opened(profile_of(network)) as ledger:
            accepted(ledger.submit([stream.found]))
        yield Ordering(network, stream, raft_leader if request.param == "raft3" else bft_leader)


def newest(ledger: FabricLedger) -> Any:
    """What the orderers signed in the newest block's metadata."""
    request = seek_newest(ledger._member, ledger._place.channel, int(time.time()))
    block = next(ledger._own[0].blocks(request, 10.0))
    return common_pb2.Metadata.FromString(block.metadata.metadata[SIGNATURES])


def raft_leader(ledger: FabricLedger) -> str:
    """The orderer that made the newest block; it alone signs it."""
    header = common_pb2.SignatureHeader.FromString(newest(ledger).signatures[0].signature_header)
    certificate = identities_pb2.SerializedIdentity.FromString(header.creator).id_bytes
    name = x509.load_pem_x509_certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    return str(name).partition(".")[0]


def view(ledger: FabricLedger) -> int:
    """The number of the BFT orderers' view: with each, the next of them leads."""
    data = common_pb2.OrdererBlockMetadata.FromString(newest(ledger).value).consenter_metadata
    return data[1] if data and data[0] == 0x08 else 0  # the first field of smartbftprotos.ViewMetadata, if it is not 0


def bft_leader(ledger: FabricLedger) -> str:
    return f"orderer-{view(ledger) % 4 + 1}"


def test_the_leader_is_killed_under_load(ordering: Ordering) -> None:
    one, two = ordering.clients()
    with one, two:
        with Load(ordering.stream, [one, two]) as load:
            load.wait_for(4)
            leader = ordering.leader(one)
            with Killed(ordering.network, leader):
                load.wait_for(8)
                assert ordering.leader(one) != leader
            load.wait_for(4)
        load.check(two, one)


def test_no_acknowledged_entry_is_lost_when_everything_is_killed(ordering: Ordering) -> None:
    one, two = ordering.clients()
    with one, two:
        with Load(ordering.stream, [one, two]) as load:
            load.wait_for(6)
            kill_everything(ordering.network)
            ordering.network.start()
            load.wait_for(6)
        load.check(two, one)


def test_entries_go_on_where_no_gateway_reaches_an_orderer(ordering: Ordering, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that lost its orderers for minutes dials them again only minutes after they are back."""

    def nobody(self: Peer, _pending: object, _channel: str, _timeout: float) -> None:
        raise CallFailed("submit", self.node, "UNAVAILABLE", "no orderers could successfully process transaction")

    monkeypatch.setattr(Peer, "submit", nobody)
    with opened(profile_of(ordering.network)) as ledger:
        assert accepted(ledger.submit([admission(ordering.stream, f"direct {n}") for n in range(3)]))
        assert ledger._sender.journal.pending() == []
        assert commit(ordering.network.folder / "profile.json", "coordinator") == ledger.source("CoordinatorMSP")


def test_two_dead_orderers_are_named_and_the_entry_is_in_when_they_are_back(ordering: Ordering) -> None:
    network = ordering.network
    entry = admission(ordering.stream, "no progress")
    with opened(profile_of(network)) as ledger:
        before, leader = list(ledger.entries()), ordering.leader(ledger)
        dead = [leader, *(one.name for one in network.plan.orderers if one.name != leader)][:2]
        with Killed(network, *dead), opened(profile_of(network), patience=HASTE) as hasty:
            with pytest.raises(OutcomeUnknown) as caught:
                hasty.submit([entry])
            assert ledger.get(["federation"])["federation"] is not None
            assert list(ledger.entries()) == before
        said = re.search(r"Those that do not answer: ([^\n]*)\.\n", caught.value.message)
        assert said is not None, caught.value.message
        ports = {str(one.port) for one in network.plan.orderers if one.name in dead}
        assert {place.rpartition(":")[2] for place in said[1].split(", ")} == ports
        assert "fedledger fabric up" in str(caught.value.next)
        assert accepted(ledger.submit([entry]))[0].index == len(before)
