# SPDX-License-Identifier: Apache-2.0
"""profile.json: what a client needs to connect to the network. Paths are relative to the file."""

import json
from pathlib import Path
from typing import Any

from chaincode.files import write_whole
from ops.fabric import channel, material
from ops.fabric.plan import CHAINCODE, CHANNEL, Organisation, Plan
from ops.fabric.ports import HOST

FILE = "profile.json"


def write(network: Path, plan: Plan) -> None:
    """Write the profile of the whole network. An organisation of a real one has its own, with its own key only."""
    tls_ca = _relative(network, material.orderers(network).tls_ca)
    value = {
        "channel": CHANNEL,
        "chaincode": CHAINCODE,
        "organisations": [_organisation(network, one) for one in plan.organisations],
        "orderers": [{"address": f"{HOST}:{one.port}", "msp": "OrdererMSP", "tls_ca": tls_ca} for one in plan.orderers],
        "genesis": _relative(network, channel.genesis(network)),
    }
    write_whole(network / FILE, json.dumps(value, indent=2).encode() + b"\n")


def _organisation(network: Path, one: Organisation) -> dict[str, Any]:
    authority = material.organisation(network, one)
    client = authority.person("User1")
    tls_ca = _relative(network, authority.tls_ca)
    return {
        "name": one.name,
        "msp": one.msp,
        "peers": [{"address": f"{HOST}:{one.port}", "tls_ca": tls_ca}],
        "certificate": _relative(network, client.certificate),
        "key": _relative(network, client.key),
        "ca": _relative(network, authority.ca),
        "tls_ca": tls_ca,
    }


def _relative(network: Path, path: Path) -> str:
    return path.relative_to(network).as_posix()
