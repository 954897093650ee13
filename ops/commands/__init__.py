# SPDX-License-Identifier: Apache-2.0
"""One file for each command of ``fedledger``; ``ops.command_line.COMMANDS`` lists them with their summaries.

The module ``ops.commands.NAME`` is imported only when the command NAME is run. It defines ``app``, a
``typer.Typer(add_completion=False)`` with one command (or, for a command of commands, a callback and several) whose
docstring begins with the summary in ``COMMANDS``. A command prints its results with ``ops.output``, raises the errors
of ``identity.errors`` (``ops.command_line`` turns them into exit codes), and ends with ``raise typer.Exit(1)`` where it
reports findings.
"""
