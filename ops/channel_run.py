# SPDX-License-Identifier: Apache-2.0
"""A run whose ledger is a Fabric channel, as evidence: the blocks come from a peer, the artefacts from the run's folder.

``fabric.json`` in a run's folder says which channel: the path of the connection profile (relative to the run's folder where it
lies below) and the organisation as whose client to read. ``federation.vkey`` holds the channel's key.
"""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from chaincode import artefacts
from chaincode.audit.channel_source import ChannelSource, NoObserver
from chaincode.audit.folder_source import FolderFiles
from chaincode.channel_key import ChannelKey, format_channel_key
from chaincode.files import read_bounded, write_whole
from chaincode.trust import KEY_FILE
from identity.canonical import parse_json
from identity.errors import EvidenceError, UsageError
from ops import output

FILE = "fabric.json"
_LIMIT = 1 << 16
_SECONDS = 60.0
_VERIFY = output.command_line("audit", "verify")


@dataclass(frozen=True, slots=True)
class ChannelRun:
    """The channel of a run: the connection profile's path, and the organisation as whose client to read."""

    folder: Path
    profile: Path
    organisation: str


def write_run(run: ChannelRun, genesis: bytes, origin: str, federation: str) -> ChannelKey:
    """Write ``fabric.json`` and the key of a federation that was founded on a channel with this first block.

    Raises EvidenceError: block-*, fabric-unsupported; OSError.
    """
    from chaincode.blocks.pinning import make_channel_key  # noqa: PLC0415 (runs on an embedded ledger need no protocol buffers)

    key = make_channel_key(genesis, origin, federation)
    write_place(run)
    write_whole(run.folder / KEY_FILE, format_channel_key(key).encode())
    return key


def write_place(run: ChannelRun) -> None:
    """Write ``fabric.json`` alone, for a run whose federation is not founded yet. Raises OSError."""
    folder, profile = run.folder.absolute(), run.profile.absolute()
    place = profile.relative_to(folder) if profile.is_relative_to(folder) else profile
    said = json.dumps({"organisation": run.organisation, "profile": str(place)}, indent=2)
    write_whole(run.folder / FILE, f"{said}\n".encode())


def is_on_channel(folder: Path) -> bool:
    """Whether a folder is that of a run on a channel."""
    return (folder / FILE).is_file()


def read_run(folder: Path) -> ChannelRun | None:
    """The channel of a run, None for a run on an embedded ledger. Raises UsageError(run-malformed), OSError."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        value = parse_json(read_bounded(path, _LIMIT), limit=_LIMIT)
        profile, organisation = value["profile"], value["organisation"]
        if not isinstance(profile, str) or not isinstance(organisation, str):
            raise TypeError
    except (EvidenceError, KeyError, TypeError) as error:
        raise UsageError("run-malformed", f"{path} does not say which channel the run is on.") from error
    return ChannelRun(folder, folder / profile, organisation)


class Spool:
    """A channel's raw blocks in a file that is gone afterwards, so that they are fetched once."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._spans: list[tuple[int, int]] = []

    def add(self, block: bytes) -> None:
        self._spans.append((self._file.seek(0, 2), len(block)))
        self._file.write(block)

    def block(self, number: int) -> bytes:
        """A block by its number."""
        offset, length = self._spans[number]
        self._file.seek(offset)
        return self._file.read(length)

    def blocks(self) -> Iterator[bytes]:
        """All blocks, from the first on."""
        for number in range(len(self._spans)):
            yield self.block(number)


@contextmanager
def channel_evidence(run: ChannelRun) -> Iterator[tuple[ChannelSource, Spool]]:
    """Take the blocks that the run kept, or else fetch the channel's up to the newest, and open the run as evidence.

    Raises Unavailable(fabric-blocks), UsageError: profile-*, fabric-*; CredentialError: msp-*.
    """
    files = FolderFiles(run.folder)

    @contextmanager
    def opened(name: str) -> Iterator[memoryview | None]:
        if name == artefacts.CHECKPOINT:
            path = run.folder / name
            yield memoryview(read_bounded(path, _LIMIT)) if path.exists() else _own_head(source)
        else:
            with files.open(name) as data:
                yield data

    with tempfile.TemporaryFile(prefix="fedledger-blocks-") as file:
        spool = Spool(file)
        if not _kept(run, spool):
            _fetch(run, spool)
        source = ChannelSource(spool.blocks, opened, NoObserver, files.remarks)
        yield source, spool


def head(run: ChannelRun) -> str:
    """The head of the run's log: what its members cosigned, or that of the entries whose blocks hold, which nobody signed.

    Raises as ``channel_evidence``; EvidenceError(export-differs) where the blocks do not hold.
    """
    with channel_evidence(run) as (source, _):
        source.trust(None)
        for _ in source.opened(source.entries()):
            pass
        if source.chain is None or source.chain.faults:
            what = source.chain.faults[0].what if source.chain else ""
            raise EvidenceError("export-differs", f"The channel's blocks do not hold. {what}", next=_VERIFY)
        return source.checkpoint().decode()


def _own_head(source: ChannelSource) -> memoryview:
    """A run that keeps no head has that of the entries that were read."""
    return memoryview(source.own_head())


def _kept(run: ChannelRun, spool: Spool) -> bool:
    """Take the blocks in the run's folder, whether there are any: a run keeps what it acted on, and no peer need be there."""
    number = 0
    while (path := run.folder / artefacts.block(number)).exists():
        spool.add(read_bounded(path, artefacts.BLOCK_LIMIT))
        number += 1
    return number > 0


def _fetch(run: ChannelRun, spool: Spool) -> None:
    """Have the peers of the run's organisation show every block."""
    from chaincode.ledgers.fabric.asking import Asking  # noqa: PLC0415
    from chaincode.ledgers.fabric.gateway import Peer  # noqa: PLC0415
    from chaincode.ledgers.fabric.identity import load_member  # noqa: PLC0415
    from chaincode.ledgers.fabric.profile import load_profile  # noqa: PLC0415

    profile = load_profile(run.profile)
    own = profile.organisation(run.organisation)
    if not own.peers:
        raise UsageError("profile-organisation", f"{profile.path} names no peer of {own.name}.")
    peers = [Peer(node) for node in own.peers]
    try:
        asking = Asking(load_member(own), profile.channel)
        for data in asking.blocks(peers, 0, None, lambda block, *_: block.SerializeToString(), turn=_SECONDS):
            spool.add(data)
    finally:
        for peer in peers:
            peer.close()
