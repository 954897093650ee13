# SPDX-License-Identifier: Apache-2.0
"""``make bench-fabric``: the Fabric ledger beside the embedded one and beside the network alone, in one run on one network.

    python -m ops.bench.fabric [--quick] [--results DIR]

The network alone ("floor") gets transactions with the same bytes, as many, endorsed and ordered alike, to a function of the
contract's server that does nothing; so what we add to it is what the contract, the signatures and the log cost.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from chaincode.blocks.chain import Trust
from chaincode.ledgers.fabric.ledger import FabricLedger, genesis_hash
from chaincode.ledgers.fabric.profile import load_profile
from chaincode.ledgers.sqlite import SqliteLedger
from chaincode.notes import format_vkey
from identity.did import public_key_from_did
from ops import output
from ops.bench import fabric_network, machine
from ops.bench.fabric_blocks import Everywhere, Verification, everywhere, verification
from ops.bench.fabric_costs import Bursts, attainable, burst_table, bursts, verification_table
from ops.bench.fabric_parts import Consortium, Deal, Floor, Steps
from ops.bench.limits_measure import Paired, rate, spent, take_turns
from ops.bench.people import people
from ops.bench.report import Row, Table, goals_table, markdown, row, size
from ops.fabric import build, network
from ops.fabric.existing import Network

HERE = Path(__file__).resolve().parent
ORIGIN = "fedledger/benchmark"
COORDINATOR = "coordinator"
EACH = 300
"""Commitments that are sent one by one."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: the sites of each round, turns, and the commitments that are stored at once."""

    small: int
    large: int
    commitments: int
    turns: int


FULL, QUICK = Sizes(10, 200, 1000, 5), Sizes(3, 12, 40, 1)


@dataclass(frozen=True, slots=True)
class Round:
    """A round's seconds on each, one for each turn: the embedded ledger, Fabric, and the network alone."""

    sites: int
    embedded: list[float]
    fabric: list[float]
    floor: list[float]

    @property
    def added(self) -> float:
        """What Fabric adds to the embedded ledger, median."""
        return median(ours - theirs for ours, theirs in zip(self.fabric, self.embedded, strict=True))


@dataclass(frozen=True, slots=True)
class Throughput:
    """Commitments that are stored at once: seconds of them and of transactions of the same bytes that do nothing."""

    commitments: int
    taken: Paired
    each: float
    """Transactions a second that do nothing and hold one commitment each."""
    embedded_rate: float
    bursts: Bursts


@dataclass(frozen=True, slots=True)
class Taken:
    """What was measured while the network ran, and its blocks: those of the rounds, and all."""

    first: float
    rounds: list[Round]
    throughput: Throughput
    memory: dict[str, tuple[int, int]]
    blocks: list[bytes]
    all_blocks: list[bytes]


@dataclass(slots=True)
class Found:
    """What was measured."""

    up: float
    first: float
    rounds: list[Round]
    throughput: Throughput
    memory: dict[str, tuple[int, int]]
    """Of each node: bytes resident, of these anonymous (what a collector governs)."""
    verified: Verification
    everywhere: Everywhere

    @property
    def bare_rate(self) -> float:
        """The Ed25519 signatures that all cores verify in a second, doing nothing else."""
        return self.everywhere.speedup * self.verified.entries / self.verified.parts.authors


def measure(folder: Path, sizes: Sizes, say: Callable[[str], None]) -> Found:
    """Bring a network up, measure, and take it down."""
    begin = time.perf_counter()
    here = fabric_network.up(folder / "network")
    up = time.perf_counter() - begin
    try:
        profile = load_profile(here.folder / "profile.json")
        trust = Trust(profile.channel, profile.chaincode, genesis_hash(profile.genesis) or b"")
        taken = _measured(here, folder, sizes, up, say)
    finally:
        network.down(folder / "network", wipe=True, say=lambda _: None)
    say("verifying the blocks")  # in peace: nothing of the network runs any more
    verified, long = verification(taken.blocks, trust, sizes.turns), everywhere(taken.all_blocks, trust)
    return Found(up, taken.first, taken.rounds, taken.throughput, taken.memory, verified, long)


