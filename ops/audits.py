# SPDX-License-Identifier: Apache-2.0
"""What ``fedledger audit verify`` does.

What it needs for run folders alone is loaded where it is used: a bundle's audit is done before that would be loaded.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from chaincode.audit import ABSENT, FAIL, INCOMPLETE, PASS, Claim, Report, audit, unreadable
from chaincode.audit.bundle_source import bundle_source, source_of
from chaincode.bundle import Bundle
from chaincode.channel_key import Key, read_any_key
from identity.errors import EvidenceError, UsageError
from ops import heads, output, proof_check, settings

_INDENT = " " * 4
_STYLES = {PASS: "green", FAIL: "bold red", ABSENT: "yellow", INCOMPLETE: "bold yellow"}


def verify(
    path: str | None, bundle: Bundle | None, *, head: Path | None, key: Path | None, recompute: bool, as_json: bool
) -> int:
    """Print the audit of what PATH means, which ``bundle`` is where that is open already; the exit code."""
    where = place(path, announce=not as_json)
    if bundle is None and proof_check.is_proof_file(where):
        if head is not None:
            raise UsageError("usage", "A proof file is judged by its own head: --head is for runs and bundles.")
        proof_check.check(where, _key_path(key), as_json=as_json)
        return 0
    options: dict[str, Any] = {
        "head": None if head is None else heads.read_head(head, path),
        "key": _key(key, [where, *(["--head", head] if head is not None else [])]),
        "recompute": recompute,
    }
    report = verify_bundle(bundle or where, **options) if where.is_file() else verify_folder(where, **options)
    if as_json:
        output.emit_json("audit", report_json(report))
    else:
        show(report)
    return exit_code(report)


def verify_folder(path: Path, **options: Any) -> Report:
    """The audit of a run folder; ``options`` are those of ``chaincode.audit.audit``.

    Raises:
        Unavailable: ``evidence-changing`` where findings may come from a run that is writing the folder, ``ledger-*``.
    """
    from chaincode.audit.folder_source import LEDGER, folder_source  # noqa: PLC0415 (see the module)
    from ops import channel_run  # noqa: PLC0415

    run = channel_run.read_run(path)
    if run is not None:
        with _progress() as progress, channel_run.channel_evidence(run) as (channel, _):
            return audit(channel, progress=progress, **options)
    try:
        with _progress() as progress, folder_source(path) as source:
            report = audit(source, progress=progress, **options)
            if report.failed:
                source.check_still()
            return report
    except EvidenceError as error:
        return unreadable(LEDGER, error.code, error.message)


def verify_bundle(bundle: Bundle | Path, **options: Any) -> Report:
    """The audit of a bundle, open or not; ``options`` are those of ``chaincode.audit.audit``. Raises OSError."""
    opening = bundle_source(bundle) if isinstance(bundle, Path) else nullcontext(source_of(bundle))
    try:
        with _progress() as progress, opening as source:
            return audit(source, progress=progress, **options)
    except EvidenceError as error:
        return unreadable("index line", error.code, error.message)


def exit_code(report: Report) -> int:
    """1 where a claim fails or evidence is gone that the ledger names, else 0."""
    return 0 if report.result == PASS else 1


def report_json(report: Report) -> dict[str, Any]:
    """The report for programs."""
    claims = [
        {
            "number": claim.number, "title": claim.title, "verdict": claim.verdict, "summary": claim.summary,
            "rests_on": claim.rests_on(), "findings": [asdict(finding) for finding in claim.findings],
            "missing": list(claim.missing), "notes": list(claim.notes),
        }
        for claim in report.claims
    ]  # fmt: skip
    return {
        "result": report.result, "federation": report.federation, "origin": report.origin,
        "size": report.size, "root": report.root, "key": report.key, "claims": claims,
        "attestations": list(report.attestations),
    }  # fmt: skip


def show(report: Report) -> None:
    """Print the report for people: each claim with its verdict and what it rests on, what differs, and the result."""
    for claim in report.claims:
        _show_claim(claim)
    if report.attestations:
        output.line()
        output.line("Attestations by members", "bold")
        for attestation in report.attestations:
            output.line(f"  {attestation}")
    output.line()
    failing = [str(claim.number) for claim in report.claims if claim.verdict == FAIL]
    absent = [str(claim.number) for claim in report.claims if claim.verdict == ABSENT]
    without = f" Not in this evidence: {', '.join(absent)}." if absent else ""
    without += "" if failing or report.key == "given" else " Integrity only: the key came with the evidence (--key)."
    lost = ", ".join(str(claim.number) for claim in report.claims if claim.lost)
    what = {
        FAIL: f"claims that do not hold: {', '.join(failing)}.",
        INCOMPLETE: f"no claim fails, but evidence that the ledger names is gone, for claims {lost}.",
        PASS: "no claim fails.",
    }[report.result]
    output.paragraph(f"{report.result}: {what}{without}", _STYLES[report.result])


def _show_claim(claim: Claim) -> None:
    output.line(f"{claim.number:>2}  {claim.verdict}  {claim.title}", _STYLES[claim.verdict])
    rests = claim.rests_on()
    output.paragraph(f"{claim.summary}{f' Rests on {rests}.' if rests else ''}", indent=_INDENT)
    for finding in claim.findings:
        output.paragraph(f"differs: {finding.where}: {finding.what} [{finding.code}]", _STYLES[FAIL], indent=_INDENT)
    for missing in claim.missing:
        output.paragraph(f"not here: {missing}", indent=_INDENT)
    for note in claim.notes:
        output.paragraph(f"note: {note}", indent=_INDENT)


def place(path: str | None, *, announce: bool = False) -> Path:
    """What PATH means: a file, which is judged as a bundle or a proof whatever it holds, or a run folder."""
    if path is not None and Path(path).is_file():
        return Path(path)
    from ops import channel_run  # noqa: PLC0415 (see the module)
    from ops.source import folder_of  # noqa: PLC0415

    if path is not None and channel_run.is_on_channel(Path(path)):
        return Path(path)
    return folder_of(path, announce=announce).path


def _key_path(given: Path | None) -> Path | None:
    """The file of the key that the auditor trusts, from the command line or the settings."""
    text = settings.text("key")
    return given or (Path(text) if text else None)


def _key(given: Path | None, without: Sequence[object]) -> Key | None:
    """The key that the auditor trusts, from the command line or the settings; ``without`` are the words of the audit without it.

    Raises:
        UsageError: ``key-missing``. EvidenceError: ``federation-key``. OSError where the file cannot be read.
    """
    path = _key_path(given)
    try:
        return None if path is None else read_any_key(path)
    except FileNotFoundError as error:
        message = f"There is no file {path}: it is the key that the federation gave you. Without it the evidence shows its integrity only:"
        raise UsageError("key-missing", message, next=output.command_line("audit", "verify", *without)) from error


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A display on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.progress import (  # noqa: PLC0415 (only a terminal needs it)
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=output.stderr(), transient=True) as display:
        task = display.add_task("auditing", total=None)

        def report(stage: str, done: int, total: int) -> None:
            display.update(task, description=stage, completed=done, total=total or None)

        yield report
