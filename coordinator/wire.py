# SPDX-License-Identifier: Apache-2.0
"""What travels between this process and a worker: rows in the place of objects, and small calls and answers as JSON.

Ray's serialiser asks Python about every object of a class, and a call may have thousands of them: as plain tuples they
take a fifth of the time. JSON is for a line (``coordinator.line``), over which nothing is unpickled.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from chaincode.blobs import Header
from chaincode.evidence import Commitment
from chaincode.place import Place
from coordinator.ports import Delivery, FinishOrder, Outcome
from identity.errors import CredentialError, Error, EvidenceError, Rejected, Unavailable, UsageError
from participant.ports import TrainFailure, TrainOrder, TrainResult

_ORDERS: Final = "orders"
_DELIVERIES: Final = "deliveries"
_FINISH: Final = "finish"
_TRAINED: Final = "trained"
_AGGREGATED: Final = "aggregated"
_ERROR: Final = "error"
_FAMILIES: Final = {
    family.__name__: family for family in (Error, Rejected, EvidenceError, CredentialError, Unavailable, UsageError)
}


def pack(argument: Any) -> Any:
    """An argument of a call as it travels: lists of orders and of deliveries as rows, all else as it is."""
    kind = type(argument[0]) if isinstance(argument, list) and argument else None
    if kind is TrainOrder:
        return _ORDERS, [(o.site, o.seed, tuple(vars(o.header).values()), o.outbox) for o in argument]
    if kind is Delivery:
        return _DELIVERIES, [(tuple(vars(d.commitment).values()), tuple(vars(d.place).values())) for d in argument]
    return argument


def unpack(argument: Any) -> Any:
    """The argument that ``pack`` was given, or an equal one."""
    match argument:
        case (str(kind), list(rows)) if kind == _ORDERS:
            return [TrainOrder(site, seed, Header(*header), outbox) for site, seed, header, outbox in rows]
        case (str(kind), list(rows)) if kind == _DELIVERIES:
            return [Delivery(Commitment(*commitment), Place(*place)) for commitment, place in rows]
    return argument


def write_call(method: str, arguments: Sequence[Any]) -> bytes:
    """A light call (``Call.light``) as JSON: its arguments are orders, deliveries, an order to finish, or None."""
    packed = [
        (_FINISH, a.agreement, a.round, a.base, a.optimiser, a.weight) if isinstance(a, FinishOrder) else pack(a)
        for a in arguments
    ]
    return json.dumps((method, packed), separators=(",", ":")).encode()


def read_call(data: bytes) -> tuple[str, list[Any]]:
    """What ``write_call`` was given."""
    method, packed = json.loads(data)
    return method, [
        FinishOrder(*argument[1:]) if argument is not None and argument[0] == _FINISH else unpack(argument)
        for argument in packed
    ]


def write_answer(answer: Any) -> bytes:
    """The answer to a light call as JSON: what training gave, verdicts with an outcome or None, or an ``Error``."""
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
    return json.dumps(row, separators=(",", ":")).encode()


def read_answer(data: bytes) -> Any:
    """What ``write_answer`` was given. An answer that cannot be read is an ``Error`` too (``worker-answer``): the task's
    code, which runs in a worker, may be at fault."""
    try:
        return _answer(json.loads(data))
    except (ValueError, RecursionError):
        return Error("worker-answer", "What a worker answered cannot be read.")


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
        case [str(site), str(member), str(digest), int(size), int(examples), dict(metrics)] if _is_texts(metrics):
            return TrainResult(site, member, digest, size, examples, metrics)
        case [str(site), str(member), str(code), str(message)]:
            return TrainFailure(site, member, code, message)
    raise ValueError


def _is_texts(values: dict[str, Any]) -> bool:
    return all(isinstance(value, str) for value in values.values())
