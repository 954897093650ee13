# SPDX-License-Identifier: Apache-2.0
"""The Fabric network's text: configuration files, the package, the external builder; no network is started."""

import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from chaincode.ledgers.fabric.profile import load_profile
from identity.errors import UsageError
from ops.fabric import builder, channel, material, nodes, package, plan, ports
from ops.fabric.plan import CONSENSUS, Contract, Orderer, Organisation, Plan
from ops.fabric.text import fill
from tests.ops.fabric_files import packaged_source

SOURCE = "ab" * 32
ODD = 'a "quoted" \\ folder: #1'  # everything that YAML would read as something else


def a_plan(consensus: str = "raft", count: int = 3) -> Plan:
    orderers = tuple(
        Orderer(f"orderer-{n}", 20000 + n, 20100 + n, 20200 + n) for n in range(1, CONSENSUS[consensus] + 1)
    )
    names = plan.default_names(count)
    organisations = tuple(Organisation(name, 21000 + n, 21100 + n, 21200 + n) for n, name in enumerate(names))
    servers = {name: 22000 + n for n, name in enumerate(names)}
    return Plan(consensus, "0" * 64, orderers, organisations, (Contract(1, "fedledger:00", SOURCE, "", servers),))


def make_files(network: Path, planned: Plan) -> None:
    """The certificates that the texts name, empty."""
    for orderer in planned.orderers:
        signs = material.orderers(network).node(orderer.name).msp / "signcerts"
        signs.mkdir(parents=True)
        (signs / "certificate.pem").touch()
    for one in planned.organisations:
        ca = material.organisation(network, one).tls_ca
        ca.parent.mkdir(parents=True)
        ca.write_text(one.name)


@pytest.mark.parametrize(("consensus", "count"), [("raft", 1), ("raft", 3), ("raft3", 2), ("bft", 3)])
def test_the_channels_configuration(tmp_path: Path, consensus: str, count: int) -> None:
    network, planned = tmp_path / ODD, a_plan(consensus, count)
    make_files(network, planned)
    read = yaml.safe_load(channel.configtx(network, planned))
    orderers, *organisations = read["Organizations"]
    assert orderers["OrdererEndpoints"] == [f"127.0.0.1:{one.port}" for one in planned.orderers]
    assert orderers["MSPDir"] == str(material.orderers(network).msp)
    assert [one["ID"] for one in organisations] == ["CoordinatorMSP", "Hospitals1MSP", "Hospitals2MSP"][:count]
    assert organisations[0]["Policies"]["Endorsement"]["Rule"] == "OR('CoordinatorMSP.peer')"
    assert organisations[0]["AnchorPeers"] == [{"Host": "127.0.0.1", "Port": 21000}]
    profile = read["Profiles"]["Channel"]
    assert profile["Application"]["Organizations"] == organisations
    assert profile["Application"]["Policies"]["Endorsement"]["Rule"] == "MAJORITY Endorsement"
    assert profile["Orderer"]["BatchTimeout"] == "100ms"
    bft = consensus == "bft"
    assert profile["Orderer"]["OrdererType"] == ("BFT" if bft else "etcdraft")
    consenters = profile["Orderer"]["ConsenterMapping"] if bft else profile["Orderer"]["EtcdRaft"]["Consenters"]
    assert [one["Port"] for one in consenters] == [one.port for one in planned.orderers]
    assert consenters[-1]["ClientTLSCert"] == str(
        material.orderers(network).node(planned.orderers[-1].name).tls / "server.crt"
    )
    assert not bft or [one["ID"] for one in consenters] == [1, 2, 3, 4]


