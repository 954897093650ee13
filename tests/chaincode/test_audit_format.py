# SPDX-License-Identifier: Apache-2.0
"""FORMAT.md is true: its tables are the program's, and a verifier written from it alone accepts what the program writes."""

import ast
import inspect
import re
from pathlib import Path
from typing import get_type_hints

import pytest

from chaincode import artefacts, entries, kinds, state
from chaincode.agreement import AGREEMENT, OPTIMISERS, TENSOR
from chaincode.audit.report import TITLES
from chaincode.codes import CODES
from chaincode.kinds import KINDS
from chaincode.schema import Check
from chaincode.transitions import REFUSALS, TRANSITIONS
from tests.chaincode.audit_evidence import whole_run
from tests.chaincode.second_verifier import Verifier

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "chaincode" / "FORMAT.md").read_text(encoding="utf-8")
AUTHORS_OWN = {"member", "did", "at"}


def section(title: str) -> str:
    """The text under a heading, to the next one."""
    return re.split(r"^#+ ", TEXT.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def table(title: str) -> list[list[str]]:
    """The rows of a section's table, without its head."""
    rows = [line.strip().strip("|").split("|") for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def names(cell: str) -> list[str]:
    return [name.strip() for name in cell.split(",") if name.strip()]


def fields_of(check: Check) -> set[str]:
    """The fields of a closed object, as its check holds them."""
    return set(inspect.getclosurevars(check).nonlocals["fields"])


def test_kinds() -> None:
    stated = {row[0]: (row[1], set(names(row[2])), set(names(row[3])), set(names(row[4]))) for row in table("Kinds")}
    assert stated == {
        kind.name: (
            "L" if kind.large else "S",
            set(kind.subjects),
            set(kind.optional),
            fields_of(kind.check) - AUTHORS_OWN,
        )
        for kind in KINDS.values()
    }
    assert f"{entries.LIMIT} bytes" in TEXT
    assert entries.LARGE_LIMIT == 1 << 20
    assert f"nested\nat most {entries.DEPTH} deep" in TEXT


def test_fields() -> None:
    stated = {name for row in table("Fields") for name in names(row[0])} | {"reason"}
    assert stated == set().union(*(fields_of(kind.check) for kind in KINDS.values())) - AUTHORS_OWN


@pytest.mark.parametrize("words", [
    kinds.ABSENCES, kinds.SEAT_OUT, kinds.OMISSIONS, kinds.DECLINES, kinds.ABORTS, kinds.REVOCATIONS, kinds.ROLES,
])  # fmt: skip
def test_vocabularies(words: tuple[str, ...]) -> None:
    assert ", ".join(f"`{word}`" for word in words) in section("Fields").replace("\n", " ")


def test_the_agreement() -> None:
    rows = {name: row[1] for row in table("4. The agreement") for name in names(row[0])}
    assert set(rows) - {"tensor"} == fields_of(AGREEMENT)
    assert set(re.findall(r"(\w+):", rows["tensor"])) == fields_of(TENSOR)
    for optimiser in OPTIMISERS:
        assert f"`{optimiser}`" in rows["aggregation"]
        assert f"`{optimiser}`" in section("12. Results")


def test_state_values() -> None:
    stated = {row[1]: names(row[2]) for row in table("5. State")}
    assert stated == {cls.__name__: list(get_type_hints(cls)) for cls in state._CLASSES}


def test_state_keys() -> None:
    a, n, t, m = "⟨a⟩", "⟨n⟩", "⟨t⟩", "⟨m⟩"
    keys = {
        state.entry_key("⟨id⟩"), state.FEDERATION, state.member_key(m), state.did_key("⟨did⟩"), state.terms_key(a), state.party_key(a, m),
        state.head_key(a), state.seat_key(a, n, t, m), state.result_key(a, n), state.release_key(a, n), state.attest_key(a, n, m),  # type: ignore[arg-type]
    }  # fmt: skip
    assert {row[0].strip("`") for row in table("5. State")} == keys


def test_transitions() -> None:
    stated: dict[str, dict[tuple[str, str], str]] = {machine: {} for machine in TRANSITIONS}
    codes: dict[str, dict[str, str]] = {machine: {} for machine in TRANSITIONS}
    for machine, at, code, verbs in table("6. Transitions"):
        if code:
            codes[machine][at] = code
        for verb in names(verbs):
            name, after = verb.split(": ")
            stated[machine][at, name] = after
    assert stated == TRANSITIONS
    assert codes == REFUSALS


def test_codes() -> None:
    assert {row[0]: row[1] for row in table("Codes of the contract and its hosts")} == {
        code: meaning for code, (meaning, _) in CODES.items()
    }
    rules = "".join(section(title) for title in ("4. The agreement", "6. Transitions", "7. The contract"))
    assert {code for code in CODES if not re.search(rf"\b{code}\b", rules)} == set(), "a code without its rule"
    spelled = set(re.findall(r"`([a-z]+(?:-[a-z]+)+)`", section("7. The contract")))
    assert spelled - set(CODES) == set(), "a code that is none"


def literals_of_findings() -> set[str]:
    """The codes that the audit's own files write: the first argument of ``fail``, ``Finding`` and ``EvidenceError``."""
    found = set()
    for path in (*(ROOT / "chaincode" / "audit").glob("*.py"), *(ROOT / "chaincode" / "blocks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"fail", "Finding", "EvidenceError", "Broken", "Fault"}:
                found.add(str(node.args[0].value))
    return found


def test_codes_of_the_audit() -> None:
    tables_of_codes = (*table("Codes of an audit"), *table("Codes of a channel's audit"))
    stated = {code for row in tables_of_codes for code in names(row[0])}
    written = literals_of_findings()
    assert len(written) > 25
    others = {
        "more",
        "ledger-missing",
        "optimiser-state",
        "update-beyond-clip",
    }  # not the audit's, or of another family
    exporting = {"export-missing", "export-differs", "bundle-changed"}
    assert written - others - exporting - stated == set(), "a code without its line"
    tables = {
        "federation-differs",
        "log-key-differs",
        "origin-differs",
        "file-not-regular",
    }  # written elsewhere than in a call
    assert stated - written - tables == set(), "a line without its code"


def test_every_kind_has_its_rule() -> None:
    assert {row[0] for row in table("7. The contract")} == {*KINDS, "(policy)"}


def test_bundle_names() -> None:
    stated = {name for row in table("15. The bundle") for name in re.findall(r"`([^`]+)`", row[0])}
    digest = "0" * 64
    assert {re.sub("⟨.*⟩", digest, name) for name in stated} == {
        *artefacts.REQUIRED, *artefacts.RELEASED, artefacts.credential(digest), artefacts.blob(digest), artefacts.model(digest),
    }  # fmt: skip
    assert all(artefacts.is_name(re.sub("⟨.*⟩", digest, name)) for name in stated)


def test_claims() -> None:
    numbers = [int(n) for n in re.findall(r"(?:^|\s)(\d+)\. [A-Z]", section("16. The claims of an audit"))]
    assert numbers == list(TITLES)


def test_a_verifier_written_from_the_page_alone_agrees(tmp_path: Path) -> None:
    run = whole_run(tmp_path / "run", rounds=3, sites=4)
    assert Verifier(run.export(tmp_path / "b").read_bytes()).run() == 3
