# SPDX-License-Identifier: Apache-2.0
"""One Fabric network for the whole test run, where Go is present (or has built Fabric before), and copies of the contract.

Tests may submit to the shared network and ask it, nothing else; those that kill nodes or change the channel start one of
their own (``ops.fabric.network.up`` takes about three seconds).
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.processes import started
from identity.errors import UsageError
from ops.fabric import build, network, plan, processes
from ops.fabric.existing import Network
from ops.fabric.network import Wanted

ROOT = Path(__file__).resolve().parent.parent
REQUIRED = "--require-fabric"
_OWNER = "owner.json"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(REQUIRED, action="store_true", help="fail, instead of skipping, where Fabric cannot be built")


def need_fabric(config: pytest.Config) -> None:
    """Skip, saying why, where there is neither a Go that can build Fabric nor an earlier build."""
    try:
        processes.need_proc()
        if build.found() is None:
            build.check_go()
    except UsageError as error:
        if config.getoption(REQUIRED):
            pytest.fail(f"the Fabric tests are required: {error}")
        pytest.skip(f"no Fabric network here: {error.message}")


def quiet(_text: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="session")
def fabric_ready(request: pytest.FixtureRequest) -> Path:
    """The folder of Fabric's programs; skips as ``need_fabric``."""
    need_fabric(request.config)
    return build.programs(quiet)


MakeNetwork = Callable[..., Network]


@pytest.fixture(scope="session")
def fabric_network(fabric_ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A network of three organisations and one Raft orderer that all tests of the run share."""
    with owned(tmp_path_factory) as make:
        yield make(Wanted(root=str(ROOT)))


@pytest.fixture(scope="module")
def make_network(fabric_ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeNetwork]:
    """Makes networks for the tests of one module, in folders of their own; they are gone after the last test."""
    with owned(tmp_path_factory) as make:
        yield make


class owned:  # noqa: N801 - used as a function
    """Makes networks, and at the end takes down all of them; before, those of test runs that were killed."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._made: list[Path] = []

    def __enter__(self) -> MakeNetwork:
        sweep(self._factory.getbasetemp().parent)
        return self._make

    def _make(self, wanted: Wanted | None = None) -> Network:
        place = self._factory.mktemp("fabric")
        me = started(os.getpid())
        (place / _OWNER).write_text(json.dumps([me.pid, me.started] if me else []))
        self._made.append(place)
        return network.up(place / "network", wanted or Wanted(), quiet)

    def __exit__(self, *_: object) -> None:
        for place in self._made:
            network.down(place / "network", wipe=True, say=quiet)
            shutil.rmtree(place, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Take down the networks of earlier test runs that ended without doing so."""
    for owner in folder.glob(f"pytest-*/fabric*/{_OWNER}"):
        pid, at = json.loads(owner.read_bytes()) or (0, 0)
        alive = started(pid)
        if (alive is None or alive.started != at) and (owner.parent / "network" / plan.FILE).exists():
            network.down(owner.parent / "network", wipe=True, say=quiet)


def copy_contract(target: Path, *, comment: str = "") -> str:
    """A copy of the contract to run, so that nobody edits it meanwhile; with a comment it has another digest."""
    for floor in ("identity", "chaincode"):
        shutil.copytree(ROOT / floor, target / floor, ignore=shutil.ignore_patterns("__pycache__"))
    if comment:
        with (target / "chaincode" / "contract.py").open("a") as file:
            file.write(f"# {comment}\n")
    return str(target)
