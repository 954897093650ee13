# SPDX-License-Identifier: Apache-2.0
"""What the round driver asks of the cluster that aggregates, and of the sites."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from chaincode.evidence import Commitment
from chaincode.place import Place


@dataclass(frozen=True, slots=True)
class Delivery:
    """Bytes that a site delivered after the seal: the ledger's commitment, and where what is checked against it lies."""

    commitment: Commitment
    place: Place


UNKNOWN_BYTES = frozenset({"update-missing", "update-size", "update-digest"})
"""Verdicts on bytes that are not what was committed to; all others are the author's, and kept as evidence."""


class PartialSum(Protocol):
    """Verified updates that have been summed, held inside the cluster.

    ``verdicts`` names every delivered member: an empty code where its update is in the sum, otherwise the
    ``EvidenceError`` code that keeps it out (for example ``update-digest``).
    """

    @property
    def verdicts(self) -> Mapping[str, str]: ...
    @property
    def outcome(self) -> "Outcome | None":
        """What finishing this sum alone gives, where that has been done already."""
        ...


@dataclass(frozen=True, slots=True)
class FinishOrder:
    """Make the new model: ``agreement`` is the signed agreement, ``base`` and ``optimiser`` the digests that the round
    started from (``optimiser`` is empty for a fresh or stateless one), ``weight`` the included examples in all."""

    agreement: Mapping[str, Any]
    round: int
    base: str
    optimiser: str
    weight: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The round's artefacts, all written to the run's stores: digests, held-out metrics as decimal strings, and the
    digest of the evaluation set (empty where the task has none)."""

    sum: str
    model: str
    optimiser: str
    metrics: Mapping[str, str]
    evaluation: str

    @property
    def subjects(self) -> dict[str, str]:
        """The digests that there are, under the names that a record gives them."""
        named = {
            "sum": self.sum,
            "model": self.model,
            "optimiser-state": self.optimiser,
            "evaluation-set": self.evaluation,
        }
        return {name: digest for name, digest in named.items() if digest}


class Aggregator(Protocol):
    """Verifies and sums committed updates; the only code of a round that touches their values."""

    def sum(
        self, deliveries: Sequence[Delivery], order: "FinishOrder | None" = None, *, seconds: float = math.inf
    ) -> PartialSum:
        """Check each delivery against its commitment and sum those that pass. Verified bytes that lie in packs are in
        the run's blob store when this returns; those in files of their own are the caller's to move there.

        ``order`` is what ``finish`` will be asked for if all of them pass, where that is known: a small round may be
        finished at once. No part of it takes more than ``seconds``. Raises EvidenceError, Unavailable
        (``aggregation-timeout``); with an order as ``finish``.
        """
        ...

    def finish(self, order: FinishOrder, sums: Sequence[PartialSum], *, seconds: float = math.inf) -> Outcome:
        """Add the partial sums, apply the server optimiser, store and evaluate the new model, each in ``seconds`` at most.

        Raises EvidenceError, UsageError (``task-evaluation``), Unavailable (``aggregation-timeout``).
        """
        ...


@dataclass(frozen=True, slots=True)
class SignedAnswer:
    """What a site has signed in an open round, for whoever submits it: ``seat`` is its seat's state if that is accepted,
    ``kind`` and ``facts`` (``site``, its name, among them) are for whoever watches."""

    member: str
    seat: str
    kind: str
    facts: Mapping[str, Any]
    envelope: bytes


class Sites(Protocol):
    """The sites, as the round driver meets them: in a simulation they are agents in this process, across a network it
    waits for their entries and bytes."""

    def train(self, agreement: str, until: int) -> Iterator[Sequence[SignedAnswer]]:
        """Let the roster's sites act on the open round; yields what they have signed, as it comes, for the driver to submit.

        Ends when each has committed, declined or fallen silent, at the latest at the UTC second ``until``. What a site
        submits itself is on the ledger, and not yielded.
        """
        ...

    def deliver(self, agreement: str, members: Sequence[str]) -> Mapping[str, Place]:
        """Where the bytes are of what these members deliver of the sealed round; a silent one is missing."""
        ...

    def attest(self, agreement: str, round_: int, needed: int) -> Sequence[str]:
        """Let sites recompute a recorded round until ``needed`` of them have attested it; those that agree, in order."""
        ...

    def settled(self, agreement: str) -> None:
        """The round has been recorded or given up: sites may clear what they kept for it."""
        ...
