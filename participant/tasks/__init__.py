# SPDX-License-Identifier: Apache-2.0
"""Finding a task by its reference: a ready-made one by name, one's own as ``FILE.py:CLASS``.

``locate_task`` only looks, so that a process that must not run a task can check a reference; ``load_task`` imports.
Where a task is goes between processes, never the task itself.
"""

import importlib
import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from chaincode import schema
from identity.errors import EvidenceError, UsageError
from participant.failures import SOURCE, describe_failure
from participant.tasks.reading import METHODS, check_source, command_of, lacks

if TYPE_CHECKING:
    from participant.task import Task

READY = {
    "breast-cancer": ("participant.tasks.breast_cancer", "BreastCancer"),
    "digits": ("participant.tasks.digits", "Digits"),
}
_HELP = (
    f'Allowed: {", ".join(READY)}, or FILE.py:CLASS beside the federation file. Example: task = "my_task.py:MyTask".'
)
_TAKEN = ("identity", "chaincode", "participant", "coordinator", "ops")  # Ray looks into the working folder first


@dataclass(frozen=True, slots=True)
class TaskLocation:
    """Where a task's class is: in the module ``module``, which is the file ``path`` where that is not empty."""

    reference: str
    module: str
    path: str
    attribute: str


def locate_task(reference: str, folder: Path | str) -> TaskLocation:
    """Where the task that a federation file in ``folder`` names is; nothing is imported.

    Raises:
        UsageError: ``task-unknown`` for another form or name, ``task-missing`` where there is no such file,
            ``task-not-loadable`` where it is no Python, ``task-class`` where nothing in it has the class's name, or the class
            is no task or lacks something, as far as the source tells.
    """
    if reference in READY:
        module, attribute = READY[reference]
        return TaskLocation(reference, module, "", attribute)
    name, _, attribute = reference.rpartition(":")
    if not name.endswith(".py") or not attribute.isidentifier():
        raise UsageError("task-unknown", f"There is no task {reference[:200]!r}. {_HELP}")
    try:
        path = (Path(folder) / name).resolve()
        missing = not path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        path, missing = Path(folder) / name, True
    if path.stem in _TAKEN:
        message = f"A task's file cannot be called {path.name}: workers would load it in the place of Fedledger's own {path.stem}."
        raise UsageError("task-unknown", f"{message} Example: my_{path.name}")
    if missing:
        raise UsageError("task-missing", f"There is no file {path} for the task {reference[:200]!r}. {_HELP}")
    check_source(path, attribute, _HELP)
    return TaskLocation(reference, f"fedledger_task_{path.stem}", str(path), attribute)


def load_task(reference: str | TaskLocation, folder: Path | str = ".") -> "Task":
    """Import a task and make an instance of it. Only for processes that train: it runs the task's code.

    Raises:
        UsageError: as ``locate_task``; ``task-not-loadable`` where its code raises, ``task-class`` where the class
            is missing, no Task, or lacks a method, ``task-name`` where its name or version cannot be put into an agreement.
    """
    where = locate_task(reference, folder) if isinstance(reference, str) else reference
    try:
        module = _load_file(where) if where.path else importlib.import_module(where.module)
        found = getattr(module, where.attribute, None)
        base = importlib.import_module("participant.task").Task
        if not (inspect.isclass(found) and issubclass(found, base)):
            message = f"{where.reference} is not a class that is derived from Task."
            raise UsageError(
                "task-class", f"{message} Example: class {where.attribute}(Task), after: from participant import Task."
            )
        task: Task = found()  # type: ignore[assignment]  # issubclass says so
        inherited = [m for m in METHODS if getattr(getattr(task, m), "__func__", None) is getattr(base, m)]
        if inherited:
            raise UsageError("task-class", lacks(where.reference, inherited))
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        message = f"The task {where.reference} cannot be loaded: {describe_failure(error)}"
        raise UsageError("task-not-loadable", message, next=command_of(where.path) if where.path else None) from error
    _check_names(where, task)
    return task


class _ExactLoader(Loader):
    """Runs a file's bytes as they are now, and keeps them: no cached bytecode, which could be of an older file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.source = Path(path).read_bytes()

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__[SOURCE] = self.source
        exec(compile(self.source, self._path, "exec"), module.__dict__)  # noqa: S102  (the user's own task, by its path)


def _load_file(where: TaskLocation) -> ModuleType:
    loader = _ExactLoader(where.path)
    name = f"{where.module}_{sha256(loader.source).hexdigest()[:16]}"  # two versions of a file are two modules
    spec = ModuleSpec(name, loader, origin=where.path)
    spec.has_location = True
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _check_names(where: TaskLocation, task: "Task") -> None:
    checks: Sequence[tuple[str, schema.Check, str]] = (
        ("name", schema.slug, 'name = "my-task"'),
        ("version", schema.text(64), 'version = "1"'),
    )
    for field, check, example in checks:
        try:
            check(getattr(task, field), f"{where.reference}: {field}")
        except EvidenceError as error:
            raise UsageError("task-name", f"{error.message}. Example: {example}") from error
