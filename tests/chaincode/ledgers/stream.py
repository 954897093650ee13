# SPDX-License-Identifier: Apache-2.0
"""A federation that writes entries: founding, admissions, an agreement, and rounds of commitments. No ledger in it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

from chaincode.agreement import agreement_digest
from chaincode.entries import make_entry, open_entry
from chaincode.notes import format_vkey
from identity.did import public_key_from_did
from identity.keys import Identity, identity_from_seed

ORIGIN = "fedledger.example/test"
START = 1_780_000_000
ELEMENTS = 4


def person(name: str) -> Identity:
    """The identity that a name stands for in all tests."""
    return identity_from_seed(sha256(name.encode()).digest())


def digest(*parts: object) -> str:
    """A digest of no particular bytes."""
    return sha256(repr(parts).encode()).hexdigest()


LOG = person("log")
LOG_KEY = public_key_from_did(LOG.did)
VKEY = format_vkey(ORIGIN, LOG_KEY)


@dataclass
class Stream:
    """Entries of one federation with `sites` members, in an order that the contract accepts, at `at`.

    `origin` and `log_key` are what its founding states of the log.
    """

    sites: int = 3
    rounds: int = 1000
    at: int = START
    origin: str = ORIGIN
    log_key: str | None = VKEY
    authority: Identity = field(default_factory=lambda: person("authority"))
    coordinator: Identity = field(default_factory=lambda: person("coordinator"))

    @cached_property
    def members(self) -> list[Identity]:
        return sorted((person(f"site {i}") for i in range(self.sites)), key=lambda s: s.did)

    @cached_property
    def found(self) -> bytes:
        policy = {"authority": [self.authority.did], "cosigners": [], "quorum": 0, "skew": 60}
        body = {"origin": self.origin, "log_key": self.log_key, **policy}
        return self.entry("found", self.authority, {"nonce": digest("nonce")}, body)

    @cached_property
    def federation(self) -> str:
        return open_entry(self.found).id

    @cached_property
    def agreement(self) -> dict[str, Any]:
        tensor = {"name": "w", "shape": [ELEMENTS], "dtype": "float32", "rule": "mean"}
        return {
            "title": "Test", "purpose": "Testing", "data_categories": ["none"], "legal_basis": "none",
            "task": {"name": "test", "version": "1", "code": digest("code"), "seed": 1},
            "model": {"initial": digest("model", 0), "encoding": "int32",
                      "tensors": [{**tensor, "clip_exponent": 3, "fraction_bits": 16}]},
            "coordinator": self.coordinator.did, "parties": [m.did for m in self.members],
            "min_participants": 1, "rounds": self.rounds, "attempts": 3,
            "phases": {"commit_seconds": 3600, "deliver_seconds": 3600, "record_seconds": 3600},
            "max_weight": 1000, "aggregation": {"rule": "mean", "optimiser": "avg",
                                                "parameters": {"learning_rate": "1"}},
            "privacy": {"mode": "none", "budget": 0}, "secure_aggregation": {"mode": "none"}, "share_metrics": False,
            "attestations": {"next_open": 0, "release": 0}, "not_before": self.at - 1000,
            "not_after": self.at + 10_000_000, "retention_days": 1, "model_users": ["anyone"],
        }  # fmt: skip

    def entry(
        self, kind: str, author: Identity, subjects: dict[str, str], body: dict[str, Any], at: int | None = None
    ) -> bytes:
        """One signed entry of the federation; `found` alone carries no federation."""
        where = {} if kind == "found" else {"federation": self.federation}
        time = self.at if at is None else at
        return make_entry(kind, member=author.did, at=time, subjects={**where, **subjects}, body=body, signer=author)

    def admit(self, who: Identity, role: str = "participant", at: int | None = None) -> bytes:
        return self.entry("admit", self.authority, {"credential": digest("credential", who.did)}, {
            "admits": who.did, "new_did": who.did, "role": role, "organisation": "Test",
            "not_before": self.at - 86_400, "not_after": self.at + 80 * 86_400,
        }, at)  # fmt: skip

    def in_agreement(
        self, kind: str, author: Identity, body: dict[str, Any] | None = None, at: int | None = None, **subjects: str
    ) -> bytes:
        """An entry of the agreement; `base_model` and the like become `base-model`."""
        named = {name.replace("_", "-"): value for name, value in subjects.items()}
        return self.entry(kind, author, {"agreement": agreement_digest(self.agreement), **named}, body or {}, at)

    def commit(self, who: Identity, round_: int, *, update: str = "", at: int | None = None) -> bytes:
        body = {"round": round_, "attempt": 1, "size": ELEMENTS * 4 + 100, "examples": 10, "metrics": None}
        return self.in_agreement("commit", who, body, at, update=update or digest("update", who.did, round_))

    def open(self, round_: int) -> bytes:
        body = {
            "round": round_, "attempt": 1, "commit_by": self.at + 3600, "reservation": 0,
            "roster": self.agreement["parties"], "absent": [], "attestations": [],
        }  # fmt: skip
        return self.in_agreement("open", self.coordinator, body, base_model=digest("model", round_ - 1))

    def seal(self, round_: int) -> bytes:
        body = {
            "round": round_, "attempt": 1, "deliver_by": self.at + 3600, "cohort": self.agreement["parties"], "out": []
        }  # fmt: skip
        return self.in_agreement("seal", self.coordinator, body)

    def record(self, round_: int) -> bytes:
        body = {
            "round": round_, "attempt": 1, "included": self.agreement["parties"], "omitted": [],
            "examples": 10 * self.sites, "metrics": {},
        }  # fmt: skip
        total, model = digest("sum", round_), digest("model", round_)
        return self.in_agreement("record", self.coordinator, body, sum=total, model=model)

    def setup(self) -> Iterator[bytes]:
        """The entries up to where the first round can be opened."""
        yield self.found
        yield self.admit(self.coordinator, "coordinator")
        for member in self.members:
            yield self.admit(member)
        body = {"terms": self.agreement, "continues": None}
        yield self.in_agreement("propose", self.coordinator, body, initial_model=self.agreement["model"]["initial"])
        for member in self.members:
            yield self.in_agreement("sign", member)

    def round(self, round_: int) -> Iterator[bytes]:
        """The entries of one whole round."""
        yield self.open(round_)
        for member in self.members:
            yield self.commit(member, round_)
        yield self.seal(round_)
        yield self.record(round_)

    def whole(self, rounds: int) -> list[bytes]:
        """The entries of the setup and of the first `rounds` rounds."""
        return [*self.setup(), *(entry for n in range(rounds) for entry in self.round(n + 1))]
