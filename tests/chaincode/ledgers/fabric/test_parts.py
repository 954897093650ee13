# SPDX-License-Identifier: Apache-2.0
"""The parts of the Fabric ledger, one by one: batches, signatures, errors, blocks, the profile, the journal."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from fabric_protos.msp import identities_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode import contract, state
from chaincode.entries import Entry, open_entry
from chaincode.ledgers.fabric import batches
from chaincode.ledgers.fabric.batches import OWN_WRITES, waves
from chaincode.ledgers.fabric.gateway import Peer, _details_of
from chaincode.ledgers.fabric.identity import P256_ORDER, load_member, make_member
from chaincode.ledgers.fabric.journal import Journal
from chaincode.ledgers.fabric.ledger import FabricLedger
from chaincode.ledgers.fabric.messages import Pending
from chaincode.ledgers.fabric.profile import Node, load_profile, save_profile
from chaincode.ledgers.fabric.together import take
from identity.errors import CredentialError, Unavailable, UsageError
from tests.chaincode.contract.world import World
from tests.chaincode.ledgers.fabric.hosts import FABRIC_WHOLE, fabric
from tests.chaincode.ledgers.fabric.trouble import AWAY, always
from tests.chaincode.ledgers.hosts import Clock, accepted
from tests.chaincode.ledgers.stream import Stream
from tests.fakes.fabric_double import status_details
from tests.fakes.fabric_world import Double, double, pem, self_signed

# Batches


def lived() -> World:
    """A federation in which every kind that writes a key of its author's own has been seen."""
    world = World(participants=3).opened().commit(1).commit(2).decline(3).wait(1).seal().claim(1).wait(1).record()
    return world.attest(2).attest("auditor").wait(1).withdraw(3)


def test_kinds_that_go_side_by_side_write_one_key_of_their_author_alone() -> None:
    values: dict[str, bytes] = {}
    seen = Counter[str]()
    for entry in lived().entries:
        writes = contract.apply(entry, {key: values.get(key) for key in contract.keys(entry)})
        values.update(writes)
        if entry.kind in OWN_WRITES:
            seen[entry.kind] += 1
            (own,) = writes.keys() - {state.entry_key(entry.id)}
            assert own.startswith(OWN_WRITES[entry.kind])
            assert own.endswith(f"/{entry.member}")
    assert seen.keys() == OWN_WRITES.keys()


def numbered(envelopes: list[bytes]) -> list[tuple[int, Entry]]:
    return list(enumerate(open_entry(envelope) for envelope in envelopes))


MANY = Stream(sites=12)
SETUP, ROUND = list(MANY.setup()), list(MANY.round(1))


@pytest.mark.parametrize("size", [1, 4000, 1 << 20])
def test_batches_keep_the_order_and_go_side_by_side_where_nothing_can_meet(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", size)
    entries = numbered([*SETUP, *ROUND, *ROUND])
    cut = list(waves(entries))
    assert [place for wave in cut for batch in wave for place in batch.places] == list(range(len(entries)))
    for wave in cut:
        for batch in wave:
            assert len(batch.entries) == 1 or sum(len(e) for e in batch.envelopes) <= size
        if len(wave) > 1:
            (kind,) = {entry.kind for batch in wave for entry in batch.entries}
            assert kind in OWN_WRITES
            authors = [{entry.member for entry in batch.entries} for batch in wave]
            assert sum(map(len, authors)) == len(set.union(*authors))
    assert len(cut) == (1 if size == 1 << 20 else len(cut))
    assert (max(map(len, cut)) == len(MANY.members)) == (size == 1)


def test_one_authors_entries_are_never_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 1)
    one, two = (MANY.commit(member, 1) for member in MANY.members[:2])
    cut = list(waves(numbered([one, two, one, two])))
    assert [[batch.places for batch in wave] for wave in cut] == [[(0,), (1,)], [(2,), (3,)]]
    monkeypatch.setattr(batches, "BATCH_BYTES", 1 << 20)
    waiting: list[Any] = [(wave[0], None) for e in (one, two, one, two) for wave in waves(numbered([e]))]
    assert [entry.envelope for batch, _ in take(waiting) for entry in batch.entries] == [one, two]
    assert len(waiting) == 2


# Signatures


def test_signatures_are_of_the_lower_kind() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    member = make_member("Org1MSP", self_signed(key, "x"), pem(key))
    for i in range(40):
        signature = member.sign(bytes([i]))
        key.public_key().verify(signature, bytes([i]), ec.ECDSA(hashes.SHA256()))
        assert 2 * decode_dss_signature(signature)[1] <= P256_ORDER
    assert identities_pb2.SerializedIdentity.FromString(member.creator).mspid == "Org1MSP"
    assert repr(member) == "Member(Org1MSP)"


def test_an_ed25519_key_signs_the_message_itself() -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    key.public_key().verify(make_member("Org1MSP", self_signed(key, "x"), pem(key)).sign(b"message"), b"message")


def test_keys_that_do_not_serve_are_refused(tmp_path: Path) -> None:
    one, two = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    other, large = ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)
    for certificate, key, code in [
        (self_signed(one, "x"), pem(two), "msp-key-mismatch"), (self_signed(other, "x"), pem(other), "msp-key-type"),
        (self_signed(large, "x"), pem(large), "msp-key-type"), (b"", pem(one), "msp-malformed"),
        (self_signed(one, "x"), b"\0", "msp-malformed"),
    ]:  # fmt: skip
        with pytest.raises(CredentialError) as caught:
            make_member("Org1MSP", certificate, key)
        assert caught.value.code == code
    with double(tmp_path) as network, pytest.raises(CredentialError) as caught:
        load_member(replace(network.profile.organisations[0], key=tmp_path / "none"))
    assert caught.value.code == "msp-file"


