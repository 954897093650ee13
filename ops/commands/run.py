# SPDX-License-Identifier: Apache-2.0
"""``fedledger run``: carry out a federation file, live, from founding to audit; or go on with an interrupted run."""

import secrets
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from identity.errors import CredentialError, Rejected, Unavailable, UsageError
from identity.keys import Keystore
from identity.wording import counted
from ops import output, settings, toml_document
from ops.events import Recorder
from ops.federation_file import FederationFile, load, locate
from ops.narrator import Narrator
from ops.options import JsonOption
from ops.run_folder import RunFolder
from participant.failures import TRAINING_FAILED
from participant.tasks import locate_task

if TYPE_CHECKING:
    from ops.ledger_network import Channel
    from ops.runner import Finished, Run

PASSPHRASE_LIMIT = 4096
_UNLOCK = "--passphrase-file"

_ENDS = {
    "attempts-exhausted", "agreement-not-valid", "member-not-valid", "not-in-standing", "run-folder-taken", TRAINING_FAILED
}  # fmt: skip
"""Refusals after which this run cannot go on, or not with a mended task: a new one, with a new agreement, can."""

EventsOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Add to this file, for each thing that happens, a line of JSON: kind, round, attempt, seconds since this command was started, facts.",
    ),
]
LedgerOption = Annotated[
    str | None,
    typer.Option(metavar="embedded|fabric", help="Where entries go: a file of the run, or a Fabric channel."),
]
FabricDirOption = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="The local Fabric network; .fabric without it. Started if need be.")
]
FabricProfileOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="The connection profile of a Fabric network that exists.")
]
BaselinesOption = Annotated[
    bool, typer.Option(help="Train each site alone, and all data pooled, to compare with at the end.")
]

app = typer.Typer(add_completion=False)


