# SPDX-License-Identifier: Apache-2.0
"""Faults at a chosen moment on the double network, and a client that has little patience with them."""

from collections.abc import Callable

import grpc
from fabric_protos.peer import transaction_pb2

from chaincode.ledgers.fabric.ledger import FabricLedger
from chaincode.ledgers.fabric.profile import Profile
from chaincode.ledgers.fabric.sending import Patience
from tests.chaincode.ledgers.fabric.hosts import FABRIC_WHOLE
from tests.chaincode.ledgers.hosts import Clock
from tests.fakes.fabric_double import Fault
from tests.fakes.fabric_world import Double

CODE = grpc.StatusCode
CODES = transaction_pb2.TxValidationCode
HASTE = Patience(total=2.0, call=5.0, status=0.2, longest_status=0.4, first_pause=0.01, longest_pause=0.05, conflicts=5,
                 too_few=2)  # fmt: skip
WHOLE = FABRIC_WHOLE
AWAY = Fault(CODE.UNAVAILABLE, "connection refused")


def opened(
    network: Double, organisation: str = "Org1", *, profile: Profile | None = None, patience: Patience = HASTE
) -> FabricLedger:
    return FabricLedger.open(profile or network.profile, organisation, clock=Clock(), patience=patience)


def failing(step: str, *faults: Exception | None) -> Callable[[str, str], None]:
    """Raise these, one at each call of a step (None for none); then nothing."""
    waiting = list(faults)

    def fault(at: str, _txid: str) -> None:
        if at == step and waiting and (one := waiting.pop(0)) is not None:
            raise one

    return fault


def always(step: str, fault: Exception) -> Callable[[str, str], None]:
    return failing(step, *[fault] * 1000)


def pending(network: Double) -> list[str]:
    return [path.name for path in (network.profile.path.parent / "pending").rglob("*.transaction")]


def check_holds(ledger: FabricLedger, envelopes: list[bytes]) -> None:
    assert list(ledger.entries()) == envelopes
