# SPDX-License-Identifier: Apache-2.0
"""What the contract allows, where one might expect a refusal, and what it then holds."""

from collections.abc import Callable

import pytest

from chaincode import state
from identity.errors import Rejected
from tests.chaincode.contract.agreements import COMMIT, DAY, DELIVER, RECORD, digest
from tests.chaincode.contract.refusals_rounds import ADAM, past_delivery, two
from tests.chaincode.contract.rows import handmade, named, rotated
from tests.chaincode.contract.world import World, key

YOGI = {**ADAM, "optimiser": "yogi"}


def seats(world: World) -> list[str]:
    return [world.seat(who).state for who in world.sites]


# Deadlines are the last second that is allowed


def test_a_commitment_at_the_deadline_itself() -> None:
    world = World().opened()
    assert world.until(world.head.commit_by).commit(1).decline(2).seat(1).state == "committed"


def test_the_first_second_after_a_deadline() -> None:
    world = two()
    world.until(world.head.commit_by + 1).seal()
    assert seats(world) == ["in", "in", "out"]
    assert world.seat(3).reason == "silent"
    assert past_delivery(world).record(omit={}).result().included == 2


def test_a_round_in_which_all_have_answered_is_sealed_at_once() -> None:
    world = two().decline(3).seal()
    assert (seats(world), world.seat(3).reason, world.head.at) == (
        ["in", "in", "out"],
        "declined",
        world.head.opened_at,
    )


@pytest.mark.parametrize("who", [1, 3])
def test_a_party_gives_up_an_open_round_that_the_coordinator_left(who: int) -> None:
    world = two()
    world.until(world.head.commit_by + DELIVER + RECORD + 1).abort(who, reason="coordinator-absent")
    assert world.head.state == "aborted"


def test_a_party_that_withdrew_gives_up_a_sealed_round_that_the_coordinator_left() -> None:
    world = World().sealed().withdraw(1)
    world.until(world.head.deliver_by + RECORD + 1).abort(1)
    assert world.open().head.attempt == 2


# Standing is judged at open, commit and seal


LOSSES: dict[str, Callable[[World], World]] = {
    "withdrawn": lambda w: w.withdraw(3),
    "revoked": lambda w: w.revoke(3),
    "expired": lambda w: w.admit(3, not_after=w.now + 1).wait(2),
}


@pytest.mark.parametrize("reason", LOSSES)
@pytest.mark.parametrize(
    "before", [two, lambda: World().committed(), lambda: two().decline(3)], ids=["silent", "committed", "declined"]
)
def test_who_lost_its_standing_is_out_at_the_seal_at_once(reason: str, before: Callable[[], World]) -> None:
    world = LOSSES[reason](before()).seal()
    assert (seats(world), world.seat(3).reason) == (["in", "in", "out"], reason)


@pytest.mark.parametrize("reason", LOSSES)
def test_who_lost_its_standing_after_the_seal_is_in_this_round_and_not_in_the_next(reason: str) -> None:
    world = LOSSES[reason](World().sealed())
    assert past_delivery(world).claim(3).record(omit={3: "not-delivered"}).result().contested == 1
    other = LOSSES[reason](World().sealed()).record()
    assert (other.result().included, other.result().weight) == (3, 30)
    assert other.open().entries[-1].body["absent"] == named(other, reason, 3)


def test_who_signs_late_joins_at_the_next_opening() -> None:
    world = World().proposed().sign(1).sign(2).open().sign(3)
    assert world.committed().seal().head.cohort == 2
    assert world.record().open().head.roster == 3


# Keys


def test_a_key_rotated_in_mid_round_keeps_its_seat() -> None:
    world = rotated(World().opened()).committed()
    assert rotated(world).seal().claim(1).record().result().included == 3
    assert world.member(1).did == world.keys(1)[2].did


def test_a_lost_key_is_replaced_in_mid_round() -> None:
    world = two().lose_key(3).commit(3).lose_key(2).seal()
    assert world.head.cohort == 3


@pytest.mark.parametrize("which", [0, 1])
def test_a_receipt_by_any_key_that_the_coordinator_has_had(which: int) -> None:
    world = World().sealed().rotate("coordinator")
    world.claim(1, receipt=world.receipt(1, signer=world.keys("coordinator")[which]))
    assert world.seat(1).claim == "receipt"


def test_a_revoked_member_may_still_leave() -> None:
    world = World().agreed().revoke(1).wait(1).withdraw(1)
    assert world.party(1).state == "withdrawn"


def test_a_revoked_member_is_admitted_again_under_its_did_or_a_new_one() -> None:
    world = World().agreed().revoke(1).revoke(2).wait(1).admit(1).lose_key(2)
    assert (world.member(1).state, world.member(2).did) == ("active", world.keys(2)[1].did)
    assert world.open().head.roster == 3


def test_a_new_authority_acts_and_the_old_did_is_its_no_more() -> None:
    world = World().founded()
    world.amend(authority=sorted([key("second").did, key("third").did]), skew=5, by="authority")
    world.revoke(1, by="third", member=key("third").did, signer=key("third"))
    stored = world.get(state.Federation, state.FEDERATION)
    assert (stored.id, stored.origin, stored.skew) == (world.federation, "ledger.example/test", 5)


# Omissions and abandonment


