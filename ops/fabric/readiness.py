# SPDX-License-Identifier: Apache-2.0
"""Whether the network is ready: each organisation commits a transaction that every organisation's contract has answered.

A health check is green long before that. This goes the way that clients go, by the profile and the peer's Gateway
service, which can only plan an endorsement when its peer has found the other organisations' peers.
"""

import time
from pathlib import Path

from chaincode.ledgers.fabric.gateway import CallFailed, Peer
from chaincode.ledgers.fabric.identity import load_member
from chaincode.ledgers.fabric.messages import propose, response_of, sign_transaction, status_request
from chaincode.ledgers.fabric.profile import load_profile
from identity.errors import Unavailable
from ops import output

SECONDS = 45.0
_CALL_SECONDS = 10.0
_PAUSE_SECONDS = 0.1


def commit(profile_file: Path, organisation: str, *, seconds: float = SECONDS) -> str:
    """Commit a transaction as a client of an organisation, endorsed by all; it asks the contract for its source's digest.

    Nothing is written to the state. Returns what the contracts answered, which all endorsed. While nodes are starting or
    peers are finding one another it tries again.

    Raises:
        Unavailable: ``fabric-not-ready``, with what the last attempt met.
    """
    profile = load_profile(profile_file)
    own = profile.organisation(organisation)
    member, peer = load_member(own), Peer(own.peers[0])
    everybody = [one.msp for one in profile.organisations]
    end = time.monotonic() + seconds
    try:
        while True:
            proposal = propose(member, profile.channel, profile.chaincode, [b"source"], int(time.time()))
            try:
                prepared = peer.endorse(proposal, profile.channel, _CALL_SECONDS, everybody)
                pending = sign_transaction(member, proposal.txid, prepared)
                peer.submit(pending, profile.channel, _CALL_SECONDS)
                status = peer.status(status_request(member, profile.channel, proposal.txid), _CALL_SECONDS)
                if status.code == "VALID":
                    return response_of(pending.envelope).decode("ascii", "replace")
                met = f"the transaction is in block {status.block} and invalid: {status.code}"
            except CallFailed as failure:
                met = str(failure)
            if time.monotonic() > end:
                raise Unavailable(
                    "fabric-not-ready", f"committing a transaction for {own.name}, endorsed by all, in {seconds:.0f} s: {met}",
                    next=output.command_line("fabric", "status", "--dir", profile_file.parent),
                )  # fmt: skip
            time.sleep(_PAUSE_SECONDS)
    finally:
        peer.close()
