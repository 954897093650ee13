# SPDX-License-Identifier: Apache-2.0
"""The digest of the contract's source, as a chaincode package binds it.

A package id of chaincode as a service covers the address of the server and nothing of its code. So the package carries
this digest, the server refuses to run on other source, and every organisation can ask the running contract for it.
"""

import ast
import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START = "chaincode/fabric_service.py"
_FLOORS = ("identity", "chaincode")


def source_files(root: Path = ROOT, start: str = START) -> dict[str, str]:
    """The SHA-256 (hex) of every source file of ours that the chaincode server loads, by its path below `root`.

    Found in the text of the imports, from `start` on; the `__init__` of each package on the way counts as well.
    Raises OSError where a file cannot be read, SyntaxError where it is no Python.
    """
    found: dict[str, str] = {}
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        data = (root / path).read_bytes()
        found[path] = hashlib.sha256(data).hexdigest()
        for module in _imports(ast.parse(data)):
            waiting += [p for p in _candidates(module) if p not in found and (root / p).is_file()]
    return found


def source_digest(root: Path = ROOT) -> str:
    """The SHA-256 (hex) of the lines `<SHA-256 of the file>  <path>` of `source_files`, sorted by path."""
    lines = (f"{digest}  {path}\n" for path, digest in sorted(source_files(root).items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _imports(tree: ast.Module) -> set[str]:
    """The dotted names that a file imports; of `from a import b` both `a` and `a.b`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in names if name.split(".")[0] in _FLOORS}


def _candidates(module: str) -> list[str]:
    """The files that importing a module may load: its own, and the `__init__` of each package on the way."""
    parts = module.split(".")
    packages = ["/".join((*parts[: i + 1], "__init__.py")) for i in range(len(parts))]
    return [*packages, f"{'/'.join(parts)}.py"]