CLAIMS: dict[str, tuple[Callable[[World], World], str, int]] = {
    "no claim": (lambda w: w, "not-delivered", 0),
    "a bare claim": (lambda w: w.claim(1), "not-delivered", 1),
    "a bare claim, bytes at hand": (lambda w: w.claim(1), "digest-mismatch", 1),
    "a receipt for an invalid update": (lambda w: w.claim(1, receipt=w.receipt(1)), "invalid-update", 1),
    "a receipt after a bare claim": (lambda w: w.claim(1).claim(1, receipt=w.receipt(1)), "invalid-update", 1),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_an_omission_against_a_claim_is_contested(case: str) -> None:
    claim, reason, contested = CLAIMS[case]
    result = past_delivery(claim(World().sealed())).record(omit={1: reason}).result()
    assert (result.included, result.omitted, result.contested, result.weight) == (2, 1, contested, 20)


def test_an_update_is_abandoned_after_the_seal_and_the_ledger_keeps_its_commitment() -> None:
    world = past_delivery(World().sealed().claim(1)).abort(reason="training-failed")
    kept = world.seat(1)
    assert (kept.state, kept.claim, kept.update) == ("in", "bare", world.update(1))
    assert world.open().head.attempt == 2
    with pytest.raises(KeyError):
        world.result(1)


def test_a_reservation_is_spent_by_a_record_and_by_an_abort_after_the_seal_alone() -> None:
    world = handmade(World().agreed(), budget=10).open(reservation=1).abort()
    assert (world.head.spent, world.head.reserved) == (0, 0)
    past_delivery(world.wait(1).open(reservation=2).committed().seal()).abort()
    assert (world.head.spent, world.head.reserved) == (2, 0)
    assert world.wait(1).open(reservation=3).head.reserved == 3
    assert world.committed().seal().record().head.spent == 5


# Continuing


def test_a_newer_agreement_goes_on_from_the_older_ones_model_and_optimiser() -> None:
    world = World(aggregation=ADAM).recorded(2)
    older = world.head
    world.wait(1).propose(continues=world.digest, terms={"title": "Newer", "model": {"initial": older.base}})
    assert (world.head.base, world.head.optimiser, world.head.round) == (older.base, digest("optimiser 2"), 0)
    assert world.agreed().recorded().head.round == 1


@pytest.mark.parametrize("terms", [
    {"aggregation": YOGI},
    {"aggregation": {"optimiser": "avg", "parameters": {"learning_rate": "1"}}},
    {"model": {"tensors": [World().proposed().agreement["model"]["tensors"][0] | {"shape": [3, 2]}]}},
], ids=["another optimiser", "an optimiser without a state", "other shapes"])  # fmt: skip
def test_a_newer_agreement_does_not_inherit_a_state_that_its_optimiser_cannot_use(terms: dict[str, object]) -> None:
    world = World(aggregation=ADAM).recorded()
    model = {**terms.get("model", {}), "initial": world.head.base}  # type: ignore[dict-item]
    world.changes = {**terms, "model": model}
    assert world.wait(1).propose(continues=world.digest).head.optimiser == ""


def test_a_newer_agreement_inherits_what_is_spent() -> None:
    world = handmade(World().agreed(), budget=10).open(reservation=4).committed().recorded()
    world.wait(1).propose(continues=world.digest, terms={"title": "Newer", "model": {"initial": world.head.base}})
    assert world.head.spent == 4


# Attestations


def test_enough_attestations_open_the_next_round_and_release_the_model() -> None:
    world = World(attestations={"next_open": 2, "release": 1}).recorded().attest(1).attest("auditor")
    world.release(attestations=world.names("auditor")).open(attestations=world.names(1, "auditor"))
    assert world.get(state.Release, state.release_key(world.digest, 1)).model == digest("model 1")
    assert world.head.round == 2


def test_a_round_is_released_while_a_later_one_is_under_way() -> None:
    assert World().recorded(2).committed().release(1).head.state == "open"


def test_validity_is_judged_at_its_first_and_last_second() -> None:
    world = World().agreed()
    until = world.terms.not_after
    world.admit("coordinator", not_before=until, not_after=until + DAY)
    for who in world.sites:
        world.admit(who, not_before=until, not_after=until + DAY)
    assert world.until(until).open().head.state == "open"
    with pytest.raises(Rejected, match="agreement-not-valid"):
        world.abort().wait(1).open()


def test_an_agreement_is_signed_and_opened_in_its_first_and_its_last_second() -> None:
    first = World(not_before=World().now + 9).agreed()
    assert first.until(first.terms.not_before).open().head.state == "open"
    last = World(not_after=World().now + 9).proposed()
    for who in last.sites:
        last.until(last.terms.not_after).sign(who)
    assert last.open().head.roster == 3


def test_metrics_that_the_agreement_shares() -> None:
    world = World(share_metrics=True).opened().commit(1, metrics={"loss": "0.5"}).commit(2, metrics={}).commit(3)
    assert world.seal().record(metrics={"accuracy": "0.9"}, evaluation_set=digest("set")).result().included == 3


def test_a_commitment_is_in_the_cohort_with_its_weight_and_size() -> None:
    world = (
        World().opened().commit(1, examples=1000, size=25).commit(2, examples=1, size=24 + 1024).wait(COMMIT + 1).seal()
    )
    assert (world.head.weight, world.seat(1).size, world.seat(2).examples) == (1001, 25, 1)
