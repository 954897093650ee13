# SPDX-License-Identifier: Apache-2.0
"""A row of the refusal table, and the small helpers that keep each row a line."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from chaincode import state
from chaincode.notes import COSIGNATURE, format_vkey
from identity.did import public_key_from_did
from tests.chaincode.contract.agreements import digest
from tests.chaincode.contract.world import World, key


class Row(NamedTuple):
    """One refusal: after the entries of ``before``, the single entry that ``refused`` submits meets ``code``."""

    code: str
    what: str
    before: Callable[[], World]
    refused: Callable[[World], object]


def elsewhere() -> World:
    """Another federation of the very same people."""
    return World(policy={"nonce": digest("elsewhere")}).founded()


def rotated(world: World) -> World:
    """The same, after site 1 has put a new key in force."""
    return world.rotate(1)


def handmade(world: World, **terms: Any) -> World:
    """The same, with terms that no accepted proposal leaves in the state: written by hand."""
    world.values[state.terms_key(world.digest)] = state.encode(replace(world.terms, **terms))
    return world


def vkey(label: str, algorithm: int = COSIGNATURE, name: str = "") -> str:
    """The verifier key of a witness, or of a log."""
    return format_vkey(name or f"witness.example/{label}", public_key_from_did(key(label).did), algorithm)


def named(world: World, reason: str, *who: int) -> list[dict[str, str]]:
    """Members with one reason, as entries list them."""
    return [{"member": name, "reason": reason} for name in world.names(*who)]
