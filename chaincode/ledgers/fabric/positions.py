# SPDX-License-Identifier: Apache-2.0
"""Where entries are in the log of a channel, kept between processes: a new one reads only the blocks that came since.

One file for a channel's first block and a chaincode, written by ourselves beside the pending transactions: a digest, a
line of JSON, and after it the numbers and the entries' ids. A file that is not whole, or of another channel, counts as none.
"""

import hashlib
from array import array
from dataclasses import dataclass, field
from pathlib import Path

from chaincode.files import read_bounded, write_whole
from identity import canonical
from identity.errors import EvidenceError

LIMIT = 1 << 30
HEAD_LIMIT = 1 << 20
_FORMAT = 1
_ID = 32
_NUMBER = 8


@dataclass(slots=True)
class Positions:
    """What the blocks before number `next` say; `tip` is the hash of the last one, b"" before the first.

    `indexes` are the entries' numbers by their ids, in order; `first` and `block` name, of each block that adds entries, the
    number of its first entry and its own; `versions` which version of the contract judged how many entries in a row.
    """

    next: int = 0
    tip: bytes = b""
    indexes: dict[bytes, int] = field(default_factory=dict)
    first: list[int] = field(default_factory=list)
    block: list[int] = field(default_factory=list)
    versions: list[tuple[str, int]] = field(default_factory=list)

    def count(self, version: str) -> None:
        """Note which version judged the next entry."""
        last, count = self.versions.pop() if self.versions else (version, 0)
        self.versions += [(last, count + 1)] if last == version else [(last, count), (version, 1)]


def place_of(folder: Path, genesis: bytes, chaincode: str) -> Path:
    """The file for a chaincode on the channel that begins with the block of this hash."""
    named = hashlib.sha256(genesis + chaincode.encode()).hexdigest()
    return folder / f"{named[:32]}.positions"


def save(path: Path, positions: Positions) -> None:
    """Write positions, whole or not at all. Raises OSError."""
    numbers = array("Q", positions.first).tobytes() + array("Q", positions.block).tobytes()
    body = numbers + b"".join(positions.indexes)
    head = {
        "format": _FORMAT, "next": positions.next, "tip": positions.tip.hex(), "blocks": len(positions.first),
        "versions": [[version, count] for version, count in positions.versions],
    }  # fmt: skip
    data = canonical.dumps(head) + b"\n" + body
    write_whole(path, hashlib.sha256(data).digest() + data)


def load(path: Path) -> Positions:
    """Read positions; those of an empty log where there is no such file, or one that does not hold together."""
    try:
        whole = read_bounded(path, LIMIT)
        if hashlib.sha256(memoryview(whole)[_ID:]).digest() != whole[:_ID]:
            return Positions()
        line, _, body = whole[_ID:].partition(b"\n")
        head = canonical.loads(line, limit=HEAD_LIMIT)
        if head["format"] != _FORMAT:
            return Positions()
        cut = head["blocks"] * _NUMBER
        first, block, ids = array("Q", body[:cut]), array("Q", body[cut : 2 * cut]), body[2 * cut :]
        indexes = {ids[i : i + _ID]: i // _ID for i in range(0, len(ids), _ID)}
        versions = [(str(version), int(count)) for version, count in head["versions"]]
        tip = bytes.fromhex(head["tip"])
        if len(ids) != _ID * len(indexes) or sum(count for _, count in versions) != len(indexes):
            return Positions()
        return Positions(int(head["next"]), tip, indexes, list(first), list(block), versions)
    except (OSError, EvidenceError, KeyError, TypeError, ValueError):
        return Positions()
