# SPDX-License-Identifier: Apache-2.0
"""One pass over the log: each entry opened, its leaf hashed, the contract replayed, and what it says gathered."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from chaincode import contract
from chaincode.audit.facts import SHORT, Facts
from chaincode.audit.report import Draft
from chaincode.audit.source import Observer, Progress
from chaincode.entries import Entry, open_entry
from chaincode.log import leaf_hash
from identity.errors import EvidenceError

_TOGETHER = 512
_EACH = 32
_THREADS = min(4, os.cpu_count() or 1)
_STEP = 256  # entries between two reports of progress


@dataclass(slots=True)
class Replay:
    """What one pass over the log gives. ``leaves`` are the leaf hashes, ``state`` what the contract made of the entries."""

    leaves: list[bytes] = field(default_factory=list)
    state: dict[str, bytes] = field(default_factory=dict)
    facts: Facts = field(default_factory=Facts)
    authors: set[str] = field(default_factory=set)
    accepted: int = 0


def replay(
    envelopes: Iterable[bytes], observer: Observer, progress: Progress, *, form: Draft, rules: Draft, whole: Draft
) -> Replay:
    """Replay a log. What is no entry goes against ``form``, what the contract refuses against ``rules``, and a log that
    cannot be read to its end against ``whole``."""
    done = Replay()
    broken = ""
    for index, (data, opened) in enumerate(_opened(_readable(envelopes, whole))):
        done.leaves.append(leaf_hash(data))
        if isinstance(opened, EvidenceError):
            form.fail(opened.code, f"entry {index}", opened.message)
            broken = broken or f" (entry {index} could not be applied, so the state is not known from there on)"
            observer.see(index, None)
        else:
            broken = _apply(done, index, opened, rules, broken)
            observer.see(index, opened)
        if index % _STEP == 0:
            progress("replaying entries", index, 0)
    return done


def _apply(done: Replay, index: int, entry: Entry, rules: Draft, broken: str) -> str:
    """Apply one entry; returns why the state is not known any more, empty where it is."""
    done.authors.add(entry.did)
    values = {key: done.state.get(key) for key in contract.keys(entry)}
    (refused,), writes = contract.apply_all([entry], values)
    if refused is not None:
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


def _opened(envelopes: Iterator[bytes]) -> Iterator[tuple[bytes, Entry | EvidenceError]]:
    """Each envelope, and the entry that it holds or why it holds none.

    OpenSSL verifies without Python's lock, so a few threads verify a long log together.
    """
    batch = list(islice(envelopes, _TOGETHER))
    if len(batch) < _TOGETHER or _THREADS == 1:
        for data in (*batch, *envelopes):
            yield data, _open(data)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        while batch:
            parts = [batch[i : i + _EACH] for i in range(0, len(batch), _EACH)]
            for opened in pool.map(lambda part: [(data, _open(data)) for data in part], parts):
                yield from opened
            batch = list(islice(envelopes, _TOGETHER))


def _open(data: bytes) -> Entry | EvidenceError:
    try:
        return open_entry(data)
    except EvidenceError as error:
        return error
