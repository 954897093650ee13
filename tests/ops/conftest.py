# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command line share: a quiet environment, and a terminal to type into."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.jobs import ClusterSettings
from ops import settings
from ops.federation_file import site_names
from participant.tasks import locate_task
from tests.fakes.local_cluster import LocalCluster
from tests.ops.federated import Federated, Make
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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("federated")


@pytest.fixture(scope="module")
def cluster(place: Path) -> Iterator[LocalCluster]:
    made = ClusterSettings(
        locate_task("breast-cancer", place),
        site_names(3),
        7,
        str(place / "models"),
        str(place / "blobs"),
        str(place / "processes"),
    )
    with LocalCluster(made) as running:
        yield running


@pytest.fixture
def make(place: Path, cluster: LocalCluster) -> Iterator[Make]:
    """Federations one after the other in one place, whose worker process stays warm."""

    def one(**options: object) -> Federated:
        for name in ("keystore.json", "blobs", "outbox"):
            target = place / name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        return Federated(place, cluster, **options)  # type: ignore[arg-type]

    return one
