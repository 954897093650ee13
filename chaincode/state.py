# SPDX-License-Identifier: Apache-2.0
"""The ledger's state: the name of every key, and the frozen value that it holds (FORMAT.md, section 5).

One fact, one writer at a time: a commitment writes its own seat and nothing that another site writes.
A value is stored as canonical JSON, so that every host holds the same bytes.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from chaincode.values import Codec

FEDERATION = "federation"


def entry_key(entry: str) -> str:
    """Says that an entry is in; ``entry`` is its id."""
    return f"entry/{entry}"


def member_key(member: str) -> str:
    """Standing of a member, which is named by the DID that it was admitted under."""
    return f"member/{member}"


def did_key(did: str) -> str:
    """The one member that a DID belongs to, for ever."""
    return f"did/{did}"


def terms_key(agreement: str) -> str:
    """The agreement's checked terms."""
    return f"terms/{agreement}"


def party_key(agreement: str, member: str) -> str:
    """Whether a party has signed."""
    return f"party/{agreement}/{member}"


def head_key(agreement: str) -> str:
    """Where the agreement's rounds stand."""
    return f"head/{agreement}"


def seat_key(agreement: str, round_: int, attempt: int, member: str) -> str:
    """One site's place in one attempt of one round."""
    return f"seat/{agreement}/{round_}/{attempt}/{member}"


def result_key(agreement: str, round_: int) -> str:
    """A recorded round's digests."""
    return f"result/{agreement}/{round_}"


def release_key(agreement: str, round_: int) -> str:
    """A released model's digests."""
    return f"release/{agreement}/{round_}"


def attest_key(agreement: str, round_: int, member: str) -> str:
    """A member's verdict on a recorded round."""
    return f"attest/{agreement}/{round_}/{member}"


@dataclass(frozen=True, slots=True)
class Present:
    """An entry is in."""

    kind: str


@dataclass(frozen=True, slots=True)
class Federation:
    """The federation's constitution. ``skew`` in seconds; ``log_key`` empty where the ledger signs no log."""

    id: str
    origin: str
    authority: tuple[str, ...]
    log_key: str
    cosigners: tuple[str, ...]
    quorum: int
    skew: int


@dataclass(frozen=True, slots=True)
class Member:
    """A member: ``did`` is the one in force, ``credential`` the digest of the one it was admitted with."""

    state: str
    role: str
    organisation: str
    did: str
    credential: str
    not_before: int
    not_after: int


@dataclass(frozen=True, slots=True)
class DidOwner:
    """The member that owns a DID."""

    member: str


@dataclass(frozen=True, slots=True)
class Terms:
    """The agreement's terms without its lists; ``parties`` is their number. Immutable.

    ``largest`` is the largest absolute encoded value, ``width`` the bytes of one, ``elements`` their number;
    ``optimiser_layout`` names the optimiser states that fit (``agreement.optimiser_layout``), empty for an optimiser without.
    """

    coordinator: str
    parties: int
    min_participants: int
    rounds: int
    attempts: int
    commit_seconds: int
    deliver_seconds: int
    record_seconds: int
    max_weight: int
    largest: int
    elements: int
    width: int
    share_metrics: bool
    attest_next_open: int
    attest_release: int
    budget: int
    not_before: int
    not_after: int
    optimiser_layout: str = ""


@dataclass(frozen=True, slots=True)
class Party:
    """A party of an agreement: proposed, signed or withdrawn."""

    state: str


@dataclass(frozen=True, slots=True)
class Head:
    """Where the rounds of an agreement stand.

    ``at`` is the time of the last entry that moved the head and ``entry`` its id; ``base`` the model that the next
    round starts from and ``optimiser`` its state's digest (empty for none); ``roster`` and ``cohort`` are numbers
    of seats; ``weight`` the cohort's sum of examples; times are UTC seconds; ``reserved`` and ``spent`` are privacy budget.
    """

    state: str
    round: int
    attempt: int
    at: int
    entry: str
    base: str
    optimiser: str
    roster: int = 0
    cohort: int = 0
    weight: int = 0
    opened_at: int = 0
    commit_by: int = 0
    deliver_by: int = 0
    reserved: int = 0
    spent: int = 0


class Seat(NamedTuple):  # there are as many as commitments, and a tuple costs least to make, and the collector nothing
    """One site's place in an attempt: open, committed, declined, in or out.

    ``update``, ``size`` (bytes) and ``examples`` (its weight) are the commitment's; ``reason`` says why it is out or
    declined; ``claim`` is empty, bare or receipt.
    """

    state: str
    update: str = ""
    size: int = 0
    examples: int = 0
    reason: str = ""
    claim: str = ""

    def moved(self, state: str, reason: str = "") -> "Seat":
        """The same seat after a transition that its commitment outlasts."""
        return Seat(state, self.update, self.size, self.examples, reason or self.reason, self.claim)


@dataclass(frozen=True, slots=True)
class Result:
    """A recorded round: digests of the integer sum, the new model and the optimiser's state (empty for none).

    ``contested`` counts the omitted updates whose site says that it delivered them, with a receipt or without.
    """

    entry: str
    attempt: int
    sum: str
    model: str
    optimiser: str
    weight: int
    included: int
    omitted: int
    contested: int


@dataclass(frozen=True, slots=True)
class Release:
    """A released model."""

    entry: str
    model: str
    card: str


@dataclass(frozen=True, slots=True)
class Attestation:
    """A member's verdict on a result: agrees or disputes."""

    verdict: str


Value = TypeVar("Value")


def encode(value: Any) -> bytes:
    """A state value's canonical bytes."""
    return _CODECS[type(value)].encode(value)


def decode(cls: type[Value], data: bytes) -> Value:
    """The state value that ``encode`` wrote.

    Raises:
        EvidenceError: ``state-malformed`` for bytes that are not such a value.
    """
    value: Value = _CODECS[cls].decode(data)
    return value


_CLASSES = (Present, Federation, Member, DidOwner, Terms, Party, Head, Seat, Result, Release, Attestation)
_CODECS: dict[type[Any], Codec] = {cls: Codec(cls) for cls in _CLASSES}
