# SPDX-License-Identifier: Apache-2.0
"""What a worker may answer to a call, however it travelled. A worker runs the task's code, and its answer decides what sites sign
and what is recorded: it is held against the call, and bounded, before anybody looks at it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from chaincode.chunks import is_digest
from chaincode.evidence import ShardEvidence
from chaincode.kinds import KINDS, METRICS
from coordinator.jobs import TaskInfo
from coordinator.pool import Call
from coordinator.ports import Delivery, Outcome
from identity.errors import CredentialError, Error, EvidenceError, Rejected
from participant.ports import TrainFailure, TrainResult

UNREADABLE: Final = "worker-answer"
"""The code of an answer that is none: its worker is not asked again."""
CODE_LIMIT, TEXT_LIMIT = 64, 2000
"""Characters of a code and of a message that are taken from a worker."""

Fits = Callable[[Any, Sequence[Any]], bool]


def held(call: Call, answer: Any) -> Any:
    """The answer, if it is one to this call; an ``Error`` as what any worker may raise. Else an ``Error`` (``worker-answer``)."""
    if isinstance(answer, Error):
        return _bounded(answer)
    try:
        if _FITS[call.method](answer, call.arguments):
            return answer
    except EvidenceError as error:
        return Error(UNREADABLE, f"What a worker answered to {call.method} cannot be: {error.message[:TEXT_LIMIT]}")
    return Error(UNREADABLE, f"What a worker answered is no answer to the call to {call.method}.")


def _bounded(error: Error) -> Error:
    """An error as it was raised, unless its text is endless, or it is of a family that only the contract and the keys have: who
    meets one of those believes that the ledger spoke."""
    family = Error if isinstance(error, Rejected | CredentialError) else type(error)
    if family is type(error) and len(error.code) <= CODE_LIMIT and len(str(error)) <= TEXT_LIMIT:
        return error
    return family(error.code[:CODE_LIMIT], error.message[:TEXT_LIMIT], next=error.next and error.next[:TEXT_LIMIT])


def _trained(answer: Any, arguments: Sequence[Any]) -> bool:
    """Results of the first orders, at least one."""
    orders = arguments[1]
    if type(answer) is not list or not 0 < len(answer) <= len(orders):
        return False
    return all(
        _is_result(result) and (result.site, result.member) == (order.site, order.header.member)
        for result, order in zip(answer, orders, strict=False)
    )


def _is_result(result: Any) -> bool:
    """Raises EvidenceError."""
    if type(result) is TrainFailure:
        return _is_text(result.code, CODE_LIMIT) and _is_text(result.message, TEXT_LIMIT)
    if type(result) is not TrainResult or not is_digest(result.digest):
        return False
    _COMMITTED["size"](result.size, "size")
    _COMMITTED["examples"](result.examples, "examples")
    METRICS(result.metrics, "metrics")
    return True


def _are_verdicts(answer: Any, deliveries: Sequence[Delivery]) -> bool:
    """Verdicts on the deliveries and on nothing else."""
    members = {delivery.commitment.member for delivery in deliveries}
    return (
        type(answer) is dict
        and answer.keys() == members
        and all(_is_text(code, CODE_LIMIT) for code in answer.values())
    )


def _aggregated(answer: Any, arguments: Sequence[Any]) -> bool:
    match answer:
        case (verdicts, None):
            return _are_verdicts(verdicts, arguments[0])
        case (verdicts, outcome):
            return _are_verdicts(verdicts, arguments[0]) and not any(verdicts.values()) and _is_outcome(outcome, ())
    return False


def _is_outcome(outcome: Any, _: Sequence[Any]) -> bool:
    """Raises EvidenceError."""
    if type(outcome) is not Outcome:
        return False
    METRICS(outcome.metrics, "metrics")
    optional = (outcome.optimiser, outcome.evaluation)
    return is_digest(outcome.sum) and is_digest(outcome.model) and all(one == "" or is_digest(one) for one in optional)


def _shards(answer: Any, arguments: Sequence[Any]) -> bool:
    """What was found of each delivery, in order."""
    if type(answer) is not list or any(type(evidence) is not ShardEvidence for evidence in answer):
        return False
    members = [delivery.commitment.member for delivery in arguments[0]]
    return [evidence.member for evidence in answer] == members and all(
        _is_text(evidence.code, CODE_LIMIT) and type(evidence.first) is int and _are_hashes(evidence.hashes)
        for evidence in answer
    )


def _are_hashes(hashes: Any) -> bool:
    return type(hashes) is tuple and all(type(one) is bytes and len(one) == 32 for one in hashes)


def _is_text(value: Any, limit: int) -> bool:
    return isinstance(value, str) and len(value) <= limit


def _are_metrics(answer: Any) -> bool:
    """Raises EvidenceError."""
    METRICS(answer, "metrics")
    return True


_COMMITTED = KINDS["commit"].fields
_FITS: Final[Mapping[str, Fits]] = {
    "describe": lambda answer, _: type(answer) is TaskInfo,
    "train": _trained,
    "aggregate": _aggregated,
    "sum": lambda answer, arguments: _are_verdicts(answer, arguments[0]),
    "sum_shard": _shards,
    "finish_shard": lambda answer, _: _are_hashes(answer),
    "assemble": _is_outcome,
    "finish": _is_outcome,
    "train_alone": lambda answer, _: _are_metrics(answer),
}
"""By the method of ``coordinator.worker.Worker``."""