def _measured(here: Network, folder: Path, sizes: Sizes, up: float, say: Callable[[str], None]) -> Taken:
    profile = load_profile(here.folder / "profile.json")
    begin = time.perf_counter()
    floor = Floor(profile, COORDINATOR)
    with FabricLedger.open(profile, COORDINATOR) as ledger, _embedded(folder) as embedded:
        origin = f"{ORIGIN}/{profile.channel}/{profile.chaincode}"
        ours = Consortium(ledger, origin, None, sizes.commitments)
        first = up + time.perf_counter() - begin
        theirs = Consortium(embedded, ORIGIN, _vkey(), sizes.commitments)
        say(f"network up and first entry in {first:.1f} s; admitting {sizes.commitments} sites")
        for one in (ours, theirs):
            one.admit()
        rounds = [_round(theirs, ours, floor, sites, sizes.turns) for sites in (sizes.small, sizes.large)]
        blocks = fabric_network.blocks(profile, COORDINATOR)
        say("storing commitments")
        stored = _throughput(here, theirs, ours, floor, sizes)
        memory = fabric_network.memory(here)
        floor.close()
        return Taken(first, rounds, stored, memory, blocks, fabric_network.blocks(profile, COORDINATOR))


def _embedded(folder: Path) -> SqliteLedger:
    log = people(1).log
    return SqliteLedger.create(
        folder / "ledger.sqlite", origin=ORIGIN, public_key=public_key_from_did(log.did), sign=log.sign,
        clock=lambda: int(time.time()),
    )  # fmt: skip


def _vkey() -> str:
    return format_vkey(ORIGIN, public_key_from_did(people(1).log.did))


def _round(theirs: Consortium, ours: Consortium, floor: Floor, sites: int, turns: int) -> Round:
    """The same round on each in turns; the first of all is not counted."""
    deals, found = (theirs.agree(sites), ours.agree(sites)), Round(sites, [], [], [])
    for turn in range(turns + 1):
        mine = deals[1].next()
        seconds = sum(deals[0].store(deals[0].next())), sum(floor.store(mine)), sum(deals[1].store(mine))
        if turn:
            for kept, one in zip((found.embedded, found.floor, found.fabric), seconds, strict=True):
                kept.append(one)
    return found


def _throughput(here: Network, theirs: Consortium, ours: Consortium, floor: Floor, sizes: Sizes) -> Throughput:
    """Commitments of one round at once, and as many that do nothing; these one by one, and the embedded ledger."""
    mine, embedded = ours.agree(sizes.commitments), theirs.agree(sizes.commitments)
    waiting: list[Steps] = [mine.next()]

    def store() -> float:
        seconds = mine.store(waiting.pop())[0]
        waiting.append(mine.next())
        return seconds

    taken = take_turns(lambda: floor.store([waiting[0][0]])[0], store, sizes.turns)
    some = waiting[0][0][:EACH]
    each = len(some) / median(floor.store_each(some) for _ in range(min(3, sizes.turns)))
    stored = sizes.commitments / median(_stored(embedded) for _ in range(3))
    return Throughput(sizes.commitments, taken, each, stored, bursts(here, mine, waiting.pop(), floor))


def _stored(deal: Deal) -> float:
    return deal.store(deal.next())[0]


def rows(found: Found) -> list[Row]:
    """The goals."""
    small, large = found.rounds
    made = [_added(small, 0.7), _added(large, 2.0)]
    made += _commitments(found.throughput, found.bare_rate)
    made += _verified(found.verified, found.everywhere)
    made += [_memory(found, kind, limit) for kind, limit in fabric_network.LIMITS.items()]
    made.append(row(
        "network up to the first committed entry", spent(found.first), "15 s", found.first / 15, 1, "at-most",
        f"of it {spent(found.up)} until each organisation has committed; programs built before",
    ))  # fmt: skip
    return made


