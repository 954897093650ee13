# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: S608 (the names are those of our own schema)
"""Every row of every table of a ledger file is computed again: a change of any column is found, and the row is named."""

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from chaincode.audit import Report, audit, unreadable
from chaincode.audit.folder_source import folder_source
from chaincode.audit.tables import ascending
from chaincode.ledgers import tables
from identity.errors import EvidenceError, Unavailable
from tests.chaincode.audit_evidence import Run, found, verdicts, where, whole_run

TABLES = ("meta", "checkpoint", "entry", "node", "state", "name", "facet", "subject")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return whole_run(tmp_path_factory.mktemp("tables") / "run", rounds=1)


@pytest.fixture
def copy(run: Run, tmp_path: Path) -> Path:
    shutil.copytree(run.folder, tmp_path / "run")
    return tmp_path / "run"


def judge(folder: Path) -> Report:
    with folder_source(folder) as source:
        return audit(source, recompute=False)


def change(folder: Path, *statements: tuple[str, tuple[Any, ...]]) -> None:
    """Change the file as somebody does who holds it: without the triggers, which are put back."""
    with closing(sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)) as raw:
        triggers = raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            raw.execute(f"DROP TRIGGER {name}")
        for statement, values in statements:
            raw.execute(statement, values)
        for _, sql in triggers:
            raw.execute(sql)


def rows_of(folder: Path, table: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(folder / "ledger.sqlite")) as raw:
        cursor = raw.execute(f"SELECT * FROM {table}")
        return [column[0] for column in cursor.description], cursor.fetchall()


def other(value: object) -> object:
    """A value of the same type that differs in one bit or so."""
    if isinstance(value, bytes):
        return value[:-2] + bytes([value[-2] ^ 1]) + value[-1:] if len(value) > 1 else b"x"
    if isinstance(value, str):
        return value[:-2] + chr(ord(value[-2]) ^ 1) + value[-1:]
    return 7_000_001 if value is None else int(str(value)) + 1_000_003


def columns() -> Iterator[tuple[str, str]]:
    with closing(sqlite3.connect(":memory:")) as raw:
        raw.executescript(tables.SCHEMA)
        for table in TABLES:
            yield from ((table, row[1]) for row in raw.execute(f"PRAGMA table_info({table})"))


def test_the_tables_are_those_of_the_ledger() -> None:
    assert {name for kind, name, *_ in tables.schema_objects() if kind == "table"} == set(TABLES)


@pytest.mark.parametrize(("table", "column"), list(columns()))
def test_a_change_of_any_column_in_any_row_is_found_and_named(copy: Path, table: str, column: str) -> None:
    names, rows = rows_of(copy, table)
    at, pristine = names.index(column), (copy / "ledger.sqlite").read_bytes()
    for number, row in enumerate(random.Random(7).sample(rows, min(len(rows), 6))):
        if table == "checkpoint" and column == "one":
            continue  # the table's own check allows no other value
        same = " AND ".join(f"{name} IS ?" for name in names)
        change(copy, (f"UPDATE {table} SET {column} = ? WHERE {same}", (other(row[at]), *row)))
        report = judge(copy)
        assert report.failed, (table, column, row)
        index = row[0] if table == "entry" else -1
        places = {
            "checkpoint": "checkpoint",
            "name": "table facet, row",
        }  # a number without a name is missed where it is used
        named = (f"table {table},", f"entry {index}", places.get(table, f"table {table},"))
        assert any(name in where(report) for name in named), (number, where(report))
        (copy / "ledger.sqlite").write_bytes(pristine)


