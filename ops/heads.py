# SPDX-License-Identifier: Apache-2.0
"""Heads of a log that somebody keeps outside: read for an audit, and written to be kept."""

from pathlib import Path

from chaincode import artefacts
from chaincode.bundle import is_bundle, open_bundle
from chaincode.checkpoints import MAX_PROOF_BYTES, stated_head
from chaincode.files import read_bounded
from chaincode.proofs import is_proof
from identity.errors import EvidenceError, UsageError
from ops import output


def read_head(path: Path, run: str | None = None) -> bytes:
    """The bytes of a head: a checkpoint (empty lines after it do not count), a proof, or that of a bundle.

    Whether it is signed by the log is for the audit to say. ``run`` is the PATH that was given, for the next command.

    Raises:
        UsageError: ``head-malformed`` for a file that is none of them. EvidenceError: ``bundle-*``. OSError.
    """
    if is_bundle(path):
        with open_bundle(path) as bundle:
            return bytes(bundle.body(artefacts.CHECKPOINT) or b"")
    data = read_bounded(path, MAX_PROOF_BYTES)
    if is_proof(data):
        return data
    checkpoint = data.rstrip(b"\r\n") + b"\n"
    if not is_checkpoint(checkpoint):
        raise UsageError(
            "head-malformed", f"{path} is no head of a log.\nallowed: a checkpoint, a proof file, or an exported bundle\n"
            "Keep a checkpoint of a run elsewhere, to have one:", next=output.command_line("audit", "head", *([run] if run else []), "-o", "head.checkpoint"),
        )  # fmt: skip
    return checkpoint


def is_checkpoint(data: bytes) -> bool:
    """Whether bytes are a checkpoint and nothing else."""
    try:
        stated_head(data)
    except EvidenceError:
        return False
    return True
