# SPDX-License-Identifier: Apache-2.0
"""A whole round's numbers: sites encode and commit, anybody verifies, sums and gets the same digests."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chaincode.aggregation import add, weighted_sum
from chaincode.agreement import agreement_digest, tensor_specs
from chaincode.blobs import BlobStore
from chaincode.evidence import Commitment, VerifiedUpdate, verify_update
from chaincode.header import Header
from chaincode.model_vector import to_model, to_vector
from chaincode.models import Tensor, digest_file, model_digest, write_safetensors
from chaincode.recompute import Result, finish, recompute_result, sum_and_finish, sum_updates
from chaincode.update import encode_to
from identity.errors import EvidenceError

ADAM = {"optimiser": "adam", "parameters": {"learning_rate": "0.01", "beta1": "0.9", "beta2": "0.99", "tau": "0.001"}}
AVG = {"optimiser": "avg", "parameters": {"learning_rate": "1"}}
ROWS = [
    ("layer.weight", (300, 400), "float32", "mean", 0, 24),
    ("steps", (), "int64", "keep", 0, 0),
    ("layer.bias", (400,), "float32", "mean", -2, 24),
    ("norm.mean", (400,), "float32", "mean", 4, 20),
    ("head", (3, 2), "float32", "local", 0, 20),
]
ELEMENTS = 300 * 400 + 800


def agreement(terms: dict[str, Any], encoding: str = "int32") -> dict[str, Any]:
    names = ("name", "shape", "dtype", "rule", "clip_exponent", "fraction_bits")
    tensors = [{**dict(zip(names, row, strict=True)), "shape": list(row[1])} for row in ROWS]
    return {"model": {"tensors": tensors, "encoding": encoding}, "aggregation": {"rule": "mean", **terms}}


def initial_model() -> dict[str, Tensor]:
    rng = np.random.default_rng(7)
    arrays = {row[0]: rng.normal(0, 0.2, row[1]).astype("<f4") for row in ROWS}
    arrays["steps"] = np.array(41, "<i8")
    return {n: Tensor(a.dtype.name, a.shape, memoryview(a.tobytes())) for n, a in arrays.items()}


class Site:
    """A fake site: deterministic training, a real blob, and what it would commit."""

    def __init__(self, number: int, folder: Path) -> None:
        self.member, self.number, self.weight = f"did:key:zSite{number}", number, 50 + 13 * number
        self.store = BlobStore(folder / str(number), fsync=False)
        self.folder = folder

    def commit(self, terms: dict[str, Any], base: dict[str, Tensor], round_: int = 1) -> Commitment:
        specs = tensor_specs(terms)
        vector = to_vector(base, specs)
        noise = np.random.default_rng([self.number, round_]).normal(0, 0.1, len(vector)).astype(np.float32)
        encoding = terms["model"]["encoding"]
        head = Header(
            "f" * 64,
            agreement_digest(terms),
            round_,
            1,
            model_digest(base),
            self.member,
            encoding,
            len(vector),
            "5" * 64,
        )
        blob = bytearray()
        digest, size = encode_to(head, vector + noise, vector, specs, blob.extend)
        self.store.put(blob, digest)
        return Commitment(
            head.federation,
            head.agreement,
            round_,
            1,
            head.base,
            self.member,
            digest,
            size,
            self.weight,
            encoding,
            ELEMENTS,
        )

    def deliver(self, commitment: Commitment) -> VerifiedUpdate:
        with self.store.open(commitment.digest) as view:
            return verify_update(commitment, view)


def run_round(folder: Path, terms: dict[str, Any], count: int = 4) -> tuple[dict[str, Tensor], list[VerifiedUpdate]]:
    base = initial_model()
    sites = [Site(i, folder) for i in range(count)]
    return base, [site.deliver(site.commit(terms, base)) for site in sites]


def digests(result: Result) -> tuple[int, str, str, str]:
    return result.weight, result.sum, result.model_digest, result.optimiser


@pytest.mark.parametrize("terms", [AVG, ADAM])
@pytest.mark.parametrize("encoding", ["int32", "int64"])
def test_any_order_sharding_and_number_of_threads_gives_the_same_digests(
    tmp_path: Path, terms: dict[str, Any], encoding: str
) -> None:
    agreed = agreement(terms, encoding)
    specs = tensor_specs(agreed)
    base, updates = run_round(tmp_path, agreed)
    expected = digests(recompute_result(agreed, base, updates))
    assert expected[0] == sum(50 + 13 * i for i in range(4))
    assert (expected[3] == "") == (terms is AVG)
    for seed in range(3):
        chance = random.Random(seed)
        shuffled = chance.sample(updates, 4)
        assert digests(recompute_result(agreed, base, shuffled, threads=1 + seed)) == expected
        assert digests(sum_and_finish(agreed, base, shuffled, expected[0], threads=1 + seed)) == expected
        by_site = add([weighted_sum([u], specs) for u in shuffled])
        cut = chance.randrange(ELEMENTS)
        by_coordinate = np.concatenate([weighted_sum(shuffled, specs, 0, cut), weighted_sum(shuffled, specs, cut)])
        for total in (by_site, by_coordinate):
            assert digests(finish(agreed, base, total, expected[0])) == expected


def test_the_digests_of_these_two_rounds_never_change() -> None:
    """A golden result: another machine, another NumPy or another version of this code must give these bits."""
    agreed = agreement(ADAM)
    specs, base = tensor_specs(agreed), golden_model()
    total = np.arange(-ELEMENTS // 2, ELEMENTS - ELEMENTS // 2, dtype=np.int64) * 2**17 + 5
    result = finish(agreed, base, total, 1234)
    result = finish(agreed, result.model, total, 4321, result.state)
    assert model_digest(base) == GOLDEN[0]
    assert (result.sum, result.model_digest, result.optimiser) == GOLDEN[1:]
    assert to_vector(result.model, specs).dtype == np.float32


def golden_model() -> dict[str, Tensor]:
    """A model of plain arithmetic, so that no random generator is part of the golden result."""
    model = {}
    for name, shape, dtype, *_ in ROWS:
        count = int(np.prod(shape, dtype=int))
        array = ((np.arange(count) * 7919 % 10007) / 8192 - 0.5).astype({"float32": "<f4", "int64": "<i8"}[dtype])
        model[name] = Tensor(dtype, shape, memoryview(array.tobytes()))
    return model


# Made once without NumPy, from the text of chaincode.aggregation alone: struct, hashlib, one number at a time.
GOLDEN = (
    "5cd49cc68b331de44f4a17bb998a5b67da20bee2b2ae2fe19556a061c60808b4",
    "3367f727162e8a4bf737aff254952c0c6c14b30bc5610db00fb879dbf683c17e",
    "5f3b11b48005390b1786fc4db758cfaefd2c828a0d01bb00603391798c1a0a97",
    "fe8a01a11fb6c626f5b43d2ce309edb6d7f4fe164d878ebf0f7e70be3f99098d",
)


def test_one_flipped_bit_in_any_delivery_is_caught(tmp_path: Path) -> None:
    agreed, base = agreement(AVG), initial_model()
    site = Site(0, tmp_path)
    commitment = site.commit(agreed, base)
    blob = bytearray(site.store.path(commitment.digest).read_bytes())
    verify_update(commitment, blob)
    chance = random.Random(5)
    for index in [0, 1, 400, 500, len(blob) - 1, *(chance.randrange(len(blob)) for _ in range(100))]:
        blob[index] ^= 1 << index % 8
        with pytest.raises(EvidenceError) as caught:
            verify_update(commitment, blob)
        assert caught.value.code == "update-digest"
        blob[index] ^= 1 << index % 8
    verify_update(commitment, blob)


def test_the_model_is_the_weighted_mean_of_the_sites(tmp_path: Path) -> None:
    agreed = agreement(AVG)
    specs = tensor_specs(agreed)
    base, updates = run_round(tmp_path, agreed)
    model = recompute_result(agreed, base, updates).model
    vector, weights = to_vector(base, specs).astype(float), np.array([50 + 13 * i for i in range(4)])
    noise = np.array([np.random.default_rng([i, 1]).normal(0, 0.1, ELEMENTS) for i in range(4)])
    clipped = noise.copy()
    clipped[:, 120_000:120_400] = np.clip(noise[:, 120_000:120_400], -0.25, 0.25)
    assert np.allclose(to_vector(model, specs), vector + weights @ clipped / weights.sum(), atol=1e-6)
    assert not np.allclose(clipped, noise, atol=1e-3)
    for name in ("steps", "head"):
        assert model[name] == base[name]


def test_rounds_go_on_from_the_recorded_state(tmp_path: Path) -> None:
    agreed, model, state = agreement(ADAM), initial_model(), None
    sites = [Site(i, tmp_path) for i in range(2)]
    results = []
    for round_ in (1, 2):
        updates = [site.deliver(site.commit(agreed, model, round_)) for site in sites]
        result = recompute_result(agreed, model, updates, state)
        assert digests(recompute_result(agreed, model, updates[::-1], state, threads=2)) == digests(result)
        write_safetensors(tmp_path / "model", result.model, fsync=False)
        assert digest_file(tmp_path / "model") == result.model_digest
        model, state = dict(result.model), result.state
        results.append(result)
    assert results[0].optimiser != results[1].optimiser
    forgotten = recompute_result(agreed, dict(results[0].model), updates)  # the state left out: other digests
    assert forgotten.sum == results[1].sum
    assert forgotten.model_digest != results[1].model_digest


def test_a_recorded_model_of_the_same_bytes_gives_its_digest_and_another_one_does_not(tmp_path: Path) -> None:
    terms = agreement(AVG)
    base, updates = run_round(tmp_path, terms)
    specs, weight = tensor_specs(terms), sum(u.commitment.weight for u in updates)
    found = finish(terms, base, sum_updates(updates, specs), weight)

    def given(model: dict[str, Tensor]) -> str:
        return finish(terms, base, sum_updates(updates, specs), weight, recorded=("as recorded", model)).model_digest

    model = {name: Tensor(t.dtype, t.shape, bytes(t.data)) for name, t in found.model.items()}
    assert given(model) == "as recorded"
    for name, tensor in model.items():
        raw = bytes(tensor.data)
        last = raw[:-1] + bytes([raw[-1] ^ 1])
        for other in (Tensor(tensor.dtype, tensor.shape, last), Tensor(tensor.dtype, (*tensor.shape, 1), raw)):
            assert given({**model, name: other}) == found.model_digest
    assert given(dict(list(model.items())[1:])) == found.model_digest
    assert given({**model, "more": next(iter(model.values()))}) == found.model_digest


def test_vectors_and_models_convert_both_ways() -> None:
    specs, base = tensor_specs(agreement(AVG)), initial_model()
    vector = to_vector(base, specs)
    assert vector.shape == (ELEMENTS,)
    assert vector[:120_000].tobytes() == base["layer.weight"].data
    assert vector[120_000:120_400].tobytes() == base["layer.bias"].data
    assert to_model(vector, base, specs) == base
    changed = to_model(vector + 1, base, specs)
    assert list(changed) == [row[0] for row in ROWS]
    assert to_vector(changed, specs).tobytes() == (vector + 1).tobytes()
    assert changed["head"] is base["head"]
    with pytest.raises(EvidenceError):
        to_model(np.append(vector, vector[:1]), base, specs)
    with pytest.raises(EvidenceError):
        to_model(vector[:-1], base, specs)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda a, b: a["aggregation"]["parameters"].update(learning_rate="0.5"), "agreement-digest"),
        (lambda a, b: b.update(head=Tensor("float32", (3, 2), memoryview(bytes(24)))), "base-digest"),
        (lambda a, b: a["aggregation"].update(rule="median"), "rule-unknown"),
    ],
)
def test_another_agreement_or_base_is_refused(tmp_path: Path, change: Any, code: str) -> None:
    agreed = agreement({**AVG, "parameters": {"learning_rate": "1"}})
    base, updates = run_round(tmp_path, agreed, 1)
    change(agreed, base)
    with pytest.raises(EvidenceError) as caught:
        recompute_result(agreed, base, updates)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("steps", None),
        ("new", Tensor("float32", (), memoryview(bytes(4)))),
        ("steps", Tensor("int32", (2,), memoryview(bytes(8)))),
        ("head", Tensor("float32", (2, 3), memoryview(bytes(24)))),
    ],
)
def test_a_model_of_another_schema_is_refused(name: str, tensor: Tensor | None) -> None:
    specs, base = tensor_specs(agreement(AVG)), initial_model()
    vector = to_vector(base, specs)
    if tensor is None:
        del base[name]
    else:
        base[name] = tensor
    for use in (lambda: to_vector(base, specs), lambda: to_model(vector, base, specs)):
        with pytest.raises(EvidenceError, match=name) as caught:
            use()
        assert caught.value.code == "model-schema"


def test_sums_and_states_that_do_not_fit_are_refused() -> None:
    base, total = initial_model(), np.zeros(ELEMENTS, np.int64)
    for terms, sums, state, code in (
        (AVG, total[:-1], None, "sum-length"),
        (AVG, total, np.zeros((1, ELEMENTS)), "optimiser-state"),
        (ADAM, total, np.zeros((1, ELEMENTS)), "optimiser-state"),
        ({"optimiser": "avg", "parameters": {}}, total, None, "optimiser-parameters"),
    ):
        with pytest.raises(EvidenceError) as caught:
            finish(agreement(terms), base, sums, 1, state)
        assert caught.value.code == code
    with pytest.raises(EvidenceError) as caught:
        finish(agreement(AVG), base, total, 0)
    assert caught.value.code == "sum-weight"


def test_nothing_to_sum_is_refused_in_every_number_of_threads() -> None:
    for threads in (1, 3):
        with pytest.raises(EvidenceError) as caught:
            sum_updates([], tensor_specs(agreement(AVG)), threads=threads)
        assert caught.value.code == "sum-empty"
