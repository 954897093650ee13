# SPDX-License-Identifier: Apache-2.0
"""What the commands of ``fedledger audit`` do."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from chaincode.audit import ABSENT, FAIL, INCOMPLETE, PASS, Claim, Report, audit, unreadable
from chaincode.audit.bundle_source import bundle_source, source_of
from chaincode.audit.channel_export import export_channel
from chaincode.audit.export import export as write_export
from chaincode.audit.folder_source import LEDGER, folder_source
from chaincode.bundle import Bundle, is_bundle, open_bundle
from chaincode.channel_key import Key, read_any_key
from chaincode.checkpoints import stated_head
from chaincode.files import read_bounded, write_whole
from chaincode.ledgers.sqlite import SqliteLedger
from chaincode.proofs import LogSource, ScannedLog, is_proof, make_entry_proof
from chaincode.trust import KEY_FILE
from identity.errors import EvidenceError, UsageError
from ops import channel_run, heads, output, proof_check, settings
from ops.options import path_and
from ops.source import folder_of, opened, read, which

_INDENT = " " * 4
_STYLES = {PASS: "green", FAIL: "bold red", ABSENT: "yellow", INCOMPLETE: "bold yellow"}


def verify(
    path: str | None, bundle: Bundle | None, *, head: Path | None, key: Path | None, recompute: bool, as_json: bool
) -> int:
    """Print the audit of what PATH means, which ``bundle`` is where that is open already; the exit code."""
    place = _place(path, announce=not as_json)
    if bundle is None and proof_check.is_proof_file(place):
        if head is not None:
            raise UsageError("usage", "A proof file is judged by its own head: --head is for runs and bundles.")
        proof_check.check(place, _key_path(key), as_json=as_json)
        return 0
    options: dict[str, Any] = {
        "head": None if head is None else heads.read_head(head, path),
        "key": _key(key),
        "recompute": recompute,
    }
    report = verify_bundle(bundle or place, **options) if place.is_file() else verify_folder(place, **options)
    if as_json:
        output.emit_json("audit", report_json(report))
    else:
        show(report)
    return exit_code(report)


def export(out: Path, path: str | None) -> None:
    """Write everything that verification needs into one file."""
    place = _place(path)
    if place.is_file():
        raise UsageError("not-a-run", f"{place} is a file; a run folder is exported.")
    _check_free(out, "bundle", is_bundle)
    run = channel_run.read_run(place)
    if run is not None:
        with channel_run.channel_evidence(run) as (channel, spool):
            files, remarks = export_channel(channel, spool.block, out), channel.remarks
    else:
        with folder_source(place) as source:
            files, remarks = write_export(source, out), source.remarks
    for remark in remarks:
        output.note(remark, "yellow")
    output.line(f"wrote {out}: {len(files)} files, {out.stat().st_size} bytes")
    blobs = sum(file.name.startswith("blobs/") for file in files)
    output.line(f"It holds the single updates of sites ({blobs} blobs): treat it as confidential.")
    output.next_command("audit", "verify", out)


def prove(arguments: Sequence[str], out: Path) -> None:
    """Write the proof that one entry is in the log, for somebody who has the federation's key alone."""
    path, text = path_and(arguments, "ENTRY")
    _check_free(out, "proof", lambda existing: is_proof(read_bounded(existing, 64)))
    if _on_channel(_place(path)):
        raise UsageError(
            "channel-no-proof",
            "No key signs the log of a Fabric channel, so no entry has a proof of its own: the channel's blocks are the proof.",
            next=output.command_line("audit", "export", "-o", "evidence.bundle", _place(path)),
        )
    with opened(path) as source:
        logged, _ = read(source, which(text, source.size))
        log: LogSource = (
            source if isinstance(source, SqliteLedger)
            else ScannedLog(source.entries(), source.checkpoint(), lambda index, _: index == logged.index)
        )  # fmt: skip
        proof, size = make_entry_proof(log, logged.index), source.size
    write_whole(out, proof.encode())
    output.line(f"wrote {out}: entry {logged.index} ({logged.id}) of {size}")
    output.line(f"Whoever holds the federation's {KEY_FILE} checks it with:")
    output.next_command("audit", "verify", out, "--key", _key_of(path))


def _on_channel(place: Path) -> bool:
    """Whether a run, or what was exported of one, is on a Fabric channel."""
    if not is_bundle(place):
        return channel_run.is_on_channel(place)
    with open_bundle(place) as bundle:
        return bundle.of_channel


def _key_of(path: str | None) -> Path:
    """The key file of the run that PATH means; of a bundle only its name, for the key is to come from elsewhere."""
    return Path(KEY_FILE) if path is not None and Path(path).is_file() else _place(path) / KEY_FILE


def keep_head(out: Path, path: str | None) -> None:
    """Write the log's present signed checkpoint, to keep elsewhere."""
    _check_free(out, "checkpoint", heads.is_head_file)
    run = None if path is not None and Path(path).is_file() else channel_run.read_run(_place(path, announce=True))
    if run is not None:
        note = channel_run.head(run)
    else:
        with opened(path, announce=True) as source:
            note = source.checkpoint()
    write_whole(out, note.encode())
    checkpoint = stated_head(note)
    output.line(f"wrote {out}: the head of {checkpoint.origin} at {checkpoint.size} entries")
    output.line(
        "Keep it where nobody who runs the federation can change it. Later it shows that nothing was rewritten:"
    )
    output.next_command(
        "audit", "verify", _place(path), "--head", out
    )  # by its name: the newest run will be another one


def verify_folder(path: Path, **options: Any) -> Report:
    """The audit of a run folder; ``options`` are those of ``chaincode.audit.audit``.

    Raises:
        Unavailable: ``evidence-changing`` where findings may come from a run that is writing the folder, ``ledger-*``.
    """
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


def _place(path: str | None, *, announce: bool = False) -> Path:
    """What PATH means: a file, which is judged as a bundle or a proof whatever it holds, or a run folder."""
    if path is not None and (Path(path).is_file() or channel_run.is_on_channel(Path(path))):
        return Path(path)
    return folder_of(path, announce=announce).path


def _key_path(given: Path | None) -> Path | None:
    """The file of the key that the auditor trusts, from the command line or the settings."""
    text = settings.text("key")
    return given or (Path(text) if text else None)


def _key(given: Path | None) -> Key | None:
    """The key that the auditor trusts, from the command line or the settings.

    Raises:
        EvidenceError: ``federation-key``. OSError where the file cannot be read.
    """
    path = _key_path(given)
    return None if path is None else read_any_key(path)


def _check_free(path: Path, what: str, is_ours: Callable[[Path], bool]) -> None:
    """Refuse to replace anything but a file of the same kind (UsageError output-exists)."""
    if path.exists() and not (path.is_file() and is_ours(path)):
        raise UsageError("output-exists", f"{path} exists and is no {what}; it is not replaced.")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A display on stderr where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=output.stderr(), transient=True, disable=not sys.stderr.isatty()) as display:
        task = display.add_task("auditing", total=None)

        def report(stage: str, done: int, total: int) -> None:
            display.update(task, description=stage, completed=done, total=total or None)

        yield report
