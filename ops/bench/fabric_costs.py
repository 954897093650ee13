# SPDX-License-Identifier: Apache-2.0
"""What the goals that are missed would have to do without: the time of each part beside that of the whole.

Two tables of the page of ``make bench-fabric``. The first is of a burst of commitments, whose signatures each endorsing
organisation verifies for itself: on a machine that all organisations share that is a cost of the ledger's purpose, and
stated beside what the contract, the keys and the client add. The second is of the verification of blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass

from chaincode.threads import CORES
from ops.bench import fabric_network
from ops.bench.fabric_blocks import Verification
from ops.bench.fabric_parts import Deal, Floor, Steps
from ops.bench.limits_measure import spent
from ops.bench.report import Table
from ops.fabric.existing import Network

ORGANISATIONS = 2
"""Those that endorse a transaction: the majority of three."""
KINDS = {"client": "the client", "chaincode": "the contract's servers", "peer": "the peers", "orderer": "the orderer"}


@dataclass(frozen=True, slots=True)
class Burst:
    """A burst's seconds, and the processor seconds of each kind of process meanwhile."""

    seconds: float
    processor: dict[str, float]


@dataclass(frozen=True, slots=True)
class Bursts:
    """As many commitments, and transactions of the same bytes that do nothing, side by side."""

    commitments: int
    ours: Burst
    floor: Burst


def bursts(here: Network, deal: Deal, round_: Steps, floor: Floor) -> Bursts:
    """Store a round of a deal; its commitments are the burst. The same bytes go to the function that does nothing before."""
    commitments, *rest = round_
    nothing = _burst(here, lambda: floor.store([commitments])[0])
    ours = _burst(here, lambda: deal.store([commitments])[0])
    deal.store(rest)
    return Bursts(len(commitments), ours, nothing)


def _burst(here: Network, store: Callable[[], float]) -> Burst:
    before = fabric_network.processor_seconds(here)
    seconds = store()
    after = fabric_network.processor_seconds(here)
    return Burst(seconds, {kind: after[kind] - before[kind] for kind in after})


def attainable(floor: float, commitments: int, bare_rate: float) -> float:
    """The share of the no-ops' rate that a contract reaches which costs nothing but its signatures.

    ``floor`` are the no-ops' seconds, ``bare_rate`` the signatures that all cores verify in a second.
    """
    return floor / (floor + _least(commitments, bare_rate))


def _least(commitments: int, bare_rate: float) -> float:
    """The seconds in which all cores verify each commitment at each endorsing organisation, and nothing else."""
    return commitments * ORGANISATIONS / bare_rate


def burst_table(found: Bursts, bare_rate: float) -> Table:
    """Where the time of a burst goes. ``bare_rate`` are the signatures that all cores verify in a second."""
    ours, floor = found.ours, found.floor
    share = attainable(floor.seconds, found.commitments, bare_rate)
    whole = sum(ours.processor.values())
    rows = [
        ("all of it", spent(ours.seconds), spent(floor.seconds), f"{whole / ours.seconds / CORES:.0%} of all cores busy"),
        ("their signatures alone, at two organisations, all cores", spent(_least(found.commitments, bare_rate)), "",
         f"with nothing else but the no-ops' time: {share:.2f} of their rate"),
    ]  # fmt: skip
    rows += [
        (f"processor time of {text}", spent(ours.processor[kind]), spent(floor.processor[kind]),
         f"{ours.processor[kind] / whole:.0%} of all processor time")
        for kind, text in KINDS.items() if kind in ours.processor
    ]  # fmt: skip
    title = f"Where the time of {found.commitments:,} commitments at once goes"
    return Table(title, ("what", "commitments", "no-ops of the same bytes", "note"), tuple(rows), BURST_TRIED)


def verification_table(found: Verification) -> Table:
    """Where the time of a verification goes, on one core."""
    parts, whole = found.parts, found.parts.whole
    rows = [
        (what, spent(seconds), f"{seconds / found.entries * 1e6:.0f} us", f"{seconds / whole:.0%}")
        for what, seconds in (
            ("ECDSA signatures of clients, endorsers, orderers", parts.network),
            ("Ed25519 signatures of entries", parts.authors),
            ("reading blocks: protocol buffers, hashes, read and write sets", parts.reading),
            ("opening entries: base64, canonical JSON, schema", parts.opening),
            ("judging: validity, the contract's replay, its writes compared", parts.judging),
            ("all of it", whole),
        )
    ]
    return Table(
        "Where the time of verifying blocks goes, on one core", ("what", "processor time", "an entry", "share"), tuple(rows),
        VERIFICATION_TRIED,
    )  # fmt: skip


BURST_TRIED = """\
A commitment is five keys read at two endorsing peers, checked and two of them written at three, where a no-op has none: that is
the peers' part. Of the 110 us that a contract's server takes for one, 70 are its signature. All of it shares this machine's
cores; where each organisation has its own, only the slowest one's part counts.

Tried without gain, medians of seven to ten bursts of 1,000 on a busy machine: 4, 3 or 2 transactions under way at once instead of 8
(1.01, 0.99, 1.07 s to 0.96 s); batches of 64 or 256 KiB instead of 128 (1.02, 1.08 s to 0.97 s); a garbage collector that
looks less often in the contract's server (1 to 2 % of its processor time)."""
VERIFICATION_TRIED = """\
Tried without gain: threads for reading (7 MB of blocks: 0.28 to 0.38 s with 2 to 4 threads, 0.33 s without, and a tenth more
processor time: one lock); read sets as columns in the place of pairs (1 ms of 310). A child that reads has 0.12 s of
processor time before its first block, so that children begin with some 4 MB. Kept: versions by namespace, writes compared
as a whole, one door for a transaction's entries, a garbage collector that looks rarely: with the contract's and the entries' own
shorter ways, 10 % less than before; the contract replayed on values that are held as they are, in the place of their bytes: 105
to 90 ms of judging. Read sets by a regular expression cost 0.44 us a key, by protocol buffers 0.60: not worth a second reader.

On all cores, a channel of 51 MB: children and their caller waited for each other at pipes of 64 KB. Pipes of 1 MiB and answers
without the arguments of other functions took 2.13 to 1.76 s, threads that write on both sides 1.76 to 1.61. Without gain: a
batch that a child has not begun with, taken back at the end (tried before the threads: 1.76 to 1.75 s); five batches before a
child in the place of three. What is left to the bound of the cores' halves is a child's start (which no longer loads what
judges: 126 to 91 ms of imports) and the last batch."""
