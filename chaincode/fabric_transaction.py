# SPDX-License-Identifier: Apache-2.0
"""The chaincode's functions: the contract over a peer's state, without a word of the protocol that brings it.

    submit ENVELOPE...   judge entries and write what they change, as every host does (contract.apply_all)
    get KEY...           evaluate: the state under each key
    source               evaluate: the digest of the contract's source that runs here

All are deterministic functions of the arguments, the state and the transaction's header, so that the peers of several
organisations endorse the same bytes.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from chaincode import contract, state
from chaincode.entries import Entry
from chaincode.fabric_outcomes import Accepted, Duplicate, Verdict, format_outcomes
from chaincode.ledgers import Door, open_or_refuse
from chaincode.views import value_of
from identity import canonical
from identity.errors import Rejected

OK, REFUSED, FAULT = 200, 500, 500
"""Statuses of a response. A peer endorses nothing from 400 on."""
ENVELOPES_LIMIT = 4096
KEYS_LIMIT = 4096
KEY_LENGTH = 512
GET_LIMIT = 8 << 20
"""Bytes of state that one `get` answers with."""


Result = TypeVar("Result")


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The transaction cannot be carried out as it was asked for; the text goes to the client."""


@dataclass(frozen=True, slots=True)
class Response:
    """What the peer signs where the status is OK: `payload`; elsewhere the client sees `message`."""

    status: int
    message: str = ""
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Context:
    """A transaction's header: the channel and the chaincode it was signed for, and its time (UTC seconds)."""

    channel: str
    chaincode: str
    time: int


class Peer(Protocol):
    """The state of a channel as of the transaction, in one round trip each. Writes are not seen by reads."""

    @property
    def context(self) -> Context:
        """Return the transaction's header."""

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes | None]:
        """Return the value under each key, None for an absent one."""

    async def put_many(self, values: dict[str, bytes]) -> None:
        """Write values, none of them empty: an empty one would delete."""

    async def aside(self, work: Callable[[], Result], size: int) -> Result:
        """Do `work` on `size` entries without holding up other transactions."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a batch: a verdict each, and all writes together."""

    verdicts: list[Verdict]
    writes: dict[str, bytes]


Function = Callable[[Peer, Sequence[bytes]], Awaitable[Response]]
Apply = Callable[[Sequence[Entry]], tuple[list[Rejected | None], dict[str, bytes]]]


async def submit(peer: Peer, envelopes: Sequence[bytes]) -> Response:
    """Judge envelopes one after the other and write what the accepted ones change.

    Where none is accepted nothing may be ordered: the response is an error that carries the same outcomes.
    Raises Refused: no or too many envelopes, or a transaction that was signed for another chaincode.
    """
    if not 0 < len(envelopes) <= ENVELOPES_LIMIT:
        raise Refused(f"submit takes 1 to {ENVELOPES_LIMIT} envelopes, not {len(envelopes)}")
    opened = await peer.aside(lambda: [open_or_refuse(envelope) for envelope in envelopes], len(envelopes))
    entries = [entry for entry in opened if isinstance(entry, Entry)]
    if not entries:
        return Response(REFUSED, format_outcomes([o for o in opened if isinstance(o, Rejected)]).decode())
    values = await peer.get_many(sorted(contract.keys_of(entries)))
    judged = await peer.aside(lambda: judge(opened, values, peer.context), len(envelopes))
    outcomes = format_outcomes(judged.verdicts)
    if not judged.writes:
        return Response(REFUSED, outcomes.decode())
    await peer.put_many(judged.writes)
    return Response(OK, payload=outcomes)


async def get(peer: Peer, keys: Sequence[bytes]) -> Response:
    """Answer with a list of the values, in base64 or null, in the order of the keys. Raises Refused."""
    if len(keys) > KEYS_LIMIT or any(not 0 < len(key) <= KEY_LENGTH for key in keys):
        raise Refused(f"get takes at most {KEYS_LIMIT} keys of 1 to {KEY_LENGTH} bytes")
    try:
        names = [key.decode() for key in keys]
    except UnicodeDecodeError as error:
        raise Refused("a key is not UTF-8") from error
    found = await peer.get_many(sorted(set(names)))
    if sum(len(value or b"") for value in found.values()) > GET_LIMIT:
        raise Refused(f"the values have more than {GET_LIMIT} bytes: ask for fewer keys at a time")
    values = [found[name] for name in names]
    return Response(OK, payload=canonical.dumps([None if v is None else canonical.b64encode(v) for v in values]))


def functions(source: str) -> dict[str, Function]:
    """Return the chaincode's functions by name; `source` is the digest that `source` answers with."""

    async def answer_source(_peer: Peer, _args: Sequence[bytes]) -> Response:
        return Response(OK, payload=source.encode())

    return {"submit": submit, "get": get, "source": answer_source}


def judge(opened: Sequence[Entry | Rejected], values: dict[str, bytes | None], context: Context) -> Judged:
    """Judge a batch over the values of all its keys: what is in already first, then the door, then the contract.

    Raises Refused: the federation that is stored is of another place.
    """
    return _judge(opened, values.__getitem__, context, lambda entries: contract.apply_all(entries, values))


def judge_whole(opened: Sequence[Entry | Rejected], held: dict[str, Any], context: Context) -> Judged:
    """As ``judge``, for a process that holds the whole state, as values, and takes what is written into it."""
    return _judge(opened, held.get, context, lambda entries: contract.apply_whole(entries, held))


def _judge(opened: Sequence[Entry | Rejected], read: Callable[[str], Any], context: Context, apply: Apply) -> Judged:
    """Judge a batch over what is read under a key; `apply` is the contract over the same."""
    federation = value_of(state.Federation, read(state.FEDERATION))
    _check_place(federation, context)
    known = {e.id for e in opened if isinstance(e, Entry) and read(state.entry_key(e.id)) is not None}
    door = Door(f"*{_place(context)}", None).under(federation)
    verdicts: list[Verdict | None] = [_at_the_door(e, known, door, context) for e in opened]
    waiting = [(i, e) for i, e in enumerate(opened) if isinstance(e, Entry) and verdicts[i] is None]
    outcomes, writes = apply([entry for _, entry in waiting])
    for (i, entry), refusal in zip(waiting, outcomes, strict=True):
        if entry.id in known:
            verdicts[i] = Duplicate(entry.id)
        elif refusal is None:
            known.add(entry.id)
            verdicts[i] = Accepted(entry.id)
        else:
            verdicts[i] = refusal
    return Judged([verdict for verdict in verdicts if verdict is not None], writes)


def _at_the_door(entry: Entry | Rejected, known: set[str], door: Door, context: Context) -> Verdict | None:
    """Return what is known of an entry before the contract is asked; None where nothing is."""
    if isinstance(entry, Rejected):
        return entry
    if entry.id in known:
        return Duplicate(entry.id)
    stated = str(entry.body["origin"]) if entry.kind == "found" else ""
    if stated and stated.endswith(_place(context)):
        door = replace(door, origin=stated)
    return door.refusal(entry, context.time)


def _place(context: Context) -> str:
    """Return the end of the name of the log that lives here: a founding entry is for one channel and one chaincode."""
    return f"/{context.channel}/{context.chaincode}"


def _check_place(federation: state.Federation | None, context: Context) -> None:
    """Refuse a transaction of another chaincode that calls this one: its arguments would not be those of the log.

    Raises Refused.
    """
    if federation is not None and not federation.origin.endswith(_place(context)):
        held = f"this chaincode holds the log {federation.origin}"
        raise Refused(f"{held}; the transaction was signed for {context.chaincode}")
