# SPDX-License-Identifier: Apache-2.0
"""What a network's errors mean: a verdict, a conflict, a fault for good, or somebody who is away; and the words for each."""

import re
from collections.abc import Collection
from dataclasses import dataclass

from chaincode.fabric_outcomes import Verdict, parse_outcomes
from chaincode.ledgers.fabric.gateway import CallFailed, Detail, Status
from chaincode.ledgers.fabric.messages import Pending, endorsers_of
from chaincode.ledgers.fabric.profile import Place
from identity.errors import CredentialError, EvidenceError, OutcomeUnknown, Unavailable
from identity.wording import counted

RESPONSE = re.compile(r"chaincode response \d+, (.*)", re.DOTALL)
_MISMATCH = "ProposalResponsePayloads do not match"
_FIRST = "failed to endorse transaction"
"""The gateway's words where the first peer, which is one of its own organisation, did not endorse."""
AGAIN = "Submit the same entries again: what is in answers with its receipt."
STATUS = "fedledger fabric status"
_UNKNOWN = "No metadata was found for chaincode"
_ROLE = (
    "Name a certificate in the profile that the organisation's own authority issued and that is valid today; where its MSP "
    "has node OUs on, its subject says OU=client."
)
_COMMIT = "Commit the contract on it (fedledger fabric package -o FILE writes how), or correct the profile's chaincode."


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


def check_known(place: Place, failures: Collection[CallFailed]) -> None:
    """Raise Unavailable(fabric-no-chaincode) where every peer says that the channel runs no such chaincode."""
    if all(_UNKNOWN in failure.message for failure in failures):
        message = f"The channel {place.channel} runs no chaincode {place.chaincode}, as each of its peers says."
        raise Unavailable("fabric-no-chaincode", message, next=_COMMIT)


def _outcomes(text: str, detail: Detail) -> list[Verdict]:
    try:
        return parse_outcomes(text.encode())
    except EvidenceError as error:
        message = f"The chaincode of {detail.msp} at {detail.address} refuses: {text[:500]}."
        raise Unavailable("fabric-chaincode-refused", message, next="fedledger fabric logs") from error


def _check_for_good(detail: Detail) -> None:
    if "access denied" in detail.message or "creator's identity" in detail.message:
        message = f"{detail.msp} at {detail.address} does not know this client: {detail.message[:300]}."
        raise CredentialError("fabric-access-denied", message, next=_ROLE)
    if "incorrect timestamp" in detail.message:
        message = (
            f"The clocks of this machine and of {detail.msp} at {detail.address} are apart: {detail.message[:300]}."
        )
        raise Unavailable("fabric-clock", message, next="Set the clock.")


def unknown(pending: Pending, failures: dict[str, CallFailed]) -> OutcomeUnknown:
    """Return the error of a transaction of unknown fate, by the last failure of each step; where orderers are away, which."""
    said = ". ".join(str(failure) for failure in failures.values())
    message = f"Transaction {pending.txid[:12]} was sent; what became of it cannot be learned. {said}."
    submitted = failures.get("submit")
    away = [detail.address for detail in submitted.details] if submitted is not None else []
    if not away:
        return OutcomeUnknown("fabric-outcome-unknown", message, next=AGAIN)
    message = (
        f"The network orders nothing: it has too few orderers. Those that do not answer: {', '.join(sorted(set(away)))}.\n"
        f"{message}"
    )
    return OutcomeUnknown("fabric-outcome-unknown", message, next=f"fedledger fabric up starts what is down. {AGAIN}")


def endorsed_by_too_few(pending: Pending, status: Status, times: int) -> Unavailable:
    """Return the error of a transaction that had too few endorsements so many times; it says whose it had."""
    by = " and ".join(endorsers_of(pending.envelope)) or "nobody"
    message = (
        f"Transaction {pending.txid[:12]} is in block {status.block} and invalid: {status.code}.\n"
        f"It was endorsed by {by}; the channel asks for more, also when it was endorsed anew {counted(times - 1, 'time')}."
    )
    return Unavailable("fabric-invalid", message, next=STATUS)
