# SPDX-License-Identifier: Apache-2.0
"""Peers that reach their chaincode servers over TLS with client authentication, as on several machines."""

import socket
import ssl
from pathlib import Path

import pytest

from ops.fabric import material, network, upgrade
from ops.fabric.existing import Network
from ops.fabric.network import Wanted
from tests.fabric_network import MakeNetwork, copy_contract, quiet


@pytest.fixture(scope="module")
def here(make_network: MakeNetwork, tmp_path_factory: pytest.TempPathFactory) -> Network:
    contract = copy_contract(tmp_path_factory.mktemp("contract"))
    return make_network(Wanted(organisations=2, root=contract, tls=True))


def first_bytes(here: Network, *, certificate: bool) -> bytes:
    """What a chaincode server says first to a caller, who shows it a certificate of its authority or none."""
    one = here.plan.organisations[0]
    context = ssl.create_default_context(cafile=str(material.organisation(here.folder, one).tls_ca))
    context.set_alpn_protocols(["h2"])
    if certificate:
        tls = material.organisation(here.folder, one).node("peer").tls
        context.load_cert_chain(tls / "server.crt", tls / "server.key")
    address = ("127.0.0.1", here.plan.contract.servers[one.name])
    with socket.create_connection(address) as plain, context.wrap_socket(plain, server_hostname=address[0]) as wrapped:
        wrapped.settimeout(10)
        return wrapped.recv(9)


def test_the_peers_reach_the_servers_and_a_stranger_does_not(here: Network) -> None:
    # The network is up: each organisation has committed a transaction that both contracts answered.
    assert here.plan.contract.tls
    assert first_bytes(here, certificate=True)[3:4] == b"\x04"  # the settings that open HTTP/2
    assert first_bytes(here, certificate=False) == b""


def test_it_stays_so_after_an_upgrade_and_a_restart(here: Network, tmp_path: Path) -> None:
    after = upgrade.upgrade(here.folder, copy_contract(tmp_path / "other", comment="another version"), quiet)
    assert after.plan.contract.tls
    network.down(here.folder, wipe=False, say=quiet)
    network.up(here.folder, Wanted(), quiet)
    assert first_bytes(after, certificate=False) == b""
