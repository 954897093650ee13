# SPDX-License-Identifier: Apache-2.0
"""An embedded ledger in a folder of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaincode.ledgers.sqlite import SqliteLedger
from tests.chaincode.ledgers.hosts import Clock, embedded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    with embedded(tmp_path, Clock()) as made:
        yield made
