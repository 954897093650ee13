# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command line share: a quiet environment, and a terminal to type into."""

from pathlib import Path

import pytest

from ops import settings
from tests.ops.runs import Terminal


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings from outside, and an empty current folder."""
    for name in settings.SETTINGS:
        monkeypatch.delenv(settings.variable(name), raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(capsys)
