# SPDX-License-Identifier: Apache-2.0
"""Releasing a recorded model: the card, the entry, and the three files that an outsider needs to verify it.

Everything is derived from the ledger and the signed agreement, so that an interrupted release ends in the same bytes.
"""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chaincode import state
from chaincode.agreement import agreement_digest
from chaincode.author import Author, Clock, demand, read, submit
from chaincode.entries import Entry, open_entry
from chaincode.files import replacing
from chaincode.ledgers.sqlite import SqliteLedger
from chaincode.proofs import make_entry_proof
from chaincode.state import Head, Release, Result
from ops.run_folder import RunFolder


def release(
    ledger: SqliteLedger, folder: RunFolder, coordinator: Author, agreement: Mapping[str, Any], *, clock: Clock
) -> Release:
    """Release the agreement's last recorded model, or complete the files of a release that is on the ledger.

    Raises:
        Rejected: the contract refuses, for example ``attestation-missing``.
    """
    digest = agreement_digest(agreement)
    head = demand(ledger, Head, state.head_key(digest))
    result = demand(ledger, Result, state.result_key(digest, head.round))
    key = state.release_key(digest, head.round)
    card = _card(agreement, digest, head.round, result, coordinator.federation, open_entry(ledger.entry(result.entry).envelope))
    released = read(ledger, Release, key)
    if released is None:
        body = {"round": head.round, "attestations": _attestations(ledger, agreement, digest, head.round)}
        card_digest = hashlib.sha256(card).hexdigest()
        at = max(clock(), head.at)
        submit(ledger, coordinator.entry("release", at, body, agreement=digest, model=result.model, model_card=card_digest))
        released = demand(ledger, Release, key)
    _write(folder.model_card, card)
    shutil.copyfile(folder.models / f"{released.model}.safetensors", folder.model)
    _write(folder.proof, make_entry_proof(ledger, ledger.entry(released.entry).index).encode())
    return released


def _attestations(ledger: SqliteLedger, agreement: Mapping[str, Any], digest: str, round_: int) -> list[str]:
    """The parties that attested the round, as many as the agreement asks for."""
    needed = agreement["attestations"]["release"]
    keys = {m: state.attest_key(digest, round_, m) for m in agreement["parties"]} if needed else {}
    values = ledger.get(list(keys.values()))
    agreeing = [m for m, key in keys.items() if (v := values[key]) and state.decode(state.Attestation, v).verdict == "agrees"]
    return sorted(agreeing)


def _write(path: Path, data: bytes) -> None:
    with replacing(path, fsync=True) as file:
        file.write(data)


def _card(
    agreement: Mapping[str, Any], digest: str, round_: int, result: Result, federation: str, record: Entry
) -> bytes:
    """The model card: what it is for, under which terms, how good it was, and how to verify it."""
    omitted = "".join(f"\n- {item['member']}: {item['reason']}" for item in record.body["omitted"]) or "\n- none"
    included = "".join(f"\n- {member}" for member in record.body["included"])
    metrics = "".join(f"\n| {name} | {value} |" for name, value in sorted(record.body["metrics"].items()))
    task = agreement["task"]
    return f"""# {agreement["title"]}

| | |
|---|---|
| model | {result.model} |
| federation | {federation} |
| agreement | {digest} |
| round | {round_} of {agreement["rounds"]} |
| task | {task["name"]} {task["version"]}, code {task["code"]} |
| examples in the last round | {result.weight} |

## Purpose and terms

{agreement["purpose"]}

- Legal basis: {agreement["legal_basis"]}
- Data categories: {"; ".join(agreement["data_categories"])}
- May be used by: {"; ".join(agreement["model_users"])}
- Retention of the evidence: {agreement["retention_days"]} days

## Held-out metrics of the recorded round

| metric | value |
|---|---|{metrics}

## Members whose updates the last round includes
{included}

Omitted from the last round:
{omitted}

## Verify

`fedledger verify model.safetensors --key federation.vkey`, with `model.proof` beside the model and a key file
that you had from the federation, not with the model.
""".encode()
