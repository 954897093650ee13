# SPDX-License-Identifier: Apache-2.0
"""Fresh ledgers on one real Fabric network: each is the same chaincode under a name of its own, which is a state of its own.

A name is a namespace of Fabric's, agreed by the organisations like any other definition; so nothing in the contract or its
server knows of tests. It costs two ordering waits, where a channel or a network costs seconds.
"""

import time
from dataclasses import replace
from itertools import count

from chaincode.ledgers.fabric.ledger import FabricLedger
from chaincode.ledgers.fabric.profile import Profile, load_profile
from chaincode.ledgers.fabric.sending import Patience
from ops.fabric import channel
from ops.fabric.existing import Network
from ops.fabric.tools import side_by_side
from tests.chaincode.ledgers.stream import ORIGIN, Stream

_numbers = count(1)


def profile_of(network: Network) -> Profile:
    return load_profile(network.folder / "profile.json")


def fresh(network: Network) -> Profile:
    """The profile of an empty ledger: a definition under a new name, approved by every organisation."""
    profile = replace(profile_of(network), chaincode=f"ledger-{next(_numbers)}")
    contract = network.plan.contracts[-1]
    definition = ["-C", profile.channel, "--name", profile.chaincode, "--version", contract.source, "--sequence", "1"]
    lifecycle, orderer = network.lifecycle, channel.orderer_arguments(network.folder, network.lifecycle.orderer())
    everybody = list(network.plan.organisations)
    approve = ["lifecycle", "chaincode", "approveformyorg", *orderer, *definition, "--package-id", contract.package]
    side_by_side(
        lambda one: lifecycle._peer("approving", one, *approve, *channel.peer_arguments(network.folder, [one])),
        everybody,
    )
    commit = ["lifecycle", "chaincode", "commit", *orderer, *definition]
    lifecycle._peer("committing", everybody[0], *commit, *channel.peer_arguments(network.folder, everybody))
    return profile


def origin_of(profile: Profile) -> str:
    """The name of the log that lives on a profile's channel and chaincode."""
    return f"{ORIGIN}/{profile.channel}/{profile.chaincode}"


def stream_of(profile: Profile, *, sites: int = 3) -> Stream:
    """A federation's entries of now: a peer refuses other times before the contract is asked."""
    return Stream(sites=sites, at=int(time.time()), origin=origin_of(profile), log_key=None)


def opened(profile: Profile, organisation: int = 0, *, patience: Patience | None = None) -> FabricLedger:
    return FabricLedger.open(profile, profile.organisations[organisation].name, patience=patience)
