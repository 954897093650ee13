# SPDX-License-Identifier: Apache-2.0
"""What the rules see of the ledger's state, and write: values, which a host keeps as bytes and a replay as they are.

So a value is encoded where its bytes are wanted, and a pass over a long log, which wants few, neither writes nor reads them.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from chaincode.state import decode, encode

Value = TypeVar("Value")


def value_of(cls: type[Value], held: Any) -> Value | None:
    """The value that is held as its bytes or as it is; None for None. Raises as ``decode``."""
    if held is None or held.__class__ is cls:
        return held
    return decode(cls, held)


def encode_all(values: Mapping[str, Any]) -> dict[str, bytes]:
    """The canonical bytes of values that are held as their bytes or as they are; of one that several keys have once."""
    known: dict[int, bytes] = {}
    written = {}
    for key, value in values.items():
        data = value if type(value) is bytes else known.get(id(value))
        if data is None:
            data = known[id(value)] = encode(value)
        written[key] = data
    return written


class Encoded(Mapping[str, bytes]):
    """Values seen as their canonical bytes, each written when it is asked for: few of a long log's ever are."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> bytes:
        value = self._values[key]
        return value if type(value) is bytes else encode(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class View:
    """The values that one entry may read and has written; reading any other key is a fault of the contract's code.

    A value is given as its bytes or, where it was written in this process, as it is.
    """

    __slots__ = ("_values", "writes")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.writes: dict[str, Any] = {}

    def get(self, cls: type[Value], key: str) -> Value | None:
        """The value under ``key``, None where there is none."""
        return value_of(cls, self._values[key])

    def put(self, key: str, value: Any) -> None:
        """Write a value; it must be among the keys that the entry declared."""
        self._values[key]
        self.writes[key] = value

    def put_each(self, keys: Iterable[str], value: Any) -> None:
        """Write the same value under several keys, each of them declared."""
        for key in keys:
            self.put(key, value)


class WholeView(View):
    """A view of a process that holds the whole state: what is not in it, nobody wrote, so no key needs to be declared."""

    __slots__ = ()

    def get(self, cls: type[Value], key: str) -> Value | None:
        """The value under ``key``, None where there is none."""
        held = self._values.get(key)
        # As ``value_of``, without a call: a round of a hundred sites asks a thousand times.
        return held if held is None or held.__class__ is cls else value_of(cls, held)

    def put_each(self, keys: Iterable[str], value: Any) -> None:
        """Write the same value under several keys."""
        self.writes.update(dict.fromkeys(keys, value))

    def put(self, key: str, value: Any) -> None:
        """Write a value."""
        self.writes[key] = value
