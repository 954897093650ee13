# SPDX-License-Identifier: Apache-2.0
"""Training in a stack: the bits of a site do not depend on its neighbours, and they are those of SGD."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from chaincode.agreement import TensorSpec
from chaincode.chunks import chunk_root
from chaincode.header import Header
from chaincode.models import model_digest
from chaincode.packs import read_index
from chaincode.small_updates import encode_blobs, encode_rows
from chaincode.update import encode, encode_to
from identity.errors import EvidenceError, UsageError
from participant.outbox import Outbox
from participant.ports import TrainFailure, TrainOrder, TrainResult
from participant.stack import Stack, _Batches
from participant.task import Data, Task
from participant.train import LocalTrainer
from participant.values import to_tensors


class Stacked(Task):
    """Rows by site are given; labels among three."""

    name = "stacked"
    stacked: ClassVar[bool] = True
    learning_rate = 0.5

    def __init__(self, rows: list[int], widths: tuple[int, ...] = (5, 7), epochs: int = 1, batch: int = 4) -> None:
        self.rows, self.widths, self.epochs, self.batch_size = rows, widths, epochs, batch

    def build_model(self) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in zip(self.widths, self.widths[1:], strict=False):
            layers += [nn.Linear(before, after, bias=after % 2 == 1), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(self.widths[-1], 3))

    def site_data(self, site: int, sites: int, seed: int) -> Data:
        generator = torch.Generator().manual_seed(site)
        features = torch.randn(self.rows[site], self.widths[0], generator=generator)
        return features, torch.randint(0, 3, (self.rows[site],), generator=generator)

    def evaluation_data(self) -> None:
        return None


def orders(of: LocalTrainer, outbox: Path, sites: list[str]) -> list[TrainOrder]:
    length = sum(s.elements for s in of.specs if s.rule == "mean")
    base = model_digest(to_tensors(of.initial()))
    return [
        TrainOrder(site, 1, Header("f" * 64, "a" * 64, 1, 1, base, f"did:key:{site}", "int32", length, "5" * 64), str(outbox))
        for site in sites
    ]  # fmt: skip


def carry(task: Task, outbox: Path, sites: list[str], among: list[str]) -> dict[str, TrainResult | TrainFailure]:
    of = LocalTrainer(task, among, 3)
    return {answer.site: answer for answer in of.carry_out(of.initial(), orders(of, outbox, sites))}


shapes = st.tuples(
    st.lists(st.integers(1, 21), min_size=2, max_size=9), st.lists(st.integers(1, 90), min_size=1, max_size=3),
    st.integers(1, 3), st.integers(1, 9),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(shapes, st.data())
def test_a_sites_bits_do_not_depend_on_its_neighbours(
    shape: tuple[list[int], list[int], int, int], data: st.DataObject
) -> None:
    rows, widths, epochs, batch = shape
    task = Stacked(rows, tuple(widths), epochs, batch)
    model = task.build_model()
    base = {name: p.detach() for name, p in model.named_parameters()}
    stack, sites = Stack(task, model), [task.site_data(i, len(rows), 0) for i in range(len(rows))]
    together = stack.train(base, sites, range(len(rows)))
    some = data.draw(st.permutations(range(len(rows))))[: data.draw(st.integers(1, len(rows)))]
    apart = stack.train(base, [sites[i] for i in some], some)
    for name, value in together.parameters.items():
        assert torch.equal(value[list(some)], apart.parameters[name]), name


def test_it_is_sgd(tmp_path: Path) -> None:
    """The same steps as the default ``train``, up to rounding."""
    rows = [9, 1, 4, 17]
    task = Stacked(rows, epochs=2)
    torch.manual_seed(1)
    model = task.build_model()
    base = {name: p.detach().clone() for name, p in model.named_parameters()}
    sites = [task.site_data(i, 4, 0) for i in range(4)]
    trained = Stack(task, model).train(base, sites, range(4))
    for i, site in enumerate(sites):
        model.load_state_dict(base)
        metrics = task.train(model, site, i)
        assert metrics is not None
        assert trained.losses[i] == pytest.approx(metrics["loss"], rel=1e-5)
        for name, parameter in model.named_parameters():
            assert not torch.equal(parameter, base[name]), "training must change every parameter for this to show much"
            torch.testing.assert_close(trained.parameters[name][i], parameter.detach(), rtol=1e-4, atol=1e-6)


class OwnLoss(Stacked):
    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return super().loss(outputs, labels) * 2


class Normed(Stacked):
    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))


class Frozen(Stacked):
    def build_model(self) -> nn.Module:
        model = super().build_model()
        next(model.parameters()).requires_grad_(False)
        return model


class Tied(Stacked):
    def build_model(self) -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model


@pytest.mark.parametrize("kind", [OwnLoss, Normed, Frozen, Tied])
def test_what_cannot_be_stacked_is_the_users_error(kind: type[Stacked]) -> None:
    with pytest.raises(UsageError) as caught:
        LocalTrainer(kind([4, 4]), ["a", "b"], 0)
    assert caught.value.code == "task-stacked"
    assert "stacked = True" in str(caught.value.next)


def test_small_updates_of_one_call_share_a_pack(tmp_path: Path) -> None:
    answers = carry(Stacked([5, 0, 9]), tmp_path / "box", ["a", "b", "c"], ["a", "b", "c"])
    failed = answers.pop("b")
    assert isinstance(failed, TrainFailure)
    assert failed.code == "no-data"
    (pack,) = (tmp_path / "box").iterdir()
    assert pack.stat().st_mode & 0o777 == 0o600
    digests = [a.digest for a in answers.values() if isinstance(a, TrainResult)]
    assert sorted(read_index(pack)) == sorted(digests)
    box = Outbox(tmp_path / "box")
    for digest, place in box.find(digests).items():
        with place.open() as data:
            assert chunk_root(data) == digest
    box.clean()
    assert not list((tmp_path / "box").iterdir())
    assert not box.find(digests)


@pytest.mark.parametrize("stacked", [True, False])
def test_updates_of_int64_that_are_no_longer_small_are_delivered(tmp_path: Path, stacked: bool) -> None:
    """40,000 elements: small as int32, and as the float32 of the model."""
    task = Stacked([4, 5], (100, 389))
    task.stacked = stacked  # type: ignore[misc]
    of = LocalTrainer(task, ["a", "b"], 3)
    asked = [replace(o, header=replace(o.header, encoding="int64")) for o in orders(of, tmp_path, ["a", "b"])]
    digests = [answer.digest for answer in of.carry_out(of.initial(), asked) if isinstance(answer, TrainResult)]
    assert Outbox(tmp_path).find(digests).keys() == set(digests)
    assert len(digests) == 2


def test_one_site_that_fails_does_not_fail_its_neighbours(tmp_path: Path) -> None:
    class Broken(Stacked):
        def site_data(self, site: int, sites: int, seed: int) -> Data:
            features, labels = super().site_data(site, sites, seed)
            if site == 1:
                raise OSError("the disk is gone")
            return (features[:, :2], labels) if site == 2 else (features, labels)

    answers = carry(Broken([5, 6, 7, 8]), tmp_path / "some", list("abcd"), list("abcd"))
    whole = carry(Stacked([5, 6, 7, 8]), tmp_path / "all", list("abcd"), list("abcd"))
    assert {s: a.code for s, a in answers.items() if isinstance(a, TrainFailure)} == {
        "b": "training-failed", "c": "training-failed"}  # fmt: skip
    assert "the disk is gone" in str(answers["b"])
    assert [answers[s] for s in "ad"] == [whole[s] for s in "ad"]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_site_that_diverges_is_refused_by_name_and_alone(tmp_path: Path, which: int) -> None:
    class Diverging(Stacked):
        def site_data(self, site: int, sites: int, seed: int) -> Data:
            features, labels = super().site_data(site, sites, seed)
            return (features * float("inf"), labels) if site == which else (features, labels)

    answers = carry(Diverging([5, 6, 7]), tmp_path / "some", list("abc"), list("abc"))
    whole = carry(Stacked([5, 6, 7]), tmp_path / "all", list("abc"), list("abc"))
    failed = answers.pop("abc"[which])
    assert isinstance(failed, TrainFailure)
    assert failed.code == "update-not-finite"
    assert answers == {s: whole[s] for s in answers}


@pytest.mark.parametrize("features", [torch.int64, torch.float16, torch.bool])
@pytest.mark.parametrize("others", [0, 2])
def test_a_type_that_fails_alone_fails_beside_others(features: torch.dtype, others: int) -> None:
    task = Stacked([4] * (others + 1))
    model = task.build_model()
    base = {name: p.detach() for name, p in model.named_parameters()}
    sites = [task.site_data(i, others + 1, 0) for i in range(others)]
    for strange in [(torch.ones(4, 5).to(features), torch.zeros(4, dtype=torch.int64)),
                    (torch.ones(4, 5), torch.zeros(4, dtype=torch.int32))]:  # fmt: skip
        with pytest.raises(ValueError, match="a stack takes features float32"):
            Stack(task, model).train(base, [*sites, strange], range(others + 1))


def test_a_stack_takes_as_much_data_as_fits_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = carry(Stacked([5, 0, 7, 8]), tmp_path / "all", list("abcd"), list("abcd"))
    sizes, train = list[int](), Stack.train

    def counting(self: Stack, base: dict[str, torch.Tensor], sites: list[Data], seeds: list[int]) -> object:
        sizes.append(len(sites))
        return train(self, base, sites, seeds)

    monkeypatch.setattr(Stack, "train", counting)
    of = LocalTrainer(Stacked([5, 0, 7, 8]), list("abcd"), 3, kept=0)
    answers = of.carry_out(of.initial(), orders(of, tmp_path / "some", list("abcd")))
    assert {answer.site: answer for answer in answers} == whole
    assert sizes == [1, 1, 1]


def test_one_large_site_does_not_make_the_others_large() -> None:
    rows = [20_000, *([1] * 500)]
    batches = _Batches([(torch.zeros(r, 2), torch.zeros(r, dtype=torch.int64)) for r in rows], range(len(rows)), 4)
    batches.shuffle()
    assert len(batches.at(0).labels) == 501
    assert len(batches.at(1).labels) == 1
    held = sum(value.nbytes for value in vars(batches).values() if isinstance(value, torch.Tensor))
    assert held < 100 * sum(rows)


SPECS = (
    TensorSpec("a", (3,), "float32", "mean", 4, 24),
    TensorSpec("b", (2,), "float32", "mean", -3, 20),
    TensorSpec("c", (2,), "int64", "keep", 0, 0),
    TensorSpec("d", (4,), "float32", "mean", 10, 20),
)
hostile = st.one_of(
    st.floats(width=32),
    st.sampled_from([0.0, -0.0, 16.0, -16.0, 0.125, -0.125, 1e-45, -1e-45, 2.0**-25, 3 * 2.0**-25, float("nan"), float("inf")]),
)  # fmt: skip


@given(st.lists(st.lists(hostile, min_size=9, max_size=9), min_size=1, max_size=5), st.sampled_from(["int32", "int64"]))
def test_rows_have_the_integers_of_the_specification(rows: list[list[float]], encoding: str) -> None:
    deltas = np.array(rows, np.float32)
    integers, finite = encode_rows(deltas, SPECS, encoding)
    headers = [
        Header("f" * 64, "a" * 64, 1, 1, "b" * 64, f"did:key:{i}", encoding, 9, "5" * 64) for i in range(len(rows))
    ]
    for header, delta, row, whole, blob in zip(headers, deltas, integers, finite, encode_blobs(headers, deltas, SPECS), strict=True):  # fmt: skip
        if whole:
            assert np.array_equal(row, encode(delta, None, SPECS, encoding))
            written = bytearray()
            assert blob == (encode_to(header, delta, None, SPECS, written.extend)[0], bytes(written))
        else:
            assert blob is None
            with pytest.raises(EvidenceError, match="NaN or infinity"):
                encode(delta, None, SPECS, encoding)
