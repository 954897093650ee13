# SPDX-License-Identifier: Apache-2.0
"""The chaincode lifecycle: the organisations agree on the contract that the channel runs.

Each installs the package on its peer and approves the definition for itself; when a majority has approved, anybody
commits it. The definition's version is the digest of the contract's source, so that the channel itself says, from
which block on, which contract judged.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from identity.errors import Unavailable
from ops.fabric import channel, nodes, processes
from ops.fabric.plan import CHAINCODE, CHANNEL, Contract, Orderer, Organisation, Plan
from ops.fabric.tools import Tools, retried, side_by_side

COMMIT_SECONDS = 30.0
"""How long a step is tried again: a new channel has no leader for a second or two, and peers must find one another."""


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The steps, on one network."""

    tools: Tools
    plan: Plan

    @property
    def network(self) -> Path:
        return self.tools.network

    def orderer(self) -> Orderer:
        """One that runs, so that a step does not wait for one that does not."""
        live = (one for one in self.plan.orderers if processes.running(nodes.folder(self.network, one.name)))
        return next(live, self.plan.orderers[0])

    def install(self, package: Path, organisations: list[Organisation]) -> None:
        """Install the package on each organisation's peer; where it is installed it stays."""
        side_by_side(lambda one: self._install(package, one), organisations)

    def _install(self, package: Path, one: Organisation) -> None:
        step = f"installing the contract on {one.peer}"
        try:
            self._peer(step, one, "lifecycle", "chaincode", "install", package)
        except Unavailable as error:
            if "already successfully installed" not in error.message:
                raise

    def approve(self, contract: Contract, organisations: list[Organisation]) -> None:
        """Have each organisation approve the definition."""
        side_by_side(lambda one: self._approve(contract, one), organisations)

    def _approve(self, contract: Contract, one: Organisation) -> None:
        step = f"approving the contract for {one.name}"
        arguments = [
            "lifecycle", "chaincode", "approveformyorg", *channel.orderer_arguments(self.network, self.orderer()),
            *_definition(contract), "--package-id", contract.package, *channel.peer_arguments(self.network, [one]),
        ]  # fmt: skip
        try:
            retried(lambda: self._peer(step, one, *arguments), seconds=COMMIT_SECONDS)
        except Unavailable as error:  # by an earlier attempt, whose answer was lost
            if "attempted to redefine" not in error.message or "with unchanged content" not in error.message:
                raise

    def commit(self, contract: Contract) -> None:
        """Commit the definition: from the next block on the channel runs this contract."""
        first = self.plan.organisations[0]
        arguments = [
            "lifecycle", "chaincode", "commit", *channel.orderer_arguments(self.network, self.orderer()),
            *_definition(contract), *channel.peer_arguments(self.network, list(self.plan.organisations)),
        ]  # fmt: skip
        retried(lambda: self._peer("committing the contract's definition", first, *arguments), seconds=COMMIT_SECONDS)

    def committed(self, one: Organisation) -> tuple[int, str]:
        """The sequence number and version (source digest) in force, as an organisation's peer sees it; (0, "") for none."""
        step = f"asking {one.peer} which contract the channel runs"
        try:
            said = self._peer(
                step, one, "lifecycle", "chaincode", "querycommitted", "-C", CHANNEL, "-n", CHAINCODE, "-O", "json"
            )
        except Unavailable as error:
            if "is not defined" in error.message:
                return 0, ""
            raise
        value = json.loads(said[said.index("{") :])
        return int(value["sequence"]), str(value["version"])

    def _peer(self, step: str, one: Organisation, *arguments: object) -> str:
        return self.tools.run(step, "peer", arguments, environment=channel.administrator(self.network, one))


def _definition(contract: Contract) -> list[object]:
    return [
        "--channelID", CHANNEL, "--name", CHAINCODE, "--version", contract.source, "--sequence", contract.sequence,
    ]  # fmt: skip
