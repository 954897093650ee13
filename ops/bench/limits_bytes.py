# SPDX-License-Identifier: Apache-2.0
"""The passes over an update's bytes, each beside SHA-256 over the same bytes: encode, verify and sum, audit, verify."""

import time
from itertools import accumulate
from pathlib import Path

import numpy as np

from chaincode.audit import audit
from chaincode.audit.bundle_source import bundle_source
from chaincode.evidence import verify_update
from chaincode.files import mapped
from chaincode.recompute import sum_updates
from chaincode.threads import CORES, in_threads
from chaincode.update import encode, encode_tensors
from ops.bench.limits_crypto import cut, hash_seconds
from ops.bench.limits_measure import command, command_seconds, run_command, spent, take_turns, timed
from ops.bench.limits_round import FULL, QUICK, Round, cached, floats, header, signers
from ops.bench.report import Row, row


def byte_rows(quick: bool, cache: Path) -> list[Row]:
    """Every row about bytes; QUICK measures updates of one million elements, not ten."""
    made = cached(cache, QUICK if quick else FULL)
    return [encode_row(made, quick), *sum_rows(made, quick), *audit_rows(made, quick), model_row(made, quick)]


def _millions(made: Round) -> str:
    return f"{made.commitments[0].elements / 1e6:g} million"


def encode_row(made: Round, quick: bool) -> Row:
    """Clip, quantise and hash one update, handed on in pieces as it is made; against SHA-256 over what it produces."""
    who, by = signers(made)
    first, specs = made.commitments[0], made.specs
    base = floats(0, first.elements, 0.02)
    new = base + floats(1, first.elements, 1e-3)
    head = header(by, first.base, who.sites[0].did, first.elements)
    produced = encode(new, base, specs, "int32").view(np.uint8).data
    ends = list(accumulate(spec.elements for spec in specs if spec.rule == "mean"))[:-1]
    tensors = np.split(new, ends), np.split(base, ends)  # as a site has them
    taken = take_turns(
        lambda: hash_seconds([produced]), timed(lambda: encode_tensors(head, *tensors, specs, lambda _: None)),
        7 if quick else 15,
    )  # fmt: skip
    return row(
        f"encode (clip, quantise, hash) {_millions(made)} float32, to SHA-256 over the bytes", spent(taken.our_seconds),
        spent(taken.limit_seconds), taken.ratio, 1.5, "at-most", f"one core; ratio {taken.spread}",
    )  # fmt: skip


def sum_rows(made: Round, quick: bool) -> list[Row]:
    """Verify and sum ten updates, on one core and on all of them."""
    rows = []
    with made.blobs() as blobs:
        for threads in sorted({1, CORES}):
            taken = take_turns(
                lambda threads=threads: hash_seconds(blobs, threads),  # type: ignore[misc]
                timed(lambda threads=threads: verify_and_sum(made, blobs, threads)),  # type: ignore[misc]
                5 if quick else 7,
            )
            rows.append(row(
                f"verify and sum {len(blobs)} updates of {_millions(made)}, to SHA-256 over the bytes, "
                + ("one core" if threads == 1 else f"all {threads} cores"),
                spent(taken.our_seconds), spent(taken.limit_seconds), taken.ratio, 1.5, "at-most", f"ratio {taken.spread}",
            ))  # fmt: skip
    return rows


def verify_and_sum(made: Round, blobs: list[memoryview], threads: int) -> None:
    """What has to be done with a round's deliveries before it can be recorded; an audit does it so too."""
    pairs = zip(made.commitments, blobs, strict=True)
    updates = in_threads(lambda pair: verify_update(*pair), pairs, threads)
    sum_updates(updates, made.specs, threads=threads)


def audit_rows(made: Round, quick: bool) -> list[Row]:
    """The audit of the round from its bundle, recomputed bit for bit, by the command that a person runs."""
    words = command("audit", "verify", made.bundle)

    def whole() -> float:
        begin = time.perf_counter()
        if "recomputed to the same bits" not in run_command(words):
            raise RuntimeError("the audit did not recompute the round")
        return time.perf_counter() - begin

    with mapped(made.bundle) as data:
        taken = take_turns(lambda: hash_seconds([data]), whole, 3 if quick else 7)
        inside = take_turns(lambda: hash_seconds([data]), lambda: _audit(made.bundle), 3 if quick else 5)
        every = take_turns(
            lambda: hash_seconds(cut(data, CORES), CORES), lambda: _audit(made.bundle), 3 if quick else 5
        )
        size = len(data)
    return [
        row(f"audit of that round from its bundle of {size / 1e6:,.0f} MB, recomputed bit for bit, start-up included, to "
            "SHA-256 over the bundle", spent(taken.our_seconds), spent(taken.limit_seconds), taken.ratio, 2.0, "at-most",
            f"ratio {taken.spread}; without start-up {spent(inside.our_seconds)}, ratio {inside.ratio:.2f}; "
            f"to SHA-256 on all {CORES} cores at once {every.ratio:.2f}"),
    ]  # fmt: skip


def _audit(bundle: Path) -> float:
    begin = time.perf_counter()
    with bundle_source(bundle) as source:
        report = audit(source)
    if report.failed:
        raise RuntimeError("the audit found something, so its time says nothing")
    return time.perf_counter() - begin


def model_row(made: Round, quick: bool) -> Row:
    """``fedledger verify MODEL``, start-up included."""
    seconds = command_seconds("verify", made.run.model, "--key", made.run.key_file, times=3 if quick else 9)
    size = made.run.model.stat().st_size / 1e6
    return row(f"fedledger verify MODEL of {size:.0f} MB, start-up included", spent(seconds), "1 s wanted", seconds, 1.0,
               "at-most", "the file in the page cache")  # fmt: skip
