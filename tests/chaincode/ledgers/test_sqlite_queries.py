# SPDX-License-Identifier: Apache-2.0
"""Questions to the embedded ledger: right answers, by an index, in pages; and the columns derived from an entry."""

import sqlite3
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaincode.agreement import agreement_digest
from chaincode.entries import Entry, open_entry
from chaincode.ledgers import queries, search, tables
from chaincode.ledgers.queries import Logged
from chaincode.ledgers.sqlite import SqliteLedger
from identity.errors import EvidenceError, UsageError
from tests.chaincode.ledgers.hosts import Clock, accepted, embedded
from tests.chaincode.ledgers.stream import START, Stream, digest

STREAM = Stream(sites=4)
AGREEMENT = agreement_digest(STREAM.agreement)
SITES = [member.did for member in STREAM.members]


def make() -> list[bytes]:
    made = list(STREAM.setup())
    for round_ in (1, 2):
        STREAM.at = START + 20 * round_
        steps = list(STREAM.round(round_))
        # Sites' clocks differ: the times of commitments do not rise with the log.
        steps[1:5] = [STREAM.commit(m, round_, at=STREAM.at + 9 - 3 * i) for i, m in enumerate(STREAM.members)]
        STREAM.at += 10
        made += [*steps[:5], STREAM.seal(round_), STREAM.record(round_)]
    STREAM.at = START
    return made


