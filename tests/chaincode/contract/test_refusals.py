# SPDX-License-Identifier: Apache-2.0
"""Every row of the refusal table is refused as it says; every code has a row, and every row's code is documented."""

import ast
from pathlib import Path

import pytest

import chaincode
from chaincode.codes import CODES
from chaincode.transitions import REFUSALS
from identity.errors import Rejected
from tests.chaincode.contract.refusals import HOST_CODES, ROWS
from tests.chaincode.contract.rows import Row

SOURCE = Path(chaincode.__file__).parent
COMPUTED = {
    "transitions.py",  # from the table REFUSALS
    "rules/common.py",  # from standing
    "rules/agreements.py",  # from standing
    "rules/rounds.py",  # a commitment's duplicate or conflict
    "author.py",  # a host's refusal, raised again with what to do next
    "fabric_outcomes.py",  # the code of evidence, and what the chaincode on a channel answered
}
"""Files that refuse with a code that is not spelled there."""
WORDS = {"member-not-valid", "duplicate-commitment", "conflicting-commitment"}
"""Codes that are spelled as words only, not in a refusal or a table."""


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.code}: {row.what}")
def test_the_entry_is_refused_with_its_code_and_writes_nothing(row: Row) -> None:
    world = row.before()
    before, accepted = dict(world.values), list(world.entries)
    with pytest.raises(Rejected) as refusal:
        row.refused(world)
    assert refusal.value.code == row.code, refusal.value
    assert refusal.value.message
    assert (world.values, world.entries) == (before, accepted)


def test_no_two_rows_are_the_same() -> None:
    assert len({(row.code, row.what) for row in ROWS}) == len(ROWS)


def test_every_code_is_reached_by_a_row_or_is_a_hosts() -> None:
    assert {row.code for row in ROWS} | HOST_CODES == CODES.keys()
    assert not {row.code for row in ROWS} & HOST_CODES


def test_every_code_says_what_it_means_and_what_to_do_next() -> None:
    for code, (meaning, following) in CODES.items():
        assert code == code.lower()
        assert "_" not in code
        assert meaning.endswith(".")
        assert following.endswith((".", "asks for has happened."))


def test_every_code_in_the_source_is_documented() -> None:
    spelled, computed = set[str](), set[str]()
    for path in SOURCE.rglob("*.py"):
        for call in rejections(ast.parse(path.read_text())):
            code = call.args[0]
            if isinstance(code, ast.Constant):
                spelled.add(str(code.value))
            elif path.parent.name not in ("ledgers", "blocks"):  # a host hands on the code of evidence that is no entry
                computed.add(path.relative_to(SOURCE).as_posix())
    assert spelled <= CODES.keys()
    # A code that is not spelled where it is raised must come from a place that is known here.
    assert computed <= COMPUTED
    tables = {code for codes in REFUSALS.values() for code in codes.values()}
    assert tables <= CODES.keys()
    assert CODES.keys() - spelled - tables == WORDS


def rejections(tree: ast.Module) -> list[ast.Call]:
    """The calls that make a refusal."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Rejected"
    ]