def test_both_kinds_of_keys_are_taken_by_a_network(tmp_path: Path) -> None:
    with double(tmp_path) as network:
        key = ed25519.Ed25519PrivateKey.generate()
        (own,) = network.profile.organisations
        own.certificate.write_bytes(self_signed(key, "x"))
        own.key.write_bytes(pem(key))
        with fabric(network.profile, Clock()) as ledger:
            accepted(ledger.submit(FABRIC_WHOLE[:2]))


# Errors of the gateway


class Trailing:
    """An RPC error's trailer."""

    def __init__(self, value: bytes) -> None:
        self.value = value

    def trailing_metadata(self) -> list[tuple[str, bytes]]:
        return [("other", b"x"), ("grpc-status-details-bin", self.value)]


def test_what_each_peer_answered_is_read() -> None:
    data = status_details(10, "äöü", [("p:1", "Org1MSP", "no"), ("p:2", "", "never" * 1000)])
    assert [(d.address, d.msp, len(d.message)) for d in _details_of(Trailing(data))] == [
        ("p:1", "Org1MSP", 2), ("p:2", "", 5000),
    ]  # fmt: skip
    assert _details_of(SimpleNamespace(trailing_metadata=lambda: None)) == []


@settings(max_examples=300)
@given(
    st.one_of(st.binary(max_size=40), st.integers(0, 60).map(lambda n: status_details(2, "m", [("a", "b", "c")])[:n]))
)
def test_hostile_details_are_passed_over(data: bytes) -> None:
    assert len(_details_of(Trailing(data))) <= len(data)


def test_tls_is_left_out_on_loopback_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        Peer(Node("ledger.example:7051", "Org1MSP", None))
    assert caught.value.code == "fabric-tls-needed"
    with pytest.raises(CredentialError) as other:
        Peer(Node("ledger.example:7051", "Org1MSP", tmp_path / "none"))
    assert other.value.code == "fabric-tls-ca"


# The profile and the journal


def test_a_profile_is_read_as_it_was_written(network: Double) -> None:
    save_profile(network.profile)
    assert load_profile(network.profile.path) == network.profile
    assert network.profile.organisation("Org1") == network.profile.organisation("Org1MSP")
    with pytest.raises(UsageError) as caught:
        network.profile.organisation("Org9")
    assert "Org1" in caught.value.message


@pytest.mark.parametrize("change", [{"channel": None}, {"chaincode": ""}, {"organisations": [1]}, {"organisations": [{}]},
                                    {"orderers": None}, {"genesis": 1}, {"organisations": [{"name": "x", "msp": "x", "peers": 1}]}])  # fmt: skip
def test_a_profile_with_a_wrong_field_is_refused(network: Double, change: dict[str, Any]) -> None:
    save_profile(network.profile)
    path = network.profile.path
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UsageError) as caught:
        load_profile(path)
    assert caught.value.code == "profile-malformed"
    assert re.search(
        "'(channel|chaincode|organisations|orderers|genesis|name|msp|peers)' is missing", caught.value.message
    )


def test_other_organisations_stand_in_a_profile_without_a_key(network: Double) -> None:
    ours, theirs = network.profile.organisations
    save_profile(replace(network.profile, organisations=(ours, replace(theirs, certificate=None, key=None))))
    read = load_profile(network.profile.path)
    assert [one.ours for one in read.organisations] == [True, False]
    network.gateways[0].fault = always("endorse", AWAY)
    with fabric(read, Clock()) as ledger:
        accepted(ledger.submit(FABRIC_WHOLE[:1]))
    assert "endorse" in network.gateways[1].calls
    with pytest.raises(CredentialError) as caught:
        FabricLedger.open(read, "Org2")
    assert caught.value.code == "msp-file"
    assert "no certificate and key of a client of Org2" in caught.value.message


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"null", b"[" * 100_000])
def test_what_is_no_profile_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        load_profile(path)
    assert caught.value.code == "profile-malformed"
    with pytest.raises(UsageError) as other:
        load_profile(tmp_path / "none")
    assert other.value.code == "profile-missing"


def test_the_journal_keeps_what_it_is_given_and_passes_over_the_rest(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "pending")
    one, two = Pending("1" * 64, b"one"), Pending("2" * 64, b"two")
    journal.keep(one)
    journal.keep(two)
    for name, data in [("notes.txt", b"x"), ("3" * 64 + ".transaction", b""), ("x.transaction", b"x")]:
        (journal.folder / name).write_bytes(data)
    assert Journal(journal.folder).pending() == [one, two]
    journal.drop(one.txid)
    journal.drop(one.txid)
    assert journal.pending() == [two]


def test_a_journal_that_cannot_be_kept_stops_before_anything_is_sent(network: Double) -> None:
    with fabric(network.profile, Clock()) as ledger:
        ledger._sender.journal.folder.rmdir()
        with pytest.raises(Unavailable) as caught:
            ledger.submit(FABRIC_WHOLE[:1])
    assert caught.value.code == "fabric-journal"
    assert "submit" not in network.gateways[0].calls
    (network.profile.path.parent / "file").write_bytes(b"")
    with pytest.raises(Unavailable):
        Journal(network.profile.path.parent / "file")


def test_a_statuscode_has_the_name_that_is_compared() -> None:
    assert {grpc.StatusCode.ABORTED.name, grpc.StatusCode.UNKNOWN.name} == {"ABORTED", "UNKNOWN"}