def _commitments(stored: Throughput, bare_rate: float) -> list[Row]:
    taken, count = stored.taken, stored.commitments
    each = row(
        "commitments a second, to a no-op for each", rate(count, taken.our_seconds), f"{stored.each:,.0f}/s",
        count / taken.our_seconds / stored.each, 0.9, "at-least",
        f"what batches win: {count:,} at once, some hundred in a transaction; no-ops one in each; embedded ledger "
        f"{stored.embedded_rate:,.0f}/s",
    )  # fmt: skip
    same = row(
        "commitments a second, to no-ops of the same bytes", rate(count, taken.our_seconds),
        rate(count, taken.limit_seconds), 1 / taken.ratio, 0.9, "at-least",
        "what the contract costs: as many transactions; the signatures alone leave at most "
        f"{attainable(taken.limit_seconds, count, bare_rate):.2f} on these cores",
    )  # fmt: skip
    return [each, same]


def _verified(one: Verification, all_: Everywhere) -> list[Row]:
    alone = row(
        "verifying blocks, to their signatures alone", rate(one.entries, one.taken.our_seconds),
        rate(one.entries, one.taken.limit_seconds), 1 / one.taken.ratio, 0.7, "at-least",
        f"processor time of one core; {one.blocks} blocks, {one.entries:,} entries (Ed25519), {one.signatures:,} ECDSA signatures",
    )  # fmt: skip
    together = row(
        "the same on all cores, of a longer channel", rate(all_.entries, all_.seconds), rate(all_.entries, all_.bare),
        all_.bare / all_.seconds, 0.7, "at-least",
        f"{size(all_.size)}, {all_.entries:,} entries; all cores verify {all_.speedup:.2f} times as many signatures as one",
    )  # fmt: skip
    return [alone, together]


def _added(one: Round, allowed: float) -> Row:
    ours, theirs, floor = median(one.fabric), median(one.embedded), median(one.floor)
    return row(
        f"what Fabric adds to a round of {one.sites} sites", spent(one.added), f"{allowed} s", one.added / allowed, 1,
        "at-most",
        f"embedded {spent(theirs)}, Fabric {spent(ours)}, network alone {spent(floor)}: {ours / floor:.2f} of it",
    )  # fmt: skip


def _memory(found: Found, kind: str, limit: int) -> Row:
    nodes = [used for name, used in found.memory.items() if name.startswith(kind)]
    resident, anonymous = (max(one[i] for one in nodes) for i in range(2))
    return row(
        f"memory of the largest {kind}, to its limit", size(anonymous), size(limit), anonymous / limit, 1, "at-most",
        f"after the load; GOMEMLIMIT bounds what Go allocates; {size(resident)} with files and program",
    )  # fmt: skip


def main(given: Sequence[str]) -> int:
    """Measure, show, and write."""
    parser = argparse.ArgumentParser(prog="python -m ops.bench.fabric", description="The Fabric ledger, measured.")
    parser.add_argument("--quick", action="store_true", help="a few sites, one turn: whether it works")
    parser.add_argument("--results", type=Path, help="the folder for JSON and page; without it only a full run writes")
    chosen = parser.parse_args(given)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fedledger-") as place:
        found = measure(Path(place), QUICK if chosen.quick else FULL, output.note)
    tables = [goals_table("The Fabric ledger, in one run", rows(found)), *_costs(found)]
    for table in tables:
        output.table(table.columns, table.rows, title=table.title)
    folder = chosen.results or (None if chosen.quick else HERE / "results")
    output.note(f"took {time.monotonic() - began:.0f} s")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "fabric.json").write_text(json.dumps(as_json(found), indent=1) + "\n")
        (folder / "fabric.md").write_text("\n".join([fabric_network.PAGE, *map(markdown, tables)]))
    return 0


def _costs(found: Found) -> list[Table]:
    """Where the time of what falls short goes."""
    return [burst_table(found.throughput.bursts, found.bare_rate), verification_table(found.verified)]


def as_json(found: Found) -> dict[str, Any]:
    """All of it for programs: seconds and bytes."""
    about = {**machine.describe(None), "fabric": build.RELEASE}
    return {"machine": about, "rows": [asdict(one) for one in rows(found)], "measured": asdict(found)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
