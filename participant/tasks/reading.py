# SPDX-License-Identifier: Apache-2.0
"""What the source of a task's file tells, before anything begins and without running it. What only runs will tell, a worker tells."""

import ast
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from identity.errors import UsageError

METHODS: Mapping[str, str] = {
    "build_model": "def build_model(self): return nn.Linear(30, 2)",
    "site_data": "def site_data(self, site, sites, seed): return features, labels",
}
"""What every task defines, each with an example."""
_NEEDED: Mapping[str, str] = {"name": 'name = "my-task"', **METHODS}
_TASK = ("participant.Task", "participant.task.Task")
_PLAIN = ("object", "torch", "abc", "typing")
"""Bases that are no tasks, and packages that have none: whatever comes from elsewhere may be one."""


def command_of(path: Path | str) -> str:
    """The command that shows what is wrong with a task's file: the interpreter that has Fedledger, and the file."""
    return shlex.join([sys.executable, str(path)])


def check_source(path: Path, attribute: str, allowed: str) -> None:
    """Refuse what a worker could not use: no Python, or a class that is missing, no task, or lacks what every task defines.

    Raises:
        UsageError: ``task-not-loadable``, ``task-class`` (which ends with ``allowed`` where there is no such class).
    """
    source = path.read_bytes()
    try:
        tree = ast.parse(source, str(path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f"{path}, line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else str(path)
        message = f"{where} cannot be loaded: {type(error).__name__}: {getattr(error, 'msg', error)}."
        raise UsageError("task-not-loadable", message, next=command_of(path)) from error
    if any(means in source for means in (b"import *", b"exec(")):
        return
    if attribute not in _names(tree):
        classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
        has = f"its classes are {', '.join(classes[:5])}" if classes else "it has no class at all"
        raise UsageError("task-class", f"{path} has no class {attribute[:100]}; {has}. {allowed}")
    _check_class(path, tree, attribute)


def lacks(what: str, missing: Sequence[str]) -> str:
    """That something lacks what every task defines, with examples."""
    return f"{what} has no {' and no '.join(missing)}, which every task needs. Example: {'; '.join(_NEEDED[m] for m in missing)}"


def _check_class(path: Path, tree: ast.Module, attribute: str) -> None:
    """Refuse a class that is evidently none for a task. Raises UsageError(task-class)."""
    line = _line(tree, attribute)
    if line is None:
        return
    classes, derived = line
    what = f"{path}, line {classes[0].lineno}: the class {attribute}"
    if not derived:
        example = f"class {attribute}(Task), after: from participant import Task."
        raise UsageError("task-class", f"{what} is not derived from Task. Example: {example}")
    given = set[str]().union(*map(_names, classes), _set_from_outside(tree))
    if missing := [name for name in _NEEDED if name not in given]:
        raise UsageError("task-class", lacks(what, missing))


def _line(tree: ast.Module, attribute: str) -> tuple[list[ast.ClassDef], bool] | None:
    """The class and those of the file that it is derived from, and whether one of them is derived from Task; None where that
    cannot be told: a base comes from elsewhere, or a class is not what one plain definition says."""
    imported, defined = dict(_imported(tree)), [node for node in tree.body if isinstance(node, ast.ClassDef)]
    line, derived, names = list[ast.ClassDef](), False, [attribute]
    for name in names:  # which grows
        same = [node for node in defined if node.name == name]
        if len(same) != 1 or same[0].decorator_list or same[0].keywords or _is_assigned(tree, name):
            return None
        line += same
        for base in map(ast.unparse, same[0].bases):
            root, dot, rest = base.partition(".")
            whole = imported.get(root, root) + dot + rest
            if whole in _TASK:
                derived = True
            elif any(node.name == base for node in defined):
                names += [base] if base not in names else []
            elif whole.partition(".")[0] not in _PLAIN:
                return None
    return line, derived


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What a file imports at its top level: the name here, and the full name there."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from ((a.asname, a.name) if a.asname else (a.name.partition(".")[0],) * 2 for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((a.asname or a.name, f"{node.module}.{a.name}") for a in node.names)


def _is_assigned(tree: ast.Module, name: str) -> bool:
    return any(isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store) for n in ast.walk(tree))


def _set_from_outside(tree: ast.Module) -> Iterator[str]:
    """The names that a file may give to an attribute of something: by assigning it, or in a string that is the name alone."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Constant(value=str(name)):
                yield name


def _names(tree: ast.AST) -> set[str]:
    """The names that a file or a class may give to something, anywhere in it: defined, assigned, imported, or in a string that
    is the name alone (as in ``globals()["Mine"]``). Task itself is not among them: a federation's task is derived from it."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.Constant(value=str(name)):
                names.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                names.add(name)
            case ast.ImportFrom(module="participant" | "participant.task", names=aliases):
                names |= {alias.asname or alias.name for alias in aliases if alias.name != "Task"}
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name.partition(".")[0] for alias in aliases}
    return names
