# SPDX-License-Identifier: Apache-2.0
"""Errors cross process borders whole."""

from __future__ import annotations

import copy
import pickle

import pytest

from identity.errors import Error, EvidenceError, OutcomeUnknown, Rejected, Unavailable


def _family(root: type[Error]) -> list[type[Error]]:
    return [root, *(member for child in root.__subclasses__() for member in _family(child))]


@pytest.mark.parametrize("family", _family(Error))
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_errors_survive_pickling(family: type[Error], protocol: int) -> None:
    error = family("some-code", "Round 3 of site-01 failed.", next="fedledger status run/")
    error.add_note("seen by worker 2")
    back = pickle.loads(pickle.dumps(error, protocol))
    for same in (back, copy.copy(error), copy.deepcopy(error)):
        assert type(same) is family
        assert (same.code, same.message, same.next) == (error.code, error.message, error.next)
        assert str(same) == str(error)
    assert back.__notes__ == ["seen by worker 2"]


def test_text_carries_message_code_and_next_step() -> None:
    assert str(Rejected("not-signed", "site-01 has not signed.")) == "site-01 has not signed. [not-signed]"
    assert str(Rejected("not-signed", "No.", next="fedledger sign")) == "No. [not-signed] Next: fedledger sign"
    assert str(Rejected("not-signed")) == "[not-signed]"


def test_tree() -> None:
    assert issubclass(OutcomeUnknown, Unavailable)
    assert {Rejected, EvidenceError, Unavailable} <= set(Error.__subclasses__())
    assert not issubclass(EvidenceError, Rejected)
