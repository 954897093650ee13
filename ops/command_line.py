# SPDX-License-Identifier: Apache-2.0
"""The command line: the registry of commands, and the one place where errors become exit codes.

0 clean, 1 findings or unreadable evidence, 2 usage or missing path, 3 unavailable, 70 internal error, 130
interrupted. Each command is loaded when it is run, so that help needs none of them.
"""

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from identity.errors import Error, Unavailable, UsageError
from ops import ahead, output
from ops.exit_codes import CLEAN, FINDINGS, INTERNAL, INTERRUPTED, UNAVAILABLE, USAGE

COMMANDS = {
    "new": "Write a new federation's file and a task to start from.",
    "run": "Run a federation from its file, or resume its run.",
    "status": "Show rounds, sites, what happens next, and who is late.",
    "log": "List the ledger's entries, newest last.",
    "show": "Show one entry in full.",
    "trace": "Show what is behind a model, or where an update went.",
    "agreement": "Read the agreements.",
    "credential": "Check membership credentials.",
    "audit": "Verify a run or a bundle, export it, prove an entry.",
    "verify": "Say whether a model is the released one.",
    "fabric": "Run a Hyperledger Fabric network here, as a ledger.",
    "doctor": "Show versions, what is missing, what is in the way.",
}

# The base of all that the parser raises; typer does not export it under a name of its own.
_CommandLineError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

_PATH_ERRORS = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}


class Commands(TyperGroup):
    """The commands of ``COMMANDS``: summaries at once, a command's own module only to run it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {
            name: TyperCommand(name, help=summary, short_help=summary) for name, summary in COMMANDS.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that the arguments name, loaded."""
        if args[0] not in COMMANDS:
            return super().resolve_command(ctx, args)  # which says what was perhaps meant
        return args[0], load(args[0]), args[1:]


def load(name: str) -> Any:
    """The command of that name, from its module's ``app``."""
    command = typer.main.get_command(import_module(f"ops.commands.{name}").app)
    command.name = name
    for one in (command, *getattr(command, "commands", {}).values()):
        one.rich_markup_mode = _help_style()
    return command


def _help_style() -> Any:
    """Panels and colours on a terminal, plain text elsewhere."""
    return "rich" if sys.stdout.isatty() else None


def _version(asked: bool) -> None:
    if asked:
        metadata = import_module("importlib.metadata")  # which takes longer to load than help to print
        try:
            version = metadata.version(output.PROGRAM)
        except metadata.PackageNotFoundError:
            version = "(not installed: run from its source)"
        output.line(f"{output.PROGRAM} {version}")
        raise typer.Exit


def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Federated training that is auditable: the ledger comes first, and anyone can verify it."""
    if ctx.invoked_subcommand is None:
        output.write(ctx.get_help() + "\n")
        raise typer.Exit(USAGE)


def run(arguments: Sequence[str], begun: ahead.Begun | None = None) -> int:
    """Run one command line; returns the exit code. Raises nothing but SystemExit, and that for a closed pipe.

    ``begun`` is what was begun for it, which a command finds as its context's object.
    """
    app = typer.Typer(
        cls=Commands, name=output.PROGRAM, invoke_without_command=True, rich_markup_mode=_help_style(),
        pretty_exceptions_enable=False, context_settings={"help_option_names": ["--help", "-h"]},
    )  # fmt: skip
    app.callback()(_root)
    try:
        outcome = typer.main.get_command(app).main(
            args=list(arguments), prog_name=output.PROGRAM, standalone_mode=False, obj=begun
        )
    except KeyboardInterrupt:
        outcome = INTERRUPTED
    except typer.Abort:  # the answer to a question was the end of input, or Ctrl-C
        outcome = INTERRUPTED
    except _CommandLineError as error:
        return _report(*_parser_error(error))
    except Error as error:
        return _report(_exit_code(error), error.message, error.code, error.next)
    except OSError as error:
        return _report(*_os_error(error))
    except Exception as error:
        return _report_internal(error)
    if outcome == INTERRUPTED:
        output.note("interrupted")
    return outcome if type(outcome) is int else CLEAN


def _exit_code(error: Error) -> int:
    if isinstance(error, UsageError):
        return USAGE
    return UNAVAILABLE if isinstance(error, Unavailable) else FINDINGS


def _parser_error(error: Any) -> tuple[int, str, str, str]:
    words = error.ctx.command_path.split()[1:] if error.ctx else []
    return USAGE, error.format_message(), "usage", output.command_line(*words, "--help")


def _os_error(error: OSError) -> tuple[int, str, str, None]:
    where = f"{error.filename}: " if error.filename is not None else ""
    message = f"{where}{error.strerror or error}"
    if error.errno in _PATH_ERRORS:
        return USAGE, message, "path", None
    code = "disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "system"
    return UNAVAILABLE, message, code, None


def _report(code: int, message: str, name: str, next_: str | None = None) -> int:
    """Print an error and what to do about it on stderr; returns the exit code."""
    first, *details = message.splitlines() or [""]
    output.note(f"error: {first} [{name}]", "red")
    for detail in details:
        output.note(f"  {detail}")
    if next_:
        words = next_.split(" ", 1)
        if words[0] == output.PROGRAM:  # from the floors below, which do not know how it is called here
            next_ = " ".join([output.command_line(), *words[1:]])
        output.note(f"next: {next_}")
    return code


def _report_internal(error: Exception) -> int:
    """Say where the traceback was written: it is for whoever mends the program, not for its user."""
    summary = f"{type(error).__name__}: {error}"
    import tempfile  # noqa: PLC0415 (hardly ever needed)
    import traceback  # noqa: PLC0415

    try:
        handle, path = tempfile.mkstemp(prefix=f"{output.PROGRAM}-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(traceback.format_exception(error))
    except OSError as failure:
        path = f"nowhere ({failure})"
    return _report(INTERNAL, f"a fault of this program: {summary}. The traceback is in {path}", "internal")
