# SPDX-License-Identifier: Apache-2.0
"""The house's structure, checked on the source: floors, sole importers, cycles, sizes (README, "The house")."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("identity", "chaincode", "participant", "coordinator", "ops")
FILES = sorted(p for floor in FLOORS for p in (ROOT / floor).rglob("*.py") if "templates" not in p.parts)
SOLE_IMPORTERS = {
    "torch": ("participant/", "ops/bench/"),
    "ray": ("coordinator/cluster.py", "coordinator/workers.py", "ops/bench/bare_calls.py"),
    "didkit": ("identity/didkit_check.py",),
    "fastapi": (),
    "grpc": ("chaincode/fabric_", "chaincode/ledgers/fabric/"),
    "google": ("chaincode/fabric_", "chaincode/ledgers/fabric/", "chaincode/blocks/"),
    "fabric_protos": ("chaincode/fabric_", "chaincode/ledgers/fabric/", "chaincode/blocks/"),
    "pickle": (),
    "cloudpickle": (),
}
NUMPY = {
    "chaincode/vector.py", "chaincode/accumulator.py", "chaincode/model_vector.py", "chaincode/update.py", "chaincode/shards.py", "chaincode/small_updates.py", "chaincode/aggregation.py", "chaincode/optimisers.py", "chaincode/recompute.py",
}  # fmt: skip


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module of a file, and whether it is imported at the top level."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{_name(path)}:{node.lineno}: relative import"
            module = node.module or ""
            for alias in node.names:
                yield f"{module}.{alias.name}", id(node) in top


def _module(path: Path) -> str:
    return _name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {_module(path) for path in FILES}


def _resolved(name: str) -> str | None:
    """The module of ours that an import names, None for others."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 30


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_each_floor_imports_only_from_those_below(path: Path) -> None:
    here = FLOORS.index(_name(path).split("/")[0])
    for name, _ in _imports(path):
        floor = name.split(".")[0]
        assert floor not in FLOORS or FLOORS.index(floor) <= here, f"{_name(path)} imports {name}, which is above it"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_sole_importers(path: Path) -> None:
    for name, _ in _imports(path):
        homes = SOLE_IMPORTERS.get(name.split(".")[0])
        assert homes is None or _name(path).startswith(homes), f"{_name(path)} imports {name}; its home is {homes}"
        if name.split(".")[0] == "numpy" and _name(path).startswith("chaincode/"):
            assert _name(path) in NUMPY, f"{_name(path)} imports numpy, which the auditor's path must not need"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_the_environment_is_read_in_one_place(path: Path) -> None:
    if _name(path) == "ops/settings.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        used = isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "putenv", "environb"}
        assert not used, f"{_name(path)}:{getattr(node, 'lineno', '?')}: the environment belongs to ops/settings.py"


def test_no_import_cycles() -> None:
    graph = {_module(p): {m for name, _ in _imports(p) if (m := _resolved(name)) and m != _module(p)} for p in FILES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module in done:
            return
        for target in sorted(graph[module]):
            visit(target, (*trail, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_sizes(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300, f"{_name(path)} has {text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno
            assert lines <= 40, f"{_name(path)}:{node.lineno} {node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_every_file_says_its_job(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n"), _name(path)
    assert ast.get_docstring(ast.parse(text)), f"{_name(path)} has no docstring"
