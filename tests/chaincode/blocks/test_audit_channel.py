# SPDX-License-Identifier: Apache-2.0
"""The audit of a channel's evidence: every claim as for an embedded ledger, the first one from raw blocks."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chaincode import state
from chaincode.audit import PASS
from chaincode.audit.log_claims import Head, check_witnesses
from chaincode.audit.replay import Replay
from chaincode.audit.report import Draft
from chaincode.channel_key import format_channel_key
from chaincode.checkpoints import Checkpoint, cosign, parse_checkpoint
from chaincode.log import leaf_hash, root
from chaincode.notes import COSIGNATURE, Note, format_note, format_vkey, parse_vkey
from chaincode.trust import KEY_FILE, FederationKey
from identity.did import public_key_from_did
from tests.chaincode.audit_evidence import VKEY, claim, verdicts
from tests.chaincode.blocks.evidence import files_of, found, judged, key_of, with_blocks
from tests.chaincode.blocks.founding import first_submit
from tests.chaincode.blocks.recordings import Parts, block_of, recording, replaced, sealed
from tests.chaincode.contract.memory import key as person

Files = dict[str, bytes]


@pytest.fixture(params=["raft", "bft"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def files() -> Files:
    return dict(files_of("raft"))


def test_a_recorded_run_passes(tmp_path: Path, name: str) -> None:
    report = judged(tmp_path, files_of(name), key=key_of(name))
    assert report.result == PASS
    assert {n for n, verdict in verdicts(report).items() if verdict != PASS} == {2, 10}
    assert (report.key, report.size, report.federation) == ("given", 27, key_of(name).federation)
    entries = recording(name).verify()[1]
    assert report.root == root([leaf_hash(entry.envelope) for entry in entries]).hex()  # that of the embedded ledger
    assert "first block" in claim(report, 1).title


def test_what_the_reader_should_know_is_told(tmp_path: Path, files: Files) -> None:
    notes = "\n".join(claim(judged(tmp_path, files, key=key_of("raft")), 1).notes)
    assert "BatchTimeout" in notes
    assert "hospitals-3, signed by" in notes
    assert notes.count("of the contract judged") == 2
    assert "came with this evidence" in "\n".join(claim(judged(tmp_path, files), 1).notes)


def test_each_tampered_block_is_named(tmp_path: Path, files: Files) -> None:
    channel, key = recording("raft"), key_of("raft")
    number = first_submit(channel)

    def flag(block: Any) -> None:
        block.metadata.metadata[2] = b"\x0b" * len(block.metadata.metadata[2])

    def data(block: Any) -> None:
        block.data.data[0] = block.data.data[0][:-1] + bytes([block.data.data[0][-1] ^ 1])

    altered = replaced(channel.blocks, number, data)
    for blocks, codes in (
        (replaced(channel.blocks, number, flag), {f"1:validity-differs:block {number}"}),
        (altered, {f"1:block-altered:block {number}"}),
        (sealed(altered, number), {f"1:block-orderers:block {number}"}),
        ([*channel.blocks[:number], *channel.blocks[number + 1 :]], {f"1:block-missing:block {number}"}),
    ):
        report = judged(tmp_path, with_blocks(files, blocks), key=key)
        assert codes <= found(report)
        # How much was read is said before all that rests on it; after a flag that nobody signs the chain goes on.
        only = f"Only the first {number} blocks hold: "
        assert claim(report, 1).summary.startswith(only) is ("validity-differs" not in str(codes))
    first = judged(tmp_path, with_blocks(files, channel.blocks[1:]), key=key)
    assert claim(first, 1).summary.startswith("The first block of ")


def test_a_write_set_that_the_contract_does_not_make_is_against_the_rules(tmp_path: Path, files: Files) -> None:
    channel = recording("raft")
    number, client = first_submit(channel), channel.member("User1@coordinator")
    everybody = [channel.member(f"peer.{one}") for one in ("coordinator", "hospitals-1", "hospitals-2")]

    def forge(block: Any) -> None:
        parts = Parts.of(block.data.data[0])
        with parts.writes() as writes:
            writes.writes[0].value += b" "
        block.data.data[0] = parts.whole(client, everybody)

    blocks = sealed(replaced(channel.blocks, number, forge), number, channel.member("orderer-1.orderers"))
    report = judged(tmp_path, with_blocks(files, blocks[: number + 1]), key=key_of("raft"))
    assert f"4:write-set-differs:block {number}" in found(report)


def test_a_tail_that_was_cut_off_is_seen_with_a_head_from_outside(tmp_path: Path, files: Files) -> None:
    key, whole = key_of("raft"), files["checkpoint"]
    blocks = recording("raft").blocks[:-8]
    size = len(recording("raft").verify(blocks)[1])
    assert size < 27
    entries = recording("raft").verify(blocks)[1]
    head = Checkpoint(key.origin, size, root([leaf_hash(entry.envelope) for entry in entries])).text().encode()
    cut = with_blocks(files, blocks) | {"checkpoint": head}
    assert not {one for one in found(judged(tmp_path, cut, key=key)) if one[0] in "12"}  # nobody can see it
    report = judged(tmp_path, cut, key=key, head=whole)
    assert {one.split(":")[1] for one in found(report) if one[0] == "2"} == {"log-cut-short"}
    assert claim(judged(tmp_path, files, key=key, head=whole), 2).verdict == PASS
    assert claim(judged(tmp_path, files, key=key, head=head), 2).verdict == PASS
    other = Checkpoint(key.origin, 3, bytes(32)).text().encode()
    assert "2:log-rewritten:outside head" in found(judged(tmp_path, files, key=key, head=other))
    stranger = Checkpoint("elsewhere/a/b", 3, bytes(32)).text().encode()
    assert "2:checkpoint-origin:outside head" in found(judged(tmp_path, files, key=key, head=stranger))


def test_the_stated_head_must_be_that_of_the_blocks(tmp_path: Path, files: Files) -> None:
    key = key_of("raft")
    for head, code in (
        (Checkpoint(key.origin, 26, bytes(32)), "log-size"), (Checkpoint(key.origin, 27, bytes(32)), "log-root"),
        (Checkpoint("elsewhere/a/b", 27, bytes(32)), "checkpoint-origin"),
    ):  # fmt: skip
        report = judged(tmp_path, files | {"checkpoint": head.text().encode()}, key=key)
        assert f"1:{code}:checkpoint" in found(report)


def cosigned(head: bytes, who: str) -> bytes:
    """A head with the cosignature of somebody."""
    checkpoint, signer = parse_checkpoint(head.decode()), person(who)
    line = cosign(checkpoint, who, public_key_from_did(signer.did), signer.sign, 1_800_000_000)
    return format_note(Note(checkpoint.text(), (line,))).encode()


def test_members_cosign_what_they_replayed(tmp_path: Path, files: Files) -> None:
    head, key = files["checkpoint"], key_of("raft")
    note = cosigned(head, "witness")
    report = judged(tmp_path, files | {"checkpoint": note}, key=key)
    assert claim(report, 1).verdict == PASS
    assert claim(report, 10).verdict == "NOT IN THIS EVIDENCE"  # the policy names no cosigner
    chain, _ = recording("raft").verify()
    federation = state.decode(state.Federation, chain.contract.state[state.FEDERATION])
    vkey = format_vkey("witness", public_key_from_did(person("witness").did), COSIGNATURE)
    policy = replace(federation, cosigners=(vkey,), quorum=1)
    replayed = Replay(state={state.FEDERATION: state.encode(policy)})
    for stated, verdict in (
        (note, PASS),
        (cosigned(head, "stranger"), "NOT IN THIS EVIDENCE"),
        (head, "NOT IN THIS EVIDENCE"),
    ):
        draft = Draft(10)
        check_witnesses(draft, replayed, Head(None, parse_checkpoint(head.decode()), stated, key.origin))
        assert (draft.claim().verdict == PASS) is (verdict == PASS), draft.claim()


def test_other_keys_are_refused(tmp_path: Path, files: Files) -> None:
    key, other = key_of("raft"), key_of("bft")
    codes = {one.split(":")[1] for one in found(judged(tmp_path, files, key=other))}
    assert {"key-differs", "genesis-differs"} <= codes
    embedded = FederationKey(parse_vkey(VKEY), key.federation)
    assert "1:key-differs:federation.vkey" in found(judged(tmp_path, files, key=embedded))
    lying = files | {KEY_FILE: format_channel_key(other).encode()}
    assert "1:key-differs:federation.vkey" in found(judged(tmp_path, lying, key=key))
    assert "1:federation-key:federation.vkey" in found(judged(tmp_path, files | {KEY_FILE: b"none"}, key=key))
    assert "1:channel-key-missing:the log's entries" in found(judged(tmp_path, files | {KEY_FILE: b"none"}))


def test_files_that_nothing_names_are_found(tmp_path: Path, files: Files) -> None:
    key = key_of("raft")
    stray = f"blobs/{hashlib.sha256(b'x').hexdigest()}"
    for name in (stray, "entries.jsonl", "release/model.proof"):
        codes = {one.split(":")[1] for one in found(judged(tmp_path, files | {name: b"x"}, key=key))}
        assert codes & {"bundle-unnamed", "release-proof"}, name
    more = files | {f"blocks/{len(recording('raft').blocks):012d}": recording("raft").blocks[-1]}
    assert "1:block-missing:block 31" in found(judged(tmp_path, more, key=key))


def test_damaged_artefacts_are_found_as_on_an_embedded_ledger(tmp_path: Path, files: Files) -> None:
    key = key_of("raft")
    for kind in ("blobs/", "credentials/", "models/", "release/model-card"):
        name = next(one for one in files if one.startswith(kind))
        data = bytearray(files[name])
        data[len(data) // 2] ^= 1
        codes = found(judged(tmp_path, files | {name: bytes(data)}, key=key))
        assert any(one[0] in "5789" for one in codes), (name, codes)


def test_evidence_of_an_embedded_ledger_needs_no_protocol_buffers() -> None:
    code = "import sys, chaincode.audit, chaincode.audit.bundle_source, ops.audits\n" \
           "print([m for m in sys.modules if m.split('.')[0] in ('google', 'fabric_protos', 'grpc', 'numpy')])"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_bundle_holds_the_blocks_as_they_were(files: Files) -> None:
    blocks = recording("raft").blocks
    assert [files[f"blocks/{number:012d}"] for number in range(len(blocks))] == blocks
    assert block_of(files["blocks/000000000000"]).header.number == 0
