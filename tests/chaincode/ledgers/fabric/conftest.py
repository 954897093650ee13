# SPDX-License-Identifier: Apache-2.0
"""The double network of two organisations, and the first one's ledger on it, for a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaincode.ledgers.fabric.ledger import FabricLedger
from tests.chaincode.ledgers.fabric.trouble import opened
from tests.fakes.fabric_world import Double, double


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Double]:
    with double(tmp_path, organisations=2) as made:
        yield made


@pytest.fixture
def ledger(network: Double) -> Iterator[FabricLedger]:
    with opened(network) as made:
        yield made
