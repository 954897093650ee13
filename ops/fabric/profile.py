# SPDX-License-Identifier: Apache-2.0
"""profile.json: what a client needs to connect to the network. Paths are relative to the file."""

from pathlib import Path

from chaincode.ledgers.fabric import profile as profiles
from chaincode.ledgers.fabric.profile import Node, Profile
from ops.fabric import channel, material
from ops.fabric.plan import CHAINCODE, CHANNEL, Organisation, Plan
from ops.fabric.ports import HOST

FILE = "profile.json"


def write(network: Path, plan: Plan) -> None:
    """Write the profile of the whole network. An organisation of a real one has its own, with its own key only."""
    organisations = tuple(_organisation(network, one) for one in plan.organisations)
    tls_ca = material.orderers(network).tls_ca
    orderers = tuple(Node(f"{HOST}:{one.port}", "OrdererMSP", tls_ca) for one in plan.orderers)
    genesis = channel.genesis(network)
    profiles.save_profile(Profile(CHANNEL, CHAINCODE, organisations, orderers, genesis, network / FILE))


def _organisation(network: Path, one: Organisation) -> profiles.Organisation:
    authority = material.organisation(network, one)
    client, peer = authority.person("User1"), Node(f"{HOST}:{one.port}", one.msp, authority.tls_ca)
    return profiles.Organisation(one.name, one.msp, (peer,), client.certificate, client.key)
