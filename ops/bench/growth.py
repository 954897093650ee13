# SPDX-License-Identifier: Apache-2.0
"""The third part of the benchmark: how the cost grows with sites, with parameters, and with the ledger's length.

python -m ops.bench.growth [--quick] [--only sites,parameters,lengths]
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ops.bench import growth_scale, machine
from ops.bench.growth_lengths import LengthPoint, measure_lengths
from ops.bench.growth_plots import plot
from ops.bench.growth_runs import RunPoint, measure_parameters, measure_sites
from ops.bench.limits import CACHE, line
from ops.bench.report import Row, row, seconds

RESULTS = Path(__file__).resolve().parent / "results"
SITES, QUICK_SITES = (10, 100, 1_000, 10_000), (10, 100)
PARAMETERS, QUICK_PARAMETERS = (10**3, 10**4, 10**5, 10**6, 10**7, 10**8), (10**3, 10**6)
LENGTHS, QUICK_LENGTHS = (10**3, 10**4, 10**5, 10**6), (10**3, 10**4)
CURVES = ("sites", "parameters", "lengths")

PER_SITE = 0.4
"""Milliseconds for a site and a round that are wanted of ten thousand sites."""
FLAT, OPENING = 1.2, 1.0
COUNTED = 10**6
"""Parameters from which on a copy of the model can be told from what a run needs anyway."""


@dataclass(frozen=True, slots=True)
class Growth:
    """The three curves, each from its smallest point on; empty where a curve was not asked for."""

    quick: bool
    sites: tuple[RunPoint, ...]
    parameters: tuple[RunPoint, ...]
    lengths: tuple[LengthPoint, ...]


def run_growth(quick: bool, *, only: Sequence[str] = CURVES, tell: Callable[[str], None] = lambda _: None) -> Growth:
    """Measure the curves; ``tell`` gets each point as it is done. ``quick`` measures the lower ends only."""
    CACHE.mkdir(parents=True, exist_ok=True)
    return Growth(
        quick,
        measure_sites(QUICK_SITES if quick else SITES, tell) if "sites" in only else (),
        measure_parameters(QUICK_PARAMETERS if quick else PARAMETERS, tell) if "parameters" in only else (),
        measure_lengths(QUICK_LENGTHS if quick else LENGTHS, CACHE, tell) if "lengths" in only else (),
    )


def growth_rows(growth: Growth) -> list[Row]:
    """What is wanted of the curves, judged."""
    return [*_site_rows(growth.sites), *_parameter_rows(growth.parameters), *_length_rows(growth.lengths)]


def _site_rows(points: Sequence[RunPoint]) -> list[Row]:
    if len(points) < 2 or points[-1].sites < SITES[-1]:
        return []  # the goal is one of many sites
    first, last = points[0], points[-1]
    slope = (last.peak - first.peak) / (last.sites - first.sites)
    return [row(
        f"a site and a round, of {last.sites:,} sites with {last.parameters:,} parameters", f"{last.per_site * 1e3:.3g} ms",
        f"{PER_SITE} ms wanted", last.per_site * 1e3 / PER_SITE, 1.0, "at-most",
        f"memory {last.peak / 1e9:.2f} GB, {slope / 1e3:,.0f} kB for each further site",
    )]  # fmt: skip


def _parameter_rows(points: Sequence[RunPoint]) -> list[Row]:
    large = [point for point in points if point.parameters >= COUNTED]
    if len(large) < 2:
        return []
    first, last, base = large[0], large[-1], points[0]
    copies = (last.peak - base.peak) / (4 * last.parameters)
    return [row(
        f"a parameter, a site and a round at {last.parameters:.0e} parameters, to that at {first.parameters:.0e}",
        f"{last.per_parameter * 1e9:.3g} ns", f"{first.per_parameter * 1e9:.3g} ns", last.per_parameter / first.per_parameter,
        FLAT, "at-most", f"memory: {copies:.1f} float32 copies of the model over what {base.parameters:,} parameters need",
    )]  # fmt: skip


def _length_rows(points: Sequence[LengthPoint]) -> list[Row]:
    if len(points) < 2:
        return []
    first, last = points[0], points[-1]
    return [
        row(f"append to a ledger of {last.entries:,} entries, to one of {first.entries:,}", f"{last.append * 1e6:.0f} us",
            f"{first.append * 1e6:.0f} us", last.to_first, FLAT, "at-most", "an entry, in durable batches of three rounds of 100 sites"),
        row(f"open a ledger of {last.entries:,} entries", f"{last.opening * 1e3:.3g} ms", "1 s wanted", last.opening / OPENING,
            1.0, "at-most", f"{last.bytes_per_entry:,.0f} bytes an entry on the disk"),
    ]  # fmt: skip


def render(growth: Growth, folder: Path = RESULTS) -> str:
    """Write the curves as JSON and as SVG plots into ``folder``; the section of a page that shows them, in markdown."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "growth.json").write_text(json.dumps(asdict(growth), indent=1) + "\n")
    parts = ["## How it grows\n"]
    if growth.quick:
        parts.append("QUICK: only the lower ends of the curves.\n")
    if growth.sites:
        plot(folder / "growth-sites.svg", "sites", [p.sites for p in growth.sites],
             [("milliseconds for a site and a round", [p.per_site * 1e3 for p in growth.sites], PER_SITE),
              ("peak memory (PSS), GB", [p.peak / 1e9 for p in growth.sites], None)])  # fmt: skip
        parts += ["![sites](growth-sites.svg)\n", _site_table(growth.sites), _where(growth.sites[-1])]
    if growth.parameters:
        base = growth.parameters[0].peak
        plot(folder / "growth-parameters.svg", "parameters", [p.parameters for p in growth.parameters],
             [("nanoseconds for a parameter, a site and a round", [p.per_parameter * 1e9 for p in growth.parameters], None),
              ("peak memory over the smallest run's, GB", [(p.peak - base) / 1e9 for p in growth.parameters], None)])  # fmt: skip
        parts += [
            "![parameters](growth-parameters.svg)\n",
            _parameter_table(growth.parameters),
            _where(growth.parameters[-1]),
        ]
    if growth.lengths:
        plot(folder / "growth-length.svg", "entries", [p.entries for p in growth.lengths],
             [("microseconds to append an entry", [p.append * 1e6 for p in growth.lengths], None),
              ("milliseconds to open the ledger", [p.opening * 1e3 for p in growth.lengths], OPENING * 1e3)])  # fmt: skip
        parts += ["![ledger length](growth-length.svg)\n", _length_table(growth.lengths)]
    if growth.sites and growth.parameters and growth.lengths and not growth.quick:
        parts.append(growth_scale.section(growth_scale.unit(growth.sites, growth.parameters, growth.lengths)))
    return "\n".join(parts)


