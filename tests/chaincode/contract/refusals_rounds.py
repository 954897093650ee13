# SPDX-License-Identifier: Apache-2.0
"""The refusal table: rounds and results. How to read a row is said in ``refusals.py``."""

# A table: one row a line.
# fmt: off
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.chaincode.contract.agreements import COMMIT, DAY, DELIVER, RECORD, digest
from tests.chaincode.contract.rows import Row, handmade, named, rotated
from tests.chaincode.contract.world import World, key

W = World

ADAM = {"optimiser": "adam", "parameters": {"learning_rate": "0.01", "beta1": "0.9", "beta2": "0.99", "tau": "1e-3"}}


def two() -> W:
    """A round in which site 3 is silent."""
    return W().opened().commit(1).commit(2)


def without_three() -> W:
    """A sealed round that site 3 is out of."""
    return two().wait(COMMIT + 1).seal()


def other_signed() -> W:
    """An agreement that site 3 has not signed: it signed another one of the same parties."""
    world = W().proposed().sign(1).sign(2)
    terms, name = world.agreement, world.digest
    world.propose(terms={"title": "Another"}).sign(3)
    world.agreement, world.digest = terms, name
    return world


def past_delivery(world: W) -> W:
    """A sealed round, the first second after its delivery deadline."""
    return world.until(world.head.deliver_by + 1)


def claimed() -> W:
    """A sealed round in which site 1 has claimed with the coordinator's receipt."""
    world = W().sealed()
    return world.claim(1, receipt=world.receipt(1))


Refused = Callable[[W], object]


def open_without_three(why: str) -> Refused:
    return lambda w: w.open(roster=w.names(1, 2), absent=named(w, why, 3))


def seal_without_three(why: str) -> Refused:
    return lambda w: w.wait(COMMIT).seal(cohort=w.names(1, 2), out=named(w, why, 3))


def record_without_three(why: str) -> Refused:
    return lambda w: w.until(w.head.deliver_by).record(omit={3: why})


def claim_with_receipt(**other: Any) -> Refused:
    return lambda w: w.claim(1, receipt=w.receipt(1, **other))


# What the head of an agreement refuses, by its state: "-" is a transition, or met by an earlier rule.
HEAD = """
          proposed        open        sealed        recorded        aborted        closed
open      -               round-open  round-sealed  -               -              agreement-closed
commit    round-not-open  -           round-sealed  round-recorded  round-aborted  agreement-closed
decline   round-not-open  -           round-sealed  round-recorded  round-aborted  agreement-closed
seal      round-not-open  -           round-sealed  round-recorded  round-aborted  agreement-closed
claim     round-not-open  round-open  -             round-recorded  round-aborted  agreement-closed
record    round-not-open  round-open  -             round-recorded  round-aborted  agreement-closed
abort     round-not-open  -           -             round-recorded  round-aborted  agreement-closed
continue  -               round-open  round-sealed  -               -              agreement-closed
"""
STAGES = {
    "proposed": lambda: W().agreed(),
    "open": lambda: W().opened(),
    "sealed": lambda: W().sealed(),
    "recorded": lambda: W().recorded(),
    "aborted": lambda: W().aborted(),
    "closed": lambda: newer(W().recorded()),
}
VERBS = {
    "open": lambda w: w.open(),
    "commit": lambda w: w.commit(1, examples=11),
    "decline": lambda w: w.decline(1),
    "seal": lambda w: w.wait(1).seal(),
    "claim": lambda w: w.claim(1),
    "record": lambda w: w.wait(1).record(),
    "abort": lambda w: w.wait(1).abort(),
    "continue": lambda w: w.propose(continues=w.digest, terms={"title": "Newest", "model": {"initial": w.head.base}}),
}


def newer(world: W) -> W:
    """The world looking at an agreement that a newer one has closed."""
    terms, name = world.agreement, world.digest
    world.propose(continues=name, terms={"title": "Newer", "model": {"initial": world.head.base}})
    world.agreement, world.digest = terms, name
    return world


