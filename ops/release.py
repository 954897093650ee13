# SPDX-License-Identifier: Apache-2.0
"""Releasing a recorded model: the card, the entry, and the three files that an outsider needs to verify it.

Everything is derived from the ledger and the signed agreement, so that an interrupted release ends in the same bytes.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from chaincode import state
from chaincode.agreement import agreement_digest
from chaincode.author import Author, Clock, demand, read, submit
from chaincode.entries import Entry, open_entry
from chaincode.files import mapped, write_whole
from chaincode.state import Head, Release, Result
from coordinator.ports import Sites
from identity.wording import counted
from ops.ledger_port import RunLedger
from ops.run_folder import RunFolder


def release(
    ledger: RunLedger,
    folder: RunFolder,
    coordinator: Author,
    agreement: Mapping[str, Any],
    *,
    sites: Sites,
    clock: Clock,
) -> Release:
    """Release the agreement's last recorded model, or complete the files of a release that is on the ledger.

    Raises:
        Rejected: the contract refuses, for example ``attestation-missing``.
    """
    digest = agreement_digest(agreement)
    head = demand(ledger, Head, state.head_key(digest))
    result = demand(ledger, Result, state.result_key(digest, head.round))
    key = state.release_key(digest, head.round)
    card = _card(agreement, open_entry(ledger.entry(result.entry).envelope), _WHOLE if ledger.whole else _PROVEN)
    released = read(ledger, Release, key)
    if released is None:
        needed = agreement["attestations"]["release"]
        attested = list(sites.attest(digest, head.round, needed)) if needed else []
        body = {"round": head.round, "attestations": attested}
        card_digest = hashlib.sha256(card).hexdigest()
        subjects, at = {"model": result.model, "model-card": card_digest}, max(clock(), head.at)
        submit(ledger, coordinator.entry("release", at, body, agreement=digest, subjects=subjects))
        released = demand(ledger, Release, key)
    write_whole(folder.model_card, card)
    with mapped(folder.models / f"{released.model}.safetensors") as model:
        write_whole(folder.model, model)
    if (proof := ledger.prove(released.entry)) is not None:
        write_whole(folder.proof, proof)
    return released


_CARD = """# {title}

| | |
|---|---|
| model | {model} |
| federation | {federation} |
| agreement | {agreement} |
| round | {round} of {rounds} |
| task | {task}, code {code} |
| examples in the last round | {examples} |

## Purpose and terms

{purpose}

- Legal basis: {legal_basis}
- Data categories: {data_categories}
- May be used by: {model_users}
- Retention of the evidence: {retention}

## Held-out metrics of the recorded round

| metric | value |
|---|---|
{metrics}

## The last round

Included:

{included}

Omitted:

{omitted}

## Verify

{verify}
that you had from the federation, not with the model.
"""
_PROVEN = (
    "`fedledger verify model.safetensors --key federation.vkey`, with `model.proof` beside the model and a key file"
)
_WHOLE = (
    "`fedledger audit verify BUNDLE --key federation.vkey`, with the exported evidence of the federation and a key file"
)


def _card(agreement: Mapping[str, Any], record: Entry, verify: str) -> bytes:
    """The model card: what it is for, under which terms, how good it was, and how to verify it."""
    task, body = agreement["task"], record.body
    return _CARD.format(
        title=agreement["title"], model=record.subjects["model"], federation=record.federation, agreement=record.agreement,
        round=body["round"], rounds=agreement["rounds"], task=f"{task['name']} {task['version']}", code=task["code"],
        examples=body["examples"], purpose=agreement["purpose"], legal_basis=agreement["legal_basis"],
        data_categories="; ".join(agreement["data_categories"]), model_users="; ".join(agreement["model_users"]),
        retention=counted(agreement["retention_days"], "day"), verify=verify,
        metrics="\n".join(f"| {name} | {value} |" for name, value in sorted(body["metrics"].items())) or "| none | |",
        included="\n".join(f"- {member}" for member in body["included"]),
        omitted="\n".join(f"- {item['member']}: {item['reason']}" for item in body["omitted"]) or "- nobody",
    ).encode()  # fmt: skip
