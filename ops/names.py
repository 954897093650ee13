# SPDX-License-Identifier: Apache-2.0
"""Who is who on a ledger: from DIDs and site names, as people write them, to members and back."""

from collections.abc import Iterable

from chaincode import state
from chaincode.entries import open_entry
from chaincode.state import DidOwner, Federation, Member
from identity.errors import UsageError
from ops import output
from ops.source import Source, next_for

_END = 6  # characters of a DID's end that are enough to name it


class Names:
    """The members of a ledger by name. Reads a member once, when it is first asked for."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._members: dict[str, Member | None] = {}
        found = source.get([state.FEDERATION])[state.FEDERATION]
        self.federation = state.decode(Federation, found) if found is not None else None

    def learn(self, members: Iterable[str]) -> None:
        """Read many members at once."""
        new = {state.member_key(m): m for m in members if m not in self._members}
        if new:
            found = self._source.get(list(new))
            self._members |= {new[k]: None if data is None else state.decode(Member, data) for k, data in found.items()}

    def member(self, member: str) -> Member | None:
        """A member's standing, None for nobody (or the authority, which is no member)."""
        self.learn([member])
        return self._members[member]

    def __call__(self, member: str) -> str:
        """A member as people know it: its organisation and the end of its DID."""
        found = self.member(member)
        if found is not None:
            return f"{found.organisation} ({output.short_did(member)})"
        if self.federation is not None and member in self.federation.authority:
            return f"authority ({output.short_did(member)})"
        return output.short_did(member)

    def organisation(self, member: str) -> str:
        """A member's organisation, or the end of its DID."""
        found = self.member(member)
        return found.organisation if found is not None else self(member)

    def find(self, text: str) -> str:
        """The member that a DID (any that it ever had), the end of one, or an organisation's name means.

        Raises:
            UsageError: ``member-unknown``, ``member-ambiguous``.
        """
        if text.startswith("did:"):
            return self._of_did(text)
        ending = text.removeprefix("…")
        candidates = self.all()
        found = [m for m, standing in candidates.items() if standing.organisation == text] or [
            m
            for m, standing in candidates.items()
            if len(ending) >= _END and (m.endswith(ending) or standing.did.endswith(ending))
        ]
        if len(found) != 1:
            code, problem = (
                ("member-ambiguous", "More than one member is") if found else ("member-unknown", "No member is")
            )
            raise UsageError(code, f"{problem} called {text!r}.", next=next_for(self._source, "log", "--kind", "admit"))
        return found[0]

    def all(self) -> dict[str, Member]:
        """Every member that was admitted."""
        admitted = dict.fromkeys(open_entry(logged.envelope).body["admits"] for logged in self._source.find("admit"))
        self.learn(admitted)
        return {m: standing for m in admitted if (standing := self._members[m]) is not None}

    def _of_did(self, did: str) -> str:
        owner, own = state.did_key(did), state.member_key(did)
        found = self._source.get([owner, own])
        if (data := found[owner]) is not None:
            return state.decode(DidOwner, data).member
        if found[own] is not None or (self.federation is not None and did in self.federation.authority):
            return did
        raise UsageError(
            "member-unknown", f"No member has had the DID {did}.", next=next_for(self._source, "log", "--kind", "admit")
        )