def matrix() -> list[Row]:
    """The rows that ``HEAD`` stands for."""
    header, *lines = (line.split() for line in HEAD.strip().splitlines())
    return [
        Row(code, f"{verb} when {at}", STAGES[at], VERBS[verb])
        for verb, *codes in lines
        for at, code in zip(header, codes, strict=True)
        if code != "-"
    ]


OPENING = (
    Row("wrong-round", "a round is skipped", lambda: W().recorded(), lambda w: w.open(round=3)),
    Row("wrong-round", "the recorded round again", lambda: W().recorded(), lambda w: w.open(round=1, attempt=2)),
    Row("wrong-round", "the next round while one is aborted", lambda: W().aborted(), lambda w: w.open(round=2, attempt=1)),
    Row("wrong-round", "the aborted attempt again", lambda: W().aborted(), lambda w: w.open(attempt=1)),
    Row("wrong-round", "an attempt is skipped", lambda: W().aborted(), lambda w: w.open(attempt=3)),
    Row("wrong-round", "a first attempt that says second", lambda: W().agreed(), lambda w: w.open(attempt=2)),
    Row("rounds-exhausted", "a round beyond the agreed", lambda: W(rounds=1).recorded(), lambda w: w.open()),
    Row("attempts-exhausted", "an attempt beyond the agreed", lambda: W(attempts=2).aborted().aborted(), lambda w: w.open()),
    Row("base-mismatch", "another base than the initial model", lambda: W().agreed(), lambda w: w.open(base_model=digest("other"))),
    Row("base-mismatch", "the initial model again in round 2", lambda: W().recorded(), lambda w: w.open(base_model=digest("model 0"))),
    Row("deadline-mismatch", "a shorter commitment deadline", lambda: W().agreed(), lambda w: w.open(commit_by=w.now + COMMIT - 1)),
    Row("deadline-mismatch", "a longer commitment deadline", lambda: W().agreed(), lambda w: w.open(commit_by=w.now + COMMIT + 1)),
    Row("at-precedes-head", "an opening dated back", lambda: W().recorded(), lambda w: w.open(at=w.head.at - 1)),
    Row("budget-exceeded", "a reservation beyond the budget", lambda: W().agreed(), lambda w: w.open(reservation=1)),
    Row("budget-exceeded", "the same beside what is spent (terms by hand)", lambda: handmade(handmade(W().agreed(), budget=5).open(reservation=3).committed().recorded(), budget=5), lambda w: w.open(reservation=3)),
    Row("attestation-missing", "the next round without the agreed attestation", lambda: W(attestations={"next_open": 1}).recorded(), lambda w: w.open()),
    Row("attestation-missing", "one that was never given", lambda: W(attestations={"next_open": 1}).recorded(), lambda w: w.open(attestations=w.names(1))),
    Row("attestation-missing", "a dispute counted as one", lambda: W(attestations={"next_open": 1}).recorded().attest(1, verdict="disputes", sum=digest("mine")), lambda w: w.open(attestations=w.names(1))),
    Row("attestation-missing", "the coordinator's of its own result", lambda: W(attestations={"next_open": 1}).recorded().attest("coordinator"), lambda w: w.open(attestations=w.names("coordinator"))),
    Row("attestation-missing", "one of an earlier round", lambda: W(attestations={"next_open": 1}).recorded().attest(1).wait(1).open(attestations=[key("site-01").did]).committed().recorded(), lambda w: w.open(attestations=w.names(1))),
    Row("attestation-missing", "one is named in round 1", lambda: W().agreed(), lambda w: w.open(attestations=w.names(1))),
    Row("list-incomplete", "a party is left out without reason", lambda: W().agreed(), lambda w: w.open(roster=w.names(1, 2))),
    Row("list-incomplete", "a party is both on the roster and absent", lambda: W().agreed(), lambda w: w.open(absent=named(w, "unsigned", 1))),
    Row("list-incomplete", "one is named twice in another's place", lambda: W().agreed(), lambda w: w.open(roster=w.names(1, 2), absent=named(w, "unsigned", 1))),
    Row("not-in-standing", "the roster has an unsigned party", lambda: W().proposed().sign(1).sign(2), lambda w: w.open(roster=w.names(1, 2, 3), absent=[])),
    Row("not-in-standing", "the roster has a withdrawn party", lambda: W().agreed().withdraw(3), lambda w: w.open(roster=w.names(1, 2, 3), absent=[])),
    Row("not-in-standing", "the roster has a revoked party", lambda: W().agreed().revoke(3), lambda w: w.open(roster=w.names(1, 2, 3), absent=[])),
    Row("not-in-standing", "the roster has an expired party", lambda: W().agreed().admit(3, not_after=W().now + 9).wait(9), lambda w: w.open(roster=w.names(1, 2, 3), absent=[])),
    Row("not-in-standing", "the roster has a party that is not yet valid", lambda: W().agreed().admit(3, not_before=W().now + 90), lambda w: w.open(roster=w.names(1, 2, 3), absent=[])),
    *(Row("reason-unfounded", f"a party in standing is called {why}", lambda: W().agreed(), open_without_three(why)) for why in ("unsigned", "withdrawn", "revoked", "expired")),
    Row("reason-unfounded", "an unsigned party is called withdrawn", lambda: W().proposed().sign(1).sign(2), lambda w: w.open(absent=named(w, "withdrawn", 3))),
    Row("reason-unfounded", "a revoked party is called expired", lambda: W().agreed().revoke(3), lambda w: w.open(absent=named(w, "expired", 3))),
    Row("not-in-standing", "the roster has a party that signed another agreement", other_signed, lambda w: w.open(roster=w.names(1, 2, 3), absent=[])),
    Row("below-minimum", "too few have signed", lambda: W().proposed().sign(1), lambda w: w.open()),
    Row("sum-could-overflow", "the roster's sum (terms by hand)", lambda: handmade(W().agreed(), max_weight=2**50), lambda w: w.open()),
)

