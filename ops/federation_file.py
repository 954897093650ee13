# SPDX-License-Identifier: Apache-2.0
"""The federation file: about a dozen lines of TOML in, one frozen value or one clear error out."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from identity.wording import counted
from ops import toml_document
from ops.file_fields import (
    AGREEMENT,
    ATTESTATIONS,
    OPTIMISER_DEFAULTS,
    READY_TASKS,
    REQUIRED,
    SIMULATE,
    TOP,
    Field,
)  # fmt: skip
from ops.toml_document import Document

SHIPPED = Path(__file__).resolve().parent / "federations"
_TABLES: Mapping[tuple[str, ...], Mapping[str, Field]] = {
    (): TOP, ("agreement",): AGREEMENT, ("agreement", "attestations"): ATTESTATIONS, ("simulate",): SIMULATE,
}  # fmt: skip
_REFERENCE = re.compile(r"(site-0*([1-9][0-9]{0,5}))@([1-9][0-9]{0,6})")


@dataclass(frozen=True, slots=True)
class AgreementTerms:
    """The terms that a person states; what the coordinator adds (model, parties, task code) is not here.

    ``parameters`` are the optimiser's, complete, as decimal text. ``attest_next_open`` and ``attest_release`` are numbers
    of attestations. The model may be used by ``model_users``.
    """

    title: str
    purpose: str
    data_categories: tuple[str, ...]
    legal_basis: str
    min_participants: int
    commit_seconds: int
    deliver_seconds: int
    record_seconds: int
    attempts: int
    max_weight: int
    optimiser: str
    parameters: Mapping[str, str]
    share_metrics: bool
    attest_next_open: int
    attest_release: int
    validity_days: int
    retention_days: int
    model_users: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault to simulate: ``kind`` is tamper (delivers other bytes than it committed) or drop (falls silent)."""

    kind: str
    site: str
    round: int


@dataclass(frozen=True, slots=True)
class FederationFile:
    """A federation as its file describes it. ``workers`` None lets the machine decide; ``digest`` is the SHA-256 of the
    file's bytes; ``path`` is where it was read."""

    name: str
    task: str
    sites: int
    rounds: int
    seed: int
    workers: int | None
    agreement: AgreementTerms
    faults: tuple[Fault, ...]
    path: Path
    digest: str

    @property
    def site_names(self) -> tuple[str, ...]:
        """site-01, site-02, … in order; as many digits as the number of sites needs, at least two."""
        return site_names(self.sites)

    @property
    def task_file(self) -> Path | None:
        """The file of a task of one's own, beside the federation file; None for a ready-made one."""
        return None if self.task in READY_TASKS else self.path.parent / self.task.rpartition(":")[0]


def site_names(sites: int) -> tuple[str, ...]:
    """The names of that many sites."""
    width = max(2, len(str(sites)))
    return tuple(f"site-{number:0{width}}" for number in range(1, sites + 1))


def locate(text: str) -> Path:
    """The file that a person means: a path, a folder with a ``federation.toml``, or the name of one that is shipped
    (``demo``)."""
    path = Path(text)
    if path.is_dir() and _is_file(path / "federation.toml"):
        return path / "federation.toml"
    shipped = SHIPPED / f"{text}.toml"
    return shipped if not path.exists() and path.name == text and _is_file(shipped) else path


def load(path: Path | str) -> FederationFile:
    """Read a federation file. Whether a task of one's own lies where it says is for ``locate_task``: beside the copy that a
    run folder keeps there is none.

    Raises:
        UsageError: and nothing else, for any bytes: ``file-*`` with the line, the allowed values and an example.
    """
    document = toml_document.read(Path(path))
    values = document.values
    _known_keys(document, (), values, TOP, ("agreement", "simulate"))
    if "agreement" not in values:
        document.refuse("file-missing-key", (), "the table [agreement] is missing",
                        allowed="[agreement] with a purpose and a legal_basis at least", example="[agreement]")  # fmt: skip
    inner = {table: _table(document, values, (table,)) for table in ("agreement", "simulate")}
    attestations = _read(document, ("agreement", "attestations"),
                         _table(document, inner["agreement"], ("agreement", "attestations")), ATTESTATIONS)  # fmt: skip
    top = _read(document, (), values, TOP, tables=("agreement", "simulate"))
    terms = _read(document, ("agreement",), inner["agreement"], AGREEMENT, tables=("attestations",))
    simulate = _read(document, ("simulate",), inner["simulate"], SIMULATE)
    return FederationFile(
        **top,
        agreement=_terms(document, top, terms, attestations),
        faults=_faults(document, top["sites"], top["rounds"], simulate),
        path=document.path,
        digest=hashlib.sha256(document.data).hexdigest(),
    )