@pytest.mark.parametrize("table", TABLES)
def test_a_missing_row_is_found(copy: Path, table: str) -> None:
    names, rows = rows_of(copy, table)
    same = " AND ".join(f"{name} IS ?" for name in names)
    change(copy, (f"DELETE FROM {table} WHERE {same}", rows[len(rows) // 2]))
    report = judge(copy)
    assert report.failed
    assert table in where(report) or "1:" in "".join(found(report))


@pytest.mark.parametrize(("table", "values"), [
    ("meta", ("more", "value")),
    ("entry", (1000, b"x" * 32, b"{}", b"{}")),
    ("entry", (-1, b"x" * 32, b"{}", b"{}")),
    ("node", (1000, b"x" * 32)),
    ("state", ("party/0/1", b"{}")),
    ("state", ("entry/00", b"{}")),
    ("name", (1000, "nobody")),
    ("facet", (1000, "sign", 1, 1, 1, 1, 1, 1)),
    ("subject", (0, b"x" * 32, 3)),
    ("subject", (5, b"x" * 32, 1_000_000_000)),
])  # fmt: skip
def test_an_additional_row_is_found(copy: Path, table: str, values: tuple[Any, ...]) -> None:
    change(copy, (f"INSERT INTO {table} VALUES ({','.join('?' * len(values))})", values))
    report = judge(copy)
    assert report.failed
    assert f"table {table}" in where(report) or "entry " in where(report)


def test_a_changed_state_is_against_the_replay(copy: Path) -> None:
    """The whole point: a seat that says something else than its entry does."""
    change(
        copy,
        (
            "UPDATE state SET value = CAST(replace(value, '\"examples\":10', '\"examples\":99') AS BLOB) WHERE key LIKE 'seat/%'",
            (),
        ),
    )
    report = judge(copy)
    assert {n for n, verdict in verdicts(report).items() if verdict == "FAIL"} == {4}
    assert "table state, key seat/" in where(report)


def test_a_missing_row_does_not_drag_others_along(copy: Path) -> None:
    change(copy, ("DELETE FROM facet WHERE idx = 3", ()), ("DELETE FROM node WHERE position = 5", ()))
    assert sorted(where(judge(copy)).splitlines()) == ["table facet, row 3", "table node, row 5"]


def test_many_differing_rows_are_counted(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chaincode.audit.tables.SHOWN", 3)
    change(copy, ("UPDATE node SET hash = zeroblob(32)", ()))
    report = judge(copy)
    assert sum(line.startswith("table node,") for line in where(report).splitlines()) == 3
    assert "more rows differ" in report.claims[0].findings[-1].what


def test_a_file_with_another_schema_is_no_ledger(copy: Path) -> None:
    change(copy, ("CREATE VIEW spy AS SELECT 1", ()))
    with pytest.raises(EvidenceError) as caught, folder_source(copy):
        pass
    assert caught.value.code == "ledger-schema"


def content(folder: Path) -> list[list[tuple[Any, ...]]]:
    return [rows_of(folder, table)[1] for table in TABLES]


def outcome(folder: Path) -> Report:
    try:
        return judge(folder)
    except EvidenceError as error:
        return unreadable("ledger.sqlite", error.code, error.message)


@pytest.mark.parametrize("seed", range(8))
def test_flipped_bits_in_the_file_give_findings_or_change_nothing(copy: Path, seed: int) -> None:
    """Where no claim fails, the flip was in bytes that hold nothing: every row of every table is as before."""
    random_, path = random.Random(seed), copy / "ledger.sqlite"
    pristine, before = path.read_bytes(), content(copy)
    for _ in range(25):
        data = bytearray(pristine)
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
        path.write_bytes(data)
        try:
            report = outcome(copy)
        except Unavailable:  # the header says that the file cannot be opened so: nobody is told that it passes
            continue
        if not report.failed:
            assert content(copy) == before


@pytest.mark.parametrize("seed", range(4))
def test_mangled_files_give_findings_only(copy: Path, seed: int) -> None:
    random_, path = random.Random(seed), copy / "ledger.sqlite"
    pristine = path.read_bytes()
    for _ in range(8):
        data = bytearray(pristine)
        match random_.randrange(4):
            case 0:
                del data[random_.randrange(len(data)) :]
            case 1:
                start = random_.randrange(100, len(data))
                data[start : start + 4096] = random_.randbytes(4096)
            case 2:
                for _ in range(200):
                    data[random_.randrange(100, len(data))] = random_.randrange(256)
            case 3:
                a, b = (random_.randrange(len(data) // 4096) * 4096 for _ in range(2))
                data[a : a + 4096], data[b : b + 4096] = data[b : b + 4096], data[a : a + 4096]
        path.write_bytes(data)
        try:
            report = outcome(copy)
        except Unavailable:
            continue
        assert report.failed or content(copy) == content_of(pristine, copy)


def content_of(pristine: bytes, folder: Path) -> list[list[tuple[Any, ...]]]:
    (folder / "ledger.sqlite").write_bytes(pristine)
    return content(folder)


@pytest.mark.parametrize("rows", [[(1,), (1,)], [(2,), (1,)], [(1,), ("a",)], [("a",), (b"a",)]])
def test_rows_that_do_not_ascend_end_the_reading(rows: list[tuple[Any, ...]]) -> None:
    with pytest.raises(EvidenceError) as caught:
        list(ascending(chain(rows, repeat(rows[-1])), 1, "entry"))
    assert caught.value.code == "ledger-corrupt"


def test_rows_that_ascend_are_read() -> None:
    rows = [(1, "b"), (2, "a"), (9, None)]
    assert list(ascending(rows, 1, "entry")) == rows
