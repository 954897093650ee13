# SPDX-License-Identifier: Apache-2.0
"""The kinds of entries: for each, the closed schema of its predicate and the names of its subjects (FORMAT.md, section 3).

Once published, a kind's meaning never changes; what changes it is a new version beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from chaincode.agreement import AGREEMENT
from chaincode.notes import COSIGNATURE, ED25519
from chaincode.schema import (
    Check,
    array,
    ascending,
    did,
    digest,
    distinct_dids,
    integer,
    mapping,
    nullable,
    obj,
    one_of,
    pattern,
    seconds,
    text,
    vkey,
)
from chaincode.schema import decimal as decimal_text

ROLES = ("participant", "coordinator", "auditor")
ABSENCES = ("unsigned", "withdrawn", "revoked", "expired")
SEAT_OUT = ("declined", "silent", "withdrawn", "revoked", "expired")
OMISSIONS = ("not-delivered", "digest-mismatch", "invalid-update")
DECLINES = ("not-this-round", "no-data", "training-failed", "policy")
ABORTS = ("below-minimum", "coordinator-absent", "training-failed", "deadline-passed", "operator")
REVOCATIONS = ("left", "credential-revoked", "key-compromised", "misconduct")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of entry: ``check`` judges its predicate, which has exactly ``fields``, each with its own check; ``subjects``
    must all be there, ``optional`` may; ``large`` ones may take 1 MiB."""

    name: str
    check: Check
    fields: Mapping[str, Check]
    subjects: tuple[str, ...]
    optional: tuple[str, ...] = ()
    large: bool = False


def _kind(
    name: str, *subjects: str, fields: Mapping[str, Check], optional: tuple[str, ...] = (), large: bool = False
) -> Kind:
    """A kind whose predicate has the author's three fields and ``fields``; the first subjects say where it belongs."""
    checks = {"member": did, "did": did, "at": seconds, **fields}
    return Kind(name, obj(**checks), checks, subjects, optional, large)


def _named(reasons: tuple[str, ...]) -> Check:
    """A list of members in ascending order, each with one of the reasons."""
    return ascending(array(obj(member=did, reason=one_of(*reasons))), "member")


_ROUND: dict[str, Check] = {"round": integer(1, 1_000_000), "attempt": integer(1, 1000)}
_POLICY: dict[str, Check] = {
    "authority": distinct_dids(least=1, most=16),
    "cosigners": array(vkey(COSIGNATURE), most=100),
    "quorum": integer(0, 100),
    "skew": integer(1, 3600),
}
METRICS = mapping(decimal_text, most=16)
_SIGNATURE = pattern(r"[A-Za-z0-9+/]{85}[AQgw]==", "an Ed25519 signature in base64")

# Where an entry belongs. ``found`` has a nonce instead: its own id becomes the federation's.
_F = ("federation",)
_A = ("federation", "agreement")

_ALL = (
    _kind("found", "nonce", fields={
        "origin": pattern(r"[!-*,-~]{1,128}", "a log name without space or plus"), "log_key": nullable(vkey(ED25519)), **_POLICY,
    }),
    _kind("amend", *_F, fields=_POLICY),
    _kind("admit", *_F, "credential", fields={
        "admits": did, "new_did": did, "role": one_of(*ROLES), "organisation": text(100), "not_before": seconds, "not_after": seconds,
    }),
    _kind("revoke", *_F, fields={"revokes": did, "reason": one_of(*REVOCATIONS)}),
    _kind("rotate", *_F, fields={"new_did": did, "proof": _SIGNATURE}),
    _kind("propose", *_A, "initial-model", large=True, fields={"terms": AGREEMENT, "continues": nullable(digest)}),
    _kind("sign", *_A, fields={}),
    _kind("withdraw", *_A, fields={}),
    _kind("open", *_A, "base-model", large=True, fields={
        **_ROUND, "commit_by": seconds, "reservation": integer(0, 2**53 - 1), "roster": distinct_dids(), "absent": _named(ABSENCES),
        "attestations": distinct_dids(),
    }),
    _kind("commit", *_A, "update", optional=("environment",), fields={
        **_ROUND, "size": integer(1, 2**40), "examples": integer(0, 2**53 - 1), "metrics": nullable(METRICS),
    }),
    _kind("decline", *_A, fields={**_ROUND, "reason": one_of(*DECLINES)}),
    _kind("seal", *_A, large=True, fields={
        **_ROUND, "deliver_by": seconds, "cohort": distinct_dids(), "out": _named(SEAT_OUT),
    }),
    _kind("claim", *_A, "update", fields={**_ROUND, "receipt": nullable(obj(did=did, signature=_SIGNATURE))}),
    _kind("record", *_A, "sum", "model", optional=("optimiser-state", "evaluation-set"), large=True, fields={
        **_ROUND, "included": distinct_dids(), "omitted": _named(OMISSIONS), "examples": integer(0, 2**53 - 1), "metrics": METRICS,
    }),
    _kind("abort", *_A, fields={**_ROUND, "reason": one_of(*ABORTS)}),
    _kind("release", *_A, "model", "model-card", fields={"round": _ROUND["round"], "attestations": distinct_dids()}),
    _kind("attest", *_A, "sum", "model", fields={"round": _ROUND["round"], "verdict": one_of("agrees", "disputes")}),
)  # fmt: skip

KINDS = {kind.name: kind for kind in _ALL}
