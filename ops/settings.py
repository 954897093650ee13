# SPDX-License-Identifier: Apache-2.0
"""Settings: the sole reader and writer of the environment. Each value is recorded with where it came from.

A value given on the command line wins over the environment variable, which wins over the built-in value.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from identity.errors import UsageError

PREFIX = "FEDLEDGER_"
FALSE, TRUE = ("0", "no", "false", "off"), ("1", "yes", "true", "on")


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in force: ``origin`` is ``command line``, ``environment`` or ``built in``; empty text is "not set"."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Known:
    """A setting that exists: the built-in value, what it means, and how a value is checked."""

    default: str
    meaning: str
    kind: str = "text"


SETTINGS: Mapping[str, Known] = {
    "runs": Known("runs", "the folder under which runs are kept"),
    "key": Known("", "the federation.vkey that `verify` trusts"),
    "passphrase_file": Known("", "the file whose first line opens the keystore"),
    "ray_address": Known("", "the address of an existing Ray cluster"),
    "workers": Known("", "the number of worker processes", "count"),
    "dashboard": Known("0", "whether Ray's dashboard is started", "switch"),
    "fabric_cache": Known("", "the folder in which Hyperledger Fabric's programs are built and kept"),
}


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def setting(name: str, given: object = None) -> Setting:
    """The setting in force; ``given`` is the command line's value, None where it says nothing.

    Raises:
        UsageError: ``setting-value`` for a variable that cannot be read as what it must be.
    """
    known = SETTINGS[name]
    if given is not None:
        return Setting(name, str(given), "command line")
    value = os.environ.get(variable(name), "").strip()
    if not value:
        return Setting(name, known.default, "built in")
    _check(name, known, value)
    return Setting(name, value, "environment")


def text(name: str, given: object = None) -> str | None:
    """The setting's text, None where it is not set."""
    return setting(name, given).value or None


def count(name: str, given: int | None = None) -> int | None:
    """The setting's number, None where it is not set."""
    value = setting(name, given).value
    return int(value) if value else None


def switch(name: str, given: bool | None = None) -> bool:
    """Whether the setting is on."""
    return setting(name, None if given is None else int(given)).value.lower() in TRUE


def _check(name: str, known: Known, value: str) -> None:
    allowed = {"count": "a number from 1 to 4096", "switch": "0 or 1"}.get(known.kind, "")
    wrong = {
        "count": not (value.isascii() and value.isdigit() and len(value) <= 4 and 1 <= int(value) <= 4096),
        "switch": value.lower() not in FALSE + TRUE,
    }.get(known.kind, False)
    if wrong:
        raise UsageError(
            "setting-value", f"{variable(name)}={value[:64]!r} is not {allowed}.", next=f"unset {variable(name)}"
        )


def in_force() -> list[Setting]:
    """Every setting, for ``doctor``."""
    return [setting(name) for name in SETTINGS]


def unknown_variables() -> dict[str, str]:
    """Variables with our prefix that mean nothing, each with the one that was perhaps meant, or ""."""
    known = [name.upper() for name in SETTINGS]
    named = [name.removeprefix(PREFIX) for name in sorted(os.environ) if name.startswith(PREFIX)]
    near = {name: get_close_matches(name, known, 1) for name in named if name not in known}
    return {PREFIX + name: PREFIX + found[0] if found else "" for name, found in near.items()}


def fabric_cache(given: str | None = None) -> Path:
    """Where Hyperledger Fabric's programs are kept: built once, for every network of this user."""
    if folder := text("fabric_cache", given):
        return Path(folder).absolute()
    user = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(user) if user.startswith("/") else Path.home() / ".cache") / "fedledger" / "fabric"


_HANDED_ON = ("PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "VIRTUAL_ENV")


def node_environment(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process of a Fabric network: where programs are found, and what it is given.

    Nothing else is handed on: no setting that leads to a key (R6), nor what would configure Fabric by accident.
    """
    return {name: os.environ[name] for name in _HANDED_ON if name in os.environ} | dict(given)


def user_environment() -> dict[str, str]:
    """The user's environment for programs that fetch and build, without our settings: none leads to a key (R6)."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def go_environment() -> dict[str, str]:
    """The user's environment for Go, held to the recorded versions: a build that would change go.mod fails."""
    flags = f"{os.environ.get('GOFLAGS', '')} -mod=readonly".strip()
    return user_environment() | {"GOFLAGS": flags, "GOWORK": "off"}


def prepare_grpc() -> None:
    """Set what gRPC reads when it is imported: no child that this program forks calls it, and it need not say so."""
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def prepare_numpy() -> None:
    """Set what numpy's linear algebra reads when it is imported, for a command that needs none: its threads spin on a core
    for a thirtieth of a second before they sleep."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def prepare_ray(token: str, *, address: str | None = None) -> None:
    """Set what Ray reads when it is imported: before that, and once.

    Our own cluster is reached with ``token`` alone (without one Ray runs code for whoever connects). A cluster that
    exists has its own, which its user has set in Ray's way.
    """
    if address is None:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = token
    # Ray's processes inherit the environment, and nothing that leads to a key is theirs (R6).
    os.environ.pop(variable("passphrase_file"), None)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody, unless the user wants it
