# SPDX-License-Identifier: Apache-2.0
"""What a world remembers: keys, state, accepted entries and the time; and how an entry gets in."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from typing import Any, Self, TypeVar

from chaincode import contract, state
from chaincode.entries import Entry, make_entry, open_entry
from chaincode.kinds import KINDS
from identity.keys import Identity, identity_from_seed

NOW = 1_800_000_000
Who = int | str
Value = TypeVar("Value")


@lru_cache(maxsize=4096)
def key(label: str, seed: int = 0) -> Identity:
    """The identity that a label stands for: the same key in every run."""
    return identity_from_seed(sha256(f"fedledger test key {seed} {label}".encode()).digest())


def label(who: Who) -> str:
    """A site's name by its number; everybody else is named already."""
    return f"site-{who:02d}" if isinstance(who, int) else who


class Memory:
    """A dict for the state, a list for the log, a number for the clock."""

    def __init__(self, participants: int = 3, *, seed: int = 0, now: int = NOW, policy: dict[str, Any] | None = None,
                 **terms: Any) -> None:  # fmt: skip
        self.seed, self.now, self.policy, self.changes = seed, now, policy or {}, terms
        self.sites = list(range(1, participants + 1))
        self.values: dict[str, bytes] = {}
        self.entries: list[Entry] = []
        self.federation = ""
        self.agreement: dict[str, Any] = {}
        self.digest = ""
        self._keys = {
            name: [key(name, seed)] for name in ("authority", "coordinator", "auditor", *map(label, self.sites))
        }

    def fork(self) -> Self:
        """A copy that goes its own way."""
        other = type(self).__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.values, other.entries = dict(self.values), list(self.entries)
        other._keys = {name: list(keys) for name, keys in self._keys.items()}
        return other

    # Looking

    @property
    def envelopes(self) -> list[bytes]:
        """The accepted entries' bytes, in order."""
        return [entry.envelope for entry in self.entries]

    def keys(self, who: Who) -> list[Identity]:
        """All keys that someone has had; the last is in force."""
        return self._keys.setdefault(label(who), [key(label(who), self.seed)])

    def name(self, who: Who) -> str:
        """A member's name on the ledger: its first DID. A DID names itself."""
        return who if isinstance(who, str) and who.startswith("did:") else self.keys(who)[0].did

    def names(self, *who: Who) -> list[str]:
        """Members' names in the order that lists have on the ledger."""
        return sorted(self.name(w) for w in who)

    def get(self, cls: type[Value], at: str) -> Value:
        """The state's value under a key; KeyError where there is none."""
        return state.decode(cls, self.values[at])

    @property
    def head(self) -> state.Head:
        return self.get(state.Head, state.head_key(self.digest))

    @property
    def terms(self) -> state.Terms:
        return self.get(state.Terms, state.terms_key(self.digest))

    def member(self, who: Who) -> state.Member:
        return self.get(state.Member, state.member_key(self.name(who)))

    def party(self, who: Who) -> state.Party:
        return self.get(state.Party, state.party_key(self.digest, self.name(who)))

    def seat(self, who: Who) -> state.Seat:
        """Its seat in the head's attempt."""
        return self.get(state.Seat, state.seat_key(self.digest, self.head.round, self.head.attempt, self.name(who)))

    def result(self, round_: int = 0) -> state.Result:
        """The result of a round, the head's if none is named."""
        return self.get(state.Result, state.result_key(self.digest, round_ or self.head.round))

    # Time and bytes

    def wait(self, seconds: int) -> Self:
        self.now += seconds
        return self

    def until(self, at: int) -> Self:
        self.now = at
        return self

    def submit(self, *envelopes: bytes) -> Self:
        """Take envelopes through the door and the contract; the first refused one raises and changes nothing."""
        for envelope in envelopes:
            entry = open_entry(envelope)
            values = {name: self.values.get(name) for name in contract.keys(entry)}
            (refused,), writes = contract.apply_all([entry], values)
            if refused:
                raise refused
            self.values.update(writes)
            self.entries.append(entry)
            if entry.kind == "found":
                self.federation = entry.id
            elif entry.kind == "propose":
                self.agreement, self.digest = dict(entry.body["terms"]), entry.agreement
        return self

    def make(self, kind: str, who: Who, fields: dict[str, Any], changes: dict[str, Any]) -> bytes:
        """The signed envelope of an entry by someone: ``fields`` and, over them, ``changes``."""
        shape = KINDS[kind]
        given = {"federation": self.federation, "agreement": self.digest, **fields, **changes}
        author = given.pop("by", who)
        at, member = given.pop("at", self.now), given.pop("member", self.name(author))
        signer = given.pop("signer", self.keys(author)[-1])
        subjects = {name: given.pop(name.replace("-", "_"), None) for name in (*shape.subjects, *shape.optional)}
        body = {name: value for name, value in given.items() if name not in ("federation", "agreement")}
        return make_entry(
            kind,
            member=member,
            at=at,
            body=body,
            signer=signer,
            subjects={n: d for n, d in subjects.items() if d is not None},
        )
