# SPDX-License-Identifier: Apache-2.0
"""``fedledger log``: the ledger's entries, those that are asked for, newest last."""

import re
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from chaincode.entries import Entry
from chaincode.kinds import KINDS
from chaincode.ledgers.queries import Logged
from chaincode.ledgers.search import Wanted
from identity.errors import UsageError
from identity.wording import counted
from ops import entry_text, lineage, mentions, output
from ops.names import Names
from ops.options import JsonOption, LimitOption, PathArgument
from ops.source import Source, opened, read_many

app = typer.Typer(add_completion=False)

_AGO = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_COLUMNS = ("index", "at", "kind", "round", "member", "says", "entry")
_LEAST = ("entry", "at", "round")  # which columns a narrow terminal goes without, in this order
BY, ABOUT = "by", "about"


def _kinds(incomplete: str) -> list[str]:
    return [kind for kind in KINDS if kind.startswith(incomplete)]


KindOption = Annotated[str | None, typer.Option("--kind", help="Only entries of this kind.", autocompletion=_kinds)]
DidOption = Annotated[
    str | None,
    typer.Option(
        "--did", metavar="MEMBER", help="Only entries by a member or about it: a DID that it has or had, or its name."
    ),
]
RoundOption = Annotated[int | None, typer.Option("--round", min=1, help="Only entries of this round.")]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only later ones: 90m, 2d, 2026-11-23 or 2026-11-23T12:00:00Z."),
]


@app.command()
def log(
    path: PathArgument = None, *, kind: KindOption = None, did: DidOption = None, round_: RoundOption = None,
    since: SinceOption = None, limit: LimitOption = 100, as_json: JsonOption = False,
) -> None:  # fmt: skip
    """List the ledger's entries, newest last."""
    if kind is not None and kind not in KINDS:
        raise UsageError("kind-unknown", f"No kind of entry is called {kind[:40]!r}.\nallowed: {', '.join(KINDS)}")
    start = None if since is None else parse_time(since, int(time.time()))
    with opened(path, announce=not as_json) as source:
        names = Names(source)
        member = None if did is None else names.find(did)
        columns = {} if kind is None else {"kind": kind}
        found = _found(source, _within(source, columns, round_), member, start, limit + 1 if limit else 0)
        indexes = sorted(found)
        more = bool(limit) and len(indexes) > limit
        shown = read_many(source, indexes[-limit:] if limit else indexes)
        if as_json:
            entries = [_as_json(names, logged, entry, found[logged.index]) for logged, entry in shown]
            output.emit_json("log", {"entries": entries, "more": more, "size": source.size})
            return
        if more:
            output.note(f"Only the newest {counted(limit, 'is', 'are')} shown; --limit 0 shows all.")
        headings = _COLUMNS if member is None else (*_COLUMNS[:3], "by/about", *_COLUMNS[3:])
        output.table(headings, [_row(names, *one, found[one[0].index]) for one in shown], drop=_LEAST)
        if not found:
            output.note(f"No entry is like that; {counted(source.size, 'entry was', 'entries were')} looked through.")


def _within(source: Source, columns: dict[str, Any], round_: int | None) -> list[Wanted]:
    """The searches whose answers together are what was asked for: a round may be one of several agreements."""
    if round_ is None:
        return [columns]
    return [columns | {"agreement": agreement, "round": round_} for agreement in lineage.agreements(source)]


def _found(source: Source, within: list[Wanted], member: str | None, start: int | None, asked: int) -> dict[int, str]:
    """The indexes of what was asked for, and how each concerns the member; of each search the newest ``asked``."""
    if member is None:
        return {index: "" for wanted in within for index in source.newest(wanted, start, asked)}
    # A DID may be the member's name or the key that signed.
    by = {
        index: BY
        for wanted in within
        for column in ("member", "did")
        for index in source.newest({**wanted, column: member}, start, asked)
    }
    # What is older than the newest that were asked for is not among them.
    least = sorted(by)[-asked] if asked and len(by) >= asked else 0
    about = {index: ABOUT for index, _ in mentions.about(source, member, within, start, asked, start=least)}
    return about | by


def _row(names: Names, logged: Logged, entry: Entry, how: str) -> tuple[object, ...]:
    names.learn(entry_text.members_of(entry))
    says, who = entry_text.summary(entry, names), names(entry.member)
    relation = (how,) if how else ()
    return (
        logged.index,
        output.when(entry.at),
        entry.kind,
        *relation,
        entry_text.place(entry),
        who,
        says,
        output.short(logged.id),
    )


def _as_json(names: Names, logged: Logged, entry: Entry, how: str) -> dict[str, Any]:
    relation = {"relation": how} if how else {}
    return {"index": logged.index, **facts(entry), **relation, "summary": entry_text.summary(entry, names)}


def facts(entry: Entry) -> dict[str, Any]:
    """What programs want to know of any entry."""
    return {
        "id": entry.id, "kind": entry.kind, "member": entry.member, "did": entry.did, "at": entry.at,
        "agreement": entry.agreement or None, "round": entry.body.get("round"), "attempt": entry.body.get("attempt"),
        "subjects": dict(entry.subjects),
    }  # fmt: skip


def parse_time(text: str, now: int) -> int:
    """UTC seconds from ``90m`` (ago), a date, a time in ISO 8601 (UTC unless it says otherwise), or seconds.

    Raises:
        UsageError: ``time-malformed``.
    """
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _SECONDS[ago[2]]
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return int(text)
    try:
        parsed = datetime.fromisoformat(text)
        return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError) as error:
        raise UsageError(
            "time-malformed", f"{text[:40]!r} is not a time.\nallowed: 90m, 36h, 2d, 2026-11-23, 2026-11-23T12:00:00Z"
        ) from error
