# SPDX-License-Identifier: Apache-2.0
"""The digest that a package binds, the server's start, and its TLS: as processes, with real certificates."""

import datetime
import ipaddress
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chaincode.fabric_service import credentials_of, main
from chaincode.fabric_source import ROOT, source_digest, source_files
from identity.errors import UsageError
from tests.fakes.fabric_stream import PeerEnd
from tests.fakes.fabric_world import PACKAGE, pem, serving

MODULE = [sys.executable, "-m", "chaincode.fabric_service"]


def run(*arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*MODULE, *arguments], cwd=root, capture_output=True, text=True, timeout=60, check=False)


# The source


def test_every_module_of_ours_that_the_server_loads_is_in_the_digest() -> None:
    code = "import chaincode.fabric_service, sys; print(*(m for m in sys.modules if m.split('.')[0] in ('identity', 'chaincode')))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    paths = {module.replace(".", "/") for module in loaded}
    known = {path.removesuffix(".py").removesuffix("/__init__") for path in source_files()}
    assert paths <= known
    assert {"chaincode/contract", "chaincode/rules/rounds", "identity/canonical", "chaincode/fabric_shim"} <= paths


def test_the_digest_is_that_of_the_copied_source(tmp_path: Path) -> None:
    for floor in ("identity", "chaincode"):
        shutil.copytree(ROOT / floor, tmp_path / floor, ignore=shutil.ignore_patterns("__pycache__"))
    assert source_digest(tmp_path) == source_digest()
    (tmp_path / "chaincode/aggregation.py").write_text("")  # no part of the contract
    assert source_digest(tmp_path) == source_digest()
    with (tmp_path / "chaincode/rules/rounds.py").open("a") as file:
        file.write("# another rule\n")
    changed = source_digest(tmp_path)
    assert changed != source_digest()
    assert run("--source-digest", root=tmp_path).stdout == f"{changed}\n"
    refused = run("--listen", "127.0.0.1:0", "--package-id", "p", "--source", source_digest(), root=tmp_path)
    assert refused.returncode == 2
    assert "fabric-source" in refused.stderr
    assert refused.stdout == ""


def test_a_server_says_when_it_listens_and_ends_when_it_is_told() -> None:
    arguments = ["--listen", "127.0.0.1:0", "--package-id", PACKAGE, "--source", source_digest()]
    with subprocess.Popen([*MODULE, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        word, address = process.stdout.readline().split()
        assert word == "ready"
        peer = PeerEnd(address)
        assert peer.ready.wait(10)
        assert peer.package == PACKAGE
        peer.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_port_that_is_taken_is_named() -> None:
    with serving() as address:
        refused = run("--listen", address, "--package-id", "p", "--source", source_digest())
    assert refused.returncode == 2
    assert "address-in-use" in refused.stderr


def test_missing_options_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--listen", "127.0.0.1:0"])
    assert caught.value.code == 2
    assert "--package-id, --source" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["0.0.0.0:0", "192.0.2.1:7", "[::]:0", "ledger.example:7", ":7"])
def test_elsewhere_than_on_loopback_tls_is_demanded(host: str) -> None:
    with pytest.raises(UsageError) as caught:
        credentials_of(host, None, None, None)
    assert caught.value.code == "fabric-tls-needed"


@pytest.mark.parametrize("host", ["127.0.0.1:0", "127.1.2.3:7", "[::1]:7", "localhost:7"])
def test_on_loopback_it_is_not(host: str) -> None:
    assert credentials_of(host, None, None, None) is None


def test_a_half_of_tls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        credentials_of("127.0.0.1:0", "a", "b", None)
    assert caught.value.code == "fabric-tls-options"
    with pytest.raises(UsageError) as caught:
        credentials_of("127.0.0.1:0", *[str(tmp_path / "none")] * 3)
    assert caught.value.code == "fabric-tls-file"


# TLS with client authentication


class Authority:
    """A certificate authority for a test."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key.public_key(), authority=True)

    def issue(self, folder: Path, name: str) -> tuple[Path, Path]:
        """The files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate, private = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(self._sign(subject, key.public_key(), authority=False))
        private.write_bytes(pem(key))
        return certificate, private

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, authority: bool) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        hosts = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = x509.CertificateBuilder(self.name, subject, key, x509.random_serial_number(),
                                          now - datetime.timedelta(hours=1), now + datetime.timedelta(hours=1))  # fmt: skip
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True).add_extension(
            hosts, False
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_only_a_peer_with_a_certificate_of_the_authority_is_let_in(tmp_path: Path) -> None:
    ours, theirs = Authority("ours"), Authority("theirs")
    certificate, key = ours.issue(tmp_path, "server")
    authority = tmp_path / "ca.pem"
    authority.write_bytes(ours.certificate)
    credentials = credentials_of("127.0.0.1:0", str(certificate), str(key), str(authority))
    with serving(credentials=credentials) as address:
        known = PeerEnd(address, credentials=client(ours, *ours.issue(tmp_path, "peer")))
        assert known.ready.wait(10)
        assert known.package == PACKAGE
        for stranger in (
            grpc.ssl_channel_credentials(ours.certificate),
            client(ours, *theirs.issue(tmp_path, "other")),
            None,
        ):
            refused = PeerEnd(address, credentials=stranger)
            assert refused.ready.wait(20)
            assert refused.package == ""
            assert refused.failed is not None
            assert refused.failed.code() == grpc.StatusCode.UNAVAILABLE
            refused.close()
        known.close()


def client(authority: Authority, certificate: Path, key: Path) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(authority.certificate, key.read_bytes(), certificate.read_bytes())


# What does not need Fabric


@pytest.mark.parametrize(
    "module",
    [
        "ops.audits",
        "ops.audit_files",
        "ops.commands.audit",
        "ops.command_line",
        "chaincode.audit",
        "chaincode.ledgers.sqlite",
    ],
)
def test_nothing_else_loads_grpc(module: str) -> None:
    code = f"import {module}, sys; assert not {{'grpc', 'fabric_protos'}} & sys.modules.keys()"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
