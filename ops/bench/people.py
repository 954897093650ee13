# SPDX-License-Identifier: Apache-2.0
"""The people of a benchmark's federation, and the entries that each of them signs: no ledger, no clock, no training."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from chaincode.author import Author
from chaincode.entries import make_entry, open_entry
from identity import credentials
from identity.keys import Identity, identity_from_seed

START = 1_793_491_200  # 2026-11-01T00:00:00Z, when every benchmark's federation is founded
VALIDITY = 90 * 86_400  # the longest that a credential may hold
SKEW = 3600
"""Seconds: a whole batch of generated rounds lies within it."""
COMMIT, DELIVER, RECORD = 60, 30, 60


def digest(*parts: object) -> str:
    """A SHA-256 in place of bytes that a benchmark of the ledger alone does not have."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class People:
    """The authority, the log, the coordinator, and the sites in the order of their names."""

    authority: Identity
    log: Identity
    coordinator: Identity
    sites: tuple[Identity, ...]

    @property
    def parties(self) -> list[str]:
        """The sites as an agreement lists them."""
        return sorted(site.did for site in self.sites)


@lru_cache(maxsize=4)
def people(count: int) -> People:
    """The same people each time: keys that follow from their names, which a benchmark may have and nobody else."""

    def key(name: str) -> Identity:
        return identity_from_seed(hashlib.sha256(f"fedledger benchmark {name}".encode()).digest())

    sites = tuple(key(f"site {number}") for number in range(count))
    return People(key("authority"), key("log"), key("coordinator"), sites)


def found(who: People, origin: str, log_key: str) -> bytes:
    """The founding entry; its id is the federation's."""
    body = {
        "origin": origin, "log_key": log_key, "authority": [who.authority.did], "cosigners": [], "quorum": 0, "skew": SKEW,
    }  # fmt: skip
    return make_entry("found", member=who.authority.did, at=START, body=body, signer=who.authority,
                      subjects={"nonce": digest("nonce")})  # fmt: skip


def admissions(who: People, federation: str) -> list[tuple[str, bytes]]:
    """The credential (a JWT) and the admission of the coordinator and of each site."""
    author = Author(federation, who.authority.did, who.authority)
    span = {"not_before": START, "not_after": START + VALIDITY}
    named = [("coordinator", "coordinator", who.coordinator)]
    named += [(f"site-{number:05}", "participant", site) for number, site in enumerate(who.sites, 1)]
    made = []
    for name, role, identity in named:
        token = credentials.issue(
            who.authority, subject=identity.did, role=role, organisation=name, federation=federation,
            not_before=span["not_before"], not_after=span["not_after"],
        )  # fmt: skip
        body = {"admits": identity.did, "new_did": identity.did, "role": role, "organisation": name, **span}
        subjects = {"credential": hashlib.sha256(token.encode()).hexdigest()}
        made.append((token, author.entry("admit", START, body, subjects=subjects)))
    return made


def terms(who: People, title: str, initial: str, rounds: int, tensors: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """An agreement of these people about a model of float32 tensors, averaged."""
    return {
        "title": title, "purpose": "To measure what a ledger costs", "data_categories": ["synthetic"],
        "legal_basis": "None is needed for synthetic data", "coordinator": who.coordinator.did, "parties": who.parties,
        "task": {"name": "benchmark", "version": "1", "code": digest("code"), "seed": 7},
        "model": {"initial": initial, "encoding": "int32", "tensors": [dict(tensor) for tensor in tensors]},
        "min_participants": 1, "rounds": rounds, "attempts": 3,
        "phases": {"commit_seconds": COMMIT, "deliver_seconds": DELIVER, "record_seconds": RECORD},
        "max_weight": 1000, "aggregation": {"rule": "mean", "optimiser": "avg", "parameters": {"learning_rate": "1"}},
        "privacy": {"mode": "none", "budget": 0}, "secure_aggregation": {"mode": "none"}, "share_metrics": True,
        "attestations": {"next_open": 0, "release": 0}, "not_before": START, "not_after": START + VALIDITY,
        "retention_days": 365, "model_users": ["the parties of this agreement"],
    }  # fmt: skip


def tensor(name: str, shape: Sequence[int]) -> dict[str, Any]:
    """An agreement's tensor with the scale that parameters have."""
    return {
        "name": name, "shape": list(shape), "dtype": "float32", "rule": "mean", "clip_exponent": 4, "fraction_bits": 24,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signing:
    """What the parties of one agreement sign. ``agreement`` is its digest; the times are UTC seconds."""

    who: People
    federation: str
    agreement: str

    def _author(self, identity: Identity) -> Author:
        return Author(self.federation, identity.did, identity)

    def propose(self, at: int, agreed: Mapping[str, Any]) -> bytes:
        subjects = {"initial-model": agreed["model"]["initial"]}
        return self._author(self.who.coordinator).entry(
            "propose", at, {"terms": agreed, "continues": None}, agreement=self.agreement, subjects=subjects
        )

    def sign(self, at: int, site: Identity) -> bytes:
        return self._author(site).entry("sign", at, {}, agreement=self.agreement)

    def open(self, at: int, round_: int, base: str) -> bytes:
        body = {
            "round": round_, "attempt": 1, "commit_by": at + COMMIT, "reservation": 0, "roster": self.who.parties,
            "absent": [], "attestations": [],
        }  # fmt: skip
        return self._coordinate("open", at, body, {"base-model": base})

    def commit(self, at: int, round_: int, site: Identity, update: str, size: int) -> bytes:
        body = {"round": round_, "attempt": 1, "size": size, "examples": 10, "metrics": {"loss": "0.6931"}}
        return self._author(site).entry("commit", at, body, agreement=self.agreement, subjects={"update": update})

    def seal(self, at: int, round_: int) -> bytes:
        body = {"round": round_, "attempt": 1, "deliver_by": at + DELIVER, "cohort": self.who.parties, "out": []}
        return self._coordinate("seal", at, body, {})

    def record(self, at: int, round_: int, sum_: str, model: str) -> bytes:
        body = {
            "round": round_, "attempt": 1, "included": self.who.parties, "omitted": [],
            "examples": 10 * len(self.who.sites), "metrics": {"accuracy": "0.95"},
        }  # fmt: skip
        return self._coordinate("record", at, body, {"sum": sum_, "model": model})

    def release(self, at: int, round_: int, model: str, card: str) -> bytes:
        return self._coordinate(
            "release", at, {"round": round_, "attestations": []}, {"model": model, "model-card": card}
        )

    def _coordinate(self, kind: str, at: int, body: Mapping[str, Any], subjects: Mapping[str, str]) -> bytes:
        return self._author(self.who.coordinator).entry(kind, at, body, agreement=self.agreement, subjects=subjects)


def federation_id(founding: bytes) -> str:
    """The id of the federation that an entry founds."""
    return open_entry(founding).id
