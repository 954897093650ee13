# SPDX-License-Identifier: Apache-2.0
"""A second reader: another client, by other people (fabric-sdk-py), reads the channel, and what it reads is compared.

Our evidence then does not rest on our own client alone. fabric-sdk-py is old and unmaintained, and cannot share a process
with the protocol's current messages: it has an environment and a process of its own.
"""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaincode import contract
from chaincode.entries import open_entry
from chaincode.ledgers.fabric.asking import Asking
from chaincode.ledgers.fabric.blocks import header_hash
from chaincode.ledgers.fabric.gateway import CallFailed, Peer
from chaincode.ledgers.fabric.identity import load_member
from chaincode.ledgers.fabric.ledger import FabricLedger
from chaincode.ledgers.fabric.messages import status_request
from chaincode.ledgers.fabric.profile import Node, Profile
from identity import canonical
from identity.errors import EvidenceError, Unavailable
from identity.wording import counted
from ops import output, settings
from ops.fabric import plan

Say = Callable[[str], None]
HERE = Path(__file__).resolve().parent
PINS = HERE / "second-reader.txt"
_INSTALL_SECONDS = 600
_READ_SECONDS = 300
_ENTRIES = 50
_CALL_SECONDS = 20.0
_DETAILS = re.compile(r'details = "([^"\n]*)"')


@dataclass(frozen=True, slots=True)
class Comparison:
    """One thing that both have read, in the same bytes or not."""

    what: str
    gateway: str
    second: str

    @property
    def agree(self) -> bool:
        return self.gateway == self.second


def environment(say: Say) -> Path:
    """The Python of the second reader's environment, which is made if it is missing.

    Raises:
        Unavailable: ``second-reader-install``.
    """
    place = settings.fabric_cache() / f"second-reader-{hashlib.sha256(PINS.read_bytes()).hexdigest()[:16]}"
    python, done = place / "bin" / "python", place / "complete"
    if not done.is_file():
        say(f"installing fabric-sdk-py, once, into {place}")
        for command in (
            [sys.executable, "-m", "venv", "--clear", str(place)],
            [
                str(python),
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
                "-r",
                str(PINS),
            ],
        ):
            made = subprocess.run(
                command, env=settings.user_environment(), capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
            )  # fmt: skip
            if made.returncode:
                last = "\n".join((made.stdout + made.stderr).strip().splitlines()[-8:])
                again = "With a package registry within reach, the same command again."
                raise Unavailable("second-reader-install", f"fabric-sdk-py could not be installed:\n{last}", next=again)
        done.touch()
    return python


def compare(profile: Profile, organisation: str, say: Say) -> list[Comparison]:
    """Have both read the channel as clients of one organisation: the second one first, then the gateway.

    The second one also runs the contract once, in a transaction that asks for its source and writes nothing.

    Raises:
        Unavailable: ``second-reader-install``, ``second-reader``, and as the ledger.
    """
    python = environment(say)
    with FabricLedger.open(profile, organisation) as ledger:
        envelopes = list(ledger.entries())
        keys = sorted(contract.keys_of([open_entry(one) for one in envelopes[-_ENTRIES:]])) or ["federation"]
        say("reading the channel by fabric-sdk-py")
        second = _second(python, profile, organisation, keys)
        say(f"reading the channel's {counted(second['height'], 'block')} by the gateway")
        first = _first(profile, organisation, second)
        values = ledger.get(keys)
        first["values"] = [None if (value := values[key]) is None else canonical.b64encode(value) for key in keys]
        first["invoked"] = ledger.source(profile.organisation(organisation).msp)
    return [
        Comparison(f"hash of block {second['height'] - 1}", first["tip"], second["tip"]),
        Comparison(
            f"bytes of {counted(second['height'], 'block')}", _digest(first["blocks"]), _digest(second["blocks"])
        ),
        Comparison(
            f"state under {counted(len(keys), 'key')}", _digest(first["values"]), _digest(json.loads(second["values"]))
        ),
        Comparison("the contract's source", first["invoked"], second["invoked"]),
        Comparison("the transaction that it made", "VALID", first["status"]),
    ]


