# SPDX-License-Identifier: Apache-2.0
"""The transition table: every state machine of the contract, and nothing about transitions elsewhere.

head     absent -propose-> proposed -open-> open -seal-> sealed -record-> recorded -open-> open ...
         open, sealed -abort-> aborted -open-> open (next attempt)
         proposed, recorded, aborted -continue-> closed (a newer agreement goes on)
seat     absent -open-> open -commit-> committed -include-> in -claim-> in
         open -decline-> declined;  open, committed, declined -exclude-> out
party    absent -propose-> proposed -sign-> signed;  proposed, signed -withdraw-> withdrawn
member   absent -admit-> active -revoke-> revoked -admit-> active;  active -admit, rotate-> active
"""

from identity.errors import Rejected

ABSENT = "absent"

TRANSITIONS: dict[str, dict[tuple[str, str], str]] = {
    "head": {
        (ABSENT, "propose"): "proposed",
        ("proposed", "open"): "open",
        ("recorded", "open"): "open",
        ("aborted", "open"): "open",
        ("open", "commit"): "open",
        ("open", "decline"): "open",
        ("open", "seal"): "sealed",
        ("sealed", "claim"): "sealed",
        ("sealed", "record"): "recorded",
        ("open", "abort"): "aborted",
        ("sealed", "abort"): "aborted",
        ("proposed", "continue"): "closed",
        ("recorded", "continue"): "closed",
        ("aborted", "continue"): "closed",
    },
    "seat": {
        (ABSENT, "open"): "open",
        ("open", "commit"): "committed",
        ("open", "decline"): "declined",
        ("committed", "include"): "in",
        ("open", "exclude"): "out",
        ("committed", "exclude"): "out",
        ("declined", "exclude"): "out",
        ("in", "claim"): "in",
        ("in", "record"): "in",
    },
    "party": {
        (ABSENT, "propose"): "proposed",
        ("proposed", "sign"): "signed",
        ("proposed", "withdraw"): "withdrawn",
        ("signed", "withdraw"): "withdrawn",
    },
    "member": {
        (ABSENT, "admit"): "active",
        ("active", "admit"): "active",
        ("revoked", "admit"): "active",
        ("active", "revoke"): "revoked",
        ("active", "rotate"): "active",
    },
}

# The code of a refused transition, by machine and state. An active member refuses no verb of its machine.
REFUSALS: dict[str, dict[str, str]] = {
    "head": {
        ABSENT: "agreement-unknown",
        "open": "round-open",
        "sealed": "round-sealed",
        "recorded": "round-recorded",
        "aborted": "round-aborted",
        "proposed": "round-not-open",
        "closed": "agreement-closed",
    },
    "seat": {
        ABSENT: "not-on-roster",
        "open": "seat-open",
        "committed": "already-committed",
        "declined": "already-declined",
        "in": "round-sealed",
        "out": "seat-out-of-cohort",
    },
    "party": {
        ABSENT: "not-a-party",
        "proposed": "already-proposed",
        "signed": "already-signed",
        "withdrawn": "party-withdrawn",
    },
    "member": {
        ABSENT: "member-unknown",
        "revoked": "member-revoked",
    },
}


def move(machine: str, state: str, verb: str, what: str) -> str:
    """The state that follows, of the machine that ``what`` names for people.

    Raises:
        Rejected: the code of ``REFUSALS`` where the table has no such transition.
    """
    target = TRANSITIONS[machine].get((state, verb))
    if target is None:
        raise Rejected(REFUSALS[machine][state], f"{what} is {state}: '{verb}' is not allowed there.")
    return target