@app.command()
def run(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A federation file, or the name of a shipped one: demo.")],
    folder: Annotated[str | None, typer.Option("--dir", help="The run folder; runs/NAME without it.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="Use this Ray cluster, which must see the run folder.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes; one per core without it.")] = None,
    dashboard: Annotated[bool | None, typer.Option("--dashboard/--no-dashboard", help="Start Ray's dashboard.")] = None,
    passphrase_file: Annotated[
        str | None, typer.Option(help="Encrypt the simulation's keys under the first line of this file.")
    ] = None,
    ledger: LedgerOption = None,
    fabric_dir: FabricDirOption = None,
    fabric_profile: FabricProfileOption = None,
    events: EventsOption = None,
    baselines: BaselinesOption = True,
    json: JsonOption = False,
) -> int:
    """Run a federation from its file, or resume its run."""
    interrupt_on_term()
    federation = load(locate(file))
    _check_task(federation)
    place = RunFolder(Path(folder) if folder else Path(settings.text("runs") or "runs") / federation.name)
    channel = _channel(place, ledger, fabric_dir, fabric_profile)
    narrator = Narrator(federation.rounds)
    banner(narrator, federation, place)
    address = settings.text("ray_address", ray_address)
    wanted, passphrase = _dashboard(dashboard), _passphrase(settings.text("passphrase_file", passphrase_file))
    settings.prepare_ray(secrets.token_hex(32), address=address)
    with _explaining(file, _said(ctx), place, channel):
        # Ray reads its settings when it is imported, so its importer comes after them.
        runner = import_module("ops.runner")
        options = runner.Options(
            workers=settings.count("workers", workers), ray_address=address,
            dashboard=wanted, passphrase=passphrase, baselines=baselines,
        )  # fmt: skip
        home = None if channel is None else home_of(federation, channel, narrator)
        finished = carry_out(partial(runner.Run, federation, place, options, home=home), narrator, events)
    return conclude(finished, as_json=json)


def _check_task(federation: FederationFile) -> None:
    """Refuse what no worker could use, before anything is written: at the line of the file that names it. Raises UsageError."""
    try:
        locate_task(federation.task, federation.path.parent)
    except UsageError as error:
        line = toml_document.read(federation.path).line_of(("task",))
        message = f'{federation.path}:{line}: task = "{federation.task}": {error.message}'
        raise UsageError(error.code, message, next=error.next or output.command_line("new", "my-federation")) from error


def interrupt_on_term() -> None:
    """Let SIGTERM end a run as Ctrl-C does; the cluster keeps it so when Ray starts. A thread may not set it, and need not."""
    with suppress(ValueError):
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _channel(place: RunFolder, ledger: str | None, folder: str | None, profile: str | None) -> "Channel | None":
    """The Fabric network of a run, None for the embedded ledger, which needs nothing of Fabric to be loaded."""
    if not (ledger or folder or profile or place.channel_file.exists()):
        return None
    channel: Channel | None = import_module("ops.ledger_network").choose(place, ledger, folder, profile)
    return channel


def home_of(federation: FederationFile, channel: "Channel", narrator: Narrator) -> Any:
    """A run's place on a Fabric channel, which needs the packages of a Fabric client. Raises UsageError(fabric-packages)."""
    import_module("ops.fabric.network").need_packages()
    settings.prepare_grpc()
    return import_module("ops.ledger_fabric").OnChannel(federation.name, channel, narrator.say)


def _said(ctx: typer.Context) -> dict[str, object]:
    """The options that the command line has, with their values; of a switch the name that it was turned with."""
    said: dict[str, object] = {}
    for one in ctx.command.params:
        source = ctx.get_parameter_source(name := str(one.name))
        if one.param_type_name == "option" and source is not None and source.name == "COMMANDLINE":
            said[(one.secondary_opts if ctx.params[name] is False else one.opts)[0]] = ctx.params[name]
    return said


def _command(file: str, options: Mapping[str, object]) -> str:
    """The command line with these options."""
    words = [(name,) if isinstance(value, bool) else (name, value) for name, value in options.items()]
    return output.command_line("run", file, *chain.from_iterable(words))


@contextmanager
def _explaining(file: str, said: Mapping[str, object], place: RunFolder, channel: "Channel | None") -> Iterator[None]:
    """Say how a run that is interrupted goes on, and what can be run in the place of one that cannot: with all that was asked for."""
    try:
        yield
    except KeyboardInterrupt:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # who presses it twice is to have the command, too
        output.note("Nothing is lost. The run goes on with:")
        output.note(f"  {_command(file, said)}")
        signal.signal(signal.SIGINT, before)
        raise
    except (Rejected, UsageError) as refusal:
        if refusal.code in _ENDS:
            anew = {**said, "--dir": f"{place.path}-2"}
            if channel is not None and channel.folder is not None:  # one channel holds one federation
                anew["--fabric-dir"] = f"{channel.folder}-2"
            refusal.next = _command(file, anew)
        elif refusal.code.startswith("task-"):
            # Nobody has signed anything yet: once it is mended, the same command goes on.
            refusal.next = refusal.next or _command(file, said)
        raise
    except Unavailable as error:  # nothing is lost
        error.next = error.next or _command(file, said)
        raise
    except CredentialError as error:
        if error.code == "keystore-passphrase":
            error.next = _unlocking(file, said, place)
        raise


def _unlocking(file: str, said: Mapping[str, object], place: RunFolder) -> str:
    """The command that opens the run's keystore: with another passphrase, or without one where it is not encrypted."""
    if Keystore.is_encrypted(place.keystore):
        return _command(file, {**said, _UNLOCK: "FILE"})
    without = {name: value for name, value in said.items() if name != _UNLOCK}
    return _command(file, without) if without != said else f"unset {settings.variable('passphrase_file')}"


def carry_out(run: Callable[..., "Run"], narrator: Narrator, events: str | None) -> "Finished":
    """Carry out a run that is told to the narrator, and recorded where somebody wants its events."""
    with ExitStack() as stack:
        watch = stack.enter_context(_recorder(events, narrator)) if events else narrator
        stack.enter_context(narrator)
        return run(narrator, watch=watch).carry_out()


def _recorder(path: str, narrator: Narrator) -> Recorder:
    """The file of events. Raises UsageError(path) where its folder is missing, OSError where it cannot be written."""
    try:
        return Recorder(path, narrator)
    except FileNotFoundError as error:
        folder = Path(path).parent
        message = f"There is no folder {folder} for --events {path}."
        raise UsageError("path", message, next=shlex.join(["mkdir", "-p", str(folder)])) from error


def _dashboard(given: bool | None) -> bool:
    """Whether Ray's dashboard is asked for; it needs packages of its own."""
    wanted = settings.switch("dashboard", given)
    if wanted and not all(find_spec(package) for package in ("aiohttp", "aiohttp_cors")):
        raise UsageError(
            "dashboard-missing",
            "Ray's dashboard needs packages that are not installed.",
            next=f"{output.relative(sys.executable)} -m pip install -c constraints.txt -e '.[dashboard]'",
        )
    return wanted


def _passphrase(path: str | None) -> str | None:
    """The first line of the passphrase file."""
    if path is None:
        return None
    how = f"write the passphrase into the first line of {path}, or name the file that has it with {_UNLOCK}"
    try:
        with Path(path).open("rb") as file:
            lines = file.read(PASSPHRASE_LIMIT).decode("utf-8", "replace").splitlines()
    except FileNotFoundError as error:
        raise UsageError("path", f"There is no passphrase file {path}.", next=how) from error
    if not lines or not lines[0]:
        raise UsageError("passphrase-empty", f"{path} has no passphrase in its first line.", next=how)
    return lines[0]


def banner(narrator: Narrator, federation: FederationFile, place: RunFolder) -> None:
    narrator.title(
        f"{federation.name}: {counted(federation.sites, 'site')}, {counted(federation.rounds, 'round')}, in {place.path}"
    )
    narrator.say("  a simulation: every site runs on this machine")
    for fault in federation.faults:
        what = "delivers other bytes than it committed" if fault.kind == "tamper" else "falls silent in mid-round"
        narrator.say(f"  SIMULATED FAULT: {fault.site} {what}, in round {fault.round}", "yellow")


def conclude(finished: "Finished", *, as_json: bool) -> int:
    """The result, the audit and what to try next; the audit's exit code."""
    audit = import_module("ops.audits")
    report = audit.verify_folder(finished.folder.path)
    if as_json:
        output.emit_json("run", _facts(finished) | {"audit": audit.report_json(report)})
        return int(audit.exit_code(report))
    output.line()
    output.line("4. The released model", "bold")
    output.facts([("model", finished.release.model), ("file", finished.folder.model)])
    _comparison(finished)
    output.line()
    output.line("5. The audit", "bold")
    audit.show(report)
    output.line()
    output.line("Try next:", "bold")
    path = finished.folder.path
    output.next_command("trace", path, "--model", output.short(finished.release.model))
    if finished.folder.proof.exists():
        output.next_command("verify", finished.folder.model, "--key", finished.folder.key_file)
    else:
        output.next_command("audit", "verify", path, "--key", finished.folder.key_file)
    output.next_command("audit", "export", path, "-o", f"{finished.folder.path.name}.evidence")
    return int(audit.exit_code(report))


def _facts(finished: "Finished") -> dict[str, Any]:
    baselines = finished.baselines
    return {
        "folder": str(finished.folder.path), "federation": finished.federation, "agreement": finished.agreement,
        "model": finished.release.model, "metrics": dict(finished.metrics),
        "baselines": None if baselines is None else {"alone": {k: dict(v) for k, v in baselines.alone.items()}, "pooled": dict(baselines.pooled)},
    }  # fmt: skip


def _comparison(finished: "Finished") -> None:
    """The federation's held-out metrics beside each site alone and all data pooled."""
    baselines, rows = finished.baselines, []
    for metric, value in sorted(finished.metrics.items()):
        rows.append((f"federation: {metric}", f"{float(value):.4f}"))
        if baselines is not None:
            rows.append((f"  each site alone, mean of {len(baselines.alone)}", f"{baselines.mean(metric):.4f}"))
            rows.append(("  each site alone, worst", f"{baselines.worst(metric):.4f}"))
            rows.append(("  all data pooled", f"{float(baselines.pooled[metric]):.4f}"))
    output.table(["held-out data", "value"], rows)
