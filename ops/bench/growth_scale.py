# SPDX-License-Identifier: Apache-2.0
"""What a hundred thousand sites would cost on a Ray cluster: arithmetic from the measured curves, nothing measured.

The decision ``ops/decisions/0016-a-hundred-thousand-sites.md`` states the assumptions and the formulas.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from chaincode.schema import MAX_MEMBERS
from ops.bench.growth_lengths import LengthPoint
from ops.bench.growth_runs import RunPoint
from ops.bench.report import seconds, size

SITES = 100_000
MODELS = (210, 10**6, 10**7)
MACHINES = (1, 10, 100)
CORES_EACH = 16
NETWORK = 10e9 / 8
"""Bytes a second into and out of each machine: 10 Gbit/s."""
MAIN = "main process"
HEADER = 400  # bytes of an update before its integers
LARGE_ENTRIES = 3  # of a round beside the commitments: open, seal, record


@dataclass(frozen=True, slots=True)
class Unit:
    """What the curves give: CPU seconds of a site and a round in the process that signs, writes the ledger and leads
    (``lead``) and in all others with a tiny model (``train``); CPU seconds of the others for each parameter of a site's
    model (``parameter``); seconds to append an entry; bytes of an entry on the disk."""

    lead: float
    train: float
    parameter: float
    append: float
    entry: float


@dataclass(frozen=True, slots=True)
class Cost:
    """A round of all sites: CPU seconds, seconds by ``machines``, bytes of updates into each machine, and kept."""

    machines: int
    cpu: float
    wall: float
    arriving: float
    kept: float


def unit(sites: Sequence[RunPoint], parameters: Sequence[RunPoint], lengths: Sequence[LengthPoint]) -> Unit:
    """The costs of one site, from the largest point of each curve."""
    many, large = sites[-1], parameters[-1]
    lead = many.roles.get(MAIN, 0.0)
    per_parameter = (large.cpu - large.roles.get(MAIN, 0.0)) / large.sites / large.parameters
    return Unit(
        lead / many.sites,
        (many.cpu - lead) / many.sites,
        per_parameter,
        lengths[-1].append,
        lengths[-1].bytes_per_entry,
    )


def agreements(sites: int) -> int:
    """An agreement names at most ``MAX_MEMBERS`` parties, so there are several, each with a coordinator of its own."""
    return ceil(sites / MAX_MEMBERS)


def entries(sites: int) -> int:
    """The entries of a round of all sites."""
    return sites + LARGE_ENTRIES * agreements(sites)


def cost(of: Unit, sites: int, parameters: int, machines: int) -> Cost:
    """A round: the sites' work spread evenly over all cores; after it the coordinators', side by side on a core each."""
    groups = agreements(sites)
    train = sites * (of.train + of.parameter * parameters)
    lead = sites * of.lead
    bytes_in = sites * (4 * parameters + HEADER)
    wall = (
        train / (machines * CORES_EACH)
        + lead * ceil(groups / (machines * CORES_EACH)) / groups
        + bytes_in / machines / NETWORK
    )
    return Cost(machines, train + lead, wall, bytes_in / machines, bytes_in)


def section(of: Unit) -> str:
    """The arithmetic as markdown."""
    groups, count = agreements(SITES), entries(SITES)
    lines = [
        "### On paper: a hundred thousand sites\n",
        f"Computed from the curves, not measured: {groups} agreements of {MAX_MEMBERS:,} sites, machines of {CORES_EACH} cores like "
        f"these and 10 Gbit/s. A site and a round take {seconds(of.lead)} of CPU in the process that leads, {seconds(of.train)} "
        f"in the others with a tiny model, and {of.parameter * 1e9:.3g} ns for each parameter. A round has {count:,} entries, "
        f"{size(count * of.entry)} on the disk; one ledger of all of them writes {seconds(count * of.append)} at a time.\n",
        "| parameters | machines | CPU time of a round | a round | updates into each machine | updates kept |",
        "|" + "---:|" * 6,
    ]
    for parameters in MODELS:
        for machines in MACHINES:
            c = cost(of, SITES, parameters, machines)
            lines.append(
                f"| {parameters:,} | {machines} | {c.cpu:,.0f} s | {c.wall:,.0f} s | {size(c.arriving)} | {size(c.kept)} |"
            )
    return "\n".join(lines) + "\n"
