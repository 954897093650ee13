# SPDX-License-Identifier: Apache-2.0
"""What an entry says, in one line for people: its kind's own facts, members by name, digests shortened."""

from collections.abc import Callable, Mapping, Sequence

from chaincode.entries import Entry
from identity.wording import counted
from ops.names import Names
from ops.output import short, short_did, when

_NAMED = 4  # so many members are named; of more the number is given


def members_of(entry: Entry) -> set[str]:
    """The members whom the line of this entry may name, so that they can be read together."""
    listed = [item["member"] for field in ("absent", "out", "omitted") for item in entry.body.get(field, [])]
    single = [entry.body[field] for field in ("admits", "revokes") if field in entry.body]
    return {entry.member, *listed[:_NAMED], *single}


def place(entry: Entry) -> str:
    """The round and attempt that an entry belongs to: ``3``, ``3.2`` for a second attempt, nothing for none."""
    round_, attempt = entry.body.get("round"), entry.body.get("attempt", 1)
    return "" if round_ is None else f"{round_}" if attempt == 1 else f"{round_}.{attempt}"


def summary(entry: Entry, names: Names) -> str:
    """The line."""
    return _SUMMARIES[entry.kind](entry, names)


def reasons(pairs: Sequence[Mapping[str, str]], names: Names) -> str:
    """Who was left out and why: ``site-03 digest-mismatch, site-07 silent``."""
    named = [f"{names.organisation(item['member'])} {item['reason']}" for item in pairs[:_NAMED]]
    more = [f"{len(pairs) - _NAMED} more"] if len(pairs) > _NAMED else []
    return ", ".join([*named, *more])


def metrics(values: Mapping[str, str] | None) -> str:
    """Metrics as they are written on the ledger, rounded for reading."""
    return ", ".join(f"{name} {_rounded(value)}" for name, value in sorted((values or {}).items()))


def _rounded(value: str) -> str:
    try:
        return f"{float(value):.4g}"
    except (OverflowError, ValueError):
        return value


def _found(entry: Entry, _names: Names) -> str:
    cosigners, quorum = len(entry.body["cosigners"]), entry.body["quorum"]
    return f"federation {short(entry.id)} of log {entry.body['origin']}; cosigners {cosigners}, quorum {quorum}"


def _amend(entry: Entry, _names: Names) -> str:
    body = entry.body
    return f"authority {len(body['authority'])}, cosigners {len(body['cosigners'])}, quorum {body['quorum']}, skew {body['skew']} s"


def _admit(entry: Entry, _names: Names) -> str:
    body = entry.body
    return f"{body['organisation']} ({short_did(body['admits'])}) as {body['role']} until {when(body['not_after'])}"


def _revoke(entry: Entry, names: Names) -> str:
    return f"{names(entry.body['revokes'])}: {entry.body['reason']}"


def _rotate(entry: Entry, _names: Names) -> str:
    return f"new key {short_did(entry.body['new_did'])}"


def _propose(entry: Entry, _names: Names) -> str:
    terms = entry.body["terms"]
    parties = f"{counted(len(terms['parties']), 'party')}, at least {terms['min_participants']}, {counted(terms['rounds'], 'round')}"
    return f'agreement {short(entry.agreement)} "{terms["title"]}": {parties}'


def _agreement(entry: Entry, _names: Names) -> str:
    return f"agreement {short(entry.agreement)}"


def _open(entry: Entry, names: Names) -> str:
    left_out = reasons(entry.body["absent"], names)
    base = short(entry.subjects["base-model"])
    return f"base {base}, {len(entry.body['roster'])} on the roster" + (f"; absent: {left_out}" if left_out else "")


def _commit(entry: Entry, _names: Names) -> str:
    shared = metrics(entry.body["metrics"])
    return f"update {short(entry.subjects['update'])}, {counted(entry.body['examples'], 'example')}" + (
        f", {shared}" if shared else ""
    )


def _reason(entry: Entry, _names: Names) -> str:
    return str(entry.body["reason"])


def _seal(entry: Entry, names: Names) -> str:
    left_out = reasons(entry.body["out"], names)
    return f"{len(entry.body['cohort'])} in the cohort" + (f"; out: {left_out}" if left_out else "")


def _claim(entry: Entry, _names: Names) -> str:
    with_receipt = "with a receipt" if entry.body["receipt"] else "without a receipt"
    return f"delivered update {short(entry.subjects['update'])}, {with_receipt}"


def _record(entry: Entry, names: Names) -> str:
    left_out, held_out = reasons(entry.body["omitted"], names), metrics(entry.body["metrics"])
    parts = [f"model {short(entry.subjects['model'])} of {counted(len(entry.body['included']), 'update')}"]
    return "; ".join([*parts, *([f"omitted: {left_out}"] if left_out else []), *([held_out] if held_out else [])])


def _release(entry: Entry, _names: Names) -> str:
    return f"model {short(entry.subjects['model'])}, {counted(len(entry.body['attestations']), 'attestation')}"


def _attest(entry: Entry, _names: Names) -> str:
    return f"{entry.body['verdict']}: model {short(entry.subjects['model'])}"


_SUMMARIES: Mapping[str, Callable[[Entry, Names], str]] = {
    "found": _found, "amend": _amend, "admit": _admit, "revoke": _revoke, "rotate": _rotate, "propose": _propose,
    "sign": _agreement, "withdraw": _agreement, "open": _open, "commit": _commit, "decline": _reason, "seal": _seal,
    "claim": _claim, "record": _record, "abort": _reason, "release": _release, "attest": _attest,
}  # fmt: skip
