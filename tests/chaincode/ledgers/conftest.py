# SPDX-License-Identifier: Apache-2.0
"""An embedded ledger in a folder of its own; a real Fabric network for the tests of a module."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chaincode.ledgers.sqlite import SqliteLedger
from ops.fabric.existing import Network
from ops.fabric.network import Wanted
from tests.chaincode.ledgers.hosts import Clock, embedded
from tests.fabric_network import copy_contract


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    with embedded(tmp_path, Clock()) as made:
        yield made


@pytest.fixture(scope="module")
def real_network(make_network: Callable[[Wanted], Network], tmp_path_factory: pytest.TempPathFactory) -> Network:
    """A network of three organisations, whose contract nobody edits meanwhile; each test has ledgers of its own on it."""
    return make_network(Wanted(root=copy_contract(tmp_path_factory.mktemp("contract"))))
