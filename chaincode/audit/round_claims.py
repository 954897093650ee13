# SPDX-License-Identifier: Apache-2.0
"""The claim about updates (7): what was included is what was committed, and what was left out has its reason (R2)."""

from array import array
from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from sys import byteorder
from typing import Any, Protocol

from chaincode import artefacts
from chaincode.agreement import WIDTH, TensorSpec, tensor_specs
from chaincode.audit.facts import Attempt, Commit, Facts, Omission
from chaincode.audit.report import Draft
from chaincode.audit.result_claims import Engine, Results
from chaincode.audit.source import Progress, Source
from chaincode.chunks import chunk_root
from chaincode.evidence import Commitment, VerifiedUpdate, verify_update
from chaincode.threads import CORES, in_threads
from identity.errors import EvidenceError
from identity.wording import counted

_TOGETHER = 256  # updates open at a time: each mapping holds a file descriptor
_FAR = 16  # so many times the stated size nobody's update or optimiser state has: not worth hashing
_PIECE = 1 << 20  # bytes; a multiple of every width
_ALTERED = "update-digest"  # the file's bytes are not those that its name, the committed digest, stands for
_RULES = {
    "not-delivered": "R2: after the delivery deadline, and against no receipt",
    "digest-mismatch": "R2: other bytes than committed were delivered, after the deadline, and against no receipt",
    "invalid-update": "R2: the committed bytes are no update that the agreement allows",
}


class RangeCheck(Protocol):
    """Refuses (EvidenceError update-beyond-clip) an update with an integer beyond its tensor's clip."""

    def __call__(self, body: memoryview, specs: Sequence[TensorSpec], encoding: str) -> None: ...


def check_range(body: memoryview, specs: Sequence[TensorSpec], encoding: str) -> None:
    """As ``chaincode.update.check_range``, with the standard library alone."""
    position, code, width = 0, {"int32": "i", "int64": "q"}[encoding], WIDTH[encoding]
    for spec in specs:
        if spec.rule != "mean":
            continue
        end = position + spec.elements * width
        for start in range(position, end, _PIECE):
            values = array(code, bytes(body[start : min(start + _PIECE, end)]))
            if byteorder == "big":
                values.byteswap()
            if not (-spec.bound <= min(values) and max(values) <= spec.bound):
                raise EvidenceError(
                    "update-beyond-clip", f"The update goes beyond +-{spec.bound} in tensor {spec.name}."
                )
        position = end


def check_rounds(
    commitments: Draft, results: Draft, source: Source, facts: Facts, *, engine: Engine | None, progress: Progress
) -> Set[str]:
    """Claims 7 and 8 in one walk over the attempts, so that each update is read once; the names of what is sound."""
    total = sum(len(attempt.commits) for attempt in facts.attempts.values())
    rounds = Rounds(commitments, source, facts, Results(results, source, engine), engine, progress, total)
    for attempt in facts.attempts.values():
        rounds.check(attempt)
    rounds.conclude()
    return {name for name, is_sound in rounds.results.sound.items() if is_sound}


