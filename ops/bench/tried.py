# SPDX-License-Identifier: Apache-2.0
"""What was tried for a goal that is not reached, and kept or not: printed beside the goal, so that it is not tried again.

The figures are those of the day when it was tried, on two cores; what a run measures is in its tables.
"""

from collections.abc import Mapping, Sequence

from ops.bench.report import Row

TRIED: Mapping[str, str] = {
    "round, to the plain loop's": """\
A plain loop keeps no evidence. What a round's evidence costs bare is in the table of the floor above. The rest is the leading
process, one Python interpreter that makes, signs, opens, judges and stores an entry for each site; its functions are in the
profiles below.
With 10 sites, of 14 ms, training as one stack takes 4.7, verifying, summing, storing and evaluating 3.6, two durable submissions
5.5 (of it two commits 1.4), making and signing 13 entries 1.0. With 50 sites, of 36 ms, ordering and training
take 10 (the stack 4.6, encoding 1.1, the pack 0.8), hearing of it 1.5, making and signing 51 entries 2.6, their submission 9
(reading 0.5, signatures 3.3, judging 1.6, rows 1.6, commit 1.6), asking for the sum 2.3, verifying and summing 3 (hashes 1.0), the
model, its evaluation and its file 3.5, record and opening 3.
Kept were: sites as one stack, packs, one call to aggregate, rows instead of objects to workers, a cache of the state beside the
writer, entries read and written by one match, packs that are moved and not copied, a garbage collector that looks rarely; the
seal behind the commitments and the opening behind the record (22.8 ms to 19.0); batches that are read first and then verified by
threads that do nothing else; the store written while the round is finished (3.4 ms to 3.0); packs on their way to the disk from
when they are written (8.6 ms to 7.0 for fifty updates of 40 kB); small calls over a socket in the place of Ray's calls (17.5 ms to
13.1: decision 25); threads for signatures on the cores that the caller is not on (fifty verified in 3.0 ms, before in 5.6, as by
one thread); two workers from 5 ms each (37 ms to 35 with fifty sites). Then two workers' answers that come together committed
to together (39.1 ms to 37.5 in rounds by turns), entries that were just written not parsed (14 us to 6), packs written at once
(25 updates 0.53 ms to 0.29), headers compared as text (fifty updates verified in 1.6 ms, now 1.3), small updates hashed by
threads (fifty 1.2 ms to 0.7), packs moved together (3.7 ms to 2.9 until they are on the disk), watching at half its price (22 us
a site to 10). Then packs let go of when they are evidence, so that the next ones get their pages, for a virtual machine's memory is
dear where nobody has used it (a pack of 1 MB 2.8 ms to 0.7, fifty sites 31.0 ms to 29.2 at the same pace), and a round's lines
written as they are where no terminal shows them (three 0.4 ms to 0.1).
With 10 million parameters it is passes over memory: beside training, 40 MB from each site are encoded (40 ms, of it 28 for their
hash), hashed by whoever sums (28 ms), summed (6 ms) and written to files that are kept (9 ms into pages that were just given
back, 70 to 120 into fresh ones), on cores that the plain loop does not need: 1.24 s of processor time, which two cores
give in 0.62. Kept were: sums in 32 bits where they fit (268 ms to 238 for a shard of ten), pages given back early, orders dealt out
before commitments are submitted, the model written while it is hashed, its file hashed by all cores. Then files that get
their place on the disk at once and are written in pieces of 2 MiB (44 ms to 38 for an update; 24.6 to 23.1 to hash it where
it is mapped: the system keeps it in larger parts), and the model hashed while it is evaluated (44 ms to 38 for a round's last
call).
What is left of a round of some 680 ms on each of two cores: five sites' training at 24 (of it 4 to copy the base) and
encoding at 38 (hash 22.5, arithmetic 10, writing 6); ten halves to verify and sum at 18 (hash 11, the sum's own digest 2, a
copy to even addresses 1.4, arithmetic 2), with 25 lost to putting 400 MB on the disk meanwhile; 90 to make, hash, evaluate
and record the model; 14 to hash it again, as the sites do before they train. SHA-256 alone is 530 ms of the processor,
training 240: with those two, 385 of both cores.
There was tried: four lanes of SHA-256 in a compiled kernel (0.66 of the time, and code of our own in the place of a
library: decision 22); verifying and summing in shards by threads of one process (361 ms to 299).
Tried without gain for it: huge pages for torch (23.5 ms to 22.5, 25.0 to 26.0, 25.5 to 26.1 for a site's training); read in
the place of mmap to hash (22.4 ms to 26.6), mapping all pages at once (22.4); slices of 2^15 or 2^17 to encode and to sum
(40.4 and 40.6 ms to 38.9, 185 and 185 to 181 for ten halves), of 2^12 to 2^15 to step the model (19.5, 14.6, 12.5, 11.6 ms to
11.3); pieces that end where pages do (30.6 ms to 30.6); copying a slice and hashing the copy (178 to 183 ms to 179 to 181);
letting go of old files one by one, as new ones are written (685 and 679 ms to 688 and 693); training calls of half a second
(768 and 721 ms to 696 and 734: noise).
Tried without gain otherwise: three or four calls to train fifty sites (44 to 49 ms beside 41); fifty updates of 40 kB hashed by
two threads where they are made, while the other worker trains (50.0 ms to 50.2 in turns, where they were summed, too); whole
updates verified by threads (1.6 ms to 1.8 to 3.3); workers as SCHED_BATCH, which interrupt nobody (37.8,
39.9, 40.0 and 45.6 ms to 37.0, 39.0, 40.6 and 44.6); fsync of a pack by a thread (as good as asking for it); slices of 2^15 to
2^18 for the encoding (43.2, 40.6, 40.2, 42.1 ms); files written through mmap (21 ms to 10 to 20); readv in the place of mmap
(31.7 ms to 28.6); fewer indexes in the ledger (all six dropped: 0.91 of a commitment's submission in large batches); pages of 8
KiB (0.96 in large batches, 1.12 for one entry); many rows in one INSERT (1.00); orjson for entries (9.2 us to the pattern's
8.9); objects that the collector is told never to look at (nothing beyond the rarer looks); batch plans kept between rounds (80
us of 2.5 ms); signatures verified while their batch is judged and stored, and believed before the commit only: by threads (9.4 ms
to 8.6 for a batch of 50, 115 to 99 for one of 500, with the interpreter's lock changing hands every 20 us; but rounds by turns
25.5 ms to 25.2, 39.0 to 38.4 and 464 to 466 with 10, 50 and 1,000 sites), by a child process (12.6 ms to 10.7, 93 to 90, and 2.9
to 3.4 for a batch of 11); the stack's derivative through torch's own kernels in the place of autograd (the same bits; a step of ten
sites 197 us to 123, of 25 844 to 620, some 3 % of a round; left, as code of our own in the place of a library); in rounds by
turns, a model evaluated before it is stored and not meanwhile (12.2 ms to 12.0, 28.0 to 27.8), stored by the same thread (11.1
to 11.2, 26.8 to 26.7), verified updates put into the store after the sum and not beside it (264 to 267 with 1,000 sites), and model
and packs waited for together, first all bytes and then all names (12.5 to 12.5, 37.7 to 37.7 and 32.9 to 32.9; with bytes and names
at once 31.7 to 29.7, but then a name may outlive a power cut that its bytes do not). The modules that make, read, judge and store entries
compiled to machine code by mypyc (12.7, 11.5 and 15.0 ms to 17.5, 14.2 and 18.4 with 10 sites, 33.0 and 34.9 to 32.9 and 30.3 with 50,
323 and 276 to 298 and 305 with 1,000: their time is in the libraries that they call, and in code that runs once a round and is cold
each time). By turns within one run: the leading process on one core and the workers on the other (13.0 to 13.9, 32.9 to 41.8);
everything on one core (12.9 to 13.9, 27.9 to 36.0: so ten sites gain nothing from a second one, whatever is moved there);
leading process and workers before all others (SCHED_FIFO: 13.6 to 14.0 and 15.3 to 14.7, 31.7 to 28.7 and 36.0 to 32.9; it
takes root, and keeps everybody else waiting).""",
    "Flower's round to ours": """\
What a round of ours takes is in the comparison with the plain loop. Flower's engine looks for answers every 0.1 s: with ten small
sites its rounds take one look or two (107, 207 and 109 ms in the turns of one run), with fifty two to four (211, 313 and 417 ms), and the
ratio to one and the same round of ours is 5 or 10. With large models and with a thousand sites it works through its rounds, and
the ratio is that of the two programs on the processor at hand.""",
    "fedledger trace": """\
Of 0.41 s, 0.2 are the start of the program, which every query has; some 60 ms verify the signatures of the thousand updates that
are told, by all cores; the rest reads, names and prints them. Kept was: fields told as they are, in the place of deep copies
(0.44 s to 0.39 in six runs each). Not tried, on purpose: telling of updates whose signatures were not verified.""",
    "replay and verification": """\
An entry of the 100,000 costs 117 us of bare signature on the cores of the last day and 67 on those of an earlier one; all else
has 43 of every 100 us of signature for the goal. All else is about 47 us, both processes together: 21 to read the entry (base64 4,
its form 10), 2 around its signature, 13 to judge it, 9 to find it in the bundle, hand it to a child and take it back, and what the
caches lose. Both cores are busy to the end. Kept were: values in the place of their bytes, one read for each, no copy of a value
to change a field, a parent that opens entries whenever it would wait, a batch that is read first and then verified (167.1 us to
165.1 of both cores, of 30,000 entries), and garbage looked for as rarely as the command does (166.4 to 164.7, of 100,000).
Tried without gain: orjson in the place of the pattern (9.2 us to 8.9, and floats to be found); a child without a thread that reads
ahead (105 us to 103); batches of 256 (112 us to 113); older versions of marshal, or pickle, for what a child answers (2.2 to 2.7 us
to 1.7); base64 without its strict mode (2.3 us to 2.5). For a log too short for children: reading a batch here and verifying it
in threads, in the place of threads that do both, judged as well (250 entries 24.5 ms to 22.6, 1,000 102 to 106, 3,000 309 to 304).""",
    "encode": """\
Beside the hash of what comes out (32 ms on the day of these figures, of a processor whose memory is far from it) the two models
are read from the memory and subtracted (7.5 ms for 80 MB), and in the cache the least and the largest is found (2.1), it is
multiplied (1.2), rounded (1.8) and made integers (2.2): 47.8 ms with the bare calls, 1.50 of the hash, and 52 as the product does
it, in pieces of tensors. On another processor, whose hash takes 22 ms, it was 1.46. Kept were: two reductions in the place of clip
and isfinite, binary32 in the place of binary64 (the module says why the integers are the same), a hash of what is still in the cache.
Tried without gain: slices of 2^13 to 2^17 elements (65.4, 58.6, 54.2, 52.5, 53.1 ms; it is 2^16); each slice hashed and written alone
(51.4 to 52.5, where the file then takes longer); rounding into integers in one call (2.7 ms to 2.8); without AVX-512 (47.9 ms), without
huge pages (47.7). One loop compiled by numba makes 42.5 ms of the 47.8, and was left: each process takes 0.25 s to load it and 0.65 to
compile (a launch is measured, too), 85 MB more of memory, and what numba keeps on the disk to compile once is pickled, which nothing
here reads.""",
    "verify and sum": """\
Two threads hash 400 MB in 114 ms, and then sum them in 61. A slice of 2^16 numbers is copied to an even address (6 us), its
least and its largest are found (9), it is multiplied (6) and added (7), four passes within the cache that numpy knows no way to
join: 45 ms of both cores. The rest is the memory, which both cores share, and the interpreter's lock.
Tried without gain: each chunk summed when it has just been hashed, in a shard for each thread (177 ms to 188); slices of 2^13 to
2^18 elements (97, 79, 70, 68, 67, 76 ms; it is 2^16); sums at odd addresses (72 to 77 ms); copying before the product (72 ms);
one loop compiled by numba for the last three passes (8.5 ms to 7.6 for ten million, see encoding for what it costs).""",
    "append to a ledger": """\
An entry is found by its id, a hash: each append reads and writes pages of that index anywhere in the file. With the file in
memory it is nearly flat (219 us at 1,000 entries, 228 at 300,000); where the system has dropped it, each page is a read from the
disk.
Tried without gain: that index by segments, as the subjects' are, in a table of ids alone. At a million rows an entry of a batch
of 309 then costs 57 us, 38 of them to seek it in 16 segments; with the one index it costs 24, and 15 at a thousand rows. So
what is appended in one place is sought in sixteen, and a duplicate must be sought over the whole ledger. Also entries inserted
in the order of their ids (3.99 ms to 3.34 for a thousand); pages of 8 KiB (1.12 for one entry).""",
    "embedded ledger": """\
Of 142 us for an entry in a batch of 1,000, on a machine whose bare signature takes 113: 22 to read it, 59 to verify it on two
cores, 23 to judge it (5 of them the values that it asks for), 28 to write its rows, 6 to commit. On a core whose signature takes 70 the
rest weighs more. Kept was: a batch read first and then verified, in threads that do nothing else (250 envelopes: 29 ms to 20).
Tried without gain: fewer indexes, many rows in one INSERT, larger pages: see the comparison of 1,000 sites.""",
    "a site and a round": """\
The leading process makes, signs, opens, judges and stores an entry for each site: see the comparison of 1,000 sites. A signature
made and verified takes 70 us of both cores. Kept was: the state of ten thousand sites known between the steps of a round (reading
it 30 us a site to 16, judging 70 to 59).
Tried without gain: fewer indexes in the ledger (0.91); many rows in one INSERT (1.00).""",
    "audit of that round": """\
An audit hashes more than the bundle: each file for the bundle's index, each update's chunks for its commitment, the base and
a model, and the sum: 1,080 MB for a bundle of 520. All of it is 1.02 s of the processor (306 ms to hash the bundle on that day), 200
ms of them to load the program and numpy; both cores would be busy for 0.53 s, and it takes 0.55 to 0.57. The first 30 ms
are one core's: Python starts, and reads what reads a bundle.
Kept were: modules compiled beforehand (340 ms to start and judge a small bundle, 250 with them); hashing before the command line
is loaded, by threads that stand back for whoever judges (1,076 ms to 769 in turns; of which the standing back some 50); the
index held against the bodies after the claims about the work; patterns only for kinds that are read often (17 ms); no second
pass for the range; an exit without a last look for garbage; sums in 32 bits where they hold them (46 ms to 33 for half of the
vector on one core); the result made, compared and hashed piece by piece, so that neither sum nor model takes new memory (120 MB,
whose clearing took 15 ms of the processor or, where the system had no pages at hand, 200: 737 ms to 580 in turns); hashing ahead
in pieces of 4 MiB (43 MB in 50 ms beside a program that loads, now 60 to 70); less loaded, and less of it before hashing begins
(31 ms); the released model known from the index and claim 8 (17 ms). In turns with all of them: 716 ms to 573.
Tried without gain: hashing earlier by threads of the usual rank, which is done when the sums could have used it (0.82 to 0.84
s before and after); no huge pages for numpy (NUMPY_MADVISE_HUGEPAGE=0: 0.76 to 0.82 s beside 0.74 to 0.90 in the quiet
turns); mapping all pages at once (11 ms for 18); slices of 2^13 to 2^18 elements for the sum (97, 79, 70, 68, 67, 76 ms; it is
2^16); a BLAS product (48 ms to 55, if its own threads are held to one, which they are not in a process that trains); products
of mixed types (70 ms); verifying by shards in threads (361 ms to 299); pieces of 2, 4 and 8 chunks for the result (595, 614 and 628 ms;
599 with one); hashing ahead in pieces of 8 MiB (as 4).""",
}
"""By a part of the goal's name."""
WHEN = "figures of earlier runs, from when it was tried, on two cores"


def tried(rows: Sequence[Row]) -> list[str]:
    """What to say of the goals among these that are not reached, each once."""
    missed = " ".join(row.what for row in rows if not row.reached)
    return [f"Not reached: {name} ({WHEN})\n{text}" for name, text in TRIED.items() if name in missed]
