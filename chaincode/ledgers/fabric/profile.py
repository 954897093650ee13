# SPDX-License-Identifier: Apache-2.0
"""The connection profile of a Fabric network: which peers, whose certificates, which channel and chaincode.

A JSON file; paths in it are relative to it. `ops/fabric` writes one for the network that it starts; an operator writes
one for a network that exists.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from identity.canonical import parse_json
from identity.errors import EvidenceError, UsageError

LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ledger lives: a channel, and the name of the chaincode on it."""

    channel: str
    chaincode: str


@dataclass(frozen=True, slots=True)
class Node:
    """A peer or an orderer: HOST:PORT, and the certificate (PEM file) that signs its TLS certificate, None for no TLS.

    `msp` names the organisation that runs it.
    """

    address: str
    msp: str
    tls_ca: Path | None


@dataclass(frozen=True, slots=True)
class Organisation:
    """An organisation: its peers, the client's certificate and key (PEM files), and its CAs' certificates."""

    name: str
    msp: str
    peers: tuple[Node, ...]
    certificate: Path
    key: Path
    ca: Path
    tls_ca: Path | None


@dataclass(frozen=True, slots=True)
class Profile:
    """A channel, its chaincode, and who runs the network. `genesis` is the channel's first block."""

    channel: str
    chaincode: str
    organisations: tuple[Organisation, ...]
    orderers: tuple[Node, ...]
    genesis: Path
    path: Path

    def organisation(self, name: str) -> Organisation:
        """Return an organisation by its name or its MSP's. Raises UsageError(profile-organisation)."""
        for one in self.organisations:
            if name in (one.name, one.msp):
                return one
        known = ", ".join(one.name for one in self.organisations)
        raise UsageError("profile-organisation", f"{self.path} names no organisation {name!r}; it names {known}.")


def load_profile(path: str | os.PathLike[str]) -> Profile:
    """Read a profile. Raises UsageError: profile-missing, profile-malformed (it says which field)."""
    where = Path(path)
    try:
        data = where.read_bytes()[: LIMIT + 1]
    except OSError as error:
        raise UsageError("profile-missing", f"There is no Fabric profile {where}: {error.strerror}.") from error
    try:
        value = parse_json(data, limit=LIMIT)
    except EvidenceError as error:
        raise _malformed(where, error.message) from error
    try:
        return _profile(value, where)
    except (KeyError, TypeError, AttributeError) as error:
        raise _malformed(where, f"field {error}") from error


def save_profile(profile: Profile) -> None:
    """Write a profile to its own path, with paths relative to it where they lie below. Raises OSError."""
    profile.path.write_text(json.dumps(_written(profile), indent=2) + "\n")


def _malformed(where: Path, what: str) -> UsageError:
    return UsageError("profile-malformed", f"{where} is not a Fabric profile: {what}.")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("where text is expected")
    return value


def _profile(value: Any, where: Path) -> Profile:
    def path(text: Any) -> Path:
        return where.parent / _text(text)

    def optional(text: Any) -> Path | None:
        return None if text is None else path(text)

    return Profile(
        channel=_text(value["channel"]),
        chaincode=_text(value["chaincode"]),
        organisations=tuple(_organisation(one, path, optional) for one in value["organisations"]),
        orderers=tuple(_node(one, _text(one["msp"]), optional) for one in value["orderers"]),
        genesis=path(value["genesis"]),
        path=where,
    )


def _organisation(one: Any, path: Callable[[Any], Path], optional: Callable[[Any], Path | None]) -> Organisation:
    msp = _text(one["msp"])
    return Organisation(
        name=_text(one["name"]), msp=msp, peers=tuple(_node(peer, msp, optional) for peer in one["peers"]),
        certificate=path(one["certificate"]), key=path(one["key"]), ca=path(one["ca"]), tls_ca=optional(one.get("tls_ca")),
    )  # fmt: skip


def _node(one: Any, msp: str, optional: Callable[[Any], Path | None]) -> Node:
    return Node(_text(one["address"]), msp, optional(one.get("tls_ca")))


def _written(profile: Profile) -> dict[str, Any]:
    def name(path: Path | None) -> str | None:
        if path is None:
            return None
        return str(path.relative_to(profile.path.parent) if path.is_relative_to(profile.path.parent) else path)

    return {
        "channel": profile.channel, "chaincode": profile.chaincode,
        "organisations": [
            {"name": o.name, "msp": o.msp, "peers": [{"address": p.address, "tls_ca": name(p.tls_ca)} for p in o.peers],
             "certificate": name(o.certificate), "key": name(o.key), "ca": name(o.ca), "tls_ca": name(o.tls_ca)}
            for o in profile.organisations
        ],
        "orderers": [{"address": n.address, "msp": n.msp, "tls_ca": name(n.tls_ca)} for n in profile.orderers],
        "genesis": name(profile.genesis),
    }  # fmt: skip
