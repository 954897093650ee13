# SPDX-License-Identifier: Apache-2.0
"""A network that is somebody else's: a profile written by hand, and a client whose certificate the organisation has just issued."""

import datetime
import json
import shutil
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chaincode.ledgers.fabric.ledger import FabricLedger
from chaincode.ledgers.fabric.profile import Profile, load_profile
from identity.errors import CredentialError
from ops.fabric import material
from ops.fabric.existing import Network
from tests.chaincode.ledgers.hosts import accepted
from tests.fabric_ledgers import fresh, stream_of
from tests.fakes.fabric_world import pem


@pytest.fixture
def elsewhere(fabric_network: Network, tmp_path: Path) -> Profile:
    """A folder with the profile of an empty ledger, as the page for operators shows one, and copies of what it names."""
    network, one, two = fabric_network.folder, *fabric_network.plan.organisations[:2]
    authorities = [material.organisation(network, one), material.organisation(network, two), material.orderers(network)]
    for authority, name in zip(authorities, ("tls-ca.pem", "other-tls-ca.pem", "orderer-tls-ca.pem"), strict=True):
        shutil.copy(authority.tls_ca, tmp_path / name)
    made = fresh(fabric_network)
    shutil.copy(made.genesis, tmp_path / "genesis.block")
    issue(authorities[0].folder / "ca", tmp_path, "client")
    (tmp_path / "profile.json").write_text(json.dumps({
        "channel": made.channel, "chaincode": made.chaincode, "genesis": "genesis.block",
        "organisations": [
            {"name": "ours", "msp": one.msp, "peers": [{"address": f"127.0.0.1:{one.port}", "tls_ca": "tls-ca.pem"}],
             "certificate": "client.pem", "key": "client.key"},
            {"name": "theirs", "msp": two.msp, "peers": [{"address": f"127.0.0.1:{two.port}", "tls_ca": "other-tls-ca.pem"}]},
        ],
        "orderers": [{"address": made.orderers[0].address, "msp": "OrdererMSP", "tls_ca": "orderer-tls-ca.pem"}],
    }))  # fmt: skip
    return load_profile(tmp_path / "profile.json")


def issue(ca: Path, folder: Path, unit: str) -> None:
    """Have an organisation's authority issue a certificate for a key that is made here, into client.pem and client.key."""
    (certificate,) = ca.glob("*-cert.pem")
    authority = x509.load_pem_x509_certificate(certificate.read_bytes())
    signing = serialization.load_pem_private_key((ca / "priv_sk").read_bytes(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    names = [(NameOID.ORGANIZATIONAL_UNIT_NAME, unit), (NameOID.COMMON_NAME, "a stranger")]
    subject = x509.Name([x509.NameAttribute(kind, name) for kind, name in names])
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key())
    builder = x509.CertificateBuilder(authority.subject, subject, key.public_key(), x509.random_serial_number(),
                                      now - datetime.timedelta(minutes=5), now + datetime.timedelta(days=1))  # fmt: skip
    made = builder.add_extension(identifier, critical=False).sign(signing, hashes.SHA256())
    (folder / "client.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "client.key").write_bytes(pem(key))


def test_a_client_of_todays_writes_and_reads(elsewhere: Profile) -> None:
    whole = stream_of(elsewhere).whole(rounds=1)
    with FabricLedger.open(elsewhere, "ours") as ledger:
        assert [one.index for one in accepted(ledger.submit(whole))] == list(range(len(whole)))
        assert sorted(ledger.entries()) == sorted(whole)
        assert ledger.get(["federation"])["federation"] is not None


def test_a_certificate_that_says_nothing_of_a_client_is_refused(fabric_network: Network, elsewhere: Profile) -> None:
    """The channel's policies ask for the certificate's role."""
    network, one = fabric_network.folder, fabric_network.plan.organisations[0]
    issue(material.organisation(network, one).folder / "ca", elsewhere.path.parent, "visitor")
    with FabricLedger.open(elsewhere, "ours") as ledger, pytest.raises(CredentialError) as caught:
        ledger.submit([stream_of(elsewhere).found])
    assert caught.value.code == "fabric-access-denied"
    assert "OU=client" in str(caught.value.next)
