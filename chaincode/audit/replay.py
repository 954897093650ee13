# SPDX-License-Identifier: Apache-2.0
"""One pass over the log: each entry opened, its leaf hashed, the contract replayed, and what it says gathered."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from chaincode import contract
from chaincode.audit.facts import SHORT, Facts
from chaincode.audit.report import Draft
from chaincode.audit.source import Observer, Progress
from chaincode.entries import Entry
from chaincode.opening import Opened, opened
from chaincode.views import WholeView
from identity.errors import EvidenceError, Rejected

_STEP = 256  # entries between two reports of progress


@dataclass(slots=True)
class Replay:
    """What one pass over the log gives. ``leaves`` are the leaf hashes, ``state`` the values that the contract
    made of the entries."""

    leaves: list[bytes] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    authors: set[str] = field(default_factory=set)
    accepted: int = 0


def replay(
    envelopes: Iterable[bytes], observer: Observer, progress: Progress, *, form: Draft, rules: Draft, whole: Draft,
    opening: Callable[[Iterable[bytes]], Iterator[Opened]] = opened,
) -> Replay:  # fmt: skip
    """Replay a log. What is no entry goes against ``form``, what the contract refuses against ``rules``, and a log that
    cannot be read to its end against ``whole``. ``opening`` opens the envelopes."""
    done = Replay()
    broken = ""
    for index, (_, leaf, entry) in enumerate(opening(_readable(envelopes, whole))):
        done.leaves.append(leaf)
        if isinstance(entry, EvidenceError):
            form.fail(entry.code, f"entry {index}", entry.message)
            broken = broken or f" (entry {index} could not be applied, so the state is not known from there on)"
            observer.see(index, None)
        else:
            broken = _apply(done, index, entry, rules, broken)
            observer.see(index, entry)
        if index % _STEP == 0:
            progress("replaying entries", index, 0)
    return done


def _apply(done: Replay, index: int, entry: Entry, rules: Draft, broken: str) -> str:
    """Apply one entry; returns why the state is not known any more, empty where it is."""
    done.authors.add(entry.did)
    try:
        writes = contract.judge(entry, WholeView(done.state))
    except Rejected as refused:
        rules.fail(refused.code, f"entry {index} ({entry.id[:SHORT]})", f"{entry.kind}: {refused.message}{broken}")
        return broken or f" (entry {index} was refused, so the state is not known from there on)"
    done.state.update(writes)
    done.accepted += 1
    done.facts.see(index, entry, done.state)
    return broken


def _readable(envelopes: Iterable[bytes], whole: Draft) -> Iterator[bytes]:
    """The envelopes up to where they cannot be read any further."""
    try:
        yield from envelopes
    except EvidenceError as error:
        whole.fail(error.code, "the log's entries", error.message)
