# SPDX-License-Identifier: Apache-2.0
"""One round of large updates with all of its evidence: what an auditor of that round gets, made without training.

The updates are seeded noise, encoded, committed, verified, summed and recorded by the product's own functions; the
resulting model is released, and everything is exported as a bundle.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chaincode.agreement import TensorSpec, agreement_digest, tensor_specs
from chaincode.audit.export import export
from chaincode.audit.folder_source import folder_source
from chaincode.blobs import BlobStore
from chaincode.evidence import Commitment, VerifiedUpdate, verify_update
from chaincode.files import replacing, write_whole
from chaincode.header import Header
from chaincode.ledgers.sqlite import SqliteLedger
from chaincode.models import Tensor, model_digest, write_safetensors
from chaincode.proofs import make_entry_proof
from chaincode.recompute import recompute_result
from chaincode.update import encode_to
from identity.errors import Error
from ops.bench.ledgers import ClockedLedger, append, create, start
from ops.bench.people import START, People, Signing, digest, people, tensor, terms
from ops.run_folder import RunFolder

SITES = 10
FULL, QUICK = 10_000_000, 1_000_000  # elements of an update
WIDTH = 2048
AT = START + 1
_CARD = b"# A model of a benchmark\n"

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Round:
    """The run folder of one recorded and released round, and the bundle that was exported from it."""

    run: RunFolder
    agreement: dict[str, Any]
    commitments: tuple[Commitment, ...]

    @property
    def bundle(self) -> Path:
        return self.run.path / "exported"

    @property
    def specs(self) -> tuple[TensorSpec, ...]:
        return tensor_specs(self.agreement)

    @contextmanager
    def blobs(self) -> Iterator[list[memoryview]]:
        """The updates' bytes, mapped, in the order of the commitments."""
        store = BlobStore(self.run.blobs)
        with ExitStack() as stack:
            yield [stack.enter_context(store.open(commitment.digest)) for commitment in self.commitments]


def shapes(elements: int) -> list[tuple[str, tuple[int, ...]]]:
    """The tensors of a model of about that many elements: square layers as far as they go, and a last one."""
    width = min(WIDTH, max(1, int((elements / 3) ** 0.5)))
    whole, left = divmod(elements, width * (width + 1))
    layers: list[tuple[str, tuple[int, ...]]] = []
    for number in range(whole):
        layers += [(f"{number}.weight", (width, width)), (f"{number}.bias", (width,))]
    return layers + ([(f"{whole}.weight", (left,))] if left else [])


def floats(seed: int, elements: int, scale: float) -> Floats:
    """Seeded noise of a trained model's size."""
    made: Floats = np.random.default_rng(seed).standard_normal(elements, np.float32)
    made *= np.float32(scale)
    return made


def as_model(vector: Floats) -> dict[str, Tensor]:
    """A vector as the tensors of a model."""
    raw, position, model = vector.view(np.uint8).data, 0, {}
    for name, shape in shapes(len(vector)):
        size = 4 * int(np.prod(shape))
        model[name] = Tensor("float32", shape, raw[position : position + size])
        position += size
    return model


def header(by: Signing, base: str, member: str, elements: int) -> Header:
    """The header of an update for the round."""
    return Header(
        federation=by.federation, agreement=by.agreement, round=1, attempt=1, base=base, member=member, encoding="int32",
        length=elements, salt=digest("salt", member),
    )  # fmt: skip


def build(folder: Path, elements: int) -> Round:
    """Make the round."""
    run, who = RunFolder(folder), people(SITES)
    run.create()
    base = floats(0, elements, 0.02)
    base_digest = _keep(run, as_model(base))
    agreed = terms(who, "A large model", base_digest, 1, [tensor(*layer) for layer in shapes(elements)])
    with create(run, who) as ledger:
        by = Signing(who, start(run, ledger, who), agreement_digest(agreed))
        append(ledger, [by.propose(AT, agreed), *(by.sign(AT, site) for site in who.sites)], AT)
        commitments = _commit(run, ledger, by, base, agreed)
        made = Round(run, agreed, commitments)
        _record(made, ledger, by, as_model(base))
    with folder_source(folder) as source:
        export(source, made.bundle)
    return made


def _keep(run: RunFolder, model: dict[str, Tensor]) -> str:
    name = model_digest(model)
    write_safetensors(run.models / f"{name}.safetensors", model)
    return name


def _commit(
    run: RunFolder, ledger: ClockedLedger, by: Signing, base: Floats, agreed: dict[str, Any]
) -> tuple[Commitment, ...]:
    """Open the round, encode every site's update into the store, and commit to it."""
    base_digest = agreed["model"]["initial"]
    append(ledger, [by.open(AT, 1, base_digest)], AT)
    store, specs, commitments = BlobStore(run.blobs), tensor_specs(agreed), []
    for number, site in enumerate(by.who.sites):
        new = base + floats(1 + number, len(base), 1e-3)
        written = run.path / "update"
        with replacing(written, fsync=False) as file:
            name, size = encode_to(header(by, base_digest, site.did, len(base)), new, base, specs, file.write)
        store.adopt(written, name)
        append(ledger, [by.commit(AT, 1, site, name, size)], AT)
        commitments.append(Commitment(
            by.federation, by.agreement, 1, 1, base_digest, site.did, name, size, 10, "int32", len(base)
        ))  # fmt: skip
    append(ledger, [by.seal(AT, 1)], AT)
    return tuple(commitments)


def _record(made: Round, ledger: ClockedLedger, by: Signing, base: dict[str, Tensor]) -> None:
    """Sum, record and release."""
    run = made.run
    with made.blobs() as blobs:
        result = recompute_result(made.agreement, base, verified(made.commitments, blobs))
    name = _keep(run, dict(result.model))
    append(ledger, [by.record(AT, 1, result.sum, name)], AT)
    release = by.release(AT, 1, name, hashlib.sha256(_CARD).hexdigest())
    append(ledger, [release], AT)
    write_whole(run.model_card, _CARD)
    shutil.copyfile(run.models / f"{name}.safetensors", run.model)
    write_whole(run.proof, make_entry_proof(ledger.ledger, ledger.size - 1).encode())


def verified(commitments: Sequence[Commitment], blobs: Sequence[memoryview]) -> list[VerifiedUpdate]:
    """The updates, each verified against its commitment."""
    return [verify_update(commitment, data) for commitment, data in zip(commitments, blobs, strict=True)]


def cached(cache: Path, elements: int) -> Round:
    """The round, made on the first call and kept; made anew where the code that made it has changed."""
    made_by = hashlib.sha256(
        b"".join(Path(__file__).with_name(n).read_bytes() for n in ("limits_round.py", "people.py"))
    )
    folder = cache / f"round-{elements}-{made_by.hexdigest()[:8]}"
    notebook = folder / "round.json"
    try:
        kept = json.loads(notebook.read_text())
        with SqliteLedger.open(RunFolder(folder).ledger):
            return Round(RunFolder(folder), kept["agreement"], tuple(Commitment(**c) for c in kept["commitments"]))
    except (OSError, ValueError, TypeError, KeyError, Error):
        shutil.rmtree(folder, ignore_errors=True)
    made = build(folder, elements)
    notebook.write_text(json.dumps({"agreement": made.agreement, "commitments": [asdict(c) for c in made.commitments]}))
    return made


def signers(made: Round) -> tuple[People, Signing]:
    """Who signs for the round's federation."""
    who, first = people(SITES), made.commitments[0]
    return who, Signing(who, first.federation, first.agreement)
