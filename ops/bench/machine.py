# SPDX-License-Identifier: Apache-2.0
"""The machine that a benchmark ran on, as a reader needs it; no names of hosts, users or folders."""

import compileall
import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from chaincode.threads import CORES

OURS = ("fedledger", "torch", "numpy", "ray", "cryptography", "safetensors")
THEIRS = ("flwr", "torch", "numpy", "ray")
_ASK = (
    "import json, sys; from importlib.metadata import version; "
    "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
)
_KIB = 1024
_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("identity", "chaincode", "participant", "coordinator", "ops")


def describe(flower: Path | None) -> dict[str, object]:
    """Processor, cores, memory, kernel and versions; those of Flower's environment where there is one."""
    return {
        "processor": _processor(),
        "cores": CORES,
        "memory_bytes": _memory(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "fedledger": _installed(OURS),
        "flower": versions(flower, THEIRS) if flower is not None else {},
    }


def versions(python: Path, names: Sequence[str]) -> Mapping[str, str]:
    """The versions of packages in another environment. Raises OSError or CalledProcessError where it has them not."""
    asked = subprocess.run([str(python), "-c", _ASK, *names], capture_output=True, text=True, check=True)
    return dict(json.loads(asked.stdout))


def compile_ours(root: Path = _ROOT) -> None:
    """Have our own modules compiled as an installation has them, and everybody else's here are: where the environment keeps
    Python from writing bytecode (PYTHONDONTWRITEBYTECODE), each process would compile all of our source anew."""
    for name in _PACKAGES:
        compileall.compile_dir(root / name, quiet=1)


def _installed(names: Sequence[str]) -> Mapping[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "source"
    return found


def _processor() -> str:
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine() or sys.platform


def _memory() -> int:
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal"):
            return int(line.split()[1]) * _KIB
    return 0


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
