# SPDX-License-Identifier: Apache-2.0
"""Federations to which everything happens that may: sites that decline, are silent, leave, are revoked and come back,
attempts that are given up, updates that are omitted, agreements that follow one another."""

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from identity.errors import Rejected
from tests.chaincode.contract.world import Who, World, digest
from tests.ops.runs import world

_TERMS: dict[str, Any] = {"rounds": 12, "min_participants": 1, "attempts": 9}


def life(seed: int, steps: int = 9) -> World:
    """A federation of five sites after so many attempts, agreements or refusals of both."""
    chance = Random(seed)
    here = world(5, **_TERMS).agreed()
    for step in range(steps):
        if chance.random() < 0.15:
            _next_agreement(here, chance, step)
        for who in here.sites:
            if chance.random() < 0.1:
                _if_allowed(lambda who=who: here.admit(who))  # type: ignore[misc]
        _if_allowed(lambda: here.wait(1).open())
        if here.head.state == "open":
            _attempt(here, chance, digest(f"model {seed} {step}"))
    return here


def _next_agreement(here: World, chance: Random, step: int) -> None:
    terms = {**_TERMS, "title": f"Agreement {step}", "model": {"initial": here.head.base}}
    continues = here.digest if chance.random() < 0.6 else None
    _if_allowed(lambda: here.wait(1).propose(continues=continues, terms=terms))
    for who in here.sites:
        _if_allowed(lambda who=who: here.sign(who))  # type: ignore[misc]


def _attempt(here: World, chance: Random, model: str) -> None:
    verbs: list[tuple[float, Callable[[Who], World]]] = [
        (0.60, here.commit), (0.70, here.decline), (0.74, here.withdraw), (0.80, here.revoke),
        (0.84, lambda who: here.rotate(who).commit(who)),
    ]  # fmt: skip
    for who in here.sites:
        drawn = chance.random()
        verb = next((verb for below, verb in verbs if drawn < below), None)  # None: silent
        _if_allowed(lambda who=who, verb=verb: verb and verb(who))  # type: ignore[misc]
    if chance.random() < 0.15:
        here.wait(1).abort()
        return
    _if_allowed(lambda: here.wait(200).seal())
    if here.head.state == "open":  # too few have committed
        here.abort()
        return
    here.wait(400)
    if chance.random() < 0.15:
        here.abort()
        return
    cohort = here._seats("in")
    omit: dict[Who, str] = {
        who: "not-delivered" for who in here.sites if here.name(who) in cohort and chance.random() < 0.2
    }
    _if_allowed(lambda: here.record(omit=omit, model=model))
    if here.head.state == "sealed":  # all were omitted
        here.record(model=model)


def _if_allowed(step: Callable[[], object]) -> None:
    with suppress(Rejected):
        step()
