# SPDX-License-Identifier: Apache-2.0
"""``fedledger verify``: is this file the released model of a federation that I trust?

Needs the model, its proof and the federation's key file; no ledger, no network, no torch.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from chaincode import models, proofs, trust
from chaincode.channel_key import ChannelKey, read_any_key
from chaincode.entries import Entry
from chaincode.files import mapped, read_bounded
from chaincode.trust import KEY_FILE
from identity.errors import Error, EvidenceError, UsageError
from identity.wording import counted
from ops import output, settings
from ops.options import JsonOption

app = typer.Typer(add_completion=False)

PASS, FAIL, SKIPPED = "PASS", "FAIL", "not checked"
_PROOF_LIMIT = 1 << 20
INTEGRITY_ONLY = "integrity only: the key came with the model"

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="The model file.", show_default=False)]
ProofOption = Annotated[
    Path | None, typer.Option("--proof", help="Its proof; else the file MODEL with the ending .proof.")
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key", help="The federation.vkey that you trust; else FEDLEDGER_KEY, else the one beside the model."
    ),
]


@dataclass(slots=True)
class Check:
    """One claim, its verdict, and what the verdict rests on or what differs."""

    claim: str
    verdict: str = SKIPPED
    basis: str = ""


@app.command()
def verify(model: ModelArgument, proof: ProofOption = None, key: KeyOption = None, as_json: JsonOption = False) -> None:
    """Say whether a model is the released one."""
    if not model.is_file():
        raise UsageError("path", f"There is no model file {model}.", next=output.command_line("verify", "--help"))
    key_path, trusted = _key(model, key)
    proof_path = proof or model.with_suffix(".proof")
    if key_path.exists():
        _require_log_key(model, key_path)
    _require(proof_path, "proof", output.command_line("verify", model, "--proof", "FILE"))
    _require(key_path, "key", output.command_line("verify", model, "--key", KEY_FILE))
    checks, entry = judge(model, proof_path, key_path)
    passed = all(check.verdict == PASS for check in checks)
    result = "FAIL" if not passed else "PASS" if trusted else INTEGRITY_ONLY
    if as_json:
        output.emit_json("verify", _as_json(model, key_path, result, checks, entry))
    else:
        output.table(("claim", "verdict", "rests on"), [(c.claim, c.verdict, c.basis) for c in checks])
        output.line()
        _conclude(result, model, key_path, checks)
    if not passed:
        raise typer.Exit(1)


def _require(path: Path, what: str, command: str) -> None:
    if not path.exists():
        raise UsageError("path", f"There is no {what} file {path}.", next=command)


def _require_log_key(model: Path, path: Path) -> None:
    """Refuse the key of a federation on a Fabric channel: it pins blocks, and signs no proof."""
    with suppress(EvidenceError):  # which the first check names
        if isinstance(read_any_key(path), ChannelKey):
            raise UsageError(
                "channel-no-proof",
                f"{path} pins a Fabric channel, whose blocks are the proof: no single release has one of its own.\n"
                f"The audit compares {model} where it lies in a run's release folder, or in what was exported of one.",
                next=output.command_line("audit", "verify", "RUN_OR_BUNDLE", "--key", path),
            )


def _key(model: Path, given: Path | None) -> tuple[Path, bool]:
    """The key file to check against, and whether it came from somewhere else than the model."""
    chosen = given or (Path(text) if (text := settings.text("key")) else None)
    if chosen is not None:
        return chosen, True
    beside = [folder / KEY_FILE for folder in (model.absolute().parent, model.absolute().parent.parent)]
    found = next((path for path in beside if path.is_file()), None)
    if found is None:
        command = output.command_line("verify", model, "--key", KEY_FILE)
        raise UsageError("key-missing", f"No {KEY_FILE} was given, and none lies beside {model}.", next=command)
    return Path(output.relative(found)), False


def judge(model: Path, proof: Path, key: Path) -> tuple[list[Check], Entry | None]:
    """The checks in their order; after the first that fails the rest is not checked. The release's entry, if there is one.

    Raises:
        OSError: one of the files cannot be read.
    """
    known: dict[str, Any] = {}

    def federation() -> str:
        known["key"] = trust.read_key(key)
        return f"log {known['key'].log.name}, federation {known['key'].federation}"

    def logged() -> str:
        entry, head = proofs.verify_entry_proof(read_bounded(proof, _PROOF_LIMIT), known["key"])
        known["entry"] = entry
        return f"entry {entry.id}, in the log's signed head of {counted(head.size, 'entry')}"

    def same_model() -> str:
        digest, released = models.digest_file(model), known["entry"].subjects["model"]
        if digest != released:
            raise EvidenceError("model-mismatch", f"The file holds model {digest}, released was {released}.")
        return f"model {digest}"

    steps: list[tuple[str, Callable[[], str]]] = [
        ("the key file is that of a federation", federation),
        ("the proof's entry is in the federation's log", logged),
        ("the entry releases a model", lambda: _release(known["entry"])),
        ("the file holds the released model, to the bit", same_model),
    ]
    if (card := model.parent / "model-card.md").is_file():
        steps.append(("the model card beside it is the released one", lambda: _card(card, known["entry"])))
    checks = [Check(claim) for claim, _ in steps]
    for check, (_, step) in zip(checks, steps, strict=True):
        try:
            check.basis, check.verdict = step(), PASS
        except Error as error:
            check.basis, check.verdict = str(error), FAIL
            break
    return checks, known.get("entry")


def _release(entry: Entry) -> str:
    if entry.kind != "release":
        raise EvidenceError("not-a-release", f"The proof is of an entry of the kind {entry.kind}.")
    return (
        f"round {entry.body['round']} of agreement {entry.agreement}, signed by {entry.did} at {output.when(entry.at)}"
    )


def _card(path: Path, entry: Entry) -> str:
    with mapped(path, follow_links=True) as data:
        digest, released = hashlib.sha256(data).hexdigest(), entry.subjects["model-card"]
    if digest != released:
        raise EvidenceError("model-card-mismatch", f"The card's digest is {digest}, released was {released}.")
    return f"card {digest}"


def _as_json(model: Path, key: Path, result: str, checks: list[Check], entry: Entry | None) -> dict[str, Any]:
    released = None if entry is None else {
        "entry": entry.id, "kind": entry.kind, "federation": entry.federation, "agreement": entry.agreement,
        "round": entry.body.get("round"), "did": entry.did, "at": entry.at, "subjects": dict(entry.subjects),
    }  # fmt: skip
    return {
        "model": str(model),
        "key": str(key),
        "result": result,
        "checks": [asdict(c) for c in checks],
        "release": released,
    }


def _conclude(result: str, model: Path, key: Path, checks: list[Check]) -> None:
    if result == "FAIL":
        failed = next(check.claim for check in checks if check.verdict == FAIL)
        output.line(f"FAIL: {model}: it is not so that {failed}.", "bold red")
    elif result == INTEGRITY_ONLY:
        output.line(f"PASS, {INTEGRITY_ONLY} ({key}).", "bold yellow")
        output.line(
            "Whoever made the model could have made the key: get it from the federation, and name it with --key."
        )
    else:
        output.line(f"PASS: {model} is a released model of the federation whose key is {key}.", "bold green")