def test_the_nodes_settings_follow_the_folder_and_keep_to_loopback(tmp_path: Path) -> None:
    network, planned = tmp_path / ODD, a_plan()
    make_files(network, planned)
    nodes.write_settings(network, planned)
    place = network / "nodes" / "peer-hospitals-2"
    peer = yaml.safe_load((place / "core.yaml").read_text())
    assert peer["peer"]["fileSystemPath"] == str(place / "data")
    assert peer["peer"]["localMspId"] == "Hospitals2MSP"
    assert peer["vm"]["endpoint"] == ""
    assert peer["chaincode"]["externalBuilders"] == [{"name": "fedledger", "path": str(place / "builder")}]
    assert (place / "tls-roots.pem").read_text() == "coordinatorhospitals-1hospitals-2"
    assert json.loads((place / "builder" / "server.json").read_bytes()) == {"address": "127.0.0.1:22002"}
    orderer = yaml.safe_load((network / "nodes" / "orderer-1" / "orderer.yaml").read_text())
    assert orderer["General"]["TLS"]["Enabled"]
    assert orderer["Admin"]["TLS"]["ClientAuthRequired"]
    for address in [peer["peer"]["listenAddress"], peer["peer"]["chaincodeListenAddress"], orderer["Admin"]["ListenAddress"],
                    peer["operations"]["listenAddress"], orderer["Operations"]["ListenAddress"]]:  # fmt: skip
        assert address.startswith("127.0.0.1:")
    assert orderer["General"]["ListenAddress"] == "127.0.0.1"


def test_cryptogens_instructions() -> None:
    planned = a_plan("bft")
    read = yaml.safe_load(material.crypto_config(planned.orderers, planned.organisations))
    assert [one["Domain"] for one in read["PeerOrgs"]] == [
        "coordinator.fedledger.example", "hospitals-1.fedledger.example", "hospitals-2.fedledger.example",
    ]  # fmt: skip
    (orderers,) = read["OrdererOrgs"]
    assert [one["Hostname"] for one in orderers["Specs"]] == ["orderer-1", "orderer-2", "orderer-3", "orderer-4"]
    for one in [orderers, *read["PeerOrgs"]]:
        assert one["EnableNodeOUs"] is True
        assert one["Specs"][0]["SANS"] == ["localhost", "127.0.0.1"]
    assert "OrdererOrgs" not in yaml.safe_load(material.crypto_config((), planned.organisations[:1]))


def test_a_template_without_a_value_is_a_fault() -> None:
    with pytest.raises(KeyError):
        fill("core.yaml", port=1)


def test_the_package_is_a_function_of_the_source() -> None:
    made = package.make(SOURCE, tls=False)
    assert made == package.make(SOURCE, tls=False)
    assert package.package_id(made) == f"fedledger:{hashlib.sha256(made).hexdigest()}"
    # Every organisation computes this id for itself: a change of the form is an upgrade for all of them.
    assert package.package_id(made) == "fedledger:174f46680c29680b124d38bae47361018975f53621fe5bff59eafc7af1906d4d"
    assert packaged_source(made) == SOURCE
    others = {package.make("ba" * 32, tls=False), package.make(SOURCE, tls=True)}
    assert made not in others
    assert len(others) == 2


@given(st.binary(max_size=200) | st.integers(65_530, 131_080).map(bytes))
def test_gzip_without_a_compressor(data: bytes) -> None:
    assert gzip.decompress(package.stored_gzip(data)) == data


@pytest.mark.parametrize("tls", [False, True])
def test_the_page_for_operators_is_complete(tls: bool) -> None:
    made = package.make(SOURCE, tls=tls)
    page = package.steps("our package.tar.gz", made, SOURCE, tls=tls)
    assert package.package_id(made) in page
    assert SOURCE in page
    assert "@" not in page
    assert ("--client-ca" in page) == tls


def indented(page: str, first: str) -> str:
    """The block of a page that begins with these words, without its margin."""
    block = re.search(rf"^ {{7}}{re.escape(first)}.*?(?=\n\n)", page, re.DOTALL | re.MULTILINE)
    assert block is not None
    return re.sub("^ {7}", "", block[0], flags=re.MULTILINE)


@pytest.mark.parametrize("tls", [False, True])
def test_the_command_on_the_page_makes_the_peers_setting(tmp_path: Path, tls: bool) -> None:
    page = package.steps("package.tar.gz", package.make(SOURCE, tls=tls), SOURCE, tls=tls)
    texts = {"server-tls-ca.pem": "one\ntwo\n", "peer-tls.pem": '"three"\n', "peer-tls.key": "four\\\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    command = f'{indented(page, "export CHAINCODE")}\nprintf %s "$CHAINCODE_AS_A_SERVICE_BUILDER_CONFIG"'
    environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, check=True)
    expected = dict(zip(["root_cert", "client_cert", "client_key"], texts.values(), strict=True)) if tls else {}
    assert json.loads(done.stdout) == {"address": "HOST:9999", **expected}