COMMITTING = (
    Row("wrong-round", "a commitment replayed in the next round", lambda: W().recorded().opened(), lambda w: w.commit(1, round=1)),
    Row("wrong-round", "a commitment replayed in the next attempt", lambda: W().committed().aborted().opened(), lambda w: w.commit(1, attempt=1)),
    Row("wrong-round", "a decline from the last attempt", lambda: W().aborted().opened(), lambda w: w.decline(1, attempt=1)),
    Row("wrong-round", "a commitment to the next round", lambda: W().opened(), lambda w: w.commit(1, round=2)),
    Row("at-precedes-head", "a commitment dated before the opening", lambda: W().opened(), lambda w: w.commit(1, at=w.head.at - 1)),
    Row("not-on-roster", "a member of no agreement", lambda: W().opened().admit(4), lambda w: w.commit(4)),
    Row("not-on-roster", "a party that signed after the opening", lambda: W().proposed().sign(1).sign(2).open().sign(3), lambda w: w.commit(3)),
    Row("not-on-roster", "a party that was absent declines", lambda: W().proposed().sign(1).sign(2).open(), lambda w: w.decline(3)),
    Row("past-deadline", "a commitment a second late", lambda: W().opened(), lambda w: w.until(w.head.commit_by + 1).commit(1)),
    Row("past-deadline", "a decline a second late", lambda: W().opened(), lambda w: w.until(w.head.commit_by + 1).decline(1)),
    Row("duplicate-commitment", "the same digest again", two, lambda w: w.wait(1).commit(1)),
    Row("conflicting-commitment", "another digest", two, lambda w: w.wait(1).commit(1, update=digest("other"))),
    Row("conflicting-commitment", "another digest by the rotated key", lambda: rotated(two()), lambda w: w.commit(1, update=digest("other"))),
    Row("already-committed", "a decline after a commitment", two, lambda w: w.decline(1)),
    Row("already-declined", "a commitment after a decline", lambda: W().opened().decline(1), lambda w: w.commit(1)),
    Row("already-declined", "a second decline", lambda: W().opened().decline(1), lambda w: w.decline(1, reason="policy")),
    Row("weight-out-of-range", "no examples", lambda: W().opened(), lambda w: w.commit(1, examples=0)),
    Row("weight-out-of-range", "an example too many", lambda: W().opened(), lambda w: w.commit(1, examples=1001)),
    Row("weight-out-of-range", "an absurd number", lambda: W().opened(), lambda w: w.commit(1, examples=2**53 - 1)),
    Row("size-mismatch", "no room for a header", lambda: W().opened(), lambda w: w.commit(1, size=24)),
    Row("size-mismatch", "a header too long", lambda: W().opened(), lambda w: w.commit(1, size=24 + 1025)),
    Row("size-mismatch", "an int64 model for an int32 one", lambda: W().opened(), lambda w: w.commit(1, size=2**40)),
    Row("metrics-not-agreed", "metrics that nobody asked for", lambda: W().opened(), lambda w: w.commit(1, metrics={"loss": "0.5"})),
)

