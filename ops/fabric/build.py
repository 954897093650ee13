# SPDX-License-Identifier: Apache-2.0
"""Fabric's programs, compiled from the pinned release: once, into a folder that every network of the user shares.

Fabric is a Go module, and ``go.mod`` names its programs as tools: Go fetches the source, checks it against ``go.sum``
and compiles it. The folder is named after the two files' digest, so that another release is another folder.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from identity.errors import Unavailable, UsageError
from identity.wording import counted
from ops import output, settings
from ops.fabric.processes import tail

RELEASE = "3.1.1"
LEAST_GO = (1, 25)
PROGRAMS = ("configtxgen", "configtxlator", "cryptogen", "orderer", "osnadmin", "peer")
HERE = Path(__file__).resolve().parent
PINS = ("go.mod", "go.sum")
_TELL_SECONDS = 10
_GO_VERSION = re.compile(r"go version go(\d+)\.(\d+)")

Say = Callable[[str], None]


def digest() -> str:
    """What names a build: the SHA-256 of the two files that pin it, in hex."""
    return hashlib.sha256(b"".join(hashlib.sha256((HERE / name).read_bytes()).digest() for name in PINS)).hexdigest()


def folder() -> Path:
    """Where this build is, or will be."""
    return settings.fabric_cache() / digest()[:16]


def found() -> Path | None:
    """The folder of the programs, None where they are not built yet."""
    programs = folder() / "bin"
    return programs if all(os.access(programs / name, os.X_OK) for name in PROGRAMS) else None


def programs(say: Say) -> Path:
    """The folder of the programs; they are built if they are missing.

    What Go has fetched and compiled it keeps, so that a build that was interrupted goes on where it was.

    Raises:
        UsageError: ``go-missing`` or ``go-too-old``.
        Unavailable: ``fabric-build``.
    """
    if ready := found():
        return ready
    go = check_go()
    place = folder()
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place / "lock", say):
        if ready := found():  # somebody else built it meanwhile
            return ready
        _build(go, place, say)
    return place / "bin"


def check_go() -> str:
    """The path of a Go that can build Fabric.

    Raises:
        UsageError: ``go-missing`` or ``go-too-old``.
    """
    wanted = ".".join(map(str, LEAST_GO))
    how = f"install Go {wanted} or later from go.dev/dl (or your system's package golang), so that `go version` shows it, then the same command again"
    go = shutil.which("go", path=settings.go_environment().get("PATH"))
    if go is None:
        raise UsageError(
            "go-missing", f"Hyperledger Fabric is built from source, and there is no Go on the PATH. Go {wanted} or later is needed.",
            next=how,
        )  # fmt: skip
    # Asked beside our go.mod, a Go that may fetch a newer one of itself answers as that.
    asked = subprocess.run(
        [go, "version"],
        cwd=HERE,
        env=settings.go_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    version = _GO_VERSION.search(asked.stdout)
    if asked.returncode or version is None or (int(version[1]), int(version[2])) < LEAST_GO:
        said = (asked.stdout + asked.stderr).strip()[:200]
        raise UsageError("go-too-old", f"Go {wanted} or later is needed; {go} says: {said}", next=how)
    return go


@contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    """Hold a lock, waiting for it; the system ends it with the process."""
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that is building Hyperledger Fabric ({path})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(go: str, place: Path, say: Say) -> None:
    """Compile beside the final folder, which then appears at once and whole."""
    source, new, log = place / "source", place / "bin.new", place / "build.log"
    source.mkdir(exist_ok=True)
    for name in PINS:
        shutil.copyfile(HERE / name, source / name)
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(place / "bin", ignore_errors=True)
    say(f"building Hyperledger Fabric {RELEASE} from source, once: a minute or two, into {place}")
    began = time.monotonic()
    with log.open("wb") as file:
        command = [go, "build", "-trimpath", "-o", f"{new}{os.sep}", "tool"]
        child = subprocess.Popen(
            command, cwd=source, env=settings.go_environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    try:
        _wait(child, log, began, say)
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    missing = [name for name in PROGRAMS if not os.access(new / name, os.X_OK)]
    if child.returncode or missing:
        last = "\n".join(tail(log)) or "it said nothing"
        message = f"Hyperledger Fabric could not be built (go build ended with {child.returncode}); its log {log} ends with:\n{last}"
        raise Unavailable("fabric-build", message, next=output.command_line("fabric", "build"))
    new.rename(place / "bin")
    say(f"built in {time.monotonic() - began:.0f} s")


def _wait(child: "subprocess.Popen[bytes]", log: Path, began: float, say: Say) -> None:
    while True:
        try:
            child.wait(timeout=_TELL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            fetched = sum(line.startswith("go: downloading") for line in tail(log, 10_000))
            say(f"still building: {time.monotonic() - began:.0f} s, {counted(fetched, 'module')} fetched")