def require_agreement(found: list[Comparison]) -> None:
    """Raises EvidenceError(second-reader-disagrees)."""
    if wrong := [one for one in found if not one.agree]:
        message = "\n".join(
            f"{one.what}: the gateway {one.gateway[:64]}, fabric-sdk-py {one.second[:64]}" for one in wrong
        )
        raise EvidenceError("second-reader-disagrees", f"The two clients have read different things.\n{message}")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _second(python: Path, profile: Profile, organisation: str, keys: list[str]) -> dict[str, Any]:
    """What fabric-sdk-py reads. Raises Unavailable(second-reader)."""
    own = profile.organisation(organisation)
    others = [node for one in profile.organisations if one.msp != own.msp for node in one.peers]
    with tempfile.TemporaryDirectory(prefix="fedledger-second-reader-") as store:
        asked = {
            "channel": profile.channel, "chaincode": profile.chaincode, "msp": own.msp, "store": store,
            "certificate": str(own.certificate), "key": str(own.key), "keys": keys,
            "peers": [_node(one) for one in (*own.peers, *others)],
            "orderers": [_node(one) for one in profile.orderers],
        }  # fmt: skip
        # Its generated code is of a time before the current compiled one.
        given = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python", "PYTHONWARNINGS": "ignore"}
        try:
            done = subprocess.run(
                [python, "-I", HERE / "sdk_reader.py"], input=json.dumps(asked) + "\n", env=settings.node_environment(given),
                capture_output=True, text=True, timeout=_READ_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise Unavailable(
                "second-reader", f"fabric-sdk-py did not end in {_READ_SECONDS} s.", next=_next(profile)
            ) from error
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise Unavailable(
            "second-reader", f"fabric-sdk-py could not read the channel:\n{_said(done.stderr)}", next=_next(profile)
        )
    read: dict[str, Any] = json.loads(lines[-1])
    return read


def _said(stderr: str) -> str:
    """What a failure of the second reader says: its last line, and what nodes had answered before."""
    last = (stderr.strip() or "it said nothing").splitlines()[-1]
    return "\n".join(dict.fromkeys([*_DETAILS.findall(stderr), last]))


def _next(profile: Profile) -> str:
    """The command that shows what of a network is away."""
    folder = profile.path.parent
    if (folder / plan.FILE).exists():
        return output.command_line("fabric", "status", "--dir", output.relative(folder))
    return f"See whether the nodes that {output.relative(profile.path)} names are there, then the same command again."


def _node(node: Node) -> Mapping[str, str | None]:
    return {"address": node.address, "tls_ca": None if node.tls_ca is None else str(node.tls_ca)}


def _first(profile: Profile, organisation: str, second: Mapping[str, Any]) -> dict[str, Any]:
    """What the gateway, and the peer's block service, say of the same blocks, for which they wait. Raises Unavailable(second-reader)."""
    own = profile.organisation(organisation)
    member, peer = load_member(own), Peer(own.peers[0])
    try:
        asking, last = Asking(member, profile.channel), second["height"] - 1
        blocks: list[Any] = list(asking.blocks([peer], 0, last, lambda block, *_: block, turn=_READ_SECONDS))
        status = peer.status(status_request(member, profile.channel, second["transaction"]), _CALL_SECONDS)
    except (CallFailed, Unavailable) as failure:
        raise Unavailable(
            "second-reader", f"The gateway could not read the channel: {failure}.", next=_next(profile)
        ) from failure
    finally:
        peer.close()
    return {
        "tip": canonical.b64encode(header_hash(blocks[-1].header)),
        "blocks": [hashlib.sha256(block.SerializeToString()).hexdigest() for block in blocks], "status": status.code,
    }  # fmt: skip