WHOLE = make()
ENTRIES = [open_entry(envelope) for envelope in WHOLE]
LOGGED = [Logged(i, entry.id, entry.envelope) for i, entry in enumerate(ENTRIES)]


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteLedger]:
    with embedded(tmp_path_factory.mktemp("queries"), Clock()) as made:
        accepted(made.submit(WHOLE))
        yield made


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages smaller than the ledger, so that an answer takes several."""
    monkeypatch.setattr(search, "PAGE", 3)
    monkeypatch.setattr(queries, "_ENVELOPES", 2)


def test_the_stream_has_times_out_of_order() -> None:
    times = [entry.at for entry in ENTRIES]
    assert times != sorted(times)


wanted = st.fixed_dictionaries({}, optional={
    "kind": st.sampled_from(["commit", "open", "admit", "found", "release", "no kind"]),
    "member": st.sampled_from([*SITES, STREAM.coordinator.did, "did:key:nobody"]),
    "did": st.sampled_from([*SITES, STREAM.authority.did, ""]),
    "agreement": st.sampled_from([AGREEMENT, digest("another")]),
    "since": st.integers(START - 5, START + 70),
    "limit": st.integers(-1, 30),
})  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(wanted, st.none() | st.integers(0, 3))
def test_find_gives_what_a_look_at_every_entry_gives(
    ledger: SqliteLedger, question: dict[str, Any], round_: int | None
) -> None:
    if "agreement" in question and round_ is not None:
        question = {**question, "round": round_}

    def meets(entry: Entry) -> bool:
        facet = tables.facet_of(entry)._asdict()
        same = all(facet[c] == v for c, v in question.items() if c not in ("since", "limit"))
        return same and entry.at >= question.get("since", 0)

    expected = [logged for logged, entry in zip(LOGGED, ENTRIES, strict=True) if meets(entry)]
    assert list(ledger.find(**question)) == expected[: max(question.get("limit", len(WHOLE)), 0)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(wanted, st.none() | st.integers(0, 3), st.integers(0, len(WHOLE)))
def test_the_newest_and_their_places_are_those_that_a_look_at_every_entry_gives(
    ledger: SqliteLedger, question: dict[str, Any], round_: int | None, start: int
) -> None:
    if "agreement" in question and round_ is not None:
        question = {**question, "round": round_}
    since, limit = question.pop("since", None), max(question.pop("limit", 0), 0)
    facets = [tables.facet_of(entry)._asdict() for entry in ENTRIES]
    expected = [
        index for index, facet in enumerate(facets)
        if all(facet[c] == v for c, v in question.items()) and (since is None or facet["at"] >= since)
    ]  # fmt: skip
    assert ledger.newest(question, since, 0) == expected
    assert ledger.newest(question, since, limit) == expected[-limit:]
    places = list(ledger.places(question, since, start))
    assert [place.index for place in places] == [index for index in reversed(expected) if index >= start]
    for place in places:
        facet = facets[place.index]
        assert place[1:] == (facet["kind"], facet["agreement"] or "", facet["round"] or 0)


def test_digests_by_how_they_begin(ledger: SqliteLedger) -> None:
    every = sorted({raw.hex() for entry in ENTRIES for raw in tables.subjects_of(entry)})
    for prefix in ("", "0", "ab", every[0][:6], every[-1][:7], every[5], "f" * 64):
        assert ledger.digests(prefix) == [value for value in every if value.startswith(prefix)][:2]


@pytest.mark.usefixtures("small_pages")
def test_entries_come_in_the_order_that_was_asked_for(ledger: SqliteLedger) -> None:
    asked = [5, 3, 11, 0, 7]
    assert list(ledger.at(asked)) == [LOGGED[index] for index in asked]
    with pytest.raises(EvidenceError) as caught:
        list(ledger.at([1, len(WHOLE)]))
    assert caught.value.code == "ledger-inconsistent"


@pytest.mark.usefixtures("small_pages")
def test_answers_of_many_pages_are_whole(ledger: SqliteLedger) -> None:
    assert list(ledger.find()) == LOGGED
    assert list(ledger.find("commit")) == [row for row, e in zip(LOGGED, ENTRIES, strict=True) if e.kind == "commit"]
    assert list(ledger.entries()) == WHOLE
    assert [key for key, _ in ledger.state_items()] == sorted(key for key, _ in ledger.state_items())
    assert dict(ledger.state_items()) == ledger.get([key for key, _ in ledger.state_items()])
    of_agreement = [i for i, e in enumerate(ENTRIES) if e.agreement == AGREEMENT]
    assert list(ledger.by_subject(AGREEMENT)) == of_agreement
    assert ledger.newest({"agreement": AGREEMENT}, None, 8) == of_agreement[-8:]
    assert [place.index for place in ledger.places({"agreement": AGREEMENT})] == of_agreement[::-1]


def test_an_answer_can_be_left_half_read(ledger: SqliteLedger) -> None:
    assert list(islice(ledger.find(), 2)) == LOGGED[:2]
    assert ledger.size == len(WHOLE)


def test_a_round_needs_its_agreement(ledger: SqliteLedger) -> None:
    with pytest.raises(UsageError) as caught:
        ledger.find(round=1)
    assert caught.value.code == "find-round"


@pytest.mark.parametrize("since", [2**63, -(2**63) - 1])
def test_a_number_beyond_64_bits_is_refused(ledger: SqliteLedger, since: int) -> None:
    for ask in (
        lambda: list(ledger.find(since=since)),
        lambda: ledger.entry(since),
        lambda: list(ledger.entries(since * 2)),
    ):
        with pytest.raises(UsageError) as caught:
            ask()
        assert caught.value.code == "number-out-of-range"


# Single entries


def test_an_entry_is_found_by_index_and_by_the_beginning_of_its_id(ledger: SqliteLedger) -> None:
    for row in LOGGED:
        assert ledger.entry(row.index) == row
        assert ledger.entry(row.id) == row
        assert ledger.entry(row.id[:9]) == row
        assert ledger.entry(row.id[:12].upper()) == row


@pytest.mark.parametrize(
    ("which", "code"),
    [(len(WHOLE), "entry-unknown"), (-1, "entry-unknown"), ("0" * 64, "entry-unknown"), ("abc", "entry-id"),
     ("", "entry-id"), ("0" * 65, "entry-id"), ("wxyz", "entry-id"), ("00 00", "entry-id")],
)  # fmt: skip
def test_a_wrong_name_of_an_entry_is_refused(ledger: SqliteLedger, which: int | str, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        ledger.entry(which)
    assert caught.value.code == code


def test_an_ambiguous_id_is_refused(tmp_path: Path) -> None:
    with embedded(tmp_path, Clock()) as made:
        made.close()
        raw = sqlite3.connect(tmp_path / "ledger.sqlite")
        raw.executemany("INSERT INTO entry VALUES (?, ?, x'00', x'00')", [(0, bytes(32)), (1, bytes(31) + b"\1")])
        raw.commit()
        raw.close()
        with SqliteLedger.open(tmp_path / "ledger.sqlite", check=False) as reader:
            assert reader.entry("0" * 64).index == 0
            with pytest.raises(UsageError) as caught:
                reader.entry("0000")
            assert caught.value.code == "entry-ambiguous"


def test_entries_are_found_by_what_they_are_about(ledger: SqliteLedger) -> None:
    for name in ("update", "base-model", "model", "credential", "nonce", "initial-model", "sum"):
        for entry in (e for e in ENTRIES if name in e.subjects):
            value = entry.subjects[name]
            expected = [
                i for i, e in enumerate(ENTRIES) if value in [d for n, d in e.subjects.items() if n != "federation"]
            ]
            assert list(ledger.by_subject(value)) == expected
            assert list(ledger.by_subject(value.upper())) == expected
    assert list(ledger.by_subject(digest("nothing"))) == []
    with pytest.raises(UsageError):
        ledger.by_subject("no digest")


@pytest.mark.usefixtures("small_pages")
def test_answers_go_through_all_segments_in_order(tmp_path: Path) -> None:
    """Entries far apart, as a log of some hundred thousand has them, about the same digest and of the same member."""
    embedded(tmp_path, Clock()).close()
    path, about = tmp_path / "ledger.sqlite", bytes.fromhex(digest("about"))
    indexes = [0, 1, 2, 3, 65_535, 65_536, 65_537, 131_071, 131_072, 262_143, 300_000]
    raw = sqlite3.connect(path)
    raw.execute("INSERT INTO name VALUES (1, ?), (2, 'other')", (SITES[0],))
    for index in indexes:
        raw.execute("INSERT INTO entry VALUES (?, ?, x'00', x'00')", (index, index.to_bytes(32, "big")))
        raw.execute("INSERT INTO facet VALUES (?, 'commit', 1, 1, NULL, NULL, 5, 5)", (index,))
        raw.execute("INSERT INTO subject VALUES (?, ?, ?)", (tables.segment_of(index), about, index))
    raw.execute("INSERT INTO facet VALUES (70000, 'commit', 2, 1, NULL, NULL, 5, 5)")
    raw.commit()
    raw.close()
    with SqliteLedger.open(path, check=False) as ledger:
        assert [row.index for row in ledger.find(member=SITES[0])] == indexes
        assert [row.index for row in ledger.find("commit", did=SITES[0], limit=6)] == indexes[:6]
        assert [row.index for row in ledger.find(member=SITES[0], since=5)] == indexes
        assert list(ledger.by_subject(about.hex())) == indexes
        for limit in (1, 2, 5, 10, 11, 12):
            assert ledger.newest({"member": SITES[0]}, None, limit) == indexes[-limit:]
        assert [place.index for place in ledger.places({"did": SITES[0]}, start=65_536)][::-1] == [
            *indexes[5:7],
            70_000,
            *indexes[7:],
        ]
        assert ledger.digests(about.hex()[:9]) == [about.hex()]


def test_every_question_uses_an_index_and_sorts_nothing(tmp_path: Path) -> None:
    """Ask SQLite how it would answer each statement that the questions make."""
    with embedded(tmp_path, Clock()) as made:
        accepted(made.submit(WHOLE))
        plans: dict[str, str] = {}
        ask, raw = made._rows, made._reads.raw

        def explain(statement: str, values: Any = (), types: Any = None) -> list[tuple[Any, ...]]:
            steps = raw.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
            plans[statement] = " / ".join(step[3] for step in steps)
            return ask(statement, values, types)

        made._rows = explain
        site = SITES[0]
        for question in ({}, {"kind": "commit"}, {"member": site}, {"did": site}, {"agreement": AGREEMENT},
                         {"agreement": AGREEMENT, "round": 1}, {"since": START + 30},
                         {"member": site, "kind": "commit", "since": START + 30, "did": site}):  # fmt: skip
            list(made.find(**question))
            since = question.pop("since", None)
            made.newest(question, since, 3)
            list(made.places(question, since))
        list(made.by_subject(AGREEMENT))
        made.digests("ab")
        list(made.at([3, 1]))
        list(made.entries(3))
        list(made.state_items())
        made.get(["federation", f"entry/{ENTRIES[0].id}"])
        made.entry(ENTRIES[0].id[:8])
        made.node(0, 0)
        made.check_head()
    assert len(plans) > 15
    for statement, plan in plans.items():
        assert "TEMP B-TREE" not in plan, (statement, plan)
        scans = [step for step in plan.split(" / ") if step.startswith("SCAN")]
        assert all(s.startswith(("SCAN json_each", "SCAN CONSTANT ROW")) for s in scans), (statement, plan)


def test_a_value_of_an_impossible_type_is_refused(tmp_path: Path) -> None:
    """STRICT binds who writes through SQLite with our schema, not who writes the file by other means."""
    with embedded(tmp_path, Clock()) as made:
        accepted(made.submit(WHOLE[:2]))
    path = tmp_path / "ledger.sqlite"
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA writable_schema = ON")
    raw.execute("UPDATE sqlite_master SET sql = replace(sql, 'STRICT', '') WHERE name = 'checkpoint'")
    raw.close()
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("UPDATE checkpoint SET note = x'00'")
    raw.execute("PRAGMA writable_schema = ON")
    raw.execute("UPDATE sqlite_master SET sql = (sql || ' STRICT') WHERE name = 'checkpoint'")
    raw.close()
    with pytest.raises(EvidenceError) as caught:
        SqliteLedger.open(path)
    assert caught.value.code in {"ledger-corrupt", "ledger-schema"}
