# SPDX-License-Identifier: Apache-2.0
"""What the chaincode answers to a submission, in the form in which the peers endorse it.

Canonical JSON: a list with one item for each envelope of the transaction, in order:
`{"accepted": id}`, `{"duplicate": id}`, or `{"rejected": code, "message": text}`. In a committed transaction it is the
endorsed response: the log is read from it. A transaction that would write nothing carries it in an error response.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from chaincode.codes import CODES
from identity import canonical
from identity.errors import EvidenceError, Rejected

LIMIT = 1 << 20
"""Bytes of a transaction's outcomes that are read."""
MESSAGES_LIMIT = 1 << 16
"""Bytes of outcomes beyond which refusals go without their texts; the codes say what happened."""
_TEXT_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Accepted:
    """The entry is in with this transaction."""

    entry: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The entry is in already, or twice in this transaction."""

    entry: str


Verdict = Accepted | Duplicate | Rejected


def format_outcomes(verdicts: Sequence[Verdict]) -> bytes:
    """Write the outcomes; the texts of refusals are cut, and left out where all together are large."""
    data = canonical.dumps([_item(verdict, _TEXT_LIMIT) for verdict in verdicts])
    return data if len(data) <= MESSAGES_LIMIT else canonical.dumps([_item(verdict, 0) for verdict in verdicts])


def parse_outcomes(data: bytes) -> list[Verdict]:
    """Read outcomes. Raises EvidenceError: json-*, outcomes-malformed."""
    value = canonical.loads(data, limit=LIMIT)
    if not isinstance(value, list):
        raise EvidenceError("outcomes-malformed", "The outcomes of a transaction are not a list.")
    return [_verdict(item) for item in value]


def _item(verdict: Verdict, text: int) -> dict[str, str]:
    if isinstance(verdict, Rejected):
        return {"rejected": verdict.code, "message": verdict.message[:text]}
    return {"accepted" if isinstance(verdict, Accepted) else "duplicate": verdict.entry}


def _verdict(item: object) -> Verdict:
    match item:
        case {"accepted": str(entry), **rest} if not rest:
            return Accepted(entry)
        case {"duplicate": str(entry), **rest} if not rest:
            return Duplicate(entry)
        case {"rejected": str(code), "message": str(message), **rest} if not rest:
            return Rejected(code, message or CODES.get(code, ("", ""))[0])
    raise EvidenceError("outcomes-malformed", "The outcome of an entry is none of accepted, duplicate and rejected.")
