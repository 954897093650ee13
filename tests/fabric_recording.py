# SPDX-License-Identifier: Apache-2.0
"""Records the blocks of a real channel for the verifier's tests: a whole federation, and everything that can go wrong on the way.

    python -m tests.fabric_recording OUT [--orderers raft|bft] [--small]

It starts a network in OUT/network, brings a federation's entries onto it, and between them a transaction that one
organisation alone endorsed, two that conflict, one that comes twice, a change of the batch's timeout, another organisation
and another version of the contract. OUT/blocks holds the blocks as the peer showed them, OUT/run the artefacts, OUT/keys what
tests forge with; OUT/recording.tar.xz is all of them, as tests/vectors keeps it.
"""

import argparse
import hashlib
import os
import tarfile
import time
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.orderer import ab_pb2_grpc, configuration_pb2
from google.protobuf.message import Message

from chaincode.entries import Entry
from chaincode.ledgers.fabric.gateway import Peer, _credentials
from chaincode.ledgers.fabric.identity import Member, load_member, make_member
from chaincode.ledgers.fabric.ledger import FabricLedger
from chaincode.ledgers.fabric.messages import Pending, propose, seek, sign_transaction, status_request
from chaincode.ledgers.fabric.profile import Node, Profile, load_profile
from identity.errors import Rejected
from ops.fabric import joining, material, network, upgrade
from ops.fabric.network import Wanted
from tests.chaincode.audit_evidence import CARD, Run
from tests.fabric_network import copy_contract, quiet

SECONDS = 30.0


class Recorder:
    """A client of a running network that does what a client should not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.profile: Profile = load_profile(folder / "profile.json")
        self.now = int(time.time())
        self.ledger = FabricLedger.open(self.profile, self.profile.organisations[0].name, clock=lambda: self.now)
        self.peers = [Peer(one.peers[0]) for one in self.profile.organisations]
        self.members = [load_member(one) for one in self.profile.organisations]

    def close(self) -> None:
        self.ledger.close()
        for peer in self.peers:
            peer.close()

    def submit(self, entries: Iterable[Entry]) -> None:
        """Bring entries in, a transaction for each group of one kind and time."""
        for (_, at), group in groupby(entries, key=lambda entry: (entry.kind, entry.at)):
            self.now = at
            for outcome in self.ledger.submit([entry.envelope for entry in group]):
                assert not isinstance(outcome, Rejected), outcome

    def endorsed(self, entry: Entry, organisations: Iterable[int]) -> Pending:
        """A transaction with an entry, endorsed by these organisations only."""
        member, who = self.members[0], [self.profile.organisations[i].msp for i in organisations]
        arguments = (b"submit", entry.envelope)
        proposal = propose(member, self.profile.channel, self.profile.chaincode, arguments, entry.at)
        prepared = self.peers[0].endorse(proposal, self.profile.channel, SECONDS, who)
        return sign_transaction(member, proposal.txid, prepared)

    def send(self, *pending: Pending) -> list[str]:
        """Submit transactions and return what became of each."""
        for one in pending:
            self.peers[0].submit(one, self.profile.channel, SECONDS)
        asked = [status_request(self.members[0], self.profile.channel, one.txid) for one in pending]
        return [self.peers[0].status(one, SECONDS).code for one in asked]

    def blocks(self) -> list[Any]:
        """All blocks of the channel."""
        request = seek(self.members[0], self.profile.channel, 0, None, int(time.time()))
        return list(self.peers[0].blocks(request, SECONDS))

    def wait_for(self, height: int) -> None:
        end = time.monotonic() + SECONDS
        while len(self.blocks()) < height:
            assert time.monotonic() < end, "the block does not come"
            time.sleep(0.1)


def orderer_admin(folder: Path) -> Member:
    """The administrator of the orderers' organisation."""
    msp = material.orderers(folder).person("Admin")
    return make_member("OrdererMSP", msp.certificate.read_bytes(), msp.key.read_bytes())


def header(kind: int, channel: str, signer: Member) -> common_pb2.Header:
    head = common_pb2.ChannelHeader(type=kind, channel_id=channel)
    head.timestamp.seconds = int(time.time())
    return common_pb2.Header(channel_header=head.SerializeToString(), signature_header=signature_header(signer))


def signature_header(signer: Member) -> bytes:
    return common_pb2.SignatureHeader(creator=signer.creator, nonce=os.urandom(24)).SerializeToString()


def timeout_change(config: configtx_pb2.Config, channel: str, value: str, signers: list[Member]) -> common_pb2.Envelope:
    """A change of the batch's timeout, signed by these."""
    orderer = config.channel_group.groups["Orderer"]
    update = configtx_pb2.ConfigUpdate(channel_id=channel)
    for side in (update.read_set, update.write_set):
        side.version = config.channel_group.version
        side.groups["Orderer"].version = orderer.version
    changed = update.write_set.groups["Orderer"].values["BatchTimeout"]
    changed.CopyFrom(orderer.values["BatchTimeout"])
    changed.version += 1
    changed.value = configuration_pb2.BatchTimeout(timeout=value).SerializeToString()
    data = update.SerializeToString()
    signed = configtx_pb2.ConfigUpdateEnvelope(config_update=data)
    for one in signers:
        head = signature_header(one)
        signed.signatures.add(signature_header=head, signature=one.sign(head + data))
    payload = common_pb2.Payload(
        header=header(common_pb2.CONFIG_UPDATE, channel, signers[0]), data=signed.SerializeToString()
    ).SerializeToString()
    return common_pb2.Envelope(payload=payload, signature=signers[0].sign(payload))