@dataclass(slots=True)
class Rounds:
    """The walk, and what it has counted."""

    draft: Draft
    source: Source
    facts: Facts
    results: Results
    engine: Engine | None
    progress: Progress
    total: int
    read: int = 0
    verified: int = 0
    included: int = 0
    omitted: int = 0
    left_out: int = 0
    abandoned: int = 0
    kept: set[str] = field(default_factory=set)

    def check(self, attempt: Attempt) -> None:
        """Judge every commitment of one attempt, and the result if one was recorded."""
        terms = self.facts.agreements[attempt.agreement].terms
        specs, omissions = tensor_specs(terms), {o.member: o for o in attempt.omitted}
        included, members = set(attempt.included), iter(sorted(attempt.commits))
        self.kept = set()
        self.results.begin(attempt, terms)
        while some := list(islice(members, _TOGETHER)):
            with ExitStack() as stack:
                updates: list[VerifiedUpdate] = []
                opened = [self._open(stack, attempt, member, terms, specs) for member in some]
                threads = CORES if sum(c.size for c, _ in opened) > len(opened) * _PIECE else 1
                verdicts = in_threads(_verify, opened, threads)
                mine = [found for member, found in zip(some, verdicts, strict=True) if member in included]
                # A sum looks at the range of each integer too; where it does not come about, that is done here.
                summed = self.results.add(mine, specs, are_all=len(some) == len(attempt.commits))
                if not summed or len(mine) < len(some):
                    known = [summed and member in included for member in some]
                    verdicts = in_threads(partial(self._in_range, specs), zip(verdicts, known, strict=True), threads)
                for member, found in zip(some, verdicts, strict=True):
                    if isinstance(found, VerifiedUpdate):
                        self.kept.add(member)
                    if member in included:
                        self._judge_included(attempt, member, found)
                        if isinstance(found, VerifiedUpdate):
                            updates.append(found)
                        else:
                            self.results.incomplete = True
                    elif member in omissions:
                        self._judge_omitted(attempt, omissions[member], found)
                    else:
                        self._judge_other(attempt, member, found)
                if not summed:
                    self.results.sum(updates, specs)
        self._tell(attempt)
        if attempt.recorded is not None:
            self.draft.rest(attempt.recorded.index)
            self.results.check()

    def conclude(self) -> None:
        """Say what was counted."""
        self.draft.summary = (
            f"{self.verified} of {counted(self.included, 'included update')} verified against what was committed to. "
            f"Left out at a seal: {self.left_out}. Omitted after it: {self.omitted}. Sealed attempts given up: {self.abandoned}."
        )
        if not any(attempt.recorded for attempt in self.facts.attempts.values()):
            self.draft.lack("a recorded round")
        self.results.conclude()
        for remark in self.source.remarks:
            self.draft.note(remark)

    def _open(
        self, stack: ExitStack, attempt: Attempt, member: str, terms: Mapping[str, Any], specs: Sequence[TensorSpec]
    ) -> tuple[Commitment, memoryview | EvidenceError | None]:
        """The commitment and its bytes, why they cannot be read, or None where they are not in this evidence."""
        commit, encoding = attempt.commits[member], terms["model"]["encoding"]
        commitment = Commitment(
            federation=self.facts.federation, agreement=attempt.agreement, round=attempt.round, attempt=attempt.number,
            base=attempt.base, member=member, digest=commit.update, size=commit.size, weight=commit.examples,
            encoding=encoding, elements=sum(s.elements for s in specs if s.rule == "mean"),
        )  # fmt: skip
        self.read += 1
        self.progress("verifying updates", self.read, self.total)
        try:
            return commitment, stack.enter_context(self.source.open(artefacts.blob(commit.update)))
        except EvidenceError as error:
            return commitment, error

    def _in_range(
        self, specs: Sequence[TensorSpec], judged: tuple[VerifiedUpdate | EvidenceError | None, bool]
    ) -> VerifiedUpdate | EvidenceError | None:
        """The update, or the refusal of an integer beyond its clip, unless that is known not to be. Runs in threads."""
        found, known = judged
        if known or not isinstance(found, VerifiedUpdate):
            return found
        in_range: RangeCheck = self.engine.check_range if self.engine is not None else check_range
        try:
            in_range(found.body, specs, found.commitment.encoding)
        except EvidenceError as error:
            return error
        return found

    def _judge_included(self, attempt: Attempt, member: str, found: VerifiedUpdate | EvidenceError | None) -> None:
        commit = attempt.commits[member]
        self.included += 1
        self.draft.rest(commit.index)
        if found is None:
            self.draft.lose(
                f"{_blob(commit)}, the update of {member} in {attempt}, deleted or not exported (entry {commit.index})"
            )
        elif isinstance(found, EvidenceError):
            self.draft.fail(
                found.code,
                _blob(commit),
                f"{found.message} (committed by entry {commit.index}, included by {attempt.recorded})",
            )
        else:
            self.verified += 1

    def _judge_omitted(
        self, attempt: Attempt, omission: Omission, found: VerifiedUpdate | EvidenceError | None
    ) -> None:
        commit, member, reason = attempt.commits[omission.member], omission.member, omission.reason
        self.omitted += 1
        contested = f"; contested by {attempt.claims[member]} ({omission.contested})" if omission.contested else ""
        self.draft.note(f"{attempt}: {member} was omitted by {attempt.coordinator} as {reason} ({attempt.recorded}); "
                        f"{_RULES[reason]}{contested}")  # fmt: skip
        if isinstance(found, EvidenceError) and (found.code == _ALTERED or not _is_content(found)):
            self.draft.fail(
                found.code,
                _blob(commit),
                f"{found.message} It is kept under the digest that entry {commit.index} commits to.",
            )
        elif reason != "invalid-update":
            if (
                found is not None
            ):  # that bytes are here now does not show that they were delivered then: a receipt would (R2)
                self.draft.note(
                    f"{_blob(commit)} is here and is what entry {commit.index} commits to; when it was delivered, nothing here shows."
                )
        elif isinstance(found, VerifiedUpdate):
            what = f"{member} is omitted from {attempt} as {reason}, but {_blob(commit)} is what entry {commit.index} commits to, and valid."
            self.draft.fail("omission-unfounded", str(attempt.recorded), what)
        elif isinstance(found, EvidenceError):
            self.draft.note(f"{_blob(commit)} bears the omission out: {found.message} [{found.code}]")
        else:
            self.draft.lose(
                f"{_blob(commit)}, which would show whether the omission of {member} from {attempt} is founded"
            )

    def _judge_other(self, attempt: Attempt, member: str, found: VerifiedUpdate | EvidenceError | None) -> None:
        """A commitment that no record judges: its bytes, if they were kept, must still be the committed ones."""
        commit = attempt.commits[member]
        if isinstance(found, EvidenceError) and (found.code == _ALTERED or not _is_content(found)):
            self.draft.fail(found.code, _blob(commit), f"{found.message} (committed by entry {commit.index})")

    def _tell(self, attempt: Attempt) -> None:
        """What a reader must know of an attempt that was given up, and of whom the seal left out."""
        self.left_out += len(attempt.out)
        for member, reason in attempt.out:
            committed = " although it had committed" if member in attempt.commits else ""
            self.draft.note(f"{attempt}: {member} was left out of the cohort as {reason}{committed} ({attempt.sealed})")
        if attempt.aborted is None:
            if attempt.sealed is not None and attempt.recorded is None:
                self.draft.note(f"{attempt} was sealed ({attempt.sealed}) and neither recorded nor given up: {counted(len(attempt.cohort), 'update was', 'updates were')} "
                                "committed, and what became of that is not on the ledger")  # fmt: skip
            return
        how = f"was given up by {attempt.abort_author} as {attempt.abort_reason} ({attempt.aborted})"
        if attempt.sealed is None:
            self.draft.note(f"{attempt} {how} before its seal")
            return
        self.abandoned += 1
        kept = len(self.kept & set(attempt.cohort))
        self.draft.note(f"{attempt} {how} after its seal ({attempt.sealed}): delivered and discarded; {kept} of "
                        f"{counted(len(attempt.cohort), 'update of the cohort is', 'updates of the cohort are')} kept here")  # fmt: skip


def _verify(opened: tuple[Commitment, memoryview | EvidenceError | None]) -> VerifiedUpdate | EvidenceError | None:
    """The verified update, or why its bytes are refused. Runs in several threads at a time."""
    commitment, data = opened
    if not isinstance(data, memoryview):
        return data
    try:
        if len(data) != commitment.size and (
            len(data) > _FAR * commitment.size or chunk_root(data) != commitment.digest
        ):
            raise EvidenceError(_ALTERED, f"The bytes are not those of {commitment.named()}.")
        return verify_update(commitment, data)
    except EvidenceError as error:
        return error


def _is_content(error: EvidenceError) -> bool:
    """Whether the error is about what the committed bytes say, not about the file that holds them."""
    return error.code.startswith(("update-", "blob-header"))


def _blob(commit: Commit) -> str:
    return f"blob {commit.update}"
