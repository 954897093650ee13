# SPDX-License-Identifier: Apache-2.0
"""Forged certificates, and changes of the configuration by those who were not entitled to them."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from fabric_protos.common import common_pb2, configtx_pb2
from fabric_protos.orderer import configuration_pb2

from chaincode.blocks.config import ChannelConfig
from chaincode.blocks.msp import ADMIN, CLIENT, MEMBER, ORDERER, PEER
from chaincode.blocks.orderers import quorum
from chaincode.blocks.signatures import named, verifies
from chaincode.ledgers.fabric.identity import P256_ORDER, Member, make_member
from tests.chaincode.blocks.founding import first_submit
from tests.chaincode.blocks.recordings import MSPS, Parts, Recording, block_of, identity, recording, replaced, sealed

ORDERING = "orderer-1.orderers"


@pytest.fixture
def raft() -> Recording:
    return recording("raft")


@pytest.fixture
def config(raft: Recording) -> ChannelConfig:
    found = raft.verify()[0].config
    assert found is not None
    return found


def certificate_of(raft: Recording, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(raft.keys[f"{name}.crt"])


def self_made(raft: Recording, name: str, *, key: Any = None, authority: bool = False, **unit: str) -> Member:
    """A member with a certificate like that of ``name``, issued by an authority of the same name and of the forger's making."""
    real = certificate_of(raft, name)
    issuer_key, own = ec.generate_private_key(ec.SECP256R1()), key or ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateBuilder()
        .subject_name(real.subject)
        .issuer_name(real.issuer)
        .public_key(own.public_key())
        .serial_number(real.serial_number)
        .not_valid_before(real.not_valid_before_utc)
        .not_valid_after(real.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return make_member(MSPS[name.replace("@", ".").rpartition(".")[2]], made.public_bytes(pem), private)


def put(raft: Recording, number: int, change: Callable[[Parts], bytes], orderer: Member | None = None) -> list[Any]:
    """What is found in a block with another transaction in it, which an orderer sealed."""

    def swap(block: Any) -> None:
        block.data.data[0] = change(Parts.of(block.data.data[0]))

    altered = replaced(raft.blocks, number, swap)[: number + 1]
    return raft.faults(sealed(altered, number, orderer or raft.member(ORDERING)))


def test_roles_come_from_the_organisations_certificates(raft: Recording, config: ChannelConfig) -> None:
    for name, role in (
        ("peer.hospitals-1", PEER), ("User1@coordinator", CLIENT), ("Admin@hospitals-3", ADMIN), (ORDERING, ORDERER),
    ):  # fmt: skip
        who = config.identity(raft.member(name).creator)
        assert who is not None
        assert (who.why, who.roles) == ("", {MEMBER, role}), name


@pytest.mark.parametrize("kind", ["ecdsa", "ed25519", "authority"])
def test_a_forged_certificate_is_nobodys(raft: Recording, config: ChannelConfig, kind: str) -> None:
    key = ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else None
    forged = self_made(raft, "peer.hospitals-1", key=key, authority=kind == "authority")
    who = config.identity(forged.creator)
    assert who is not None
    assert who.why
    assert who.roles == set()
    number, client = first_submit(raft), raft.member("User1@coordinator")
    other = raft.member("peer.hospitals-2")
    assert put(raft, number, lambda parts: parts.whole(client, [other, forged])) == [("validity-differs", number)]


def test_a_forged_client_and_a_forged_orderer_are_found(raft: Recording) -> None:
    number = first_submit(raft)
    forged = self_made(raft, "User1@coordinator")
    assert put(raft, number, lambda parts: parts.whole(forged)) == [("validity-differs", number)]
    orderer = self_made(raft, ORDERING)
    assert put(raft, number, lambda parts: parts.whole(), orderer) == [("block-orderers", number)]
    for other in ("peer.hospitals-1", "Admin@hospitals-1"):  # of the channel, but nobody who orders
        assert put(raft, number, lambda parts: parts.whole(), raft.member(other)) == [("block-orderers", number)]


def test_a_certificate_of_one_organisation_is_nothing_in_another(raft: Recording, config: ChannelConfig) -> None:
    pem = raft.keys["peer.hospitals-1.crt"]
    for msp, known in (("Hospitals1MSP", True), ("Hospitals2MSP", False), ("OrdererMSP", False)):
        who = config.identity(identity(msp, pem))
        assert who is not None
        assert (not who.why) is known
    assert config.identity(identity("StrangersMSP", pem)) is None
    assert config.identity(b"") is config.identity(identity("Hospitals1MSP", b"no certificate")) is None


def test_of_two_forms_of_a_signature_one_counts(raft: Recording) -> None:
    member = raft.member("peer.hospitals-1")
    signature = member.sign(b"message")
    r, s = decode_dss_signature(signature)
    assert verifies(member.creator, b"message", signature)
    assert not verifies(member.creator, b"message", encode_dss_signature(r, P256_ORDER - s))
    assert not verifies(member.creator, b"other", signature)
    assert not verifies(b"nobody", b"message", signature)
    assert named(member.creator) is not None


def test_the_quorum_of_a_bft_channel() -> None:
    assert [quorum(n) for n in (1, 2, 3, 4, 5, 6, 7, 10)] == [1, 2, 2, 3, 4, 4, 5, 7]


def changed_config(raft: Recording, number: int, change: Callable[[Any, Any], None], *signers: Member) -> list[Any]:
    """What is found where a configuration block's update is changed, signed anew, and sealed by the orderer.

    ``change`` gets the ``ConfigEnvelope`` and the ``ConfigUpdate``.
    """
    orderer = raft.member(ORDERING)

    def swap(block: Any) -> None:
        payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(block.data.data[0]).payload)
        envelope = configtx_pb2.ConfigEnvelope.FromString(payload.data)
        inner = common_pb2.Payload.FromString(envelope.last_update.payload)
        signed = configtx_pb2.ConfigUpdateEnvelope.FromString(inner.data)
        update = configtx_pb2.ConfigUpdate.FromString(signed.config_update)
        change(envelope, update)
        signed.config_update = update.SerializeToString()
        del signed.signatures[:]
        for one in signers:
            head = common_pb2.SignatureHeader(creator=one.creator, nonce=b"n").SerializeToString()
            signed.signatures.add(signature_header=head, signature=one.sign(head + signed.config_update))
        inner.data = signed.SerializeToString()
        envelope.last_update.payload = inner.SerializeToString()
        payload.data = envelope.SerializeToString()
        data = payload.SerializeToString()
        header = common_pb2.SignatureHeader.FromString(payload.header.signature_header)
        assert header.creator == orderer.creator
        block.data.data[0] = common_pb2.Envelope(payload=data, signature=orderer.sign(data)).SerializeToString()

    return raft.faults(sealed(replaced(raft.blocks, number, swap)[: number + 1], number, orderer))


