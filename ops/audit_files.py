# SPDX-License-Identifier: Apache-2.0
"""What the commands of ``fedledger audit`` write: a bundle, the proof of one entry, a head to keep."""

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from chaincode.audit.channel_export import export_channel
from chaincode.audit.export import export as write_export
from chaincode.audit.folder_source import folder_source
from chaincode.bundle import is_bundle, open_bundle
from chaincode.checkpoints import MAX_PROOF_BYTES, stated_head
from chaincode.files import read_bounded, write_whole
from chaincode.ledgers.sqlite import SqliteLedger
from chaincode.proofs import LogSource, ScannedLog, is_proof, make_entry_proof
from chaincode.trust import KEY_FILE
from identity.errors import UsageError
from identity.wording import counted
from ops import channel_run, heads, output
from ops.audits import place
from ops.options import path_and
from ops.source import opened, read, which


def export(out: Path, path: str | None) -> None:
    """Write everything that verification needs into one file; no other is replaced by it, which may hold what is gone since."""
    folder = place(path, announce=True)
    if folder.is_file():
        raise UsageError("not-a-run", f"{folder} is a file; a run folder is exported.")
    if out.exists():
        if not (out.is_file() and is_bundle(out)):
            raise _another_kind(out, "bundle")
        another = next(name for n in count(2) if not Path(name := f"{out}-{n}").exists())
        message = (
            f"{out} holds evidence that was exported before: it is not replaced, for some of it may be gone since."
        )
        raise UsageError("output-exists", message, next=output.command_line("audit", "export", folder, "-o", another))
    run = channel_run.read_run(folder)
    if run is not None:
        with channel_run.channel_evidence(run) as (channel, spool):
            files, remarks = export_channel(channel, spool.block, out), channel.remarks
    else:
        with folder_source(folder) as source:
            files, remarks = write_export(source, out), source.remarks
    for remark in remarks:
        output.note(remark, "yellow")
    output.line(f"wrote {out}: {counted(len(files), 'file')}, {counted(out.stat().st_size, 'byte')}")
    blobs = sum(file.name.startswith("blobs/") for file in files)
    output.line(f"It holds the single updates of sites ({counted(blobs, 'blob')}): treat it as confidential.")
    _say_how(out, folder)


def prove(arguments: Sequence[str], out: Path) -> None:
    """Write the proof that one entry is in the log, for somebody who has the federation's key alone; no other is replaced by it."""
    path, text = path_and(arguments, "ENTRY")
    kept = _kept(out, "proof", is_proof)
    where = place(path, announce=True)
    if _on_channel(where):
        raise UsageError(
            "channel-no-proof",
            "No key signs the log of a Fabric channel, so no entry has a proof of its own: the channel's blocks are the proof.",
            next=output.command_line("audit", "export", "-o", "evidence.bundle", where),
        )
    with opened(str(where)) as source:
        logged, _ = read(source, which(text, source.size))
        log: LogSource = (
            source if isinstance(source, SqliteLedger)
            else ScannedLog(source.entries(), source.checkpoint(), lambda index, _: index == logged.index)
        )  # fmt: skip
        proof, size = make_entry_proof(log, logged.index), source.size
    if kept not in {None, proof.encode()}:
        message = f"{out} holds another proof: it is not replaced, for the head in it may be kept nowhere else."
        another = output.command_line("audit", "prove", where, str(logged.index), "-o", f"{out}-{logged.index}-{size}")
        raise UsageError("output-exists", message, next=another)
    write_whole(out, proof.encode())
    output.line(f"wrote {out}: entry {logged.index} ({logged.id}) of {size}")
    _say_how(out, where)


def _say_how(out: Path, where: Path) -> None:
    """The command that checks a file that was written about a run or a bundle. Without the key it shows that the file is whole, not whose it is."""
    output.line(f"Whoever holds the federation's {KEY_FILE} checks it with:")
    output.next_command("audit", "verify", out, "--key", _key_of(where))


def _on_channel(where: Path) -> bool:
    """Whether a run, or what was exported of one, is on a Fabric channel."""
    if not is_bundle(where):
        return channel_run.is_on_channel(where)
    with open_bundle(where) as bundle:
        return bundle.of_channel


def _key_of(where: Path) -> Path:
    """The key file of a run; of a bundle only its name, for the key is to come from elsewhere."""
    return Path(KEY_FILE) if where.is_file() else where / KEY_FILE


def keep_head(out: Path, path: str | None) -> None:
    """Write the log's present signed checkpoint, to keep elsewhere; one that was kept is not replaced by another."""
    kept = _kept(out, "checkpoint", heads.is_checkpoint)
    where = place(path, announce=True)  # found once: while this is at work the newest run may become another one
    run = None if where.is_file() else channel_run.read_run(where)
    if run is not None:
        note = channel_run.head(run)
    else:
        with opened(str(where)) as source:
            note = source.checkpoint()
    checkpoint = stated_head(note)
    if kept is not None and kept.rstrip() != note.encode().rstrip():
        old = stated_head(kept)
        message = (
            f"{out} holds the head of {old.origin} at {counted(old.size, 'entry')}: "
            "it is not replaced, for it shows whether anything before it was rewritten."
        )
        another = f"{out}-{checkpoint.size}"
        raise UsageError("output-exists", message, next=output.command_line("audit", "head", where, "-o", another))
    write_whole(out, note.encode())
    output.line(f"wrote {out}: the head of {checkpoint.origin} at {counted(checkpoint.size, 'entry')}")
    output.line(
        f"Keep it, and {KEY_FILE}, where nobody who runs the federation can change them. Later they show that nothing was rewritten:"
    )
    # By its name: the newest run will be another one.
    output.next_command("audit", "verify", where, "--head", out, "--key", _key_of(where))


def _another_kind(path: Path, what: str) -> UsageError:
    return UsageError("output-exists", f"{path} exists and is no {what}; it is not replaced.")


def _kept(path: Path, what: str, is_ours: Callable[[bytes], bool]) -> bytes | None:
    """What a small file of the same kind holds already, None where there is none.

    Raises UsageError(output-exists) where it is of another kind.
    """
    if not path.exists():
        return None
    kept = read_bounded(path, MAX_PROOF_BYTES) if path.is_file() else b""
    if not is_ours(kept):
        raise _another_kind(path, what)
    return kept
