# SPDX-License-Identifier: Apache-2.0
"""What travels between this process and a worker: columns in the place of objects, and small calls and answers as JSON.

Ray's serialiser asks Python about every object of a class, and a call may have thousands of them: as plain values they
take a fraction of the time. Most of what orders and deliveries say is the same for all of them, and travels once. JSON is for a line
(``coordinator.line``), over which nothing is unpickled.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, Final

from chaincode.evidence import Commitment
from chaincode.header import Header
from chaincode.place import Place
from coordinator.answers import UNREADABLE
from coordinator.ports import Delivery, FinishOrder, Outcome
from identity.errors import Error, EvidenceError, Unavailable, UsageError
from participant.ports import TrainFailure, TrainOrder, TrainResult

_ORDERS: Final = "orders"
_DELIVERIES: Final = "deliveries"
_FINISH: Final = "finish"
_TRAINED: Final = "trained"
_AGGREGATED: Final = "aggregated"
_ERROR: Final = "error"
_FAMILIES: Final = {family.__name__: family for family in (EvidenceError, Unavailable, UsageError)}


def pack(argument: Any) -> Any:
    """An argument of a call as it travels: lists of orders and of deliveries as columns, an order to finish as a row; all else as
    it is."""
    kind = type(argument[0]) if isinstance(argument, list) and argument else None
    if kind is TrainOrder:
        return _ORDERS, *_to_columns([(o.site, o.seed, *vars(o.header).values(), o.outbox) for o in argument])
    if kind is Delivery:
        return _DELIVERIES, *_to_columns([(*vars(d.commitment).values(), *vars(d.place).values()) for d in argument])
    if isinstance(argument, FinishOrder):
        return _FINISH, [argument.agreement, argument.round, argument.base, argument.optimiser, argument.weight]
    return argument


def unpack(argument: Any) -> Any:
    """The argument that ``pack`` was given, or an equal one."""
    match argument:
        case (str(kind), int(count), list(columns)) if kind == _ORDERS:
            rows = _to_rows(count, columns)
            return [TrainOrder(site, seed, Header(*header), outbox) for site, seed, *header, outbox in rows]
        case (str(kind), int(count), list(columns)) if kind == _DELIVERIES:
            deliveries = _to_rows(count, columns)
            return [Delivery(Commitment(*made), Place(path, offset, size)) for *made, path, offset, size in deliveries]
        case (str(kind), list(row)) if kind == _FINISH:
            return FinishOrder(*row)
    return argument


def _to_columns(rows: Sequence[tuple[Any, ...]]) -> tuple[int, list[Any]]:
    """The number of rows of texts and numbers, and their columns: of one whose values are all the same, that value."""
    columns = list(zip(*rows, strict=True))
    return len(rows), [c[0] if c.count(c[0]) == len(rows) else list(c) for c in columns]


def _to_rows(count: int, columns: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
    """The rows that ``_to_columns`` was given."""
    return zip(*(c if isinstance(c, list) else repeat(c, count) for c in columns), strict=True)


def write_call(number: int, method: str, arguments: Sequence[Any]) -> bytes:
    """A light call (``Call.light``) as JSON: its arguments are orders, deliveries, an order to finish, or None."""
    return json.dumps((number, method, [*map(pack, arguments)]), separators=(",", ":")).encode()


def read_call(data: bytes) -> tuple[int, str, list[Any]]:
    """What ``write_call`` was given."""
    number, method, packed = json.loads(data)
    return number, method, [*map(unpack, packed)]


def write_answer(number: int, answer: Any) -> bytes:
    """The answer to the light call of this number as JSON: what training gave, verdicts with an outcome or None, or an ``Error``."""
    row: tuple[Any, ...]
    match answer:
        case Error():
            row = (_ERROR, type(answer).__name__, answer.code, answer.message, answer.next)
        case (dict(verdicts), Outcome() | None as outcome):
            row = (_AGGREGATED, verdicts, outcome and [getattr(outcome, name) for name in Outcome.__slots__])
        case list(results):
            row = (_TRAINED, [_to_row(result) for result in results])
        case _:
            raise TypeError(f"a {type(answer).__name__} is no answer to a light call")
    return json.dumps((number, row), separators=(",", ":")).encode()


def read_answer(data: bytes, number: int) -> Any:
    """What ``write_answer`` was given, if it answers the call of this number, for ``coordinator.answers`` to hold against that. Anything
    else is an ``Error`` (``worker-answer``): the task's code, which runs in a worker, may be at fault."""
    try:
        match json.loads(data):
            case [int(found), row] if found == number:
                return _answer(row)
    except (ValueError, RecursionError):
        return Error(UNREADABLE, "What a worker answered cannot be read.")
    return Error(UNREADABLE, "What a worker answered is no answer to its call.")


def _answer(row: Any) -> Any:
    """Raises ValueError."""
    match row:
        case [kind, list(results)] if kind == _TRAINED:
            return [_result(result) for result in results]
        case [kind, dict(verdicts), None] if kind == _AGGREGATED and _is_texts(verdicts):
            return verdicts, None
        case [kind, dict(verdicts), [str(sum_), str(model), str(optimiser), dict(metrics), str(evaluation)]] if (
            kind == _AGGREGATED and _is_texts(verdicts) and _is_texts(metrics)
        ):
            return verdicts, Outcome(sum_, model, optimiser, metrics, evaluation)
        case [kind, str(family), str(code), str(message), None | str() as next_] if kind == _ERROR:
            return _FAMILIES.get(family, Error)(code, message, next=next_)
    raise ValueError


def _to_row(result: TrainResult | TrainFailure) -> tuple[Any, ...]:
    if isinstance(result, TrainFailure):
        return result.site, result.member, result.code, result.message
    return tuple(vars(result).values())


def _result(row: Any) -> TrainResult | TrainFailure:
    """Raises ValueError."""
    match row:
        case [str(site), str(member), str(digest), size, examples, dict(metrics)] if (
            _is_count(size) and _is_count(examples) and _is_texts(metrics)
        ):
            return TrainResult(site, member, digest, size, examples, metrics)
        case [str(site), str(member), str(code), str(message)]:
            return TrainFailure(site, member, code, message)
    raise ValueError


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_texts(values: dict[str, Any]) -> bool:
    return all(isinstance(value, str) for value in values.values())
