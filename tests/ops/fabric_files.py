# SPDX-License-Identifier: Apache-2.0
"""What stands in for a network in tests that start none: scripts for programs, a plan, and a process that sleeps."""

import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.fabric import build, plan, processes

SLEEP = ["sleep", "600"]


def quiet(_text: str) -> None:
    """Say nothing."""


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def ready_plan(folder: Path, **changes: object) -> None:
    """A plan, as it is of a network that became ready."""
    folder.mkdir()
    made = plan.make("raft", plan.default_names(2), build.digest())
    contract = plan.Contract(
        1, "fedledger:0", "0" * 64, "", {one.name: 1 for one in made.organisations}, committed=True
    )
    plan.save(folder, made.with_contract(contract))
    value = json.loads((folder / plan.FILE).read_bytes()) | {"state": plan.READY} | changes
    (folder / plan.FILE).write_text(json.dumps(value))


@contextmanager
def sleeping(place: Path) -> Iterator[Path]:
    """A node's folder with a process that runs."""
    place.mkdir(parents=True)
    assert processes.launch(place, SLEEP, {"PATH": os.environ["PATH"]}, place)
    yield place
    processes.end(place, grace=0)


def packaged_source(package: bytes) -> str:
    """The source digest in a chaincode package."""
    with tarfile.open(fileobj=io.BytesIO(package)) as outer:
        code = outer.extractfile("code.tar.gz")
        assert code is not None
        with tarfile.open(fileobj=code) as inner:
            said = inner.extractfile("source.sha256")
            assert said is not None
            return said.read().decode("ascii").strip()
