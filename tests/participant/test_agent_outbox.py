# SPDX-License-Identifier: Apache-2.0
"""What an agent clears is its own: blobs by their digests, and what a killed worker left on the way to one."""

from pathlib import Path

from chaincode.author import Author
from identity.keys import identity_from_seed
from participant.agent import Agent
from tests.fakes.memory_ledger import MemoryLedger


def test_nothing_else_in_an_outbox_is_deleted(tmp_path: Path) -> None:
    identity = identity_from_seed(bytes(32))
    for name in ("a" * 64, "update-123", "thesis.tex", "b" * 63):
        (tmp_path / name).write_text("x")
    (tmp_path / "folder").mkdir()
    Agent(
        site="site-01", author=Author("f" * 64, identity.did, identity), secret=bytes(32), outbox=tmp_path,
        ledger=MemoryLedger(origin="x", log_key="", clock=lambda: 0), clock=lambda: 0, base_model=lambda digest: digest,
    ).clean()  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b" * 63, "folder", "thesis.tex"]
