# SPDX-License-Identifier: Apache-2.0
"""Evidence for the audit's tests: a whole run with real keys, credentials, updates, models and a real ledger file.

``Run`` drives the world of the contract's tests with real bytes and writes what a coordinator would keep; tests then damage
or forge it. Nothing here judges anything.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from chaincode import artefacts
from chaincode.agreement import tensor_specs
from chaincode.audit import Claim, Report, audit
from chaincode.audit.bundle_source import bundle_source
from chaincode.audit.export import export
from chaincode.audit.folder_source import folder_source
from chaincode.blobs import BlobStore
from chaincode.bundle_writer import write_bundle
from chaincode.checkpoints import Checkpoint, sign_checkpoint
from chaincode.chunks import chunk_root
from chaincode.evidence import Commitment, verify_update
from chaincode.header import Header
from chaincode.ledgers.sqlite import SqliteLedger
from chaincode.log import leaf_hash, root
from chaincode.models import Tensor, model_digest, write_safetensors
from chaincode.notes import format_vkey, parse_vkey
from chaincode.proofs import make_entry_proof
from chaincode.recompute import Result, recompute_result
from chaincode.trust import KEY_FILE, FederationKey, format_key
from chaincode.update import encode_to
from identity import credentials
from identity.did import public_key_from_did
from identity.errors import Rejected
from tests.chaincode.contract.agreements import DAY
from tests.chaincode.contract.memory import Who, key, label
from tests.chaincode.contract.world import World

ORIGIN = "ledger.example/test"
LOG = key("log")
LOG_KEY = public_key_from_did(LOG.did)
VKEY = format_vkey(ORIGIN, LOG_KEY)
CARD = b"# A model card\n"
ADAM = {"optimiser": "adam", "parameters": {"learning_rate": "0.5", "beta1": "0.9", "beta2": "0.99", "tau": "0.001"}}
INITIAL: Mapping[str, Tensor] = {
    "weight": Tensor("float32", (2, 3), memoryview(struct.pack("<6f", 1, -2, 3, 0.5, 0.25, 8))),
    "steps": Tensor("int64", (), memoryview(struct.pack("<q", 41))),
}


class Run:
    """A run in a folder. Its stages are done step by step, and ``write`` makes the ledger file of what was accepted."""

    def __init__(self, folder: Path, sites: int = 3, **terms: Any) -> None:
        self.folder = folder
        self.blobs = BlobStore(folder / "blobs", fsync=False)
        for name in ("credentials", "models", "release", "keys"):
            (folder / name).mkdir(parents=True)
        (folder / "keys" / "keystore").write_bytes(b"the most secret bytes of all")
        model = {"initial": model_digest(INITIAL)}
        self.world = World(
            sites, policy={"origin": ORIGIN, "log_key": VKEY}, **{"model": model, "aggregation": ADAM, **terms}
        )
        self.models: dict[str, Mapping[str, Tensor]] = {}
        self.state: Any = None
        self.result: Result | None = None
        self.keep(INITIAL)

    def keep(self, model: Mapping[str, Tensor]) -> str:
        """Store a model; its digest."""
        digest = model_digest(model)
        self.models[digest] = model
        write_safetensors(self.folder / "models" / f"{digest}.safetensors", model, fsync=False)
        return digest

    def founded(self) -> "Run":
        """Founded, and everybody admitted with a real credential."""
        world = self.world
        world.wait(1).found()
        everybody: list[Who] = ["coordinator", "auditor", *world.sites]
        for who in everybody:
            self.admit(who)
        (self.folder / KEY_FILE).write_text(format_key(FederationKey(parse_vkey(VKEY), world.federation)))
        return self

    def admit(self, who: Who, *, issuer: str = "authority", keep: bool = True, **changes: Any) -> str:
        """Issue a credential and admit someone with it; ``changes`` go into the admission. Returns the token."""
        world, now = self.world, self.world.now
        role = who if who in ("coordinator", "auditor") else "participant"
        token = credentials.issue(
            world.keys(issuer)[-1], subject=world.keys(who)[-1].did, role=str(role), organisation=label(who),
            federation=world.federation, not_before=now, not_after=now + 90 * DAY,
        )  # fmt: skip
        digest = hashlib.sha256(token.encode()).hexdigest()
        if keep:
            (self.folder / artefacts.credential(digest)).write_text(token)
        world.admit(who, **{"credential": digest, "not_before": now, "not_after": now + 90 * DAY, **changes})
        return token

    def agreed(self) -> "Run":
        if not self.world.federation:
            self.founded()
        self.world.agreed()
        return self

    def opened(self) -> "Run":
        if not self.world.digest:
            self.agreed()
        self.world.wait(1).open()
        return self

    def blob(self, who: Who, values: Iterable[float] | None = None, **header: Any) -> bytes:
        """The bytes of someone's update for the open attempt: different ones for each site and attempt."""
        world, head = self.world, self.world.head
        specs = tensor_specs(world.agreement)
        number = world.sites.index(int(who)) + 1
        delta = values or [number * 0.125, -0.5, head.round * 0.25, head.attempt * 0.0625, 0.75, number / 7]
        made = Header(**{
            "federation": world.federation, "agreement": world.digest, "round": head.round, "attempt": head.attempt,
            "base": head.base, "member": world.name(who), "encoding": "int32", "length": world.terms.elements,
            "salt": hashlib.sha256(f"{who} {head.round} {head.attempt}".encode()).hexdigest(), **header,
        })  # fmt: skip
        data = bytearray()
        encode_to(made, np.array(list(delta), np.float32), None, specs, data.extend)
        return bytes(data)

    def commit(self, *who: Who, blob: bytes | None = None, keep: bool = True, examples: int = 10) -> "Run":
        """Commit to updates, and keep their bytes as a coordinator does that has received them."""
        for one in who or tuple(self.world.sites):
            data = self.blob(one) if blob is None else blob
            self.world.commit(one, update=chunk_root(data), size=len(data), examples=examples)
            if keep:
                self.blobs.put(data, chunk_root(data))
        return self

    def sealed(self) -> "Run":
        self.world.wait(1).seal()
        return self

    def recompute(self, left_out: Iterable[str] = ()) -> Result:
        """The true result of the sealed attempt."""
        world, head, updates = self.world, self.world.head, []
        for member in world.agreement["parties"]:
            seat = world._seats("in").get(member)
            if seat is None or member in left_out:
                continue
            commitment = Commitment(
                federation=world.federation, agreement=world.digest, round=head.round, attempt=head.attempt, base=head.base,
                member=member, digest=seat.update, size=seat.size, weight=seat.examples, encoding="int32",
                elements=world.terms.elements,
            )  # fmt: skip
            with self.blobs.open(seat.update) as data:
                updates.append(verify_update(commitment, bytes(data)))
        return recompute_result(world.agreement, self.models[head.base], updates, self.state)

    def recorded(self, omit: Mapping[Who, str] | None = None, **changes: Any) -> "Run":
        """Record the sealed attempt, truly unless ``changes`` say otherwise."""
        result = self.recompute({self.world.name(who) for who in omit or {}})
        subjects = {"sum": result.sum, "model": result.model_digest, "optimiser_state": result.optimiser or None}
        self.world.wait(1).record(omit=dict(omit or {}), **{**subjects, **changes})
        self.keep(result.model)
        if result.state is not None:
            self.blobs.put(np.ascontiguousarray(result.state, "<f8").tobytes(), result.optimiser)
        self.state, self.result = result.state, result
        return self

    def rounds(self, count: int) -> "Run":
        for _ in range(count):
            self.opened().commit().sealed().recorded()
        return self

    def released(self) -> "Run":
        """Release the last recorded model, and write the ledger and the three files of the release."""
        world = self.world
        world.wait(1).release(model_card=hashlib.sha256(CARD).hexdigest())
        self.write()
        write_safetensors(self.folder / artefacts.RELEASED_MODEL, self.models[world.head.base], fsync=False)
        (self.folder / artefacts.RELEASED_CARD).write_bytes(CARD)
        with SqliteLedger.open(self.folder / "ledger.sqlite") as ledger:
            (self.folder / artefacts.RELEASED_PROOF).write_text(make_entry_proof(ledger, len(world.entries) - 1))
        return self

    def write(self) -> "Run":
        """Make the ledger file anew out of the accepted entries, signed with the real log key."""
        path, now = self.folder / "ledger.sqlite", [0]
        path.unlink(missing_ok=True)
        ledger = SqliteLedger.create(path, origin=ORIGIN, public_key=LOG_KEY, sign=LOG.sign, clock=lambda: now[0])
        with ledger:
            for entry in self.world.entries:
                now[0] = entry.at
                outcome = ledger.submit([entry.envelope])[0]
                assert not isinstance(outcome, Rejected), outcome
        return self

    @property
    def note(self) -> str:
        """The signed head of the accepted entries."""
        return head_of(self.world.envelopes)

    def audit(self, **options: Any) -> Report:
        with folder_source(self.folder) as source:
            return audit(source, **options)

    def export(self, path: Path) -> Path:
        with folder_source(self.folder) as source:
            export(source, path)
        return path

    def index(self, kind: str, nth: int = 0) -> int:
        """The index of the nth entry of a kind."""
        return [i for i, entry in enumerate(self.world.entries) if entry.kind == kind][nth]


