# SPDX-License-Identifier: Apache-2.0
"""What a worker does, in this process; and the dispatch on one process without Ray."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chaincode import schema
from chaincode.aggregation import state_digest
from chaincode.blobs import BlobStore
from chaincode.chunks import chunk_root
from chaincode.evidence import verify_update
from chaincode.files import mapped
from chaincode.models import digest_file, read_safetensors
from chaincode.packs import read_index, write_packs
from chaincode.recompute import recompute_result
from coordinator import worker as module
from coordinator.host import Host
from coordinator.jobs import TaskInfo
from coordinator.ports import Delivery, FinishOrder
from identity.errors import Error, EvidenceError, UsageError
from participant.ports import TrainFailure, TrainOrder, TrainResult
from tests.coordinator import cluster_rounds as rounds
from tests.coordinator.worker_round import Round, another, other_bytes
from tests.fakes.local_cluster import LocalCluster

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def first(tmp_path: Path) -> Round:
    return Round(tmp_path)


def test_describing_stores_the_initial_model(first: Round) -> None:
    info: TaskInfo = first.info
    assert (info.name, info.version) == ("tiny", "1")
    assert info.code == first.worker.hello()
    assert digest_file(first.folder / "models" / f"{info.initial}.safetensors") == info.initial
    schema.digest(info.evaluation, "evaluation")
    for name, value in info.metrics.items():
        schema.decimal(value, name)
    assert first.worker.describe()[0] == info


def test_an_outcome_is_what_anyone_recomputes(first: Round) -> None:
    outcome = first.finish()
    with mapped(first.folder / "models" / f"{first.info.initial}.safetensors") as data:
        updates = [verify_update(d.commitment, Path(d.place.path).read_bytes()) for d in first.deliveries]
        result = recompute_result(first.terms, read_safetensors(data), updates)
    assert (outcome.sum, outcome.model, outcome.optimiser) == (result.sum, result.model_digest, "")
    assert digest_file(first.folder / "models" / f"{outcome.model}.safetensors") == outcome.model
    assert outcome.evaluation == first.info.evaluation
    assert set(outcome.metrics) == {"accuracy", "loss"}
    assert first.finish() == first.finish(base=first.arrays) == outcome


def test_two_parts_give_the_same_as_one(first: Round) -> None:
    whole = first.finish()
    parts = [first.worker.sum(part)[1] for part in (first.deliveries[:2], first.deliveries[2:])]
    order = FinishOrder(first.terms, 1, first.info.initial, "", 40)
    assert first.worker.finish(order, first.arrays, *parts)[0] == whole


def test_more_updates_than_may_be_open_give_the_same(first: Round, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = first.finish()
    monkeypatch.setattr("coordinator.summing.OPEN_FILES", 2)
    assert first.finish() == whole


def test_the_optimisers_state_is_kept_checked_and_used(tmp_path: Path) -> None:
    first = Round(tmp_path, "avgm")
    outcome = first.finish()
    blobs = BlobStore(tmp_path / "blobs")
    path = blobs.path(outcome.optimiser)
    state = np.frombuffer(path.read_bytes(), "<f8").reshape(1, -1)
    assert state_digest(state) == chunk_root(path.read_bytes()) == outcome.optimiser
    second = first.finish(optimiser=outcome.optimiser)
    assert second.model != outcome.model
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    with pytest.raises(EvidenceError) as caught:
        first.finish(optimiser=outcome.optimiser)
    assert caught.value.code == "blob-digest"


def test_packed_updates_are_kept_when_they_are_genuine(first: Round) -> None:
    """A pack in the outbox also holds what nobody committed to; the store gets what was committed, and no more."""
    of = first.folder / "shared"
    blobs = [(d.commitment.digest, Path(d.place.path).read_bytes()) for d in first.deliveries]
    blobs[0] = (blobs[0][0], blobs[0][1][:-1] + b"\x7f")
    (pack,) = write_packs(of, [*blobs, (chunk_root(b"secret"), b"secret")], fsync=False)
    index = read_index(pack)
    packed = [Delivery(d.commitment, index[d.commitment.digest]) for d in first.deliveries]
    for _ in range(2):  # asked for again, it gives and keeps the same
        verdicts, total = first.worker.sum(packed)
        assert list(verdicts.values()) == ["update-digest", *[""] * 4]
    alone = first.worker.sum(first.deliveries[1:])[1]
    assert total is not None
    assert alone is not None
    assert np.array_equal(total, alone)
    (kept,) = (first.folder / "blobs" / "packs").iterdir()
    assert list(read_index(kept)) == [digest for digest, _ in blobs[1:]]
    pack.unlink()
    assert list(first.worker.sum(packed)[0].values()) == ["update-missing", *[""] * 4]


def test_sum_and_finish_in_one_call(first: Round) -> None:
    order = FinishOrder(first.terms, 1, first.info.initial, "", sum(d.commitment.weight for d in first.deliveries))
    verdicts, outcome = first.worker.aggregate(first.deliveries, order)
    assert not any(verdicts.values())
    assert outcome == first.finish()
    other_bytes(first, first.deliveries[2])
    verdicts, none = first.worker.aggregate(first.deliveries, order)
    assert [code for code in verdicts.values() if code] == ["update-digest"]
    assert none is None


def test_the_model_of_one_call_is_at_hand_for_the_next_round(first: Round) -> None:
    order = FinishOrder(first.terms, 1, first.info.initial, "", sum(d.commitment.weight for d in first.deliveries))
    outcome = first.worker.aggregate(first.deliveries, order)[1]
    assert outcome is not None
    asked = rounds.orders(first.settings, first.info, first.terms, outcome.model, 2)
    expected = another(first).train(None, asked)
    (first.folder / "models" / f"{outcome.model}.safetensors").unlink()
    assert first.worker.train(None, asked) == expected


def test_an_update_that_became_a_blob_can_be_summed_again(first: Round) -> None:
    before = first.worker.sum(first.deliveries)[1]
    for delivery in first.deliveries:
        BlobStore(first.folder / "blobs").adopt(delivery.place.path, delivery.commitment.digest)
    verdicts, after = first.worker.sum(first.deliveries)
    assert not any(verdicts.values())
    assert before is not None
    assert after is not None
    assert np.array_equal(before, after)


def test_commitments_of_two_rounds_do_not_go_into_one_sum(first: Round) -> None:
    asked = rounds.orders(first.settings, first.info, first.terms, first.info.initial, 2)
    second = rounds.deliveries(asked, {a.site: a for a in first.worker.train(None, asked)})
    with pytest.raises(EvidenceError) as caught:
        first.worker.sum([first.deliveries[0], second[1]])
    assert caught.value.code == "sum-mixed"


def test_a_task_that_no_longer_fits_its_agreement_is_refused(first: Round) -> None:
    first.terms["model"]["tensors"][0]["clip_exponent"] = 5
    with pytest.raises(EvidenceError) as caught:
        first.finish()
    assert caught.value.code == "task-changed"


def test_models_out_of_the_store_are_verified(first: Round) -> None:
    path = first.folder / "models" / f"{first.info.initial}.safetensors"
    loaded = first.worker.load(first.info.initial)
    assert all(np.array_equal(loaded[n], a) and loaded[n].shape == a.shape for n, a in first.arrays.items())
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(EvidenceError) as caught:
        first.worker.load(first.info.initial)
    assert caught.value.code == "model-digest"
    with pytest.raises(EvidenceError) as caught:
        first.worker.load("e" * 64)
    assert caught.value.code == "model-missing"


def test_orders_without_a_model_at_hand_load_it_once(first: Round, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, load = [], first.worker.load
    monkeypatch.setattr(first.worker, "load", lambda digest: asked.append(digest) or load(digest))
    again = {a.site: a for _ in range(2) for a in first.worker.train(None, first.orders)}
    assert again == first.answers
    assert asked == [first.info.initial]


def test_a_worker_answers_after_a_slice_of_time(first: Round, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLICE_SECONDS", 0.0)
    assert len(first.worker.train(first.arrays, first.orders)) == 1


def test_whatever_a_host_raises_is_an_error() -> None:
    host = Host()
    with pytest.raises(Error) as caught:
        host.call("train", None, [])
    assert caught.value.code == "worker-failed"


def test_a_worker_needs_neither_ray_nor_code_that_signs() -> None:
    """R6. (identity.keys itself is loaded, for its verify_signature; what a worker is given is in test_cluster.py.)"""
    script = (
        "import sys, coordinator.worker\n"
        "loaded = sorted(m for m in sys.modules if m in ('ray', 'chaincode.author', 'identity.credentials', 'participant.agent'))\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCluster, Any, Path]]:
    folder = tmp_path_factory.mktemp("local")
    marker = folder / "killed"
    body = (
        f"if site == 2 and not os.path.exists({str(marker)!r}):\n"
        f"    open({str(marker)!r}, 'w').close()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "if site == 3:\n"
        "    raise ValueError('patient 17')"
    )
    settings = rounds.settings(folder, rounds.write_task(folder, body), workers=2)
    with LocalCluster(settings) as cluster:
        yield cluster, settings, folder


def test_a_process_that_dies_is_replaced_and_its_orders_are_tried_again(local: tuple[LocalCluster, Any, Path]) -> None:
    cluster, settings, folder = local
    info = cluster.describe()
    terms = rounds.agreement(info)
    asked: list[TrainOrder] = rounds.orders(settings, info, terms, info.initial, 1)
    answers: Mapping[str, TrainResult | TrainFailure] = rounds.train(cluster, asked)
    assert (folder / "killed").exists()
    failure = answers["site-04"]
    assert isinstance(failure, TrainFailure)
    assert (failure.code, "ValueError: patient 17" in failure.message) == ("training-failed", True)
    assert sum(isinstance(a, TrainResult) for a in answers.values()) == 4
    outcome = rounds.finish_round(cluster, terms, asked, answers)
    assert digest_file(folder / "models" / f"{outcome.model}.safetensors") == outcome.model


def test_errors_of_a_worker_keep_their_type(local: tuple[LocalCluster, Any, Path]) -> None:
    with pytest.raises(UsageError, match="patient 17") as caught:
        local[0].baselines(1)
    assert caught.value.code == "task-training"


def test_models_that_a_killed_worker_left_without_a_name_are_removed_after_a_while(first: Round) -> None:
    models = first.folder / "models"
    old, new, other = models / f".{'a' * 16}.unnamed", models / f".{'b' * 16}.unnamed", models / ".unnamed"
    for path in (old, new, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (0, 0))
    module.Worker(first.settings)
    assert [path.exists() for path in (old, new, other)] == [False, True, True]
