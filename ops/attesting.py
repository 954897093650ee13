# SPDX-License-Identifier: Apache-2.0
"""Recomputing a recorded round from a run folder: what a site does before it attests."""

from contextlib import ExitStack

from chaincode import state
from chaincode.agreement import agreement_digest
from chaincode.author import demand
from chaincode.blobs import BlobStore
from chaincode.entries import Entry, open_entry
from chaincode.evidence import Commitment, verify_update
from chaincode.files import mapped
from chaincode.models import read_safetensors
from chaincode.recompute import load_state, recompute_result
from chaincode.state import Result, Seat, Terms
from ops.ledger_port import RunLedger
from ops.run_folder import RunFolder


def recompute_round(ledger: RunLedger, folder: RunFolder, proposal: Entry, round_: int) -> tuple[str, str]:
    """The digests of the sum and of the model of a recorded round, from its agreement, base model and updates.

    Raises:
        EvidenceError: an update or the base model is missing or is not what the ledger says.
    """
    agreement = proposal.body["terms"]
    digest = agreement_digest(agreement)
    terms = demand(ledger, Terms, state.terms_key(digest))
    result = demand(ledger, Result, state.result_key(digest, round_))
    record = open_entry(ledger.entry(result.entry).envelope)
    base, optimiser = _start(ledger, digest, agreement["model"]["initial"], round_)
    blobs = BlobStore(folder.blobs)
    with ExitStack() as stack:
        updates = []
        for member in record.body["included"]:
            seat = demand(ledger, Seat, state.seat_key(digest, round_, result.attempt, member))
            commitment = Commitment(
                federation=proposal.federation, agreement=digest, round=round_, attempt=result.attempt, base=base,
                member=member, digest=seat.update, size=seat.size, weight=seat.examples,
                encoding=agreement["model"]["encoding"], elements=terms.elements,
            )  # fmt: skip
            updates.append(verify_update(commitment, stack.enter_context(blobs.open(seat.update))))
        model = read_safetensors(stack.enter_context(mapped(folder.models / f"{base}.safetensors")))
        before = load_state(agreement, stack.enter_context(blobs.open(optimiser))) if optimiser else None
        again = recompute_result(agreement, model, updates, before)
    return again.sum, again.model_digest


def _start(ledger: RunLedger, agreement: str, initial: str, round_: int) -> tuple[str, str]:
    """The digests of the model and of the optimiser's state that a round started from."""
    if round_ == 1:
        return initial, ""
    before = demand(ledger, Result, state.result_key(agreement, round_ - 1))
    return before.model, before.optimiser
