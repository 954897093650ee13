# SPDX-License-Identifier: Apache-2.0
"""``next_step`` is pure: each row is what the ledger says and what was gathered, and the step that follows."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaincode.state import Head, Member, Party, Seat, Terms
from coordinator.rounds import next_step
from coordinator.steps import Abort, Collect, Finished, Gathered, Open, Record, Seal, Step, Stuck, Train, Wait
from participant.agent import RoundView

A, B, C = "did:a", "did:b", "did:c"
NAMES = (A, B, C)
OPENED, COMMIT_BY, SEALED, DELIVER_BY = 100, 160, 150, 180
TERMS = Terms(
    coordinator="did:coordinator", parties=3, min_participants=2, rounds=2, attempts=3, commit_seconds=60,
    deliver_seconds=30, record_seconds=60, max_weight=100, largest=1 << 28, elements=4, width=4, share_metrics=True,
    attest_next_open=0, attest_release=0, budget=0, not_before=0, not_after=10_000,
)  # fmt: skip
HEAD = Head("proposed", 0, 0, 90, "e", "base", "")
OPEN = replace(HEAD, state="open", round=1, attempt=1, at=OPENED, opened_at=OPENED, roster=3, commit_by=COMMIT_BY)
SEALED_HEAD = replace(OPEN, state="sealed", at=SEALED, cohort=3, deliver_by=DELIVER_BY)
ACTIVE = Member("active", "participant", "x", A, "c", 0, 10_000)
COMMITTED, DECLINED, SILENT, IN = (Seat("committed", "u", 9, 5), Seat("declined", reason="no-data"), Seat("open"), Seat("in", "u", 9, 5))  # fmt: skip


def view(head: Head, *seats: Seat, **members: Member) -> RoundView:
    return RoundView(
        "a" * 64, TERMS, head, None,
        seats=dict(zip(NAMES, seats, strict=True)) if seats else dict.fromkeys(NAMES),
        parties=dict.fromkeys(NAMES, Party("signed")),
        members={n: members.get(n[-1], ACTIVE) for n in NAMES},
    )  # fmt: skip


def heard(**verdicts: str) -> Gathered:
    return Gathered(asked=True, collected=frozenset(NAMES), verdicts={f"did:{k}": v for k, v in verdicts.items()})


REVOKED = replace(ACTIVE, state="revoked")
FIRST, LATE = 0, OPENED + 1  # since when the coordinator has been at work
ROWS: list[tuple[str, RoundView, Gathered, int, int, Step]] = [
    ("first round", view(HEAD), Gathered(), 95, FIRST, Open(1, 1, list(NAMES), {})),
    ("a revoked party is absent", view(HEAD, b=REVOKED), Gathered(), 95, FIRST, Open(1, 1, [A, C], {B: "revoked"})),
    ("next round", view(replace(OPEN, state="recorded")), Gathered(), 170, FIRST, Open(2, 1, list(NAMES), {})),
    ("next attempt", view(replace(OPEN, state="aborted", attempt=2)), Gathered(), 170, FIRST, Open(1, 3, list(NAMES), {})),
    ("no attempt is left", view(replace(OPEN, state="aborted", attempt=3)), Gathered(), 170, FIRST, Stuck("attempts-exhausted")),
    ("done", view(replace(OPEN, state="recorded", round=2)), Gathered(), 170, FIRST, Finished()),
    ("last round aborted is not done", view(replace(OPEN, state="aborted", round=2)), Gathered(), 170, FIRST, Open(2, 2, list(NAMES), {})),
    ("sites are asked once", view(OPEN, COMMITTED, SILENT, SILENT), Gathered(), 110, FIRST, Train([B, C])),
    ("then waited for", view(OPEN, COMMITTED, COMMITTED, SILENT), Gathered(asked=True), 110, FIRST, Wait(COMMIT_BY + 1, [C])),
    ("at the deadline itself a site may commit", view(OPEN, COMMITTED, COMMITTED, SILENT), Gathered(asked=True), COMMIT_BY, FIRST, Wait(COMMIT_BY + 1, [C])),
    ("all committed", view(OPEN, COMMITTED, COMMITTED, COMMITTED), Gathered(asked=True), 110, FIRST, Seal(list(NAMES), {})),
    ("restarted, all committed", view(OPEN, COMMITTED, COMMITTED, COMMITTED), Gathered(), 999, LATE, Seal(list(NAMES), {})),
    ("declined is out at once", view(OPEN, COMMITTED, COMMITTED, DECLINED), Gathered(asked=True), 110, FIRST, Seal([A, B], {C: "declined"})),
    ("silent is out after the deadline", view(OPEN, COMMITTED, COMMITTED, SILENT), Gathered(asked=True), COMMIT_BY + 1, FIRST, Seal([A, B], {C: "silent"})),
    ("nobody is called silent by an absent coordinator", view(OPEN, COMMITTED, COMMITTED, SILENT), Gathered(asked=True), COMMIT_BY + 1, LATE, Abort("coordinator-absent")),
    ("revoked after committing", view(OPEN, COMMITTED, COMMITTED, COMMITTED, c=REVOKED), Gathered(asked=True), 110, FIRST, Seal([A, B], {C: "revoked"})),
    ("too few", view(OPEN, COMMITTED, DECLINED, DECLINED), Gathered(asked=True), 110, FIRST, Abort("below-minimum")),
    ("collect", view(SEALED_HEAD, IN, IN, IN), Gathered(), 155, FIRST, Collect(list(NAMES))),
    ("all verified", view(SEALED_HEAD, IN, IN, IN), heard(a="", b="", c=""), 155, FIRST, Record(list(NAMES), {})),
    ("a mismatch may be mended until the deadline", view(SEALED_HEAD, IN, IN, IN), heard(a="", b="", c="update-digest"), 155, FIRST, Wait(DELIVER_BY + 1, [C])),
    ("and is asked for once more", view(SEALED_HEAD, IN, IN, IN), heard(a="", b="", c="update-digest"), 181, FIRST, Collect([C])),
    ("then omitted", view(SEALED_HEAD, IN, IN, IN), heard(a="", b="", c="update-digest"), 181, FIRST, Record([A, B], {C: "digest-mismatch"})),
    ("not delivered", view(SEALED_HEAD, IN, IN, IN), heard(a="", b=""), 181, FIRST, Record([A, B], {C: "not-delivered"})),
    ("wrong header", view(SEALED_HEAD, IN, IN, IN), heard(a="", b="", c="update-header"), 181, FIRST, Record([A, B], {C: "invalid-update"})),
    ("nobody is omitted by an absent coordinator", view(SEALED_HEAD, IN, IN, IN), heard(a="", b=""), 181, SEALED + 1, Abort("coordinator-absent")),
    ("too few arrived", view(SEALED_HEAD, IN, IN, IN), heard(a=""), 181, FIRST, Abort("below-minimum")),
]  # fmt: skip
for row in ROWS:
    if isinstance(row[5], Record | Abort):
        row[2].retried = True


@pytest.mark.parametrize(("state", "gathered", "now", "since", "step"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_next_step(state: RoundView, gathered: Gathered, now: int, since: int, step: Step) -> None:
    assert next_step(state, gathered, now, since) == step


seats = st.sampled_from([COMMITTED, DECLINED, SILENT])


@given(st.tuples(seats, seats, seats), st.booleans(), st.integers(OPENED, 400), st.integers(0, 400))
def test_a_seal_names_every_seat_once(three: tuple[Seat, ...], asked: bool, now: int, since: int) -> None:
    step = next_step(view(OPEN, *three), Gathered(asked=asked), now, since)
    if isinstance(step, Seal):
        assert sorted([*step.cohort, *step.out]) == list(NAMES)
        assert len(step.cohort) >= TERMS.min_participants
        assert all(three[NAMES.index(m)] is COMMITTED for m in step.cohort)
    if isinstance(step, Wait):
        assert step.until > now
