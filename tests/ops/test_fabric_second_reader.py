# SPDX-License-Identifier: Apache-2.0
"""Another client reads a real channel with entries on it, and what it reads is compared; a difference is named."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from chaincode.ledgers.fabric.ledger import FabricLedger
from chaincode.ledgers.fabric.profile import load_profile
from identity.errors import EvidenceError, Rejected, Unavailable
from ops.fabric import network, second_reader
from ops.fabric.network import Wanted
from ops.fabric.second_reader import Comparison
from tests.chaincode.ledgers.stream import ORIGIN, Stream
from tests.fabric_network import MakeNetwork, copy_contract, quiet
from tests.ops.runs import Terminal

MakeFolder = Callable[[str], Path]


@pytest.fixture(scope="module")
def make_folder(make_network: MakeNetwork, tmp_path_factory: pytest.TempPathFactory) -> MakeFolder:
    """Makes networks, by how their orderers agree, whose ledgers hold a federation's first entries."""
    root = copy_contract(tmp_path_factory.mktemp("contract") / "copy")

    def make(consensus: str) -> Path:
        here = make_network(Wanted(consensus, root=root, organisations=2))
        try:
            second_reader.environment(quiet)
        except Unavailable as error:
            pytest.skip(f"no second reader here: {error.message}")
        stream = Stream(at=int(time.time()), origin=f"{ORIGIN}/fedledger/fedledger", log_key=None)
        with FabricLedger.open(load_profile(here.folder / "profile.json"), "coordinator") as ledger:
            outcomes = ledger.submit(stream.whole(rounds=1))
        assert not [one for one in outcomes if isinstance(one, Rejected)]
        return here.folder

    return make


@pytest.fixture(scope="module")
def folder(make_folder: MakeFolder) -> Path:
    return make_folder("raft")


def test_both_read_the_same(folder: Path, terminal: Terminal) -> None:
    found = terminal.json("fabric", "second-reader", "--dir", folder)
    assert found["agree"]
    compared = {one["what"]: one["second"] for one in found["compared"]}
    assert len(compared) == 5
    (keys,) = [what for what in compared if what.startswith("state under")]
    assert int(keys.split()[2]) > 10
    assert compared["the transaction that it made"] == "VALID"
    assert "same" in terminal("fabric", "second-reader", "--dir", folder, "--organisation", "hospitals-1")


@pytest.mark.parametrize("consensus", ["raft3", "bft"])
def test_it_reads_and_writes_where_one_of_several_orderers_is_away(
    make_folder: MakeFolder, terminal: Terminal, consensus: str
) -> None:
    folder = make_folder(consensus)
    assert terminal.json("fabric", "second-reader", "--dir", folder)["agree"]
    assert network.kill(folder, "orderer-1")
    assert terminal.json("fabric", "second-reader", "--dir", folder)["agree"]
    network.down(folder, wipe=False, say=quiet)


def test_a_difference_is_an_error_that_names_it() -> None:
    second_reader.require_agreement([Comparison("height", "7", "7")])
    with pytest.raises(EvidenceError, match="height: the gateway 7, fabric-sdk-py 8") as caught:
        second_reader.require_agreement([Comparison("tip", "a", "a"), Comparison("height", "7", "8")])
    assert caught.value.code == "second-reader-disagrees"


def test_without_an_answer_it_says_what_the_other_client_said(folder: Path) -> None:
    profile = load_profile(folder / "profile.json")
    strange = replace(profile, chaincode="another")
    with pytest.raises(Unavailable, match="fabric-sdk-py could not read the channel"):
        second_reader.compare(strange, "coordinator", quiet)


def test_a_network_that_is_down_is_named(folder: Path, terminal: Terminal) -> None:
    network.down(folder, wipe=False, say=quiet)
    profile = load_profile(folder / "profile.json")
    with pytest.raises(Unavailable, match=r"could not read the channel:\nValueError: no peer answers") as caught:
        second_reader._second(second_reader.environment(quiet), profile, "coordinator", ["federation"])
    assert caught.value.next is not None
    assert caught.value.next.endswith(f"fabric status --dir {folder}")
