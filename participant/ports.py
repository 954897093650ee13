# SPDX-License-Identifier: Apache-2.0
"""What an agent asks of the processes that train, and what they answer.

An order holds nothing secret but the blob's salt: no key, no passphrase, no path to one. Whoever carries out an
order never signs (R6).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from chaincode.header import Header


@dataclass(frozen=True, slots=True)
class TrainOrder:
    """Train at ``site`` from the base model that ``header`` names and write the blob to ``outbox``/<digest>.

    ``site`` is the site's name in the federation file and ``seed`` the agreement's: training depends on these,
    the round and the base model only, never on a DID or an attempt, so that a restart trains the same update.
    """

    site: str
    seed: int
    header: Header
    outbox: str


@dataclass(frozen=True)  # no slots: its fields are taken by ``vars``, where it is sent
class TrainResult:
    """An encoded update that lies in the site's outbox. ``metrics`` are decimal strings, ``size`` bytes."""

    site: str
    member: str
    digest: str
    size: int
    examples: int
    metrics: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TrainFailure:
    """Training did not give an update: a stable code and the cause in words."""

    site: str
    member: str
    code: str
    message: str


Answer = TrainResult | TrainFailure
"""What an order is answered with."""


class Trainer(Protocol):
    """Runs local training in other processes than the one that signs."""

    def train(
        self, orders: Sequence[TrainOrder], *, seconds: float | None = None
    ) -> Iterator[Sequence[TrainResult | TrainFailure]]:
        """Carry out orders of one round (one base model); yields answers as workers finish, those of several together where
        they do so together.

        Every order is answered exactly once, in ``seconds`` at most where that is given. A worker that dies is a
        ``TrainFailure`` after a bounded number of tries, never an exception and never silence.
        """
        ...
