# SPDX-License-Identifier: Apache-2.0
"""From a run on a channel to a bundle: the raw blocks, the head of the log, and what the entries in them name."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from chaincode import artefacts
from chaincode.audit.channel_source import ChannelSource
from chaincode.audit.export import artefact_bodies, artefact_body, body
from chaincode.bundle import File
from chaincode.bundle_writer import Body, write_bundle
from chaincode.checkpoints import Checkpoint, stated_head
from chaincode.entries import Entry, open_entry
from chaincode.log import leaf_hash, root
from chaincode.trust import KEY_FILE
from identity.errors import EvidenceError

_NEXT: Final = "fedledger audit verify"


def export_channel(source: ChannelSource, block: Callable[[int], bytes], out: Path) -> list[File]:
    """Write the bundle of a run on a channel; ``block`` gives a raw block again by its number.

    The blocks are verified first, under the run's own key. The head is the run's where members have cosigned one of these
    very entries, else the entries' own. Blobs and models that were deleted are left out.

    Raises EvidenceError: export-missing (no key file), export-differs (the blocks do not hold, or a file is not what it is
    called), bundle-*; OSError where the bundle cannot be written.
    """
    source.trust(None)
    if source.key is None:
        raise source.unreadable or EvidenceError("export-missing", f"There is no {KEY_FILE} in the run.", next=_NEXT)
    named, releases, leaves = set[str](), list[Entry](), list[bytes]()
    for envelope, entry in _read(source):
        named.update(artefacts.named_by(entry))
        releases += [entry] if entry.kind == "release" else []
        leaves.append(leaf_hash(envelope))
    chain = source.chain
    if chain is None or chain.faults:
        what = chain.faults[0].what if chain else ""
        raise EvidenceError(
            "export-differs", f"The channel's blocks do not hold; nothing was exported. {what}", next=_NEXT
        )
    note = _head(source, Checkpoint(source.key.origin, len(leaves), root(leaves)))
    bodies: list[tuple[str, Callable[[], Body]]] = [
        (artefacts.CHECKPOINT, partial(body, lambda: note)),
        (KEY_FILE, partial(artefact_body, source, KEY_FILE)),
        *((artefacts.block(number), partial(body, partial(block, number))) for number in range(chain.height)),
    ]
    named.discard(artefacts.RELEASED_PROOF)
    return write_bundle(out, [*bodies, *artefact_bodies(source, named, releases, None)])


def _read(source: ChannelSource) -> Iterator[tuple[bytes, Entry]]:
    for envelope, _, entry in source.opened(source.entries()):
        yield envelope, entry if isinstance(entry, Entry) else open_entry(envelope)


def _head(source: ChannelSource, own: Checkpoint) -> bytes:
    """The run's cosigned head if it is that of these entries, else the entries' own, which nobody signed."""
    note = source.checkpoint()
    if note and stated_head(note) == own:
        return note
    return own.text().encode()