def compare(old: FederationFile, new: FederationFile) -> list[str]:
    """What a resumed run would do otherwise, each as ``key: old -> new``; the number of workers changes nothing."""
    changes = []
    for item in fields(FederationFile):
        before, after = getattr(old, item.name), getattr(new, item.name)
        if item.name in ("path", "digest", "workers") or before == after:
            continue
        if isinstance(before, AgreementTerms):
            inner = [(f.name, getattr(before, f.name), getattr(after, f.name)) for f in fields(AgreementTerms)]
            changes += [f"agreement.{name}: {_plain(a)} -> {_plain(b)}" for name, a, b in inner if a != b]
        else:
            changes.append(f"{item.name}: {_plain(before)} -> {_plain(after)}")
    return changes


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_plain, value)) or "none"
    if isinstance(value, Fault):
        return f"{value.kind} {value.site}@{value.round}"
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _table(document: Document, values: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    value = values.get(keys[-1], {})
    if not isinstance(value, dict):
        name = ".".join(keys)
        document.refuse("file-type", keys, f"{keys[-1]} is not a table", allowed=f"the line [{name}] and its keys below it",
                        example=f"[{name}]")  # fmt: skip
    return value


def _known_keys(
    document: Document,
    at: tuple[str, ...],
    values: Mapping[str, Any],
    known: Mapping[str, Field],
    tables: tuple[str, ...],
) -> None:
    """Refuse a key that a table does not have, with the table that it belongs to, or the key that may be meant."""
    for key, value in values.items():
        if key in known or key in tables:
            continue
        home = next((place for place, fields_ in _TABLES.items() if key in fields_), None)
        among = [*tables, *known] if isinstance(value, dict) else [*known, *tables]
        near = next(iter(get_close_matches(key, among, 1)), None)
        hint, example = "", next(iter(known.values())).example
        if home is not None:
            hint, example = f"; it belongs {_place_name(home)}", _TABLES[home][key].example
        elif near is not None:
            hint = f"; did you mean {near if near in known else f'[{near}]'}?"
            example = known[near].example if near in known else f"[{near}]"
        where = f"[{'.'.join(at)}] has" if at else "the file has"
        what = f"table [{key[:60]}]" if isinstance(value, dict) and not at else f"key {key[:60]!r}"
        document.refuse(
            "file-unknown-key",
            (*at, key),
            f"{where} no {what}{hint}",
            allowed=", ".join([*known, *tables]),
            example=example,
        )


def _place_name(table: tuple[str, ...]) -> str:
    return f"in [{'.'.join(table)}]" if table else "at the top of the file, before the first [table]"


def _read(
    document: Document,
    at: tuple[str, ...],
    values: Mapping[str, Any],
    known: Mapping[str, Field],
    tables: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The values of one table, each checked, with the defaults filled in."""
    where = f"[{'.'.join(at)}] " if at else ""
    _known_keys(document, at, values, known, tables)
    found = {}
    for key, field in known.items():
        if key not in values and field.default is REQUIRED:
            document.refuse(
                "file-missing-key", at, f"{where}{key} is missing", allowed=field.allowed, example=field.example
            )
        try:
            found[key] = field.read(values[key]) if key in values else field.default
        except ValueError as error:
            document.refuse(
                "file-value", (*at, key), f"{where}{key} {error}", allowed=field.allowed, example=field.example
            )
    return found


def _terms(
    document: Document, top: dict[str, Any], terms: dict[str, Any], attestations: dict[str, int]
) -> AgreementTerms:
    sites = top["sites"]
    optimiser, parameters = terms["optimiser"], {}
    defaults = OPTIMISER_DEFAULTS[optimiser]
    for name in sorted({name for one in OPTIMISER_DEFAULTS.values() for name in one}):
        value = terms.pop(name)
        if value is not None and name not in defaults:
            document.refuse("file-value", ("agreement", name), f"[agreement] {name} is no parameter of the optimiser {optimiser}",
                            allowed=", ".join(defaults), example=AGREEMENT[next(iter(defaults))].example)  # fmt: skip
        if name in defaults:
            parameters[name] = defaults[name] if value is None else value
    if terms["min_participants"] is None:
        terms["min_participants"] = sites // 2 + 1
    bounds = {("agreement", "min_participants"): (1, terms["min_participants"])} | {
        ("agreement", "attestations", name): (0, number) for name, number in attestations.items()
    }
    for keys, (least, number) in bounds.items():
        if number > sites:
            document.refuse("file-value", keys, f"[{'.'.join(keys[:-1])}] {keys[-1]} = {number} is more than the {counted(sites, 'site')}",
                            allowed=f"a whole number from {least} to {sites}", example=f"{keys[-1]} = {sites // 2 + least}")  # fmt: skip
    return AgreementTerms(**terms | {
        "parameters": parameters,
        "title": terms["title"] or f"Federation {top['name']}",
        "data_categories": terms["data_categories"] or (f"data of the task {top['task']}"[:100],),
        "model_users": terms["model_users"] or ("the parties of this agreement",),
        "attest_next_open": attestations["next_open"],
        "attest_release": attestations["release"],
    })  # fmt: skip


def _faults(document: Document, sites: int, rounds: int, simulate: Mapping[str, tuple[str, ...]]) -> tuple[Fault, ...]:
    names = site_names(sites)
    seen: dict[tuple[str, int], str] = {}
    for kind, references in simulate.items():
        for text in references:
            match = _REFERENCE.fullmatch(text)
            problem = ""
            if match is None:
                problem = f"{kind}: {text[:60]!r} is not SITE@ROUND"
            elif match[1] not in names:
                number = int(match[2])
                problem = f"{kind}: there is no site {match[1]}"
                problem += f"; did you mean {names[number - 1]}?" if number <= sites else ""
            elif int(match[3]) > rounds:
                problem = f"{kind}: there is no round {match[3]}"
            elif (place := (match[1], int(match[3]))) in seen:
                problem = f"{kind}: {text} was named before, for {seen[place]}"
            if problem or match is None:
                document.refuse("file-fault", ("simulate", kind), f"[simulate] {problem}",
                                allowed=f"{names[0]} to {names[-1]} @ 1 to {rounds}, each once", example=f'{kind} = "{names[-1]}@{rounds}"')  # fmt: skip
            seen[match[1], int(match[3])] = kind
    return tuple(sorted((Fault(kind, *place) for place, kind in seen.items()), key=lambda f: (f.round, f.site)))