SEALING = (
    Row("wrong-round", "a seal for another attempt", lambda: W().committed(), lambda w: w.seal(attempt=2)),
    Row("at-precedes-head", "a seal dated before the opening", lambda: W().committed(), lambda w: w.seal(at=w.head.at - 1)),
    Row("list-incomplete", "a silent seat is passed over", two, lambda w: w.wait(COMMIT + 1).seal(out=[])),
    Row("list-incomplete", "a committed seat is passed over", lambda: W().committed(), lambda w: w.seal(cohort=w.names(1, 2))),
    Row("list-incomplete", "one is in and out", lambda: W().committed(), lambda w: w.seal(cohort=w.names(1, 2), out=named(w, "declined", 1))),
    Row("deadline-mismatch", "a shorter delivery deadline", lambda: W().committed(), lambda w: w.seal(deliver_by=w.now + DELIVER - 1)),
    Row("deadline-mismatch", "a longer delivery deadline", lambda: W().committed(), lambda w: w.seal(deliver_by=w.now + DELIVER + 1)),
    Row("seal-too-early", "a site in standing is silent at the deadline itself", two, lambda w: w.until(w.head.commit_by).seal()),
    Row("seat-open", "a silent seat in the cohort", two, lambda w: w.wait(COMMIT + 1).seal(cohort=w.names(1, 2, 3), out=[])),
    Row("already-declined", "a declined seat in the cohort", lambda: two().decline(3), lambda w: w.seal(cohort=w.names(1, 2, 3), out=[])),
    Row("not-in-standing", "a withdrawn site in the cohort", lambda: W().committed().withdraw(3), lambda w: w.seal(cohort=w.names(1, 2, 3), out=[])),
    Row("not-in-standing", "a revoked site in the cohort", lambda: W().committed().revoke(3), lambda w: w.seal(cohort=w.names(1, 2, 3), out=[])),
    Row("not-on-roster", "a party without a seat in the cohort", lambda: W().proposed().sign(1).sign(2).open().sign(3).committed(), lambda w: w.seal(cohort=w.names(1, 3))),
    Row("not-on-roster", "a stranger in the place of a seat", lambda: W().committed(), lambda w: w.seal(cohort=w.names(1, 2), out=named(w, "silent", 9))),
    *(Row("reason-unfounded", f"a committed site in standing is called {why}", lambda: W().committed(), seal_without_three(why)) for why in ("declined", "silent", "withdrawn", "revoked", "expired")),
    Row("reason-unfounded", "a declined site is called silent", lambda: two().decline(3), lambda w: w.wait(COMMIT + 1).seal(out=named(w, "silent", 3))),
    Row("reason-unfounded", "a silent site is called declined", two, lambda w: w.wait(COMMIT + 1).seal(out=named(w, "declined", 3))),
    Row("below-minimum", "too few have committed", lambda: W().opened().commit(1), lambda w: w.wait(COMMIT + 1).seal()),
)

