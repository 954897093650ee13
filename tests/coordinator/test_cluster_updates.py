# SPDX-License-Identifier: Apache-2.0
"""Bad updates are left out by name, whether a worker reads whole updates or several read shards; shards give the same model."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from chaincode.chunks import chunk_root
from chaincode.evidence import judge, shard_cuts
from chaincode.header import format_header
from chaincode.models import digest_file, model_digest
from chaincode.place import Place
from coordinator.ports import Delivery, FinishOrder, Outcome
from identity.errors import EvidenceError
from participant.train import LocalTrainer
from tests.coordinator.worker_round import Round, another, other_bytes


@pytest.fixture
def first(tmp_path: Path) -> Round:
    return Round(tmp_path)


def _shorter(first: Round, delivery: Delivery) -> Delivery:
    path = Path(delivery.place.path)
    path.write_bytes(path.read_bytes()[:-1])
    return delivery


def _missing(first: Round, delivery: Delivery) -> Delivery:
    Path(delivery.place.path).unlink()
    return delivery


def _a_link(first: Round, delivery: Delivery) -> Delivery:
    path = Path(delivery.place.path)
    path.rename(path.with_name("real"))
    path.symlink_to(path.with_name("real"))
    return delivery


def _anothers(first: Round, delivery: Delivery) -> Delivery:
    other = first.deliveries[0]
    commitment = replace(delivery.commitment, digest=other.commitment.digest, size=other.commitment.size)
    return Delivery(commitment, other.place)


def _beyond_the_clip(first: Round, delivery: Delivery) -> Delivery:
    header = next(o.header for o in first.orders if o.header.member == delivery.commitment.member)
    body = np.full(header.length, 2**30, "<i4").tobytes()
    path = Path(delivery.place.path)
    path.write_bytes(format_header(header) + body)
    commitment = replace(delivery.commitment, digest=chunk_root(path.read_bytes()), size=path.stat().st_size)
    return Delivery(commitment, Place(str(path)))


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (other_bytes, "update-digest"),
        (_shorter, "update-size"),
        (_missing, "update-missing"),
        (_a_link, "update-missing"),
        (_anothers, "update-header"),
        (_beyond_the_clip, "update-beyond-clip"),
    ],
)
def test_a_bad_update_is_left_out_by_name_and_the_others_are_summed(
    spoil: Any, code: str, first: Round, small_unit: int
) -> None:
    good = first.deliveries[:3]
    bad = spoil(first, first.deliveries[3])
    verdicts, total = first.worker.sum([*good, bad])
    assert verdicts == {**{d.commitment.member: "" for d in good}, bad.commitment.member: code}
    alone = first.worker.sum(good)[1]
    assert total is not None
    assert alone is not None
    assert np.array_equal(total, alone)
    assert first.worker.sum([bad]) == ({bad.commitment.member: code}, None)
    assert by_shards(first, [*good, bad], small_unit)[0] == verdicts
    assert by_shards(first, [bad], small_unit)[0] == {bad.commitment.member: code}


def by_shards(of: Round, deliveries: list[Delivery], unit: int) -> tuple[dict[str, str], Outcome | None]:
    """The verdicts on deliveries that two workers read by shards, and what they make of them if all are good."""
    cuts = list(pairwise(shard_cuts(deliveries[0].commitment.elements, 2)))
    assert len(cuts) == 2, unit
    workers = [of.worker, another(of)]
    found = [worker.sum_shard(deliveries, cut) for worker, cut in zip(workers, cuts, strict=True)]
    judged = {
        d.commitment.member: judge(d.commitment, parts)
        for d, parts in zip(deliveries, zip(*found, strict=True), strict=True)
    }
    verdicts, hashes = ({m: pair[i] for m, pair in judged.items()} for i in (0, 1))
    if any(verdicts.values()):
        return verdicts, None
    order = FinishOrder(of.terms, 1, of.info.initial, "", sum(d.commitment.weight for d in deliveries))
    parts = [w.finish_shard(order, of.arrays, deliveries, cut, hashes) for w, cut in zip(workers, cuts, strict=True)]
    leaves = [leaf for part in parts for leaf in part[0]]
    outcome, _ = of.worker.assemble(order, of.arrays, leaves, *(vector for _, vector in parts))
    models = {path.name for path in (of.folder / "models").iterdir()}
    assert models == {f"{digest}.safetensors" for digest in (of.info.initial, outcome.model)}
    assert digest_file(of.folder / "models" / f"{outcome.model}.safetensors", threads=2) == outcome.model
    return verdicts, outcome


@pytest.fixture
def small_unit(monkeypatch: pytest.MonkeyPatch) -> int:
    """Shards of a few elements: the tests' model is small."""
    for name in ("chaincode.evidence", "chaincode.shards"):
        monkeypatch.setattr(f"{name}.UNIT", 4)
    return 4


@pytest.mark.parametrize("optimiser", ["avg", "avgm"])
def test_shards_give_the_same_model(tmp_path: Path, small_unit: int, optimiser: str) -> None:
    first = Round(tmp_path, optimiser)
    whole = first.finish()
    verdicts, outcome = by_shards(first, first.deliveries, small_unit)
    assert not any(verdicts.values())
    assert outcome is not None
    assert (outcome.model, outcome.metrics) == (whole.model, whole.metrics)


def test_a_large_model_is_hashed_while_it_is_evaluated(
    first: Round, small_unit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Barrier(2)

    def at_once(function: Any) -> Any:
        def waiting(*arguments: Any, **options: Any) -> Any:
            both.wait(20)
            return function(*arguments, **options)

        return waiting

    monkeypatch.setattr("coordinator.worker.model_digest", at_once(model_digest))
    monkeypatch.setattr(LocalTrainer, "evaluate", at_once(LocalTrainer.evaluate))
    verdicts, outcome = by_shards(first, first.deliveries, small_unit)
    assert outcome is not None, verdicts


def test_a_worker_that_lost_its_shard_reads_it_again(first: Round, small_unit: int) -> None:
    cut = (0, 8)
    evidence = first.worker.sum_shard(first.deliveries, cut)
    hashes = {d.commitment.member: judge(d.commitment, [own, first.worker.sum_shard([d], (8, d.commitment.elements))[0]])[1]
              for d, own in zip(first.deliveries, evidence, strict=True)}  # fmt: skip
    order = FinishOrder(first.terms, 1, first.info.initial, "", sum(d.commitment.weight for d in first.deliveries))
    again = another(first).finish_shard(order, first.arrays, first.deliveries, cut, hashes)
    here = first.worker.finish_shard(order, first.arrays, first.deliveries, cut, hashes)
    assert again[0] == here[0]
    assert np.array_equal(again[1], here[1])
    other_bytes(first, first.deliveries[0])
    with pytest.raises(EvidenceError) as refused:  # nothing is made of bytes that are not the committed ones
        another(first).finish_shard(
            order, first.arrays, first.deliveries, (8, first.deliveries[0].commitment.elements), hashes
        )
    assert refused.value.code == "update-digest"
