# SPDX-License-Identifier: Apache-2.0
"""Several organisations for real: clients at once, a modified contract, a fourth organisation, another version of the contract.

One network and one federation for all of it; the tests go on from one another.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from chaincode.blocks.chain import Chain, Trust
from chaincode.blocks.readers import read_blocks
from chaincode.ledgers.fabric.ledger import FabricLedger
from chaincode.ledgers.fabric.messages import seek
from chaincode.ledgers.fabric.sending import Patience
from identity.errors import OutcomeUnknown, Unavailable
from ops.fabric import existing, joining, package, upgrade
from ops.fabric import network as networks
from ops.fabric.existing import Network
from tests.chaincode.ledgers.fabric.load import Killed, Load, admission, kill_everything
from tests.chaincode.ledgers.hosts import accepted
from tests.chaincode.ledgers.stream import Stream, person
from tests.fabric_ledgers import opened, profile_of, stream_of
from tests.fabric_network import copy_contract, quiet

COORDINATOR, HOSPITALS_1, HOSPITALS_2 = range(3)
WRITES = "await peer.put_many(judged.writes)"
ANSWERS = "payload=source.encode()"


@pytest.fixture(scope="module")
def stream(real_network: Network) -> Stream:
    """The federation of this network, founded."""
    made = stream_of(profile_of(real_network))
    with opened(profile_of(real_network)) as ledger:
        accepted(ledger.submit([made.found]))
    return made


@contextmanager
def clients(network: Network, *organisations: int) -> Iterator[list[FabricLedger]]:
    made = [opened(profile_of(network), one) for one in organisations]
    yield made
    for one in made:
        one.close()


def size(ledger: FabricLedger) -> int:
    return len(list(ledger.entries()))


def test_two_organisations_clients_write_one_log(real_network: Network, stream: Stream) -> None:
    """Each sends entries of its own, and the very same entries at the same time as the other."""
    with clients(real_network, COORDINATOR, HOSPITALS_1) as (one, two), Load(stream, [one, two], 8) as load:
        load.wait_for(24)
    with clients(real_network, COORDINATOR, HOSPITALS_1) as (one, two):
        load.check(one, two)
        before = size(one)
        same = [admission(stream, f"same {i}") for i in range(12)]
        with ThreadPoolExecutor(2) as threads:
            first, second = threads.map(lambda ledger: accepted(ledger.submit(same)), (one, two))
        assert first == second
        assert size(two) == before + len(same)


# An organisation that runs a modified contract


def modified(network: Network, folder: Path, *, lies: bool) -> str:
    """A contract that writes something beside what it should; it may claim to be the approved one."""
    root = copy_contract(folder / "modified")
    file = Path(root) / "chaincode" / "fabric_transaction.py"
    text = file.read_text()
    assert text.count(WRITES) == text.count(ANSWERS) == 1
    text = text.replace(WRITES, 'await peer.put_many(judged.writes | {"backdoor": b"open"})')
    if lies:
        text = text.replace(ANSWERS, f'payload=b"{network.plan.contract.source}"')
    file.write_text(text)
    return root


@pytest.mark.parametrize("lies", [False, True])
def test_an_organisation_that_runs_a_modified_contract_is_named(
    real_network: Network, stream: Stream, tmp_path: Path, lies: bool
) -> None:
    """Its own clients' entries are refused; the others' get endorsements by those who agree."""
    folder, name = real_network.folder, "chaincode-hospitals-2"
    entry = admission(stream, f"refused {lies}")
    networks.kill(folder, name)
    networks.start(folder, name, impostor=modified(real_network, tmp_path, lies=lies))
    try:
        with clients(real_network, COORDINATOR, HOSPITALS_2) as (honest, theirs):
            before = size(honest)
            with pytest.raises(Unavailable) as caught:
                theirs.submit([entry])
            assert size(honest) == before
            assert honest.get(["backdoor"]) == {"backdoor": None}
            assert accepted(honest.submit([entry]))[0].index == before
    finally:
        networks.kill(folder, name)
        networks.start(folder, name)
    error = caught.value
    assert not isinstance(error, OutcomeUnknown)
    assert error.code == "fabric-organisations-differ"
    assert error.message.startswith("Hospitals2MSP at 127.0.0.1:")
    assert real_network.plan.contract.source[:12] in error.message
    assert ("otherwise than CoordinatorMSP and Hospitals1MSP" if lies else "was approved") in error.message
    assert error.next is not None
    assert "fedledger fabric" in error.next
    with clients(real_network, HOSPITALS_2) as (mended,):
        assert accepted(mended.submit([entry]))[0].index == before


def test_where_only_the_modified_contract_could_complete_the_majority_it_is_named(
    real_network: Network, stream: Stream, tmp_path: Path
) -> None:
    folder, name = real_network.folder, "chaincode-hospitals-2"
    networks.kill(folder, name)
    networks.start(folder, name, impostor=modified(real_network, tmp_path, lies=False))
    try:
        with clients(real_network, COORDINATOR) as (honest,), Killed(real_network, "peer-hospitals-1"):
            with pytest.raises(Unavailable, match=r"Hospitals2MSP at [0-9.:]+ runs the contract") as caught:
                honest.submit([admission(stream, "outvoted")])
            assert caught.value.code == "fabric-organisations-differ"
    finally:
        networks.kill(folder, name)
        networks.start(folder, name)


# Everything dies


def test_no_acknowledged_entry_is_lost_when_everything_is_killed_under_load(
    real_network: Network, stream: Stream
) -> None:
    with clients(real_network, COORDINATOR, HOSPITALS_1) as two:
        with Load(stream, two, 6) as load:
            load.wait_for(12)
            kill_everything(real_network)
            real_network.start()
            load.wait_for(12)
        load.check(*two)


# The channel changes while entries are submitted


def test_a_fourth_organisation_joins_while_entries_are_submitted(real_network: Network, stream: Stream) -> None:
    """A majority is 2 of 3 before, and 3 of 4 after: what was endorsed before and comes after is endorsed anew."""
    with clients(real_network, COORDINATOR, HOSPITALS_1) as two:
        with Load(stream, two, 6) as load:
            load.wait_for(6)
            joining.add_organisation(real_network.folder, "hospitals-3", quiet)
            load.wait_for(6)
        load.check(*two)
    here = existing.opened(real_network.folder)
    with clients(here, COORDINATOR, 3) as (old, newcomer):
        entry = admission(stream, "after joining")
        assert accepted(newcomer.submit([entry])) == accepted(old.submit([entry]))
        assert list(newcomer.entries()) == list(old.entries())
        key = f"member/{person('after joining').did}"
        assert newcomer.get([key]) == old.get([key])
        with (
            opened(profile_of(here), patience=Patience(total=3.0)) as hasty,
            Killed(here, "peer-hospitals-1", "peer-hospitals-2"),
            pytest.raises(Unavailable) as caught,
        ):
            hasty.submit([admission(stream, "two of four")])
        assert caught.value.code == "fabric-not-endorsed"


def test_another_version_is_agreed_while_entries_are_submitted(
    real_network: Network, stream: Stream, tmp_path: Path
) -> None:
    """In-flight entries are endorsed anew by the new version; the blocks show which one judged which entry."""
    other = copy_contract(tmp_path / "other", comment="another version")
    old, new = real_network.plan.contract.source, package.source_digest(other)
    with clients(real_network, COORDINATOR, HOSPITALS_1) as two:
        before = size(two[0])
        with Load(stream, two, 6) as load:
            load.wait_for(6)
            upgrade.upgrade(real_network.folder, other, quiet)
            load.wait_for(6)
        load.check(*two)
        versions = two[1].versions()
        assert [version for version, _ in versions] == [old, new]
        assert sum(count for _, count in versions) == size(two[0])
        assert versions[0][1] > before
        assert {two[0].source(one.msp) for one in profile_of(real_network).organisations} == {new}
        check_evidence(two[0], versions)


def check_evidence(ledger: FabricLedger, versions: list[tuple[str, int]]) -> None:
    """The auditor's own reading of the same blocks finds nothing wrong, the same entries, and the same versions."""
    place, genesis = ledger._place, ledger._log._genesis
    assert genesis is not None
    request = seek(ledger._member, place.channel, 0, None, int(time.time()))
    blocks = [block.SerializeToString() for block in ledger._own[0].blocks(request, 30.0)]
    chain = Chain(Trust(place.channel, place.chaincode, genesis))
    entries = list(chain.entries(read_blocks(blocks, place.chaincode)))
    assert chain.faults == []
    assert [entry.envelope for entry in entries] == list(ledger.entries())
    assert chain.contract.versions == versions
    assert chain.invalid > 0  # of those that were in flight
