# SPDX-License-Identifier: Apache-2.0
"""Federations on networks with several orderers, whose leader is killed, and more of them than may be missing."""

from pathlib import Path

import pytest

from ops.fabric.network import Wanted
from tests.fabric_network import MakeNetwork, copy_contract
from tests.ops.test_fabric_run import carry_out, file_of

ROUNDS = 3


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> str:
    return copy_contract(tmp_path_factory.mktemp("contract"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model of an undisturbed run on the embedded ledger."""
    folder = tmp_path_factory.mktemp("embedded")
    code, lines, errors = carry_out("killed_run", file_of(folder, ROUNDS), folder / "run")
    assert code == 0, errors
    return lines[-1][1]


@pytest.mark.parametrize(
    ("consensus", "hurt"),
    [
        # Each in its turn: one of them leads when it is killed.
        ("raft3", [f"before-seal:{n}:bounce:orderer-{n}" for n in (1, 2, 3)]),
        # The first one leads a new BFT channel; without a second one nothing is ordered.
        ("bft", ["before-seal:1:kill:orderer-1", "before-seal:2:bounce:orderer-2", "record:2:start:orderer-1"]),
    ],
)
def test_orderers_are_killed(
    consensus: str, hurt: list[str], *, make_network: MakeNetwork, contract: str, model: str, tmp_path: Path
) -> None:
    here = make_network(Wanted(consensus, root=contract))
    profile = here.folder / "profile.json"
    code, lines, errors = carry_out(
        "hurt_run", file_of(tmp_path, ROUNDS), tmp_path / "run", profile, here.folder, *hurt
    )
    assert code == 0, errors
    assert lines[-1] == ["model", model]
    if consensus == "bft":
        assert "orderer-1 does not run" in errors
        assert "orderer-2 does not run" in errors