def test_the_profile_on_the_page_is_one(tmp_path: Path) -> None:
    page = package.steps("package.tar.gz", package.make(SOURCE, tls=True), SOURCE, tls=True)
    (tmp_path / "profile.json").write_text(indented(page, '{"channel"'))
    read = load_profile(tmp_path / "profile.json")
    ours, theirs = read.organisations
    assert ours.key == tmp_path / "client.key"
    assert theirs.key is None
    assert theirs.peers[0].tls_ca == tmp_path / "other-tls-ca.pem"
    assert read.orderers[0].address == "HOST:7050"


def builder_output(tmp_path: Path, server: dict[str, Any], *, tls: bool) -> dict[str, Any]:
    """What a peer reads after detect, build and release of a package."""
    builder.prepare(tmp_path, 7052, {})
    (tmp_path / "server.json").write_text(json.dumps(server))
    folders = [tmp_path / name for name in ("source", "metadata", "built", "released")]
    for folder in folders:
        folder.mkdir()
    source, metadata, built, released = folders
    made = json.loads(package.connection(tls=tls))
    (source / "connection.json").write_text(json.dumps(made))
    (metadata / "metadata.json").write_text('{"label": "x", "type": "ccaas"}')
    for command in (["detect", source, metadata], ["build", source, metadata, built], ["release", built, released]):
        subprocess.run([tmp_path / "bin" / str(command[0]), *map(str, command[1:])], check=True, timeout=10)
    read: dict[str, Any] = json.loads((released / "chaincode" / "server" / "connection.json").read_bytes())
    return read


def test_the_external_builder_fills_in_the_address(tmp_path: Path) -> None:
    read = builder_output(tmp_path, {"address": "127.0.0.1:7053"}, tls=False)
    assert read == {"address": "127.0.0.1:7053", "dial_timeout": "10s", "tls_required": False}


def test_the_external_builder_fills_in_certificates_whatever_sed_would_make_of_them(tmp_path: Path) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nMII/+&|\\1==\n-----END CERTIFICATE-----\n"
    server = {
        "address": "cc.hospital:9999",
        "root_cert": pem,
        "client_cert": pem[::-1].replace("\\", ""),
        "client_key": "k|&",
    }
    read = builder_output(tmp_path, server, tls=True)
    assert {name: read[name] for name in server} == server
    assert read["tls_required"] is True
    assert read["client_auth_required"] is True


def test_the_external_builder_leaves_other_packages_alone(tmp_path: Path) -> None:
    builder.prepare(tmp_path, 7052, {})
    (tmp_path / "metadata.json").write_text('{"label": "x", "type": "golang"}')
    assert subprocess.run([tmp_path / "bin" / "detect", tmp_path, tmp_path], check=False, timeout=10).returncode != 0


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    planned = replace(a_plan("bft"), joining=Organisation("hospitals-7", 1, 2, 3, joined=True), state=plan.READY)
    plan.save(tmp_path, planned)
    assert plan.load(tmp_path) == planned


def test_a_new_plan_has_a_free_port_for_everything() -> None:
    made = plan.make("bft", plan.default_names(3), "0" * 64)
    numbers = list(made.ports())
    assert len(set(numbers)) == len(numbers) == 3 * 4 + 3 * 3
    assert all(ports.FIRST <= number <= ports.LAST and ports.is_free(number) for number in numbers)


@pytest.mark.parametrize("names", [
    ["Hospital"], ["../x"], ["a/b"], ["a b"], [""], ["-a"], ["a-"], ["a--b"], ["a" * 25], ["orderer"], ["a", "a"],
    ["ab-c", "ab-C"], ["a1", "a-1"], [], list("abcdefghij"),
])  # fmt: skip
def test_names_that_cannot_be_are_refused(names: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        plan.check_names(names)
    assert caught.value.code == "fabric-organisations"
