# SPDX-License-Identifier: Apache-2.0
"""The claim about releases (9): model file, card and proof are those of a release on this ledger."""

from collections.abc import Set
from contextlib import suppress
from hashlib import sha256

from chaincode import artefacts
from chaincode.audit.facts import Facts, Released
from chaincode.audit.log_claims import Head
from chaincode.audit.replay import Replay
from chaincode.audit.report import Draft
from chaincode.audit.source import Source
from chaincode.checkpoints import MAX_PROOF_BYTES
from chaincode.log import root
from chaincode.models import model_digest, read_safetensors
from chaincode.proofs import verify_entry_proof
from chaincode.threads import CORES
from chaincode.trust import FederationKey
from identity.errors import EvidenceError
from identity.wording import counted

_MAX_CARD = 1 << 24


def check_release(draft: Draft, source: Source, replayed: Replay, head: Head, sound: Set[str]) -> None:
    """Claim 9: what lies under ``release/`` is what a release entry says; the contract tied that to a recorded round.

    ``sound`` are artefacts that hold what their names say: the model that is also one of those is not hashed again.
    """
    facts = replayed.facts
    draft.rest(*(released.ref.index for released in facts.releases))
    if not facts.releases:
        draft.summary = "No model has been released."
        draft.lack("a release")
        if replayed.accepted < len(replayed.leaves):
            return  # an entry that could not be applied may have been one
        for name in artefacts.RELEASED:
            if _has(source, name):
                draft.fail("release-unknown", name, "No entry releases a model, yet here is a file of a release.")
        return
    released = _check_model(draft, source, facts, sound)
    _check_card(draft, source, released)
    _check_proof(draft, source, replayed, head, released)
    draft.summary = f"Model {released.model[:12]} of round {released.round}, released by {released.ref}."
    for other in facts.releases:
        if other is not released:
            draft.note(
                f"Model {other.model} of round {other.round} was released too ({other.ref}); its files are not judged here."
            )


def _has(source: Source, name: str) -> bool:
    with suppress(EvidenceError), source.open(name) as data:
        return data is not None
    return True


def _check_model(draft: Draft, source: Source, facts: Facts, sound: Set[str]) -> Released:
    """Judge the model's file; returns the release that it belongs to, the last one where that cannot be told."""
    last, name = facts.releases[-1], artefacts.RELEASED_MODEL
    try:
        with source.open(name) as data:
            if data is None:
                draft.lose(name)
                return last
            digest = _known(source, facts, sound) or model_digest(read_safetensors(data), threads=CORES)
    except EvidenceError as error:
        draft.fail(error.code, name, error.message)
        return last
    found = [released for released in facts.releases if released.model == digest]
    if not found:
        draft.fail(
            "release-model",
            name,
            f"The file holds model {digest}, which no entry releases; {last.ref} releases {last.model}.",
        )
        return last
    return found[-1]


def _known(source: Source, facts: Facts, sound: Set[str]) -> str:
    """The digest of the model that is released, where its file is one whose digest has been verified; else nothing."""
    for released in facts.releases:
        name = artefacts.model(released.model)
        if name in sound and source.are_same(artefacts.RELEASED_MODEL, name):
            return released.model
    return ""


def _check_card(draft: Draft, source: Source, released: Released) -> None:
    name = artefacts.RELEASED_CARD
    try:
        with source.open(name) as data:
            if data is None:
                draft.lose(name)
            elif len(data) > _MAX_CARD:
                draft.fail("release-card", name, f"The card has {len(data)} bytes, more than any card.")
            elif (digest := sha256(data).hexdigest()) != released.card:
                draft.fail(
                    "release-card", name, f"The card's SHA-256 is {digest}; {released.ref} says {released.card}."
                )
    except EvidenceError as error:
        draft.fail(error.code, name, error.message)


def _check_proof(draft: Draft, source: Source, replayed: Replay, head: Head, released: Released) -> None:
    """The proof shows this very release, under a head of this log. On a channel the blocks are the proof."""
    name = artefacts.RELEASED_PROOF
    if head.of_channel:
        if _has(source, name):
            draft.fail(
                "release-proof", name, "A release on a channel is proven by its blocks; here is a proof beside them."
            )
        return
    try:
        with source.open(name) as data:
            if data is None:
                draft.lose(name)
                return
            proof = bytes(data[: MAX_PROOF_BYTES + 1])
        if head.log is None:
            draft.lack("a key to verify the proof with")
            return
        entry, checkpoint = verify_entry_proof(proof, FederationKey(head.log, replayed.facts.federation))
    except EvidenceError as error:
        draft.fail(error.code, name, error.message)
        return
    if entry.id != released.ref.id:
        draft.fail(
            "release-proof", name, f"The proof is of entry {entry.id[:12]} ({entry.kind}), not of {released.ref}."
        )
    size = len(replayed.leaves)
    if checkpoint.size > size or root(replayed.leaves[: checkpoint.size]) != checkpoint.root:
        what = (
            f"The proof's head covers {counted(checkpoint.size, 'entry')} and is not one of this log, which has {size}."
        )
        draft.fail("release-proof-head", name, what)
