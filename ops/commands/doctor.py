# SPDX-License-Identifier: Apache-2.0
"""``fedledger doctor``: what is here, what is missing for what, and what is in the way. It changes nothing."""

import os
import platform
import re
import secrets
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path

import typer

from chaincode.threads import CORES
from identity import credentials
from identity.didkit_check import second_opinion
from identity.errors import Error, UsageError
from identity.keys import identity_from_seed
from identity.wording import counted
from ops import output, settings
from ops.fabric import build
from ops.options import JsonOption

app = typer.Typer(add_completion=False)

OK, PROBLEM, OPTIONAL = "ok", "PROBLEM", "not available"
ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("identity", "chaincode", "participant", "coordinator", "ops")
NEEDED = {
    "reading, querying and verifying": ("cryptography", "rfc8785", "rich", "typer"),
    "recomputing results": ("numpy",),
    "training": ("torch", "scikit-learn", "ray"),
    "a second opinion on credentials": ("didkit",),
    "a Hyperledger Fabric network": ("grpcio", "hyperledger-fabric-protos"),
}
WITHOUT = {"didkit", "grpcio", "hyperledger-fabric-protos"}
"""What one can do without: no problem where it is missing."""
_FREE_BYTES = 1 << 30
_SHARED_BYTES = 256 << 20
_PIN = re.compile(r"([A-Za-z0-9_.-]+)==([^;\s]+)")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was found, what it is needed for, and whether that is well."""

    what: str
    found: str
    needed_for: str
    state: str


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Show versions, what is missing, what is in the way."""
    findings = [*_machine(), *_packages(), _second_opinion(), _fabric(), *_in_the_way(), *_settings()]
    problems = [finding for finding in findings if finding.state == PROBLEM]
    if as_json:
        output.emit_json("doctor", {"findings": [asdict(f) for f in findings], "problems": len(problems)})
    else:
        output.table(
            ("what", "found", "needed for", "state"), [(f.what, f.found, f.needed_for, f.state) for f in findings]
        )
        output.line()
        output.line(
            counted(len(problems), "problem") if problems else "no problems", "bold red" if problems else "bold green"
        )
    if problems:
        raise typer.Exit(1)


def _finding(what: str, found: str, needed_for: str, good: bool, otherwise: str = PROBLEM) -> Finding:
    return Finding(what, found, needed_for, OK if good else otherwise)


def _machine() -> Iterator[Finding]:
    version = platform.python_version()
    yield _finding("Python", f"{version} ({sys.executable})", "everything", sys.version_info >= (3, 11))
    yield _finding("system", f"{platform.system()} {platform.machine()}", "everything", os.name == "posix")
    yield Finding("processors", str(CORES), "training", OK)
    yield _finding("SQLite", sqlite3.sqlite_version, "the embedded ledger", sqlite3.sqlite_version_info >= (3, 37))
    runs = Path(settings.text("runs") or "runs").absolute()
    there = next(folder for folder in (runs, *runs.parents) if folder.exists())
    yield _space("disk", there, "run folders", _FREE_BYTES)
    if Path("/dev/shm").is_dir():  # noqa: S108 (looked at, not written)
        yield _space("shared memory", Path("/dev/shm"), "training (Ray's object store)", _SHARED_BYTES)  # noqa: S108
    yield _finding("writable", str(there), "run folders", os.access(there, os.W_OK))


def _space(what: str, folder: Path, needed_for: str, least: int) -> Finding:
    free = shutil.disk_usage(folder).free
    return _finding(what, f"{free / (1 << 30):.1f} GiB free at {folder}", needed_for, free >= least)


def _packages() -> Iterator[Finding]:
    """Versions as they are installed; none of the packages is imported."""
    pinned = _pinned()
    yield Finding(output.PROGRAM, _version(output.PROGRAM) or f"not installed, run from {ROOT}", "everything", OK)
    for needed_for, names in NEEDED.items():
        for name in names:
            found, wanted = _version(name), pinned.get(name)
            optional = OPTIONAL if name in WITHOUT else PROBLEM
            if found is None:
                yield Finding(name, "missing", needed_for, optional)
            elif wanted not in (None, found):
                yield Finding(name, f"{found}, not {wanted}", needed_for, optional)
            else:
                yield Finding(name, found, needed_for, OK)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _pinned() -> dict[str, str]:
    """The versions that this installation asks for exactly."""
    try:
        requirements = metadata.requires(output.PROGRAM) or []
    except metadata.PackageNotFoundError:
        return {}
    return {match[1].lower(): match[2] for text in requirements if (match := _PIN.match(text))}


def _second_opinion() -> Finding:
    """Let DIDKit judge a credential that was made for this purpose."""
    issuer, subject = (identity_from_seed(secrets.token_bytes(32)) for _ in range(2))
    now, name = int(time.time()), "DIDKit's judgement"
    purpose = "a second opinion on credentials"
    try:
        token = credentials.issue(
            issuer, subject=subject.did, role="participant", organisation="doctor", federation="0" * 64,
            not_before=now - 1, not_after=now + 3600,
        )  # fmt: skip
        opinion = second_opinion([token])[0]
    except (Error, OSError) as error:
        return Finding(name, f"failed: {error}", purpose, PROBLEM)
    found = " ".join(filter(None, [opinion.verdict, opinion.detail]))
    return _finding(
        name, found, purpose, opinion.verdict == "accepted", OPTIONAL if opinion.verdict == "not-available" else PROBLEM
    )


def _fabric() -> Finding:
    """Fabric's programs, built or to be built."""
    what, purpose = f"Hyperledger Fabric {build.RELEASE}", "a Hyperledger Fabric network"
    if built := build.found():
        return Finding(what, f"built, in {built}", purpose, OK)
    try:
        return Finding(what, f"not built yet; {build.check_go()} can", purpose, OK)
    except UsageError as error:
        return Finding(what, error.message, purpose, OPTIONAL)


def _in_the_way() -> Iterator[Finding]:
    """Our packages have common names: another one of that name, found first, would take their place."""
    installed = metadata.packages_distributions()
    for name in FLOORS:
        spec = util.find_spec(name)
        origin = Path(spec.origin).resolve().parent if spec and spec.origin else None
        others = sorted(set(installed.get(name, [])) - {output.PROGRAM})
        if origin != ROOT / name:
            yield Finding(f"package {name}", f"{origin} is found first, not {ROOT / name}", "everything", PROBLEM)
        elif others:
            yield Finding(f"package {name}", f"also installed by {', '.join(others)}", "everything", PROBLEM)
        else:
            yield Finding(f"package {name}", str(origin), "everything", OK)


def _settings() -> Iterator[Finding]:
    for name in settings.SETTINGS:
        meaning = settings.SETTINGS[name].meaning
        try:
            one = settings.setting(name)
        except Error as error:
            yield Finding(settings.variable(name), error.message, meaning, PROBLEM)
            continue
        yield Finding(settings.variable(name), f"{one.value or 'not set'} ({one.origin})", meaning, OK)
    for strange, near in settings.unknown_variables().items():
        yield Finding(strange, "means nothing" + (f"; did you mean {near}?" if near else ""), "nothing", PROBLEM)