CLAIMING = (
    Row("wrong-round", "a claim for another round", lambda: W().recorded().sealed(), lambda w: w.claim(1, round=1)),
    Row("at-precedes-head", "a claim dated before the seal", lambda: W().sealed(), lambda w: w.claim(1, at=w.head.at - 1)),
    Row("not-on-roster", "a claim without a seat", lambda: W().sealed().admit(4), lambda w: w.claim(4)),
    Row("seat-out-of-cohort", "a claim of a seat that is out", without_three, lambda w: w.claim(3)),
    Row("claim-mismatch", "other bytes than committed", lambda: W().sealed(), lambda w: w.claim(1, update=digest("other"))),
    Row("receipt-invalid", "the site's own signature", lambda: W().sealed(), lambda w: w.claim(1, receipt=w.receipt(1, signer=key("site-01")))),
    Row("receipt-invalid", "the authority's signature", lambda: W().sealed(), lambda w: w.claim(1, receipt=w.receipt(1, signer=key("authority")))),
    Row("receipt-invalid", "a stranger's signature", lambda: W().sealed(), lambda w: w.claim(1, receipt=w.receipt(1, signer=key("nobody")))),
    Row("receipt-invalid", "another coordinator's signature", lambda: W().sealed().admit("rival", role="coordinator"), lambda w: w.claim(1, receipt=w.receipt(1, signer=key("rival")))),
    Row("receipt-invalid", "another's signature under the coordinator's DID", lambda: W().sealed(), lambda w: w.claim(1, receipt=w.receipt(1, signer=replace(key("site-01"), did=w.name("coordinator"))))),
    *(Row("receipt-invalid", f"a receipt for another {what.rstrip('_')}", lambda: W().sealed(), claim_with_receipt(**{what: other}))
      for what, other in (("federation", digest("x")), ("agreement", digest("x")), ("round_", 2), ("attempt", 2), ("member", key("site-02").did), ("update", digest("x")))),
)  # fmt: skip

RECORDING = (
    Row("wrong-round", "a record for another round", lambda: W().recorded().sealed(), lambda w: w.record(round=1)),
    Row("at-precedes-head", "a record dated before the seal", lambda: W().sealed(), lambda w: w.record(at=w.head.at - 1)),
    Row("list-incomplete", "a cohort member is passed over", lambda: W().sealed(), lambda w: w.record(included=w.names(1, 2), examples=20)),
    Row("list-incomplete", "one is included and omitted", lambda: past_delivery(W().sealed()), lambda w: w.record(included=w.names(1, 2), examples=20, omitted=named(w, "not-delivered", 1))),
    Row("seat-out-of-cohort", "a seat that is out is included", without_three, lambda w: w.record(included=w.names(1, 3), examples=10)),
    Row("not-on-roster", "a stranger is included", without_three, lambda w: w.record(included=w.names(1, 9), examples=10)),
    *(Row("omission-too-early", f"{why} at the deadline itself", lambda: W().sealed(), record_without_three(why)) for why in ("not-delivered", "digest-mismatch", "invalid-update")),
    Row("omission-against-receipt", "not delivered, says who gave a receipt", lambda: past_delivery(claimed()), lambda w: w.record(omit={1: "not-delivered"})),
    Row("omission-against-receipt", "other bytes, says who gave a receipt", lambda: past_delivery(claimed()), lambda w: w.record(omit={1: "digest-mismatch"})),
    Row("omission-against-receipt", "a bare claim later does not undo a receipt", lambda: past_delivery(claimed().wait(1).claim(1)), lambda w: w.record(omit={1: "not-delivered"})),
    Row("below-minimum", "too few updates arrived", lambda: past_delivery(W().sealed()), lambda w: w.record(omit={1: "not-delivered", 2: "digest-mismatch"})),
    Row("weight-mismatch", "an example too many", lambda: W().sealed(), lambda w: w.record(examples=31)),
    Row("weight-mismatch", "the omitted one's examples are counted", lambda: past_delivery(W().sealed()), lambda w: w.record(omit={3: "not-delivered"}, examples=30)),
    Row("weight-mismatch", "weights that are zero in sum", lambda: W().sealed(), lambda w: w.record(examples=0)),
    Row("optimiser-state-mismatch", "a state for an optimiser without one", lambda: W().sealed(), lambda w: w.record(optimiser_state=digest("state"))),
    Row("optimiser-state-mismatch", "no state for an optimiser with one", lambda: W(aggregation=ADAM).sealed(), lambda w: w.record(optimiser_state=None)),
    Row("wrong-round", "another attempt is given up", lambda: W().opened(), lambda w: w.abort(attempt=2)),
    Row("at-precedes-head", "giving up before the opening", lambda: W().opened(), lambda w: w.abort(at=w.head.at - 1)),
    Row("abort-too-early", "the coordinator, sealed, at the delivery deadline", lambda: W().sealed(), lambda w: w.until(w.head.deliver_by).abort()),
    Row("abort-too-early", "a party, sealed, at the last deadline", lambda: W().sealed(), lambda w: w.until(w.head.deliver_by + RECORD).abort(1)),
    Row("abort-too-early", "a party, open, at the last deadline", lambda: W().opened(), lambda w: w.until(w.head.commit_by + DELIVER + RECORD).abort(1)),
    Row("abort-too-early", "a party in a round that is under way", lambda: W().opened(), lambda w: w.abort(1)),
)

