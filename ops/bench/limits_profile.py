# SPDX-License-Identifier: Apache-2.0
"""Where the time of a missed goal goes: microseconds of each step of an entry, or the functions of one run."""

import cProfile
import io
import pstats
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from chaincode import contract
from chaincode.audit import audit
from chaincode.audit.bundle_source import bundle_source
from chaincode.entries import open_entry
from chaincode.log import leaf_hash
from identity import canonical, envelope
from ops.bench.ledgers import append
from ops.bench.limits_crypto import messages, prepared, verify_seconds
from ops.bench.limits_ledger import LARGE, appending
from ops.bench.limits_measure import run_command

_TIMES = 3
_FUNCTIONS = 25


def ledger_profile() -> str:
    """Microseconds of one thread for each step of an entry, from a batch of commitments; and what storing adds."""
    with appending(LARGE, 1) as federation:
        federation.store()
        entries = federation.commitments
        ready, sealed = prepared(messages(entries)), [envelope.parse(data) for data in entries]
        opened = [open_entry(data) for data in entries]
        append(federation.ledger, federation.signed[0][:1], federation.at)
        keys = contract.keys_of(opened)
        values = federation.ledger.ledger.get(keys)
        steps: list[tuple[str, Callable[[], object]]] = [
            ("parse: the envelope", lambda: [envelope.parse(data) for data in entries]),
            ("parse: the statement", lambda: [canonical.loads(one.payload) for one in sealed]),
            ("verify: the bare signature", lambda: verify_seconds(ready)),
            ("all of open_entry (these three, the schema and the id)", lambda: [open_entry(data) for data in entries]),
            ("judge: the keys of the entries", lambda: contract.keys_of(opened)),
            ("judge: read their values", lambda: federation.ledger.ledger.get(keys)),
            ("judge: apply", lambda: contract.apply_all(opened, values)),
            ("store: the leaf's hash", lambda: [leaf_hash(data) for data in entries]),
        ]
        lines = [(name, _microseconds(step, len(entries))) for name, step in steps]
        begin = time.perf_counter()
        append(federation.ledger, entries, federation.at)
        lines.append(
            ("all of submit, its threads and the disk included", (time.perf_counter() - begin) / len(entries) * 1e6)
        )
    return "\n".join(
        ["microseconds of an entry, one thread but for the last line:", *(f"  {us:7.1f}  {name}" for name, us in lines)]
    )


def command_profile(*arguments: object) -> str:
    """The functions of a ``fedledger`` command in which it spends its time."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "profile"
        run_command([sys.executable, "-m", "cProfile", "-o", str(written), "-m", "ops.cli", *map(str, arguments)])
        return _functions(str(written))


def _functions(profile: str | cProfile.Profile) -> str:
    text = io.StringIO()
    pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(_FUNCTIONS)
    return "\n".join(line for line in text.getvalue().splitlines() if line.strip())


def _microseconds(step: Callable[[], object], count: int) -> float:
    best = float("inf")
    for _ in range(_TIMES):
        begin = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - begin)
    return best / count * 1e6


def audit_profile(bundle: Path, *, recompute: bool) -> str:
    """The functions of an audit in which the calling thread spends its time."""
    profiler = cProfile.Profile()
    with bundle_source(bundle) as source:
        profiler.runcall(audit, source, recompute=recompute)
    return _functions(profiler)
