# SPDX-License-Identifier: Apache-2.0
"""The form in which the chaincode says what became of each entry."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode.fabric_outcomes import Accepted, Duplicate, format_outcomes, parse_outcomes
from identity.errors import EvidenceError, Rejected


def test_outcomes_are_read_as_they_were_written() -> None:
    verdicts = [Accepted("a"), Duplicate("b"), Rejected("clock-skew", "Late.")]
    read = parse_outcomes(format_outcomes(verdicts))
    assert read[:2] == verdicts[:2]
    assert (read[2].code, read[2].message) == ("clock-skew", "Late.")  # type: ignore[union-attr]


def test_the_texts_of_many_refusals_are_left_out() -> None:
    data = format_outcomes([Rejected("clock-skew", "x" * 400)] * 300)
    assert len(data) < 20_000
    read = parse_outcomes(data)
    assert all(isinstance(one, Rejected) and one.code == "clock-skew" and one.message for one in read)


@settings(max_examples=200)
@given(st.one_of(st.binary(max_size=60), st.sampled_from([
    b'{"accepted":"a"}', b"[1]", b'[{"accepted":1}]', b'[{"accepted":"a","duplicate":"a"}]', b'[{"rejected":"a"}]', b"[[]]",
    b'[{"message":1,"rejected":"a"}]', b"[{}]",
])))  # fmt: skip
def test_hostile_outcomes_are_refused(data: bytes) -> None:
    if data != b"[]":
        with pytest.raises(EvidenceError):
            parse_outcomes(data)