RESULTS = (
    Row("result-unknown", "a release of a round to come", lambda: W().recorded(), lambda w: w.release(2)),
    Row("result-unknown", "a release of an aborted round", lambda: W().aborted(), lambda w: w.release(1)),
    Row("result-unknown", "an attestation of a round to come", lambda: W().recorded(), lambda w: w.attest(1, 2)),
    Row("result-unknown", "an attestation under another agreement", lambda: W().recorded(), lambda w: w.attest(1, agreement=digest("none"))),
    Row("result-differs", "another model than recorded", lambda: W().recorded(2), lambda w: w.release(2, model=digest("model 1"))),
    Row("already-released", "a second card for one model", lambda: W().recorded().release(), lambda w: w.release(model_card=digest("better card"))),
    Row("at-precedes-head", "a release dated before the record", lambda: W().recorded(), lambda w: w.release(at=w.head.at - 1)),
    Row("attestation-missing", "a release without the agreed attestation", lambda: W(attestations={"release": 1}).recorded(), lambda w: w.release()),
    Row("attestation-missing", "a release over a dispute", lambda: W(attestations={"release": 1}).recorded().attest(1, verdict="disputes", model=digest("mine")), lambda w: w.release(attestations=w.names(1))),
    Row("attestation-missing", "a release on the coordinator's word", lambda: W(attestations={"release": 1}).recorded().attest("coordinator"), lambda w: w.release(attestations=w.names("coordinator"))),
    Row("attestation-inconsistent", "agreement with another sum", lambda: W().recorded(), lambda w: w.attest(1, sum=digest("mine"))),
    Row("attestation-inconsistent", "agreement with another model", lambda: W().recorded(), lambda w: w.attest(1, model=digest("mine"))),
    Row("attestation-inconsistent", "a dispute over the same digests", lambda: W().recorded(), lambda w: w.attest(1, verdict="disputes")),
    Row("already-attested", "a second verdict", lambda: W().recorded().attest(1), lambda w: w.wait(1).attest(1)),
    Row("already-attested", "another verdict", lambda: W().recorded().attest(1), lambda w: w.attest(1, verdict="disputes", sum=digest("mine"))),
    Row("already-attested", "another verdict by a rotated key", lambda: rotated(W().recorded().attest(1)), lambda w: w.attest(1, verdict="disputes", sum=digest("mine"))),
    Row("not-a-party", "a coordinator of another agreement gives up", lambda: W().opened().admit("rival", role="coordinator"), lambda w: w.wait(9 * DAY).abort("rival")),
)  # fmt: skip

ROUNDS = (*matrix(), *OPENING, *COMMITTING, *SEALING, *CLAIMING, *RECORDING, *RESULTS)
