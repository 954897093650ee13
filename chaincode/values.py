# SPDX-License-Identifier: Apache-2.0
"""Frozen values as canonical JSON, both ways: an object of the dataclass's fields, tuples as arrays.

A value of texts and integers alone, as nearly all of the ledger's state is, takes a short way: it is written by filling in
a template and read by one match, and a pattern that only canonical bytes match decides in both directions whether the short
way holds. Every other value takes the general way through ``identity.canonical``.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from operator import attrgetter
from typing import Any, get_origin, get_type_hints

from identity import canonical
from identity.errors import EvidenceError

_REMEMBERED = 1 << 15  # values of a class; more than the seats of a large round, as they were and as they are
_LIMIT = 1 << 20  # bytes of a value


class Codec:
    """Writes and reads the values of one frozen dataclass whose fields are str, int, bool or tuple."""

    def __init__(self, cls: type[Any]) -> None:
        hints = {name: get_origin(hint) or hint for name, hint in get_type_hints(cls).items()}
        self._cls = cls
        self._hints = hints
        self._names = tuple(sorted(hints))
        self._types = tuple(hints[name] for name in self._names)
        self._flat = set(self._types) <= {str, int}
        self._template = "{" + ",".join(f'"{n}":"%s"' if hints[n] is str else f'"{n}":%d' for n in self._names) + "}"
        self._quotes = self._template.count('"')
        self._fields: Callable[[Any], Any] = attrgetter(*self._names)
        # Values are immutable, and most are read soon after they were written, many of them often.
        self._known: dict[bytes, Any] = {}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(canonical.flat_pattern(self._names))

    def encode(self, value: Any) -> bytes:
        """The canonical bytes. Raises EvidenceError as ``canonical.dumps`` does."""
        data = self._encode_flat(value) if self._flat else None
        if data is None:
            data = canonical.dumps({name: getattr(value, name) for name in self._names})
        self._remember(data, value)
        return data

    def _encode_flat(self, value: Any) -> bytes | None:
        fields = self._fields(value)
        if len(self._names) == 1:
            fields = (fields,)
        if tuple(map(type, fields)) != self._types:
            return None
        text = self._template % fields
        # The pattern knows objects of texts as well: a text with quotes could pass for one, and for the field after it.
        plain = text.count('"') == self._quotes and self._pattern.fullmatch(text)
        return text.encode("ascii") if plain else None

    def decode(self, data: bytes) -> Any:
        """The value of canonical bytes. Raises EvidenceError: json-*, state-malformed."""
        value = self._known.get(data)
        if value is None:
            value = self._decode(data)
            self._remember(data, value)
        return value

    def _decode(self, data: bytes) -> Any:
        short = self._flat and len(data) <= _LIMIT and data.isascii()
        if short and (flat := self._pattern.fullmatch(data.decode("ascii"))) is not None:
            with suppress(ValueError):  # an object that is not canonical
                fields = tuple(map(canonical.flat_value, flat.groups()))
                if tuple(map(type, fields)) == self._types:
                    return self._cls(**dict(zip(self._names, fields, strict=True)))
        value = canonical.loads(data, limit=_LIMIT)
        if isinstance(value, dict):
            value = {name: tuple(item) if type(item) is list else item for name, item in value.items()}
        if not isinstance(value, dict) or {name: type(item) for name, item in value.items()} != self._hints:
            raise EvidenceError("state-malformed", f"A stored {self._cls.__name__} has not the fields of one.")
        return self._cls(**value)

    def _remember(self, data: bytes, value: Any) -> None:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[data] = value
