# SPDX-License-Identifier: Apache-2.0
"""The families of errors that every floor raises. Each says whose fault it is and carries a stable code.

    Error ─ Rejected          the contract or a host said no
          ├ EvidenceError     bytes and ledger disagree; every malformed-bytes error of a parser
          ├ CredentialError   a key, a DID or a credential is not what it must be
          ├ UsageError        the user's file or arguments
          └ Unavailable ─ OutcomeUnknown   the network; resubmitting the same entry is safe

All survive pickling, because they cross process borders.
"""

from __future__ import annotations


class Error(Exception):
    """The root of the tree.

    `code` is stable and kebab-case: programs compare it. `message` names the thing that failed (who, which
    round, which entry) and is for people; it may change. `next` is the command to run next, or None.
    """

    code: str
    message: str
    next: str | None

    def __init__(self, code: str, message: str = "", *, next: str | None = None) -> None:
        # `args` is what pickle passes to the constructor again; `next` travels in the instance's __dict__.
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.next = next

    def __str__(self) -> str:
        text = f"{self.message} [{self.code}]" if self.message else f"[{self.code}]"
        return f"{text} Next: {self.next}" if self.next else text


class Rejected(Error):  # noqa: N818 - the outcome of a submission, named as in the protocol
    """The contract or a host said no. The evidence is sound, the act is not allowed (now)."""


class EvidenceError(Error):
    """Bytes and ledger disagree, or bytes cannot be read as what they claim to be."""


class CredentialError(Error):
    """A key, a key file, a DID or a credential was refused."""


class Unavailable(Error):  # noqa: N818 - a state of the network, not of the caller
    """A service or a resource cannot be reached now. Trying again may help."""


class OutcomeUnknown(Unavailable):
    """The request may or may not have been carried out. Resubmitting the same entry is safe."""


class UsageError(Error):
    """The user's file or arguments: the message names the line, the allowed values and an example."""
