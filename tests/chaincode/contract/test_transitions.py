# SPDX-License-Identifier: Apache-2.0
"""The transition table is whole: what is not in it is refused with its code, by ``move`` and through real entries."""

import re
from itertools import product

import pytest

from chaincode import transitions
from chaincode.codes import CODES
from chaincode.transitions import ABSENT, REFUSALS, TRANSITIONS, move
from identity.errors import Rejected
from tests.chaincode.contract.refusals import ROWS

STATES = {machine: {s for s, _ in table} | set(table.values()) for machine, table in TRANSITIONS.items()}
VERBS = {machine: {verb for _, verb in table} for machine, table in TRANSITIONS.items()}
REFUSED = {
    (machine, state, verb)
    for machine, table in TRANSITIONS.items()
    for state, verb in product(STATES[machine], VERBS[machine])
    if (state, verb) not in table
}


def refused(machine: str, states: str, verbs: str) -> set[tuple[str, str, str]]:
    return {(machine, s, v) for s, v in product(states.split(), verbs.split())} & REFUSED


# What no entry can ask for, and why.
UNREACHABLE = (
    # The rules look for the agreement, the seat and the author first: an absent one meets their refusal, of the same code.
    refused("head", ABSENT, "open commit decline seal claim record abort continue")
    | refused("seat", ABSENT, "commit decline include exclude claim record")
    | refused("member", "absent revoked", "rotate")
    # Making something asks for a state of absence; an agreement proposed twice meets already-proposed before.
    | refused("head", "proposed open sealed recorded aborted closed", "propose")
    | refused("seat", "open committed declined in out", "open")
    | refused("party", "proposed signed withdrawn", "propose")
    # A second commitment is a duplicate or a conflict, which the rule tells apart.
    | refused("seat", "committed", "commit")
    # A seal leaves no seat open, committed or declined; before it none is in or out. The head refuses first.
    | refused("seat", "open committed declined", "claim record")
    | refused("seat", "in out", "commit decline include exclude")
)


@pytest.mark.parametrize(("machine", "state", "verb"), sorted(REFUSED))
def test_what_is_not_in_the_table_is_refused_with_its_code(machine: str, state: str, verb: str) -> None:
    with pytest.raises(Rejected) as refusal:
        move(machine, state, verb, "it")
    assert refusal.value.code == REFUSALS[machine][state]
    assert refusal.value.code in CODES


def test_what_is_in_the_table_leads_to_a_known_state() -> None:
    for machine, table in TRANSITIONS.items():
        for (state, verb), after in table.items():
            assert move(machine, state, verb, "it") == after
        assert set(REFUSALS[machine]) == {s for m, s, _ in REFUSED if m == machine}, (
            "a code for each state that refuses"
        )


def test_the_refusal_table_has_every_refused_transition_that_entries_can_ask_for() -> None:
    shown = set()
    for row in ROWS:
        with pytest.raises(Rejected) as refusal:
            row.refused(row.before())
        if said := re.search(r" is (\w+): '(\w+)' is not allowed there\.$", refusal.value.message):
            state, verb = said.groups()
            shown |= {(m, state, verb) for m in TRANSITIONS if REFUSALS[m].get(state) == row.code} & REFUSED
    assert shown & REFUSED == REFUSED - UNREACHABLE
    assert UNREACHABLE < REFUSED


def test_every_state_can_be_left_or_is_an_end() -> None:
    ends = {m: STATES[m] - {s for s, _ in table} for m, table in TRANSITIONS.items()}
    assert ends == {"head": {"closed"}, "seat": {"out"}, "party": {"withdrawn"}, "member": set()}


def test_the_drawing_shows_the_table() -> None:
    """The docstring's diagram names every state and every verb of each machine."""
    drawing = transitions.__doc__ or ""
    for machine in TRANSITIONS:
        assert machine in drawing
        for word in STATES[machine] | VERBS[machine]:
            assert word in drawing, (machine, word)