def nothing(_envelope: Any, _update: Any) -> None:
    """As it was."""


def config_blocks(raft: Recording) -> tuple[int, int]:
    timeout, joining = [n for n, data in enumerate(raft.blocks) if b"last_update" in data or _is_config(data)][1:]
    return timeout, joining


def _is_config(data: bytes) -> bool:
    payload = common_pb2.Payload.FromString(common_pb2.Envelope.FromString(block_of(data).data.data[0]).payload)
    return common_pb2.ChannelHeader.FromString(payload.header.channel_header).type == common_pb2.CONFIG


def test_a_change_needs_the_signatures_that_its_policy_asks_for(raft: Recording) -> None:
    timeout, joining = config_blocks(raft)
    admins = [raft.member(f"Admin@{name}") for name in ("coordinator", "hospitals-1", "hospitals-2")]
    ordering = raft.member("Admin@orderers")
    assert changed_config(raft, timeout, nothing, ordering) == []
    assert changed_config(raft, joining, nothing, *admins[:2]) == []
    for number, signers in (
        (timeout, []), (timeout, admins), (timeout, [raft.member(ORDERING)]),
        (joining, []), (joining, admins[:1]), (joining, [admins[0], admins[0]]), (joining, [ordering]),
        (joining, [raft.member("peer.hospitals-1"), raft.member("peer.hospitals-2")]),
        (joining, [admins[0], self_made(raft, "Admin@hospitals-1")]),
    ):  # fmt: skip
        assert changed_config(raft, number, nothing, *signers) == [("config-unauthorised", number)], (number, signers)


def test_a_configuration_is_what_its_update_makes(raft: Recording) -> None:
    timeout, _ = config_blocks(raft)
    admin = raft.member("Admin@orderers")

    def more(envelope: Any, _update: Any) -> None:
        envelope.config.channel_group.groups["Orderer"].values["BatchSize"].value = configuration_pb2.BatchSize(
            max_message_count=1, absolute_max_bytes=1, preferred_max_bytes=1
        ).SerializeToString()

    def sequence(envelope: Any, _update: Any) -> None:
        envelope.config.sequence += 1

    def version(_envelope: Any, update: Any) -> None:
        update.write_set.groups["Orderer"].values["BatchTimeout"].version += 1

    def elsewhere(_envelope: Any, update: Any) -> None:
        update.channel_id = "elsewhere"

    def stale(_envelope: Any, update: Any) -> None:
        update.read_set.groups["Orderer"].version += 1

    def empty(_envelope: Any, update: Any) -> None:
        update.write_set.CopyFrom(update.read_set)

    def policy(envelope: Any, _update: Any) -> None:
        envelope.config.channel_group.groups["Application"].policies["Endorsement"].Clear()

    for change in (more, sequence, version, elsewhere, stale, empty, policy):
        assert changed_config(raft, timeout, change, admin) == [("block-config", timeout)], change.__name__


def test_a_certificate_that_has_ended_since_does_not_undo_a_block(config: ChannelConfig, raft: Recording) -> None:
    ended = certificate_of(raft, "peer.hospitals-1").not_valid_after_utc
    assert ended > datetime.datetime.now(datetime.UTC)  # and nothing here looks at today's date
