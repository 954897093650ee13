# SPDX-License-Identifier: Apache-2.0
"""What a gateway's error about an endorsement means: a verdict, a conflict, a fault for good, or a peer that is away."""

import re
from dataclasses import dataclass

from chaincode.ledgers.fabric_gateway import CallFailed, Detail
from chaincode.ledgers.fabric_outcomes import Verdict, parse_outcomes
from identity.errors import CredentialError, EvidenceError, Unavailable

RESPONSE = re.compile(r"chaincode response \d+, (.*)", re.DOTALL)
_MISMATCH = "ProposalResponsePayloads do not match"
_FIRST = "failed to endorse transaction"
"""The gateway's words where the first peer, which is one of its own organisation, did not endorse."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What to do: take `verdicts`; endorse anew for a `conflict`; else ask another peer.

    `differs` says that organisations answered differently: for a moment, or because one runs another contract.
    """

    verdicts: list[Verdict] | None = None
    conflict: bool = False
    message: str = ""
    differs: bool = False


def diagnose(failure: CallFailed) -> Finding:
    """Say what a failed endorsement means.

    Raises CredentialError(fabric-access-denied); Unavailable: fabric-clock, fabric-chaincode-refused (the chaincode
    answered, with no outcomes).
    """
    if failure.step != "endorse":
        return Finding()
    for detail in failure.details:
        _check_for_good(detail)
    if failure.message.startswith(_FIRST):
        for detail in failure.details:
            if match := RESPONSE.fullmatch(detail.message):
                return Finding(_outcomes(match[1], detail))
        return Finding()
    differing = [d for d in failure.details if d.message == _MISMATCH or RESPONSE.fullmatch(d.message)]
    if differing:
        # Another organisation's peer is a block behind or ahead; or it runs another contract, and this stays so.
        said = "; ".join(f"{d.msp} at {d.address}: {d.message[:200]}" for d in differing)
        return Finding(conflict=True, message=f"organisations answer differently ({said})", differs=True)
    return Finding()


def _outcomes(text: str, detail: Detail) -> list[Verdict]:
    try:
        return parse_outcomes(text.encode())
    except EvidenceError as error:
        message = f"The chaincode of {detail.msp} at {detail.address} refuses: {text[:500]}."
        raise Unavailable("fabric-chaincode-refused", message, next="fedledger fabric logs") from error


def _check_for_good(detail: Detail) -> None:
    if "access denied" in detail.message or "creator's identity" in detail.message:
        message = f"{detail.msp} at {detail.address} does not know this client: {detail.message[:300]}."
        raise CredentialError("fabric-access-denied", message, next="Check the certificate in the profile.")
    if "incorrect timestamp" in detail.message:
        message = (
            f"The clocks of this machine and of {detail.msp} at {detail.address} are apart: {detail.message[:300]}."
        )
        raise Unavailable("fabric-clock", message, next="Set the clock.")
