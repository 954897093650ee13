# SPDX-License-Identifier: Apache-2.0
"""The second part of the benchmark: what we do, beside what the machine cannot do faster, in the same run.

python -m ops.bench.limits [--quick] [--only ledger,replay,bytes,commands]
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ops.bench import ledgers, limits_round, limits_start, machine
from ops.bench.ledgers import Length
from ops.bench.limits_bytes import byte_rows
from ops.bench.limits_ledger import LONG, QUICK_LONG, ledger_rows, replay_rows
from ops.bench.limits_profile import audit_profile, command_profile, ledger_profile
from ops.bench.limits_start import start_rows
from ops.bench.report import Row

CACHE = Path(__file__).resolve().parents[2] / "build" / "bench"
"""Where made ledgers are kept; git does not see it. Removing it costs the next full run some minutes."""

PARTS: Mapping[str, Callable[[bool, Path], list[Row]]] = {
    "ledger": lambda quick, _: ledger_rows(quick),
    "replay": replay_rows,
    "bytes": byte_rows,
    "commands": start_rows,
}


def run_limits(
    quick: bool, *, only: Sequence[str] = tuple(PARTS), tell: Callable[[Row], None] = lambda _: None
) -> list[Row]:
    """Measure the rows; ``tell`` gets each one as it is done.

    ``quick`` takes ledgers of ten thousand entries and updates of one million elements: shorter work, in which what
    starts and stops counts for more. The rows say what they measured.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    rows = []
    for part in only:
        for row in PARTS[part](quick, CACHE):
            tell(row)
            rows.append(row)
    return rows


def profiles(rows: Sequence[Row], quick: bool) -> list[str]:
    """For the goals that were missed: where the time goes."""
    missed = " ".join(row.what for row in rows if not row.reached)
    found = []
    if "embedded ledger" in missed:
        found.append("The embedded ledger: " + ledger_profile())
    if "replay" in missed:
        run, _ = ledgers.cached(CACHE, Length(QUICK_LONG if quick else LONG))
        found.append(f"The replay:\n{audit_profile(run.path / 'exported', recompute=False)}")
    if "audit of that round" in missed:
        made = limits_round.cached(CACHE, limits_round.QUICK if quick else limits_round.FULL)
        found.append(f"The audit of the round:\n{audit_profile(made.bundle, recompute=True)}")
    asked = limits_start.length(quick)
    run, place = ledgers.cached(CACHE, asked)
    for name, words in limits_start.queries(run, place, asked.sites).items():
        if f"fedledger {name} on" in missed:
            found.append(f"fedledger {name}:\n{command_profile(*words)}")
    return found


def line(row: Row) -> str:
    """A row as one line."""
    sign = "<=" if row.better == "at-most" else ">="
    verdict = "reached" if row.reached else "MISSED"
    return f"{verdict:8} {row.ratio:7.3f} {sign} {row.goal:g}  {row.what}: {row.ours}, limit {row.limit} ({row.note})"


def main() -> None:
    """Print the rows, and the profiles of what was missed."""
    parser = argparse.ArgumentParser(description="Fedledger beside the machine's own limits.")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, half a minute")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--no-profile", action="store_true", help="no profile of what was missed")
    given = parser.parse_args()
    machine.compile_ours()
    rows = run_limits(given.quick, only=given.only.split(","), tell=lambda row: print(line(row), flush=True))
    if not given.no_profile:
        for text in profiles(rows, given.quick):
            print(f"\n{text}")


if __name__ == "__main__":
    main()
