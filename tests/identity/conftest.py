# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the identity tests: a keystore whose derivation is cheap, and a count of derivations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from identity import vault
from identity.keys import Keystore
from identity.vault import Cost

CHEAP = Cost(memory_kib=8192, iterations=1, lanes=1)
PHRASE = "correct horse battery staple"


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    """An encrypted keystore with one key and one secret."""
    store = Keystore.create(tmp_path / "keys.json", PHRASE, cost=CHEAP)
    store.identity("site-01", create=True)
    store.secret("salt:site-01", create=True)
    store.save()
    return tmp_path / "keys.json"


@pytest.fixture
def derivations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The memory cost of each real derivation that is run."""
    costs: list[int] = []

    def counted(**parameters: Any) -> Argon2id:
        costs.append(parameters["memory_cost"])
        return Argon2id(**parameters)

    monkeypatch.setattr(vault, "Argon2id", counted)
    return costs
