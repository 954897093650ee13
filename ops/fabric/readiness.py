# SPDX-License-Identifier: Apache-2.0
"""Whether the network is ready: each organisation commits a transaction that every organisation's contract has answered.

A health check is green long before that. This goes the way that clients go, by the profile and the peer's Gateway
service, which can only plan an endorsement when its peer has found the other organisations' peers; and to the orderers
directly where that service, after they were away for some minutes, does not dial them yet.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from chaincode.ledgers.fabric.gateway import CallFailed, Orderer, Peer, hand_over
from chaincode.ledgers.fabric.identity import Member, load_member
from chaincode.ledgers.fabric.messages import propose, response_of, sign_transaction, status_request
from chaincode.ledgers.fabric.pauses import Pauses
from chaincode.ledgers.fabric.profile import Profile, load_profile
from identity.errors import Unavailable
from ops import output

SECONDS = 45.0
_CALL_SECONDS = 10.0


def commit(profile_file: Path, organisation: str, *, seconds: float = SECONDS) -> str:
    """Commit a transaction as a client of an organisation, endorsed by all; it asks the contract for its source's digest.

    Nothing is written to the state. Returns what the contracts answered, which all endorsed. While nodes are starting or
    peers are finding one another it tries again.

    Raises:
        Unavailable: ``fabric-not-ready``, with what the last attempt met.
    """
    profile = load_profile(profile_file)
    own = profile.organisation(organisation)
    member, peer, orderers = load_member(own), Peer(own.peers[0]), [Orderer(node) for node in profile.orderers]
    try:
        for _ in Pauses().until(time.monotonic() + seconds):
            try:
                return _commit(profile, member, peer, orderers)
            except CallFailed as failure:
                met = failure
    finally:
        for remote in (peer, *orderers):
            remote.close()
    raise Unavailable(
        "fabric-not-ready", f"committing a transaction for {own.name}, endorsed by all, in {seconds:.0f} s: {met}",
        next=output.command_line("fabric", "status", "--dir", profile_file.parent),
    )  # fmt: skip


def _commit(profile: Profile, member: Member, peer: Peer, orderers: Sequence[Orderer]) -> str:
    """Commit one transaction; what the contracts answered. Raises CallFailed."""
    proposal = propose(member, profile.channel, profile.chaincode, [b"source"], int(time.time()))
    everybody = [one.msp for one in profile.organisations]
    prepared = peer.endorse(proposal, profile.channel, _CALL_SECONDS, everybody)
    pending = sign_transaction(member, proposal.txid, prepared)
    try:
        peer.submit(pending, profile.channel, _CALL_SECONDS)
    except CallFailed:
        if not hand_over(orderers, pending, _CALL_SECONDS):
            raise
    status = peer.status(status_request(member, profile.channel, proposal.txid), _CALL_SECONDS)
    if status.code != "VALID":
        raise CallFailed("commit", peer.node, status.code, f"the transaction is invalid in block {status.block}")
    return response_of(pending.envelope).decode("ascii", "replace")
