# SPDX-License-Identifier: Apache-2.0
"""What a site does before it attests: it recomputes the recorded round, and takes nobody's word for it."""

from dataclasses import replace

import pytest

from chaincode import state
from chaincode.author import demand
from chaincode.state import Result, Seat
from identity.errors import EvidenceError
from ops.attesting import recompute_round
from ops.run_folder import RunFolder
from tests.ops.federated import Federated, Make


def recomputed(federated: Federated, round_: int) -> tuple[str, str]:
    return recompute_round(federated.ledger, RunFolder(federated.folder), federated.proposal, round_)


@pytest.mark.parametrize("optimiser", ["avg", "adam"])
def test_a_recorded_round_recomputes_to_what_was_recorded(make: Make, optimiser: str) -> None:
    federated = make(more=f'optimiser = "{optimiser}"\n')
    federated.drive()
    results = [federated.result(round_) for round_ in (1, 2)]
    assert [recomputed(federated, round_) for round_ in (1, 2)] == [(r.sum, r.model) for r in results]
    assert all(bool(r.optimiser) == (optimiser == "adam") for r in results), "the second round starts from a state"


def update_of(federated: Federated, site: str) -> str:
    """The digest of what a site committed to in the first round."""
    key = state.seat_key(federated.digest, 1, 1, federated.member(site))
    return demand(federated.ledger, Seat, key).update


def test_an_update_that_is_not_there_or_not_the_committed_one_is_refused(make: Make) -> None:
    federated = make()
    federated.drive()
    digest, other = update_of(federated, "site-01"), update_of(federated, "site-02")
    with federated.blobs.open(digest) as first, federated.blobs.open(other) as second:
        forged = bytes(second[: len(first)])
    place = federated.blobs.path(digest)
    place.parent.mkdir(parents=True)
    place.write_bytes(forged)  # a blob's own file goes before packs
    with pytest.raises(EvidenceError, match="update-"):
        recomputed(federated, 1)
    place.unlink()
    for pack in (federated.folder / "blobs" / "packs").iterdir():
        pack.unlink()
    with pytest.raises(EvidenceError, match="blob-missing"):
        recompute_round(federated.ledger, RunFolder(federated.folder), federated.proposal, 2)


def test_another_base_model_than_the_recorded_one_is_refused(make: Make) -> None:
    federated = make()
    federated.drive()
    first, second = (federated.result(round_) for round_ in (1, 2))
    models = federated.folder / "models"
    (models / f"{first.model}.safetensors").write_bytes((models / f"{second.model}.safetensors").read_bytes())
    with pytest.raises(EvidenceError, match="base-digest"):
        recomputed(federated, 2)


def test_what_was_recorded_is_not_copied(make: Make) -> None:
    """The recorded digests are no input: a ledger that says others gets the same answer."""
    federated = make()
    federated.drive()
    result, key = federated.result(1), state.result_key(federated.digest, 1)
    federated.ledger._state[key] = state.encode(replace(result, sum="0" * 64, model="1" * 64))
    assert demand(federated.ledger, Result, key).sum == "0" * 64
    assert recomputed(federated, 1) == (result.sum, result.model)
