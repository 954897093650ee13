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
from ops.bench.fabric_blocks import Verification, verification
from ops.bench.fabric_parts import Consortium, Deal, Floor, Steps
from ops.bench.limits_measure import Paired, rate, spent, take_turns
from ops.bench.people import people
from ops.bench.report import Row, goals_table, markdown, row, size
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


@dataclass(slots=True)
class Found:
    """What was measured."""

    up: float
    first: float
    rounds: list[Round]
    commitments: int
    throughput: Paired
    each: float
    """Transactions a second that do nothing and hold one commitment each."""
    embedded_rate: float
    memory: dict[str, tuple[int, int]]
    """Of each node: bytes resident, of these anonymous (what a collector governs)."""
    verified: Verification


def measure(folder: Path, sizes: Sizes, say: Callable[[str], None]) -> Found:
    """Bring a network up, measure, and take it down."""
    begin = time.perf_counter()
    here = fabric_network.up(folder / "network")
    up = time.perf_counter() - begin
    try:
        return _measured(here, folder, sizes, up, say)
    finally:
        network.down(folder / "network", wipe=True, say=lambda _: None)


def _measured(here: Network, folder: Path, sizes: Sizes, up: float, say: Callable[[str], None]) -> Found:
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
        taken, each, stored = _throughput(theirs, ours, floor, sizes)
        memory = fabric_network.memory(here)
        floor.close()
        say("verifying the blocks")
        trust = Trust(profile.channel, profile.chaincode, genesis_hash(profile.genesis) or b"")
        verified = verification(blocks, trust, sizes.turns)
    return Found(up, first, rounds, sizes.commitments, taken, each, stored, memory, verified)


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


def _throughput(theirs: Consortium, ours: Consortium, floor: Floor, sizes: Sizes) -> tuple[Paired, float, float]:
    """Commitments of one round at once, and as many that do nothing; the rate of these one by one, the embedded ledger's."""
    mine, embedded = ours.agree(sizes.commitments), theirs.agree(sizes.commitments)
    waiting: list[Steps] = [mine.next()]

    def store() -> float:
        seconds = mine.store(waiting.pop())[1]
        waiting.append(mine.next())
        return seconds

    taken = take_turns(lambda: floor.store([waiting[0][1]])[0], store, sizes.turns)
    some = waiting[0][1][:EACH]
    each = len(some) / median(floor.store_each(some) for _ in range(min(3, sizes.turns)))
    return taken, each, sizes.commitments / median(_stored(embedded) for _ in range(3))


def _stored(deal: Deal) -> float:
    return deal.store(deal.next())[1]


def rows(found: Found) -> list[Row]:
    """The goals."""
    small, large = found.rounds
    made = [_added(small, 0.7), _added(large, 2.0)]
    taken, count = found.throughput, found.commitments
    made.append(row(
        "commitments a second, to a no-op for each", rate(count, taken.our_seconds), f"{found.each:,.0f}/s",
        count / taken.our_seconds / found.each, 0.9, "at-least",
        f"{count:,} at once, some hundred in a transaction; no-ops one in each; embedded ledger {found.embedded_rate:,.0f}/s",
    ))  # fmt: skip
    made.append(row(
        "commitments a second, to no-ops of the same bytes", rate(count, taken.our_seconds),
        rate(count, taken.limit_seconds), 1 / taken.ratio, 0.9, "at-least",
        "as many transactions; what the contract adds: signatures at two organisations, keys at all peers, on the same cores",
    ))  # fmt: skip
    checked = found.verified
    made.append(row(
        "verifying blocks, to their signatures alone", rate(checked.entries, checked.taken.our_seconds),
        rate(checked.entries, checked.taken.limit_seconds), 1 / checked.taken.ratio, 0.7, "at-least",
        f"one core; {checked.blocks} blocks, {checked.entries:,} entries (Ed25519), {checked.signatures:,} ECDSA signatures; "
        f"as the auditor does it, on all cores, {checked.all_cores / checked.taken.our_seconds:.2f} of the time",
    ))  # fmt: skip
    made += [_memory(found, kind, limit) for kind, limit in fabric_network.LIMITS.items()]
    made.append(row(
        "network up to the first committed entry", spent(found.first), "15 s", found.first / 15, 1, "at-most",
        f"of it {spent(found.up)} until each organisation has committed; programs built before",
    ))  # fmt: skip
    return made


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
    table = goals_table("The Fabric ledger, in one run", rows(found))
    output.table(table.columns, table.rows, title=table.title)
    folder = chosen.results or (None if chosen.quick else HERE / "results")
    output.note(f"took {time.monotonic() - began:.0f} s")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "fabric.json").write_text(json.dumps(as_json(found), indent=1) + "\n")
        (folder / "fabric.md").write_text(fabric_network.PAGE + "\n" + markdown(table))
    return 0


def as_json(found: Found) -> dict[str, Any]:
    """All of it for programs: seconds and bytes."""
    about = {**machine.describe(None), "fabric": build.RELEASE}
    return {"machine": about, "rows": [asdict(one) for one in rows(found)], "measured": asdict(found)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
