# SPDX-License-Identifier: Apache-2.0
"""The checks that schemas are made of, one by one, at their edges."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode import schema
from chaincode.notes import COSIGNATURE, ED25519
from chaincode.schema import Check
from identity.canonical import b64encode
from identity.errors import EvidenceError
from tests.chaincode.contract.rows import vkey
from tests.chaincode.contract.world import key

DID = key("one").did
SMALL_ORDER = "did:key:z6MkeTG3bFFSLYVU7VqhgZxqr6YzpaGrQtFMh1uvqGy1vDnP"  # the key of 32 zero bytes
LOG = vkey("log", ED25519)


def values(*several: Any) -> tuple[Any, ...]:
    return several


ACCEPTED: list[tuple[Check, Any]] = [
    (schema.text(5), "a b c"), (schema.text(5), "é\u00a0ü.x"), (schema.text(3), "😀😀😀"), (schema.text(9), "\u0645\u06cc\u200c\u062e"),
    (schema.integer(-1, 1), -1), (schema.integer(-1, 1), 1),
    (schema.slug, "a"), (schema.slug, "a" * 64), (schema.slug, "a.b_c-9"),
    (schema.digest, "0f" * 32),
    *((schema.decimal, d) for d in ("0", "-0", "1", "-1.50", "1e5", "1e-12", "0.1e-9", "9" * 31)),
    (schema.did, DID), (schema.nullable(schema.slug), None), (schema.boolean, False),
    (schema.vkey(ED25519), LOG), (schema.vkey(COSIGNATURE), vkey("witness")),
    (schema.ascending(schema.array(schema.slug)), []), (schema.ascending(schema.array(schema.slug)), ["a", "b"]),
    (schema.mapping(schema.decimal, most=2), {}), (schema.mapping(schema.decimal, most=2), {"a": "1", "b": "2"}),
]  # fmt: skip

REFUSED: list[tuple[Check, Any]] = [
    *((schema.text(5), t) for t in ("", " a", "a ", "a\n", "a\tb", "\u00a0a", "a\u2003", "123456", "\x7f", "\x85", "a\u2028b", "a\u202eb", "a\u2066b", "\ufeffa", "a\u200bb", None, 1, b"a")),
    *((schema.integer(-1, 1), i) for i in (-2, 2, True, False, "1", 1.0, None)),
    *((schema.slug, s) for s in ("", "A", "-a", "a-", ".a", "a" * 65, "a b", "a/b", "ä", "a\n", 1)),
    *((schema.digest, d) for d in ("0F" * 32, "0" * 63, "0" * 65, "0" * 64 + "\n", "g" * 64, 0)),
    *((schema.decimal, d) for d in ("", "-", "01", "1.", ".5", "+1", "1e", "1e+5", "1e05", "1E5", "nan", "inf", "Infinity", "0x1", "1_0", "9" * 32, "1e1000", "\uff11", "1\n", 1, 1.0)),
    *((schema.did, d) for d in ("", "did:web:x", DID + "a", DID[:-1], DID.upper(), SMALL_ORDER, DID + "\n", None, 1)),
    *((schema.vkey(ED25519), k) for k in (vkey("witness"), LOG + "=", LOG.replace("+", "-"), LOG[:-2] + "==", LOG.upper(), "", None, LOG + "\n", "log+00000000+" + b64encode(b"\x01" + bytes(32)), "x" * 129 + LOG)),
    *((schema.ascending(schema.array(schema.slug)), v) for v in values(["b", "a"], ["a", "a"], ["a", "b", "a"], "ab", {}, None)),
    *((schema.distinct_dids(least=1), v) for v in ([], [DID, DID], [DID, "did:key:z"])),
    *((schema.mapping(schema.decimal, most=2), v) for v in values({"A": "1"}, {"a": 1}, {"": "1"}, {"a": "1", "b": "1", "c": "1"}, [], None)),
    *((schema.array(schema.slug, least=1, most=2), v) for v in ([], ["a", "b", "c"], [1], ("a",), None)),
    *((schema.boolean, v) for v in (0, 1, "true", None)),
    (schema.nullable(schema.slug), ""),
    (schema.one_of("a", "b"), "c"), (schema.one_of("a", "b"), []), (schema.one_of("a", "b"), None),
]  # fmt: skip


@pytest.mark.parametrize(("check", "value"), ACCEPTED)
def test_what_is_accepted(check: Check, value: Any) -> None:
    check(value, "x")


@pytest.mark.parametrize(("check", "value"), REFUSED)
def test_what_is_refused_with_its_place(check: Check, value: Any) -> None:
    with pytest.raises(EvidenceError, match=r"^here") as refusal:
        check(value, "here")
    assert refusal.value.code == "entry-schema"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(deadline=None)
@given(ANYTHING)
def test_a_check_raises_evidence_errors_alone(value: Any) -> None:
    for check in {id(c): c for c, _ in (*ACCEPTED, *REFUSED)}.values():
        with suppress(EvidenceError):
            check(value, "x")
