# SPDX-License-Identifier: Apache-2.0
"""What may stand in a federation file: for each key its check, what is allowed, an example and what holds without it.

The bounds are those of the agreement's schema, so that what is accepted here is accepted by the contract.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

from chaincode import schema
from chaincode.agreement import OPTIMISERS
from identity.errors import EvidenceError
from participant.tasks import READY

READY_TASKS = tuple(READY)
MAX_WORKERS = 1024
REQUIRED = object()

_OWN_TASK = re.compile(r"[^:\0]{1,200}\.py:[A-Za-z_][A-Za-z0-9_]{0,99}")
_DECIMAL_LIMIT = 40  # characters; the ledger's decimals have at most 30 digits on either side


@dataclass(frozen=True, slots=True)
class Field:
    """One key. ``read`` gives the value, or raises ValueError with what is wrong about it."""

    read: Callable[[Any], Any]
    allowed: str
    example: str
    default: Any = REQUIRED


def _show(value: Any) -> str:
    """A value as it is named in an error."""
    kinds = {
        bool: "a yes-or-no value",
        int: "a number",
        Decimal: "a number with a point",
        str: "text",
        list: "a list",
        dict: "a table",
    }
    return kinds.get(type(value), f"a {type(value).__name__}")


def _checked(check: schema.Check, kind: type, what: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"is {_show(value)}, not {what}")
        try:
            check(value, "it")
        except EvidenceError as error:
            raise ValueError(f"= {_quote(value)} {error.message.partition(': ')[2]}") from error
        return value

    return read


def _one_line(check: schema.Check) -> Callable[[Any], Any]:
    """Text, in which a run of spaces and line ends counts as one space."""
    inner = _checked(check, str, "text")
    return lambda value: inner(re.sub(r"[ \t\r\n]+", " ", value).strip() if isinstance(value, str) else value)


def _quote(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def whole(least: int, most: int, example: str, default: Any = REQUIRED) -> Field:
    """A whole number between two bounds."""
    read = _checked(schema.integer(least, most), int, "a whole number")
    return Field(read, f"a whole number from {least} to {most}", example, default)


def words(most: int, example: str, default: Any = REQUIRED) -> Field:
    """Text of some length."""
    return Field(_one_line(schema.text(most)), f"text of 1 to {most} characters, in quotes", example, default)


def choice(allowed: tuple[str, ...], example: str, default: Any = REQUIRED) -> Field:
    """One of some words."""
    read = _checked(schema.one_of(*allowed), str, "text")
    return Field(read, ", ".join(f'"{word}"' for word in allowed), example, default)


def several(length: int, most: int, example: str) -> Field:
    """A list of texts, or one text."""
    item = _one_line(schema.text(length))

    def read(value: Any) -> tuple[str, ...]:
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not 1 <= len(values) <= most:
            raise ValueError(f"is {_show(value)}, not a list of 1 to {most} texts")
        return tuple(item(v) for v in values)

    return Field(read, f"a list of 1 to {most} texts", example, None)


def decimal(least: str, most: str, example: str) -> Field:
    """A number whose decimal digits are kept as they are written; between two bounds, both included."""

    def read(value: Any) -> str:
        if isinstance(value, str) and len(value) <= _DECIMAL_LIMIT:
            value = _as_decimal(value)
        if type(value) not in (int, Decimal):
            raise ValueError(f"is {_show(value)}, not a number")
        number = Decimal(value)
        # Not a number and infinity are compared with nothing.
        if not number.is_finite() or not Decimal(least) <= number <= Decimal(most):
            raise ValueError(f"= {_quote(value)} is not from {least} to {most}")
        text = format(number.normalize(), "f")
        if len(text) > _DECIMAL_LIMIT:
            raise ValueError(f"= {_quote(value)} has too many digits")
        return text

    return Field(read, f"a number from {least} to {most}", example, None)


def _as_decimal(value: str) -> Decimal | str:
    try:
        return Decimal(value)
    except ArithmeticError:
        return value


def _task(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is {_show(value)}, not text")
    if value not in READY_TASKS and not (_OWN_TASK.fullmatch(value) and value.isprintable()):
        near = get_close_matches(value, READY_TASKS, 1)
        hint = f'; did you mean "{near[0]}"?' if near else ""
        raise ValueError(f"= {_quote(value)} is neither a ready-made task nor FILE.py:CLASS{hint}")
    return value


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"is {_show(value)}, not true or false")
    return value


_FAULT_ALLOWED = 'SITE@ROUND in quotes, or a list of them; sites are "site-01", "site-02", ...'


def _references(value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values) or len(values) > schema.MAX_MEMBERS:
        raise ValueError(f"is {_show(value)}, not SITE@ROUND or a list of them")
    return tuple(values)


TOP: Mapping[str, Field] = {
    "name": Field(
        _checked(schema.slug, str, "text"), "1 to 64 characters out of a-z 0-9 . _ -, the first and last a letter or digit",
        'name = "breast-cancer"',
    ),
    "task": Field(_task, f'{", ".join(READY_TASKS)}, or your own "FILE.py:CLASS"', 'task = "breast-cancer"'),
    "sites": whole(1, schema.MAX_MEMBERS, "sites = 10"),
    "rounds": whole(1, 1_000_000, "rounds = 5"),
    "seed": whole(0, 2**53 - 1, "seed = 1", 0),
    "workers": whole(1, MAX_WORKERS, "workers = 2", None),
}  # fmt: skip

_PHASE = (1, 31_536_000)

AGREEMENT: Mapping[str, Field] = {
    "title": words(200, 'title = "Early detection of breast cancer"', None),
    "purpose": words(2000, 'purpose = "Train a model that helps to tell benign from malignant tumours"'),
    "data_categories": several(100, 50, 'data_categories = ["cell measurements"]'),
    "legal_basis": words(1000, 'legal_basis = "GDPR Art. 9(2)(j), research"'),
    "min_participants": whole(1, schema.MAX_MEMBERS, "min_participants = 6", None),
    "commit_seconds": whole(*_PHASE, "commit_seconds = 60", 60),
    "deliver_seconds": whole(*_PHASE, "deliver_seconds = 30", 30),
    "record_seconds": whole(*_PHASE, "record_seconds = 60", 60),
    "attempts": whole(1, 1000, "attempts = 3", 3),
    "max_weight": whole(1, 2**40, "max_weight = 100000", 100_000),
    "optimiser": choice(tuple(OPTIMISERS), 'optimiser = "avg"', "avg"),
    "learning_rate": decimal("0.000001", "1000", "learning_rate = 1.0"),
    "momentum": decimal("0", "0.999999", "momentum = 0.9"),
    "beta1": decimal("0", "0.999999", "beta1 = 0.9"),
    "beta2": decimal("0", "0.999999", "beta2 = 0.99"),
    "tau": decimal("0.000000001", "1", "tau = 0.001"),
    "share_metrics": Field(_switch, "true or false", "share_metrics = true", True),
    "validity_days": whole(1, 3650, "validity_days = 30", 30),
    "retention_days": whole(0, 36_525, "retention_days = 3650", 3650),
    "model_users": several(200, 100, 'model_users = ["the parties of this agreement"]'),
}

ATTESTATIONS: Mapping[str, Field] = {
    "next_open": whole(0, schema.MAX_MEMBERS, "attestations = { next_open = 0, release = 0 }", 0),
    "release": whole(0, schema.MAX_MEMBERS, "attestations = { next_open = 0, release = 0 }", 0),
}

SIMULATE: Mapping[str, Field] = {
    "tamper": Field(_references, _FAULT_ALLOWED, 'tamper = "site-03@2"', ()),
    "drop": Field(_references, _FAULT_ALLOWED, 'drop = ["site-07@3", "site-08@3"]', ()),
}

# Reddi et al., "Adaptive Federated Optimization" (2021): beta1 0.9, beta2 0.99, tau 1e-3; the rate is theirs to tune.
OPTIMISER_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "avg": {"learning_rate": "1"},
    "avgm": {"learning_rate": "1", "momentum": "0.9"},
    "adam": {"learning_rate": "0.01", "beta1": "0.9", "beta2": "0.99", "tau": "0.001"},
    "yogi": {"learning_rate": "0.01", "beta1": "0.9", "beta2": "0.99", "tau": "0.001"},
}
