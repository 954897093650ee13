# SPDX-License-Identifier: Apache-2.0
"""A proof file judged by itself: is its entry in the log of a federation that I trust?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from chaincode import trust
from chaincode.checkpoints import MAX_PROOF_BYTES, Checkpoint, parse_proof
from chaincode.entries import Entry
from chaincode.files import read_bounded
from chaincode.proofs import is_proof, verify_entry_proof
from chaincode.trust import KEY_FILE
from identity.errors import EvidenceError, UsageError
from ops import output

PASS, FAIL = "PASS", "FAIL"
INTEGRITY_ONLY = "integrity only: the key came with the proof"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a proof shows: an entry, where it stands, and the signed head that says so."""

    entry: Entry
    index: int
    head: Checkpoint


def is_proof_file(path: Path) -> bool:
    """Whether a file begins like a proof."""
    return path.is_file() and is_proof(read_bounded(path, 64))


def check(path: Path, given: Path | None, *, as_json: bool) -> None:
    """Say whether the proof holds, under the key that is given or else the one beside it.

    Raises:
        UsageError: ``key-missing``. EvidenceError: ``federation-key``. OSError. typer.Exit: 1 where it does not hold.
    """
    key_path = given or _beside(path)
    key = trust.read_key(key_path)
    try:
        shown, problem = _shown(read_bounded(path, MAX_PROOF_BYTES), key), ""
    except EvidenceError as error:
        shown, problem = None, str(error)
    result = FAIL if shown is None else PASS if given else INTEGRITY_ONLY
    if as_json:
        output.emit_json("audit", _as_json(path, key_path, result, shown, problem))
    else:
        _show(path, key_path, result, shown, problem)
    if shown is None:
        raise typer.Exit(1)


def _beside(path: Path) -> Path:
    folder = path.absolute().parent
    for candidate in (folder / KEY_FILE, folder.parent / KEY_FILE):
        if candidate.is_file():
            return Path(output.relative(candidate))
    command = output.command_line("audit", "verify", path, "--key", KEY_FILE)
    raise UsageError("key-missing", f"No {KEY_FILE} was given, and none lies beside {path}.", next=command)


def _shown(data: bytes, key: trust.FederationKey) -> Shown:
    entry, head = verify_entry_proof(data, key)
    return Shown(entry, parse_proof(data).index, head)


def _show(path: Path, key: Path, result: str, shown: Shown | None, problem: str) -> None:
    if shown is None:
        output.line(f"differs: {problem}", "bold red")
        output.line(f"FAIL: {path} does not show an entry of the log whose key is {key}.", "bold red")
        return
    entry = shown.entry
    output.facts([
        ("entry", entry.id), ("index", f"{shown.index} of {shown.head.size}"), ("kind", entry.kind), ("member", entry.member),
        ("signed by", f"{entry.did}  (signature verified)"), ("at", output.when(entry.at)), ("federation", entry.federation),
        ("log", shown.head.origin),
        *((name, digest) for name, digest in entry.subjects.items() if name != "federation"),
    ])  # fmt: skip
    output.line()
    if result == PASS:
        output.line(f"PASS: the entry is in the log of the federation whose key is {key}.", "bold green")
    else:
        output.line(f"PASS, {INTEGRITY_ONLY} ({key}).", "bold yellow")
        output.line(
            "Whoever made the proof could have made the key: get it from the federation, and name it with --key."
        )


def _as_json(path: Path, key: Path, result: str, shown: Shown | None, problem: str) -> dict[str, Any]:
    entry = None if shown is None else {
        "id": shown.entry.id, "index": shown.index, "kind": shown.entry.kind, "member": shown.entry.member, "did": shown.entry.did,
        "at": shown.entry.at, "subjects": dict(shown.entry.subjects), "body": shown.entry.body,
    }  # fmt: skip
    return {
        "proof": str(path), "key": str(key), "result": result, "entry": entry, "size": shown.head.size if shown else None,
        "error": problem or None,
    }  # fmt: skip
