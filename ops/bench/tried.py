# SPDX-License-Identifier: Apache-2.0
"""What was tried for a goal that is not reached, and did not help: printed beside the goal, so that it is not tried again.

The figures are those of the day when it was tried, on two cores; what a run measures is in its tables.
"""

from collections.abc import Mapping, Sequence

from ops.bench.report import Row

TRIED: Mapping[str, str] = {
    "round, to the plain loop's": """\
A plain loop keeps no evidence. What a round's evidence costs bare is in the table of the floor above: with 50 and with 1,000 sites
that alone, beside the arithmetic, is about the goal. The rest is the leading process, one Python interpreter that makes,
signs, opens, judges and stores an entry for each site; its functions are in the profiles below. With 10 sites it is fixed
costs: four durable commits with their signed heads, two calls of Ray, and caches that are cold after each wait. Kept were:
sites as one stack, packs, one call to aggregate, rows instead of objects to workers, a cache of the state beside the writer,
entries read and written by one match, packs that are moved and not copied, a garbage collector that looks rarely.
Tried without gain: fewer indexes in the ledger (all six dropped: 0.91 of a commitment's submission in large batches); pages of
8 KiB (0.96 in large batches, 1.12 for one entry); many rows in one INSERT (1.00); orjson for entries (9.2 us to the pattern's
8.9); objects that the collector is told never to look at (nothing beyond the rarer looks); batch plans kept between rounds
(80 us of 2.5 ms).""",
    "replay and verification": """\
An entry of the 100,000 costs 67 us of bare signature; for the goal all else has 29 us, in all processes together. It was
about 85 and is about 53: of it 17 in the children that open entries (envelope 4, statement 8), 14 in the judging process
(contract 8, facts 1), and 20 that only a full run has (caches, pipes). Kept were: values in the place of their bytes, one read
for each, no copy of a value to change a field, a parent that opens entries whenever it would wait.
Tried without gain: orjson in the place of the pattern (9.2 us to 8.9, and floats to be found); a batch parsed first and then
verified (89.9 us to 89.2); a child without a thread that reads ahead (105 us to 103); batches of 256 (112 us to 113); no
garbage collection in the parent (1 us).""",
    "audit of that round": """\
An audit hashes more than the bundle: each file for the bundle's index, each update's chunks for its commitment, the base and
the two models, and the sum: 1,160 MB for a bundle of 520. On two cores that is some 310 ms, mapping the pages 65 and the sums
65, nothing started yet. Kept were: hashing from the first millisecond, while the program loads; sums in binary64 where they are
exact; no second pass for the range; an exit without a last look for garbage.
Tried without gain: slices of 2^13 to 2^18 elements for the sum (97, 79, 70, 68, 67, 76 ms; it is 2^16); a BLAS product (48 ms to
55, if its own threads are held to one, which they are not in a process that trains); products of mixed types (70 ms); verifying
by shards in threads (361 ms to 299).""",
}
"""By a part of the goal's name."""
WHEN = "figures of earlier runs, from when it was tried, on two cores"


def tried(rows: Sequence[Row]) -> list[str]:
    """What to say of the goals among these that are not reached, each once."""
    missed = " ".join(row.what for row in rows if not row.reached)
    return [f"Not reached: {name} ({WHEN})\n{text}" for name, text in TRIED.items() if name in missed]