def _site_table(points: Sequence[RunPoint]) -> str:
    head = "| sites | a round | a site and a round | its CPU time | launch to the end of round 1 | peak memory (PSS) |"
    lines = [head, "|" + "---:|" * 6]
    lines += [
        f"| {p.sites:,} | {p.round * 1e3:,.0f} ms | {p.per_site * 1e3:.3g} ms | {p.cpu / p.sites * 1e3:.3g} ms | {p.first:.1f} s "
        f"| {p.peak / 1e9:.2f} GB |"
        for p in points
    ]
    return "\n".join(lines) + "\n"


def _parameter_table(points: Sequence[RunPoint]) -> str:
    base = points[0].peak
    lines = [
        f"Peak memory is counted in float32 copies of the model, over what {points[0].parameters:,} parameters need "
        f"({base / 1e9:.2f} GB); {points[0].sites} sites.\n",
        "| parameters | a round | a parameter, a site and a round | its CPU time | peak memory (PSS) | float32 copies |",
        "|" + "---:|" * 6,
    ]
    for p in points:
        cpu = p.cpu / p.sites / p.parameters * 1e9
        copies = f"{(p.peak - base) / (4 * p.parameters):.1f}" if p.parameters >= COUNTED else "-"
        lines.append(
            f"| {p.parameters:,} | {p.round * 1e3:,.0f} ms | {p.per_parameter * 1e9:.3g} ns | {cpu:.3g} ns "
            f"| {p.peak / 1e9:.2f} GB | {copies} |"
        )
    return "\n".join(lines) + "\n"


def _where(point: RunPoint) -> str:
    """Where a round's time goes, in words."""
    phases = ", ".join(f"{phase} {seconds(spent)}" for phase, spent in point.phases.items())
    roles = ", ".join(
        f"{role} {seconds(used)}" for role, used in sorted(point.roles.items(), key=lambda item: -item[1])
    )
    return f"A round of {point.sites:,} sites with {point.parameters:,} parameters: {phases}. CPU time: {roles}.\n"


def _length_table(points: Sequence[LengthPoint]) -> str:
    lines = ["| entries | append | to the shortest | open | an entry on the disk |", "|" + "---:|" * 5]
    lines += [
        f"| {p.entries:,} | {p.append * 1e6:.0f} us | {p.to_first:.2f} | {p.opening * 1e3:.3g} ms | {p.bytes_per_entry:,.0f} bytes |"
        for p in points
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the points as they come, and write the results."""
    parser = argparse.ArgumentParser(description="How the cost of Fedledger grows.")
    parser.add_argument("--quick", action="store_true", help="the lower ends of the curves")
    parser.add_argument("--only", default=",".join(CURVES), help=f"some of {', '.join(CURVES)}")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the plots and the data go")
    given = parser.parse_args()
    machine.compile_ours()
    growth = run_growth(given.quick, only=given.only.split(","), tell=lambda point: print(point, flush=True))
    print(render(growth, given.results))
    for judged in growth_rows(growth):
        print(line(judged))


if __name__ == "__main__":
    main()
