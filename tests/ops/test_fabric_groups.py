# SPDX-License-Identifier: Apache-2.0
"""What a run on a channel submits side by side: the organisations' sites together, and whatever can meet in order."""

from hypothesis import given
from hypothesis import strategies as st

from identity.envelope import Unsigned
from identity.keys import identity_from_seed
from ops.ledger_fabric import grouped

WHO = [identity_from_seed(bytes([number]) * 32) for number in range(1, 8)]
COORDINATOR, *SITES = WHO
HOMES = {site.did: f"Org{2 + number % 2}" for number, site in enumerate(SITES)}


def _groups(authors: list[int]) -> list[dict[str, list[int]]]:
    envelopes = [Unsigned(b"{}", "text/plain", WHO[author]).signed() for author in authors]
    found = grouped(envelopes, HOMES, "Org1")
    assert all(envelopes[place] == data for group in found for places in group.values() for place, data in places)
    return [{home: [place for place, _ in places] for home, places in group.items()} for group in found]


def test_a_seal_waits_for_commitments_that_go_out_side_by_side() -> None:
    assert _groups([1, 2, 3, 4, 0]) == [{"Org2": [0, 2], "Org3": [1, 3]}, {"Org1": [4]}]


def test_a_record_and_the_next_opening_go_together() -> None:
    assert _groups([0, 0]) == [{"Org1": [0, 1]}]


def test_two_entries_of_one_site_are_in_order() -> None:
    assert _groups([1, 2, 1]) == [{"Org2": [0], "Org3": [1]}, {"Org2": [2]}]
    assert _groups([1, 1]) == [{"Org2": [0, 1]}]
    assert _groups([1, 1, 2]) == [{"Org2": [0, 1]}, {"Org3": [2]}]


@given(st.lists(st.integers(0, 6), max_size=20))
def test_nothing_is_lost_and_nothing_that_can_meet_goes_out_side_by_side(authors: list[int]) -> None:
    groups = _groups(authors)
    ends = [sorted(place for places in group.values() for place in places) for group in groups]
    assert [place for group in ends for place in group] == list(range(len(authors)))
    for group, places in zip(groups, ends, strict=True):
        of = [authors[place] for place in places]
        assert len(group) == 1 or (0 not in of and len(set(of)) == len(of))