def whole_run(folder: Path, rounds: int = 2, **options: Any) -> Run:
    """A run from its founding to the release of its last model."""
    return Run(folder, **options).agreed().rounds(rounds).released()


def head_of(envelopes: Iterable[bytes]) -> str:
    """A checkpoint over envelopes, signed with the real log key."""
    leaves = [leaf_hash(envelope) for envelope in envelopes]
    return sign_checkpoint(Checkpoint(ORIGIN, len(leaves), root(leaves)), LOG_KEY, LOG.sign)


def audit_bundle(path: Path, **options: Any) -> Report:
    with bundle_source(path) as source:
        return audit(source, **options)


def bundle_of(path: Path, files: Mapping[str, bytes]) -> Path:
    """A bundle of any files, with an index that fits them."""
    bodies: list[tuple[str, Callable[[], Any]]] = [
        (name, partial(nullcontext, (body,))) for name, body in files.items()
    ]
    write_bundle(path, bodies)
    return path


def files_of(run: Run, envelopes: list[bytes] | None = None) -> dict[str, bytes]:
    """The files of a run's bundle; ``envelopes`` replace its entries, under a head that is signed with the real key."""
    with bundle_source(run.export(run.folder / "for-files.bundle")) as source:
        files = {name: bytes(source._bundle.body(name) or b"") for name in source._bundle.files}
    if envelopes is not None:
        files[artefacts.ENTRIES] = b"".join(envelope + b"\n" for envelope in envelopes)
        files[artefacts.CHECKPOINT] = head_of(envelopes).encode()
    return files


def claim(report: Report, number: int) -> Claim:
    return report.claims[number - 1]


def verdicts(report: Report) -> dict[int, str]:
    return {one.number: one.verdict for one in report.claims}


def found(report: Report) -> set[str]:
    """The codes of all findings, with the claim's number before: ``8:result-differs``."""
    return {f"{one.number}:{finding.code}" for one in report.claims for finding in one.findings}


def where(report: Report) -> str:
    """The places of all findings, a line each."""
    return "\n".join(finding.where for one in report.claims for finding in one.findings)


@contextmanager
def altered(path: Path, change: Callable[[bytearray], object]) -> Any:
    """A file with changed bytes for the length of a block."""
    before = path.read_bytes()
    data = bytearray(before)
    change(data)
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


Files = dict[str, bytes]
"""The files of a bundle by their names, to be changed before it is judged."""


def judged(tmp_path: Path, files: Files, **options: Any) -> Any:
    """The audit of a bundle of these files."""
    return audit_bundle(bundle_of(tmp_path / "forged", files), **options)
