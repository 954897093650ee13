# SPDX-License-Identifier: Apache-2.0
"""How the coordinator's entries about a round get onto the ledger, and what sites have signed in one batch with them."""

from collections.abc import Callable, Sequence

from chaincode.author import Author, accepted
from chaincode.ledgers import Ledger, Receipt
from chaincode.state import Head
from coordinator.ports import SignedAnswer
from coordinator.steps import Draft, Event
from identity.errors import Rejected


class Submitter:
    """Signs what is drafted about an agreement, submits it, and tells whoever watches: before, and what was accepted."""

    def __init__(self, author: Author, agreement: str, ledger: Ledger, watch: Callable[[Event], None]) -> None:
        self._author, self._agreement, self._ledger, self._watch = author, agreement, ledger, watch

    def submit(self, draft: Draft, *following: Draft) -> None:
        """Submit an entry and, in the same batch, what follows from it. What of that is refused is left to a later decision.

        Raises:
            Rejected: the first one is refused.
        """
        drafts = (draft, *following)
        outcomes = self._submit((), drafts)
        self._tell(drafts, outcomes)
        try:
            accepted(outcomes[0])
        except Rejected as refusal:
            place = f"Round {draft.round} attempt {draft.attempt}"
            message = f"{place}: the contract refuses '{draft.kind}'. {refusal.message}"
            raise Rejected(refusal.code, message, next=refusal.next) from refusal

    def relay(self, answers: Sequence[SignedAnswer], head: Head, following: Sequence[Draft]) -> None:
        """Submit what sites have signed in the round of this head and, in the same batch, what follows from it."""
        outcomes = self._submit([answer.envelope for answer in answers], following)
        for answer, outcome in zip(answers, outcomes[: len(answers)], strict=True):
            kind, facts = answer.kind, answer.facts
            if isinstance(outcome, Rejected):
                cause = f" What it had to say: {facts['message']}" if "message" in facts else ""
                facts = {"site": facts["site"], "code": outcome.code, "message": outcome.message + cause}
                kind = "site-rejected"
            self._watch(Event(kind, head.round, head.attempt, facts))
        self._tell(following, outcomes[len(answers) :])

    def _submit(self, envelopes: Sequence[bytes], drafts: Sequence[Draft]) -> list[Receipt | Rejected]:
        """Submit envelopes, and behind them the drafts; an outcome each, in order."""
        for draft in drafts:
            self._watch(Event(f"before-{draft.kind}", draft.round, draft.attempt, draft.body))
        signed = [
            self._author.entry(draft.kind, draft.at, draft.stated, agreement=self._agreement, subjects=draft.subjects)
            for draft in drafts
        ]
        return self._ledger.submit([*envelopes, *signed])

    def _tell(self, drafts: Sequence[Draft], outcomes: Sequence[Receipt | Rejected]) -> None:
        """Tell of the drafts that were accepted."""
        for draft, outcome in zip(drafts, outcomes, strict=True):
            if not isinstance(outcome, Rejected):
                self._watch(Event(draft.kind, draft.round, draft.attempt, {**draft.body, **draft.subjects}))
