# SPDX-License-Identifier: Apache-2.0
"""What an audit says: numbered claims, each with a verdict, what it rests on, and what differs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import Any, Final, Literal

from identity.wording import counted

Verdict = Literal["PASS", "FAIL", "NOT IN THIS EVIDENCE"]
PASS: Final = "PASS"  # noqa: S105 (a verdict, not a password)
FAIL: Final = "FAIL"
ABSENT: Final = "NOT IN THIS EVIDENCE"
INCOMPLETE: Final = "INCOMPLETE"

TITLES: Final = {
    1: "The evidence is whole: the log's entries are those of its signed head",
    2: "The log contains the head that was held outside",
    3: "Each entry is well-formed and signed by its author",
    4: "The contract accepts each entry, and the state follows from them",
    5: "Each member was admitted with a credential that was valid then",
    6: "Each party had signed the agreement before a round that names it",
    7: "Each included update is the committed one; each omission has its reason",
    8: "Each result is recomputed bit for bit",
    9: "The released model is the recorded one",
    10: "Witnesses have cosigned the log's head",
}

SHOWN: Final = 100
"""So many findings (and so many notes) are listed for a claim; the rest is counted."""

_RUNS = 12


@dataclass(frozen=True, slots=True)
class Finding:
    """What differs. ``where`` names the entry, blob, checkpoint, credential, table row or index line; ``code`` is stable."""

    code: str
    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim and its verdict. ``entries`` are the indexes that it rests on, ascending; ``missing`` is what it would
    take for a PASS."""

    number: int
    title: str
    verdict: Verdict
    summary: str
    entries: Sequence[int]
    findings: tuple[Finding, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    lost: bool = False
    """Whether something is missing that the ledger names: it was there once."""

    def rests_on(self) -> str:
        """The entries in words: ``entries 3-12, 15``."""
        if not self.entries:
            return ""
        if isinstance(self.entries, range):
            parts = [_run(self.entries[0], self.entries[-1])]
        else:
            runs = [list(run) for _, run in groupby(self.entries, key=_Distance())]
            parts = [_run(run[0], run[-1]) for run in runs]
        more = f" and {counted(len(parts) - _RUNS, 'more run')}" if len(parts) > _RUNS else ""
        return f"{'entry' if len(self.entries) == 1 else 'entries'} {', '.join(parts[:_RUNS])}{more}"


def _run(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


class _Distance:
    """The key by which neighbouring numbers of an ascending sequence are one group."""

    def __init__(self) -> None:
        self._position = count()

    def __call__(self, number: int) -> int:
        return number - next(self._position)


@dataclass(frozen=True, slots=True)
class Report:
    """The audit of one federation's evidence. Ids and the root are hex, empty where the evidence does not give them.

    ``key`` says where the key came from that the verdicts rest on: "given" from outside, or "evidence".
    """

    federation: str
    origin: str
    size: int
    root: str
    key: Literal["given", "evidence"]
    claims: tuple[Claim, ...]
    attestations: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether any claim failed."""
        return any(claim.verdict == FAIL for claim in self.claims)

    @property
    def result(self) -> str:
        """FAIL where a claim fails, INCOMPLETE where evidence that the ledger names is gone, else PASS."""
        return FAIL if self.failed else INCOMPLETE if any(claim.lost for claim in self.claims) else PASS


@dataclass(slots=True)
class Draft:
    """A claim while it is being judged: FAIL where anything was found, else absent where anything is missing."""

    number: int
    summary: str = ""
    title: str = ""
    """In the place of the claim's usual one."""
    _entries: set[int] = field(default_factory=set)
    _all: int = 0
    _findings: list[Finding] = field(default_factory=list)
    _missing: list[str] = field(default_factory=list)
    _notes: list[str] = field(default_factory=list)
    _lost: bool = False
    _unlisted: list[int] = field(default_factory=lambda: [0, 0, 0])

    @property
    def failed(self) -> bool:
        """Whether anything was found."""
        return bool(self._findings)

    def fail(self, code: str, where: str, what: str) -> None:
        """Something differs."""
        self.add(Finding(code, where, what))

    def add(self, finding: Finding) -> None:
        """Something differs."""
        self._keep(0, self._findings, finding)

    def lack(self, what: str) -> None:
        """Something that the claim needs is not in this evidence, and need not be."""
        self._keep(1, self._missing, what)

    def lose(self, what: str) -> None:
        """Something that the ledger names is not in this evidence: deleted, or not exported."""
        self._lost = True
        self.lack(what)

    def note(self, text: str) -> None:
        """Something that the reader should know and that decides nothing."""
        self._keep(2, self._notes, text)

    def rest(self, *indexes: int) -> None:
        """The claim rests on these entries."""
        self._entries.update(indexes)

    def rest_on_all(self, size: int) -> None:
        """The claim rests on every entry of the log."""
        self._all = size

    def _keep(self, kind: int, kept: list[Any], item: object) -> None:
        if len(kept) < SHOWN:
            kept.append(item)
        else:
            self._unlisted[kind] += 1

    def claim(self, summary: str = "") -> Claim:
        """The finished claim."""
        verdict: Verdict = FAIL if self._findings else ABSENT if self._missing else PASS
        findings, missing, notes = self._unlisted
        if findings:
            unlisted = counted(findings, "more finding is", "more findings are")
            self._findings.append(Finding("more", "elsewhere", f"{unlisted} not listed."))
        return Claim(
            self.number, self.title or TITLES[self.number], verdict, summary or self.summary,
            range(self._all) if self._all else tuple(sorted(self._entries)),
            tuple(self._findings),
            (*self._missing, *([f"and {missing} more"] if missing else [])),
            (*self._notes, *([f"and {notes} more"] if notes else [])),
            self._lost,
        )  # fmt: skip


def unreadable(where: str, code: str, message: str) -> Report:
    """The report on evidence that could not even be opened."""
    first = Draft(1, "The evidence cannot be opened.")
    first.fail(code, where, message)
    claims = [first.claim()]
    for draft in (Draft(number) for number in TITLES if number > 1):
        draft.lack("readable evidence")
        claims.append(draft.claim("Not judged: the evidence cannot be opened."))
    return Report("", "", 0, "", "evidence", tuple(claims))
