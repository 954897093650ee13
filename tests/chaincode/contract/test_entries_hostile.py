# SPDX-License-Identifier: Apache-2.0
"""The one door under pressure: sizes at and beyond their limits, and bytes that somebody made up."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode.entries import LARGE_LIMIT, LIMIT, PAYLOAD_TYPE, make_entry, open_entry
from chaincode.kinds import KINDS
from identity import canonical, envelope
from identity.did import did_from_public_key
from identity.errors import EvidenceError
from tests.chaincode.contract.samples import SIGNERS, changed, code_of, every_kind, places, signed, statement_of
from tests.chaincode.contract.world import World, key

SAMPLES = every_kind()

# Sizes


def dids(count: int) -> list[str]:
    """So many DIDs, in order. Nobody knows their keys."""
    return sorted(did_from_public_key(hashlib.sha256(b"%d" % i).digest()[:31] + b"\x10") for i in range(count))


def test_ten_thousand_members_fit_into_the_large_kinds() -> None:
    world, many = World().sealed(), dids(10_000)
    listed = {
        "open": {"commit_by": 1, "reservation": 0, "roster": [], "attestations": [], "absent": [{"member": d, "reason": "withdrawn"} for d in many]},
        "seal": {"deliver_by": 1, "cohort": [], "out": [{"member": d, "reason": "withdrawn"} for d in many]},
        "record": {"examples": 2**53 - 1, "included": [], "metrics": {}, "omitted": [{"member": d, "reason": "digest-mismatch"} for d in many]},
    }  # fmt: skip
    names = {"open": ["base_model"], "seal": [], "record": ["sum", "model"]}
    for kind, body in listed.items():
        fields = {"round": 1_000_000, "attempt": 1000, **body, **dict.fromkeys(names[kind], "0" * 64)}
        data = world.make(kind, "coordinator", fields, {})
        assert len(envelope.parse(data).payload) <= LARGE_LIMIT
        assert open_entry(data).kind == kind


def test_what_exceeds_the_limit_of_its_kind_is_refused() -> None:
    world = World().recorded()
    many = dids(1100)
    with pytest.raises(EvidenceError, match="entry-too-large"):
        world.release(attestations=many)
    statement = statement_of(SAMPLES["release"])
    statement["predicate"]["attestations"] = many
    data = canonical.dumps(statement)
    assert len(data) > LIMIT
    assert code_of(envelope.Unsigned(data, PAYLOAD_TYPE, SIGNERS[SAMPLES["release"].did]).signed()) == "entry-too-large"
    tensors = [{"name": f"{i:04d}" + "x" * 190, "shape": [1], "dtype": "float32", "rule": "mean", "clip_exponent": 0, "fraction_bits": 1} for i in range(5000)]  # fmt: skip
    with pytest.raises(EvidenceError, match=r"entry-too-large|envelope-payload"):
        World().founded().propose(terms={"model": {"tensors": tensors}})


def test_make_entry_refuses_what_open_entry_would() -> None:
    world = World().opened()
    for change in (
        {"examples": -1},
        {"examples": 1.5},
        {"examples": True},
        {"examples": 2**53},
        {"update": "00"},
        {"note": "x"},
        {"at": -1},
    ):
        with pytest.raises(EvidenceError):
            world.commit(1, **change)
    with pytest.raises(EvidenceError, match="entry-kind"):
        make_entry("comit", member=world.name(1), at=1, subjects={}, body={}, signer=key("site-01"))


# Hostile bytes


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_refused_as_evidence(data: bytes) -> None:
    code_of(data)


@settings(deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_any_changed_byte_is_found(kind: str, data: st.DataObject) -> None:
    original = SAMPLES[kind].envelope
    position = data.draw(st.integers(0, len(original) - 1))
    replacement = data.draw(st.binary(max_size=3).filter(lambda b: b != original[position : position + 1]))
    code_of(original[:position] + replacement + original[position + 1 :])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(max_size=20)
    | st.sampled_from(["0" * 64, key("site-01").did]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_any_signed_statement_is_an_entry_or_refused_as_evidence(kind: str, data: st.DataObject) -> None:
    statement = statement_of(SAMPLES[kind])
    path = data.draw(st.sampled_from([path for path, _ in places(statement)]))
    again = changed(statement, path, data.draw(VALUES))
    try:
        entry = open_entry(signed(again, SIGNERS[SAMPLES[kind].did]))
    except EvidenceError:
        return
    assert statement_of(entry) == again
