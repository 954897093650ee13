# SPDX-License-Identifier: Apache-2.0
"""The audit's commands on a run whose ledger is a real Fabric channel; the evidence is its raw blocks."""

import hashlib
import time
from pathlib import Path

import pytest

from chaincode.audit import PASS
from chaincode.bundle import open_bundle
from chaincode.ledgers.fabric.ledger import FabricLedger
from chaincode.ledgers.fabric.profile import Profile
from identity.errors import Rejected
from ops import channel_run
from ops.channel_run import ChannelRun
from ops.fabric.existing import Network
from tests import fabric_ledgers
from tests.chaincode.audit_evidence import CARD, ORIGIN, Run
from tests.chaincode.blocks.evidence import judged
from tests.chaincode.blocks.recordings import block_of
from tests.ops.runs import Terminal


def federation(folder: Path, profile: Profile) -> Run:
    """A whole federation on an empty ledger of a real channel, with what its coordinator keeps."""
    run = Run(folder, sites=2)
    run.world.now = int(time.time()) - 30
    run.world.policy = {"origin": f"{ORIGIN}/{profile.channel}/{profile.chaincode}", "log_key": None}
    run.agreed().rounds(1)
    world = run.world
    world.wait(1).release(model_card=hashlib.sha256(CARD).hexdigest())
    (folder / "release" / "model-card.md").write_bytes(CARD)
    model = (folder / "models" / f"{world.head.base}.safetensors").read_bytes()
    (folder / "release" / "model.safetensors").write_bytes(model)
    with FabricLedger.open(profile, profile.organisations[0].name) as ledger:
        for entry in world.entries:
            outcome = ledger.submit([entry.envelope])[0]
            assert not isinstance(outcome, Rejected), outcome
    where = ChannelRun(folder, profile.path, profile.organisations[1].name)
    channel_run.write_run(where, profile.genesis.read_bytes(), world.policy["origin"], world.federation)
    return run


@pytest.fixture(scope="module")
def run(fabric_network: Network, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return federation(tmp_path_factory.mktemp("run") / "on-fabric", fabric_ledgers.fresh(fabric_network))


def test_a_run_on_a_channel_is_verified_exported_and_verified_offline(
    run: Run, tmp_path: Path, terminal: Terminal
) -> None:
    key, bundle, head = run.folder / "federation.vkey", tmp_path / "evidence", tmp_path / "head"
    terminal("audit", "verify", run.folder, "--key", key)
    terminal("audit", "head", run.folder, "-o", head)
    terminal("audit", "export", run.folder, "-o", bundle)
    terminal("audit", "verify", bundle, "--key", key, "--head", head)
    assert "one chain from the pinned first block" in terminal.out
    report = judged(tmp_path, _files(bundle))
    assert report.result == PASS
    assert report.size == len(run.world.entries)


def test_a_tampered_block_of_an_exported_run_is_named(run: Run, tmp_path: Path, terminal: Terminal) -> None:
    bundle = tmp_path / "evidence"
    terminal("audit", "export", run.folder, "-o", bundle)
    files = _files(bundle)
    last = max(name for name in files if name.startswith("blocks/"))
    block = block_of(files[last])
    block.metadata.metadata[2] = b"\x0b"
    findings = judged(tmp_path, files | {last: block.SerializeToString()}).claims[0].findings
    assert [(one.code, one.where) for one in findings] == [("validity-differs", f"block {int(last[7:])}")]


def test_queries_read_a_channels_bundle(run: Run, tmp_path: Path, terminal: Terminal) -> None:
    bundle = tmp_path / "evidence"
    terminal("audit", "export", run.folder, "-o", bundle)
    terminal("log", bundle)
    assert "release" in terminal.out


def test_on_a_channel_nothing_has_a_proof_file_of_its_own(run: Run, tmp_path: Path, terminal: Terminal) -> None:
    bundle, proof = tmp_path / "evidence", tmp_path / "proof"
    terminal("audit", "export", run.folder, "-o", bundle)
    for place in (run.folder, bundle):
        terminal("audit", "prove", place, 3, "-o", proof, code=2)
        assert "channel-no-proof" in terminal.err
        assert f"audit export -o evidence.bundle {place}" in terminal.err
        assert not proof.exists()
    model = run.folder / "release" / "model.safetensors"
    terminal("verify", model, "--key", run.folder / "federation.vkey", code=2)
    assert "channel-no-proof" in terminal.err
    assert "audit verify" in terminal.err


def _files(path: Path) -> dict[str, bytes]:
    with open_bundle(path) as bundle:
        return {name: bytes(bundle.body(name) or b"") for name in bundle.files}
