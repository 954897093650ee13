# SPDX-License-Identifier: Apache-2.0
"""Run folders for tests: the world of the contract's tests, written into a real ledger, with real files beside it."""

import hashlib
import json
import struct
import time
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chaincode import artefacts, bundle_writer, models, notes, proofs, trust
from chaincode.ledgers.sqlite import SqliteLedger
from identity.did import public_key_from_did
from identity.errors import Rejected
from ops import command_line as cli
from ops.run_folder import RunFolder
from tests.chaincode.contract.world import World, key

ORIGIN = "fedledger.example/test"
LOG = key("log")
LOG_KEY = public_key_from_did(LOG.did)
VKEY = notes.format_vkey(ORIGIN, LOG_KEY)
CARD = b"# A model card\n"
EVIL = "evil [red]hospital[/red]"  # an organisation whose name is markup
TENSORS = {
    "weight": ("float32", (2, 3), struct.pack("<6f", *range(6))),
    "steps": ("int64", (), struct.pack("<q", 5)),
}


def world(participants: int = 3, **terms: Any) -> World:
    """A world that began some minutes ago, and whose log is the one of the tests."""
    return World(participants, now=int(time.time()) - 600, policy={"origin": ORIGIN, "log_key": VKEY}, **terms)


def rich_world() -> World:
    """Two rounds with a decline, a silence, an omission, a given-up attempt, a rotated key, a revocation and a release."""
    here = world(5, share_metrics=True).founded()
    here.admit(5, organisation=EVIL)
    here.agreed().wait(1).open()
    here.commit(1, metrics={"loss": "0.5"}).commit(2).commit(3).decline(4).wait(120).seal()
    here.wait(300).record(omit={3: "digest-mismatch"}, metrics={"accuracy": "0.91234567"})
    here.opened().commit(1).rotate(1).aborted()
    here.revoke(5).opened().commit(1).commit(2).commit(3).commit(4).sealed().recorded()
    here.wait(1).release(2).attest("auditor", 2)
    return here


def write_run(folder: Path, source: World) -> RunFolder:
    """A run folder whose ledger holds the world's entries."""
    run = RunFolder(folder)
    run.create()
    now = [0]
    with SqliteLedger.create(
        run.ledger, origin=ORIGIN, public_key=LOG_KEY, sign=LOG.sign, clock=lambda: now[0]
    ) as ledger:
        for entry in source.entries:
            now[0] = entry.at
            outcome = ledger.submit([entry.envelope])[0]
            assert not isinstance(outcome, Rejected), outcome
    key_file = trust.FederationKey(notes.parse_vkey(VKEY), source.federation)
    run.key_file.write_text(trust.format_key(key_file))
    return run


def write_released(folder: Path) -> tuple[RunFolder, World]:
    """A run of one round whose model is released, with the three files of the release."""
    source = world().sealed().wait(1)
    source.record(model=models.model_digest(TENSORS)).wait(1).release(model_card=hashlib.sha256(CARD).hexdigest())
    run = write_run(folder, source)
    models.write_safetensors(run.model, TENSORS)
    run.model_card.write_bytes(CARD)
    with SqliteLedger.open(run.ledger) as ledger:
        run.proof.write_text(proofs.make_entry_proof(ledger, len(source.entries) - 1))
    return run, source


class Terminal:
    """Runs command lines in this process and keeps what they wrote."""

    def __init__(self, captured: pytest.CaptureFixture[str]) -> None:
        self._captured = captured
        self.out = self.err = ""

    def __call__(self, *arguments: object, code: int = 0) -> str:
        """The standard output of a command, which must end with ``code``."""
        self._captured.readouterr()
        ended = cli.run([str(argument) for argument in arguments])
        self.out, self.err = self._captured.readouterr()
        assert ended == code, f"{arguments} ended with {ended}\n{self.out}\n{self.err}"
        return self.out

    def json(self, *arguments: object, code: int = 0) -> dict[str, Any]:
        """The parsed output of a command with ``--json``."""
        value = json.loads(self(*arguments, "--json", code=code))
        assert self.out.isascii()
        assert value["fedledger"] == f"{arguments[0]}/v1"
        return dict(value)


class _Body(nullcontext[Iterable[bytes]]):
    """The pieces of a file of a bundle."""


def write_evidence(path: Path, run: RunFolder) -> Path:
    """A bundle with what every bundle has, made from a run's ledger and key."""
    with SqliteLedger.open(run.ledger) as ledger:
        bodies: dict[str, Iterable[bytes]] = {
            artefacts.CHECKPOINT: [ledger.checkpoint().encode()],
            artefacts.ENTRIES: [envelope + b"\n" for envelope in ledger.entries()],
            trust.KEY_FILE: [run.key_file.read_bytes()],
        }
    bundle_writer.write_bundle(path, [(name, partial(_Body, body)) for name, body in bodies.items()])
    return path
