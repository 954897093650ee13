# SPDX-License-Identifier: Apache-2.0
"""Founding a simulated federation: constitution, credentials, agreement, signatures. Each step looks at the ledger
first and does what is missing, so that an interrupted founding goes on where it stopped."""

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaincode import state
from chaincode.agreement import MAX_SUM, agreement_digest
from chaincode.author import Author, Clock, demand, read, read_all, submit
from chaincode.entries import make_entry
from chaincode.ledgers import Ledger
from chaincode.state import Federation, Member
from coordinator.jobs import TaskInfo
from identity import credentials, didkit_check
from identity.errors import Rejected
from identity.keys import Identity, Keystore
from ops.federation_file import FederationFile

AUTHORITY, LOG, COORDINATOR = "authority", "log", "coordinator"
DAY = 86_400
ADMISSION_DAYS = 90


@dataclass(frozen=True, slots=True)
class Keys:
    """Every key of a simulation, which one keystore holds: in a real federation each is with its owner."""

    authority: Identity
    log: Identity
    coordinator: Identity
    sites: Mapping[str, Identity]
    secrets: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Admission:
    """A credential that was issued and judged twice: ours and DIDKit's words side by side."""

    who: str
    did: str
    role: str
    ours: str
    theirs: str


def make_keys(path: Path, passphrase: str | None, sites: Sequence[str]) -> Keys:
    """The simulation's keys, made and saved on the first call, opened afterwards.

    Raises:
        CredentialError: ``keystore-*``.
    """
    store = Keystore.open(path, passphrase) if path.exists() else Keystore.create(path, passphrase)
    keys = Keys(
        store.identity(AUTHORITY, create=True), store.identity(LOG, create=True), store.identity(COORDINATOR, create=True),
        {site: store.identity(site, create=True) for site in sites},
        {site: store.secret(f"{site}:salt", create=True) for site in sites},
    )  # fmt: skip
    store.save()
    return keys


@dataclass(frozen=True, slots=True)
class Founder:
    """Founds the federation of a ledger with a simulation's keys."""

    ledger: Ledger
    keys: Keys
    clock: Clock

    def found(self, origin: str, log_key: str | None) -> Federation:
        """The federation of the ledger, founded if there is none.

        Raises:
            Rejected: ``already-founded``: it belongs to other keys.
        """
        authority = self.keys.authority
        federation = read(self.ledger, Federation, state.FEDERATION)
        if federation is None:
            body = {
                "origin": origin,
                "log_key": log_key,
                "authority": [authority.did],
                "cosigners": [],
                "quorum": 0,
                "skew": 60,
            }
            submit(self.ledger, make_entry(
                "found", member=authority.did, at=self.clock(), body=body, signer=authority,
                subjects={"nonce": secrets.token_hex(32)},
            ))  # fmt: skip
            federation = demand(self.ledger, Federation, state.FEDERATION)
        if federation.origin != origin or federation.authority != (authority.did,):
            raise Rejected(
                "already-founded",
                "The ledger belongs to another federation than this run's keys.",
                next="use another --dir",
            )
        return federation

    def admit(self, federation: str, folder: Path, tell: Callable[[Admission], None]) -> None:
        """Issue, judge and record the credentials of the coordinator and the sites that are not members yet.

        Raises:
            CredentialError: one of our or DIDKit's judgements refuses a credential; nobody is admitted then.
        """
        keys, now = self.keys, self.clock()
        wanted = {keys.coordinator.did: (COORDINATOR, "coordinator")}
        wanted |= {identity.did: (site, "participant") for site, identity in keys.sites.items()}
        members = read_all(self.ledger, Member, {did: state.member_key(did) for did in wanted})
        new = {did: wanted[did] for did, member in members.items() if member is None}
        if not new:
            return
        span = {"not_before": now, "not_after": now + ADMISSION_DAYS * DAY}
        tokens = [
            credentials.issue(
                keys.authority,
                subject=did,
                role=role,
                organisation=who,
                federation=federation,
                not_before=span["not_before"],
                not_after=span["not_after"],
            )
            for did, (who, role) in new.items()
        ]
        verdicts = didkit_check.verify_both(tokens, issuers=[keys.authority.did], federation=federation, now=now)
        author, entries = Author(federation, keys.authority.did, keys.authority), []
        for (did, (who, role)), token, verdict in zip(new.items(), tokens, verdicts, strict=True):
            tell(Admission(who, did, role, verdict.ours, verdict.theirs.verdict.replace("-", " ")))
            if verdict.error is not None:
                raise verdict.error
            digest = hashlib.sha256(token.encode()).hexdigest()
            (folder / f"{digest}.jwt").write_text(token)
            body = {"admits": did, "new_did": did, "role": role, "organisation": who, **span}
            entries.append(author.entry("admit", now, body, subjects={"credential": digest}))
        for outcome in self.ledger.submit(entries):
            if isinstance(outcome, Rejected):
                raise outcome


def build_agreement(file: FederationFile, keys: Keys, task: TaskInfo, now: int) -> dict[str, Any]:
    """The agreement that a federation file describes, for the task as the cluster found it."""
    terms, parties = file.agreement, sorted(identity.did for identity in keys.sites.values())
    largest = max(spec.bound for spec in task.specs if spec.rule == "mean")
    return {
        "title": terms.title,
        "purpose": terms.purpose,
        "data_categories": list(terms.data_categories),
        "legal_basis": terms.legal_basis,
        "task": {"name": task.name, "version": task.version, "code": task.code, "seed": file.seed},
        "model": {"initial": task.initial, "encoding": "int32", "tensors": [spec.to_json() for spec in task.specs]},
        "coordinator": keys.coordinator.did,
        "parties": parties,
        "min_participants": terms.min_participants,
        "rounds": file.rounds,
        "attempts": terms.attempts,
        "phases": {
            "commit_seconds": terms.commit_seconds,
            "deliver_seconds": terms.deliver_seconds,
            "record_seconds": terms.record_seconds,
        },
        "max_weight": min(terms.max_weight, MAX_SUM // (len(parties) * largest)),
        "aggregation": {"rule": "mean", "optimiser": terms.optimiser, "parameters": dict(terms.parameters)},
        "privacy": {"mode": "none", "budget": 0},
        "secure_aggregation": {"mode": "none"},
        "share_metrics": terms.share_metrics,
        "attestations": {"next_open": terms.attest_next_open, "release": terms.attest_release},
        "not_before": now,
        "not_after": now + terms.validity_days * DAY,
        "retention_days": terms.retention_days,
        "model_users": list(terms.model_users),
    }


def propose(ledger: Ledger, coordinator: Author, agreement: Mapping[str, Any], clock: Clock) -> str:
    """Propose the agreement; its digest."""
    digest = agreement_digest(agreement)
    body = {"terms": agreement, "continues": None}
    submit(ledger, coordinator.entry(
        "propose", clock(), body, agreement=digest, subjects={"initial-model": agreement["model"]["initial"]}
    ))  # fmt: skip
    return digest
