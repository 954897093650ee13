# SPDX-License-Identifier: Apache-2.0
"""One accepted entry of each kind, with every optional part and no list empty; and tools to sign what differs from it."""

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import pytest

from chaincode.entries import LARGE_LIMIT, PAYLOAD_TYPE, Entry, open_entry
from chaincode.notes import ED25519
from identity import canonical, envelope
from identity.errors import EvidenceError
from identity.keys import Identity
from tests.chaincode.contract.agreements import COMMIT, digest
from tests.chaincode.contract.refusals_rounds import ADAM
from tests.chaincode.contract.rows import vkey
from tests.chaincode.contract.world import World, key

Path = tuple[str | int, ...]


@cache
def every_kind() -> dict[str, Entry]:
    """The entries by kind, in the order in which they were accepted."""
    origin = "ledger.example/test"
    policy = {"log_key": vkey("log", ED25519, origin), "cosigners": [vkey("a"), vkey("b")], "quorum": 1}
    world = World(6, policy=policy, share_metrics=True, aggregation=ADAM)
    world.founded().amend(cosigners=[vkey("a"), vkey("c")], quorum=1).rotate(1).proposed()
    for who in (1, 2, 3, 4, 5):
        world.sign(who)
    world.wait(1).open().commit(1).decline(2).withdraw(4).abort()
    world.wait(1).open().commit(3).commit(5)
    world.commit(1, metrics={"loss": "0.5", "samples.seen": "1e3"}, environment=digest("environment"))
    world.decline(2).wait(COMMIT + 1).seal()
    world.claim(3).claim(1, receipt=world.receipt(1))
    world.until(world.head.deliver_by + 1).record(
        omit={3: "not-delivered"}, metrics={"accuracy": "0.75"}, evaluation_set=digest("evaluation")
    )
    world.attest(1).attest(3).release(attestations=world.names(1, 3))
    world.wait(1).propose(
        continues=world.digest, terms={"title": "Newer", "model": {"initial": world.head.base}}
    ).revoke(6)
    return {entry.kind: entry for entry in world.entries}


SIGNERS = {
    i.did: i for i in map(key, ("authority", "coordinator", "site-01 key 2", *(f"site-{n:02d}" for n in range(1, 7))))
}


def statement_of(entry: Entry) -> Any:
    return canonical.loads(envelope.parse(entry.envelope).payload, limit=LARGE_LIMIT)


def signed(statement: Any, signer: Identity) -> bytes:
    return envelope.Unsigned(canonical.dumps(statement), PAYLOAD_TYPE, signer).signed()


def places(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every value inside a value, with the way to it."""
    yield path, value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        yield from places(item, (*path, name))


def changed(value: Any, path: Path, new: Any) -> Any:
    """A copy of ``value`` with ``new`` at ``path``."""
    if not path:
        return new
    copy = deepcopy(value)
    inside = copy
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = new
    return copy


def code_of(data: bytes) -> str:
    """The code with which the door refuses bytes."""
    with pytest.raises(EvidenceError) as refusal:
        open_entry(data)
    return refusal.value.code
