# SPDX-License-Identifier: Apache-2.0
"""The connection profile of a Fabric network: which peers, whose certificates, which channel and chaincode.

A JSON file; paths in it are relative to it. `ops/fabric` writes one for the network that it starts; an operator writes
one for a network that exists, with the keys of clients of the own organisation only (operators.md).
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaincode.files import write_whole
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
    """An organisation: its peers, and a client's certificate and key (PEM files), None where that is not ours to be."""

    name: str
    msp: str
    peers: tuple[Node, ...]
    certificate: Path | None
    key: Path | None

    @property
    def ours(self) -> bool:
        """Whether there are a peer to ask and a client's key to sign with."""
        return bool(self.peers) and self.certificate is not None and self.key is not None and self.key.is_file()


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
    except TypeError as error:
        raise _malformed(where, str(error)) from error


def save_profile(profile: Profile) -> None:
    """Write a profile to its own path, with paths relative to it where they lie below. Raises OSError."""
    write_whole(profile.path, json.dumps(_written(profile), indent=2).encode() + b"\n")


def _malformed(where: Path, what: str) -> UsageError:
    message = f"{where} is not a Fabric profile: {what}."
    return UsageError(
        "profile-malformed", message, next="fedledger fabric package -o FILE writes an example into FILE.md."
    )


def _text(value: Any, name: str) -> str:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, str) or not found:
        raise TypeError(f"{name!r} is missing somewhere, or is no text")
    return found


def _list(value: Any, name: str) -> list[Any]:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise TypeError(f"{name!r} is missing somewhere, or is no list")
    return found


def _path(value: Any, name: str, where: Path) -> Path | None:
    """A path, relative to the profile; None where the field is left out or null."""
    left_out = not isinstance(value, dict) or value.get(name) is None
    return None if left_out else where.parent / _text(value, name)


def _profile(value: Any, where: Path) -> Profile:
    return Profile(
        channel=_text(value, "channel"),
        chaincode=_text(value, "chaincode"),
        organisations=tuple(_organisation(one, where) for one in _list(value, "organisations")),
        orderers=tuple(_node(one, _text(one, "msp"), where) for one in _list(value, "orderers")),
        genesis=where.parent / _text(value, "genesis"),
        path=where,
    )


def _organisation(one: Any, where: Path) -> Organisation:
    msp = _text(one, "msp")
    return Organisation(
        name=_text(one, "name"), msp=msp, peers=tuple(_node(peer, msp, where) for peer in _list(one, "peers")),
        certificate=_path(one, "certificate", where), key=_path(one, "key", where),
    )  # fmt: skip


def _node(one: Any, msp: str, where: Path) -> Node:
    return Node(_text(one, "address"), msp, _path(one, "tls_ca", where))


def _written(profile: Profile) -> dict[str, Any]:
    folder = profile.path.parent

    def name(path: Path | None) -> str | None:
        return None if path is None else str(path.relative_to(folder) if path.is_relative_to(folder) else path)

    return {
        "channel": profile.channel, "chaincode": profile.chaincode, "genesis": name(profile.genesis),
        "organisations": [
            {"name": o.name, "msp": o.msp, "peers": [{"address": p.address, "tls_ca": name(p.tls_ca)} for p in o.peers],
             "certificate": name(o.certificate), "key": name(o.key)}
            for o in profile.organisations
        ],
        "orderers": [{"address": n.address, "msp": n.msp, "tls_ca": name(n.tls_ca)} for n in profile.orderers],
    }  # fmt: skip
