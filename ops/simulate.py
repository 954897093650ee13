# SPDX-License-Identifier: Apache-2.0
"""The faults of ``[simulate]``: wrappers around a site, for demonstrations and tests only.

They are no part of the agreement, nothing else knows of them, and only ``ops.runner`` puts them around a site of a
simulation, whose banner announces them.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from chaincode.place import Place
from chaincode.state import Result
from identity.envelope import Unsigned
from ops.sites import SiteAgent
from participant.agent import RoundView
from participant.ports import TrainFailure, TrainOrder, TrainResult


@dataclass(frozen=True, slots=True)
class Honest:
    """A site as it is; each fault changes one thing of it, in one round."""

    agent: SiteAgent
    round: int

    @property
    def site(self) -> str:
        """The site's name."""
        return self.agent.site

    def order(self, view: RoundView) -> TrainOrder | None:
        """As the site."""
        return self.agent.order(view)

    def answer(self, view: RoundView, result: TrainResult | TrainFailure) -> Unsigned | None:
        """As the site."""
        return self.agent.answer(view, result)

    def decline(self, view: RoundView, reason: str) -> bytes:
        """As the site."""
        return self.agent.decline(view, reason)

    def attest(self, round_: int, result: Result, sum_: str, model: str) -> bytes:
        """As the site."""
        return self.agent.attest(round_, result, sum_, model)

    def deliver(self, view: RoundView) -> Place | None:
        """As the site."""
        return self.agent.deliver(view)


class Tampering(Honest):
    """Delivers other bytes than it committed to: the last one is changed."""

    def deliver(self, view: RoundView) -> Place | None:
        """The committed blob with its last byte changed, in the fault's round."""
        honest = self.agent.deliver(view)
        if honest is None or view.head.round != self.round:
            return honest
        with honest.open() as data:
            changed = bytes(data[:-1]) + bytes([data[-1] ^ 1])
        other = Path(honest.path).with_name(f"{sha256(changed).hexdigest()}.tampered")
        other.write_bytes(changed)
        return Place(str(other))


class Silent(Honest):
    """Trains, and then is not heard of again in the round."""

    def answer(self, view: RoundView, result: TrainResult | TrainFailure) -> Unsigned | None:
        """Nothing, in the fault's round."""
        return None if view.head.round == self.round else self.agent.answer(view, result)


FAULTS = {"tamper": Tampering, "drop": Silent}
