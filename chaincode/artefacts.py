# SPDX-License-Identifier: Apache-2.0
"""The names of what an audit reads, in a bundle and in a run folder: a closed list, so that nothing else is evidence.

``checkpoint`` the log's signed head · ``entries.jsonl`` the entries, one envelope a line, in the log's order ·
``federation.vkey`` · ``credentials/<SHA-256 of the token>.jwt`` · ``blobs/<digest>`` updates and optimiser states ·
``models/<digest>.safetensors`` · ``release/`` the released model, its proof and its card.

Of a federation on a Fabric channel, ``blocks/<number>`` are the raw blocks from the first on, in the place of
``entries.jsonl``; ``checkpoint`` is the log's head, which members may have cosigned.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaincode.entries import Entry

KEY_FILE = "federation.vkey"
CHECKPOINT = "checkpoint"
ENTRIES = "entries.jsonl"
RELEASED_MODEL = "release/model.safetensors"
RELEASED_PROOF = "release/model.proof"
RELEASED_CARD = "release/model-card.md"
RELEASED = (RELEASED_MODEL, RELEASED_PROOF, RELEASED_CARD)

REQUIRED = (CHECKPOINT, ENTRIES, KEY_FILE)
BLOCKS = "blocks/"
FIRST_BLOCK = f"{BLOCKS}000000000000"
CHANNEL_REQUIRED = (CHECKPOINT, KEY_FILE, FIRST_BLOCK)
"""What every bundle has; and every bundle of a channel, which is known by its first block."""
BLOCK_LIMIT = 128 << 20
"""Bytes of a block: an orderer cuts at 10 MiB unless the channel says otherwise."""

_NAME = re.compile(
    r"checkpoint|entries\.jsonl|federation\.vkey|credentials/[0-9a-f]{64}\.jwt|blobs/[0-9a-f]{64}"
    r"|blocks/[0-9]{12}|models/[0-9a-f]{64}\.safetensors|release/(model\.safetensors|model\.proof|model-card\.md)",
    re.ASCII,
)


def is_name(name: str) -> bool:
    """Whether something of this name belongs into evidence."""
    return _NAME.fullmatch(name) is not None


def credential(digest: str) -> str:
    """The name of a credential, by the SHA-256 of its token."""
    return f"credentials/{digest}.jwt"


def blob(digest: str) -> str:
    """The name of an update or of an optimiser's state, by its chunk root."""
    return f"blobs/{digest}"


def model(digest: str) -> str:
    """The name of a model's file, by the digest of its manifest."""
    return f"models/{digest}.safetensors"


def block(number: int) -> str:
    """The name of a channel's raw block."""
    return f"{BLOCKS}{number:012d}"


_BY_SUBJECT = {
    "credential": credential, "update": blob, "optimiser-state": blob, "initial-model": model, "base-model": model,
}  # fmt: skip


def named_by(entry: Entry) -> Iterator[str]:
    """The artefacts that an entry's subjects name: what a bundle may hold because this entry is in it."""
    for subject, digest in entry.subjects.items():
        if subject in _BY_SUBJECT:
            yield _BY_SUBJECT[subject](digest)
        elif subject == "model" and entry.kind == "record":
            yield model(digest)
    if entry.kind == "release":
        yield from RELEASED