def config_of(blocks: list[Any]) -> configtx_pb2.Config:
    """The channel's configuration in force."""
    index = common_pb2.OrdererBlockMetadata.FromString(
        common_pb2.Metadata.FromString(blocks[-1].metadata.metadata[0]).value
    ).last_config.index
    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(blocks[index].data.data[0]).payload)
    return configtx_pb2.ConfigEnvelope.FromString(payload.data).config


def broadcast(node: Node, envelope: Message) -> None:
    import grpc

    channel = grpc.secure_channel(node.address, _credentials(node))
    with channel:
        answer = next(ab_pb2_grpc.AtomicBroadcastStub(channel).Broadcast(iter([envelope]), timeout=SECONDS))
    assert answer.status == common_pb2.SUCCESS, answer


def keep_keys(folder: Path, out: Path) -> None:
    """Keep keys of this throwaway network, with which tests forge what their holders could."""
    out.mkdir()
    for authority in (folder / "material").glob("*Organizations/*"):
        for holder in (*authority.glob("peers/*"), *authority.glob("orderers/*"), *authority.glob("users/*")):
            name = holder.name.split(".fedledger")[0]
            for source, kind in (("signcerts/*", "crt"), ("keystore/*", "key")):
                data = next((holder / "msp").glob(source)).read_bytes()
                (out / f"{name}.{kind}").write_bytes(data)


def change_timeout(recorder: Recorder) -> None:
    blocks = recorder.blocks()
    admin = orderer_admin(recorder.folder)
    broadcast(
        recorder.profile.orderers[0], timeout_change(config_of(blocks), recorder.profile.channel, "120ms", [admin])
    )
    recorder.wait_for(len(blocks) + 1)


def federation(folder: Path, profile: Profile) -> Run:
    """A whole federation in memory, with its artefacts: two rounds and a release."""
    run = Run(folder, sites=3)
    run.world.now = int(time.time())
    run.world.policy = {"origin": f"ledger.example/test/{profile.channel}/{profile.chaincode}", "log_key": None}
    run.founded().agreed().rounds(2)
    world = run.world
    card = hashlib.sha256(CARD).hexdigest()
    world.wait(1).release(model_card=card)
    (folder / "release" / "model-card.md").write_bytes(CARD)
    source = folder / "models" / f"{world.head.base}.safetensors"
    (folder / "release" / "model.safetensors").write_bytes(source.read_bytes())
    world.wait(1).attest(1).attest(2).attest(3).attest("auditor")
    return run


def record(out: Path, orderers: str, *, small: bool) -> None:
    place = out / "network"
    made = network.up(place, Wanted(orderers, 3), quiet)
    recorder = Recorder(place)
    try:
        (out / "run").mkdir()
        run = federation(out / "run", recorder.profile)
        entries = run.world.entries
        attests = [entry for entry in entries if entry.kind == "attest"]
        rest = [entry for entry in entries if entry.kind != "attest"]
        half = next(i for i, entry in enumerate(rest) if entry.kind == "seal") + 1
        recorder.submit(rest[:half])
        if not small:
            change_timeout(recorder)
        recorder.submit(rest[half:])
        first, second = attests[0], attests[1]
        recorder.now = first.at
        print("one organisation:", recorder.send(recorder.endorsed(first, [0])))
        one, other = recorder.endorsed(first, [0, 1]), recorder.endorsed(first, [1, 2])
        print("conflict:", recorder.send(one, other))
        if orderers != "bft":
            again = recorder.endorsed(second, [0, 2])
            print("twice in one block, and again:", recorder.send(again, again), recorder.send(again))
        else:
            recorder.submit([second])
        if not small:
            joining.add_organisation(place, "hospitals-3", quiet)
            recorder.submit([attests[2]])
            upgrade.upgrade(place, copy_contract(out / "contract", comment="another version"), quiet)
        recorder.submit([attests[3]] if not small else attests[2:])
        keep_keys(place, out / "keys")
        blocks = recorder.blocks()
        (out / "blocks").mkdir()
        for block in blocks:
            (out / "blocks" / f"{block.header.number:012d}").write_bytes(block.SerializeToString())
        pack(out)
        print(len(blocks), "blocks,", sum(len(block.SerializeToString()) for block in blocks), "bytes")
    finally:
        recorder.close()
        network.down(made.folder, wipe=True, say=quiet)


def pack(out: Path) -> None:
    """One file of what tests need, the same for the same recording."""
    with tarfile.open(out / "recording.tar.xz", "w:xz", preset=9) as archive:
        for name in ("blocks", "keys", "run"):
            for path in sorted((out / name).rglob("*")):
                if (path.is_file() and path.parent.name != "keys") or path.is_relative_to(out / "keys"):
                    info = archive.gettarinfo(path, path.relative_to(out).as_posix())
                    info.mtime = info.uid = info.gid = 0
                    info.uname = info.gname = ""
                    with path.open("rb") as file:
                        archive.addfile(info, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--orderers", default="raft")
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True)
    record(arguments.out, arguments.orderers, small=arguments.small)


if __name__ == "__main__":
    main()
