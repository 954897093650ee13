# SPDX-License-Identifier: Apache-2.0
"""Every code with which the contract or a host refuses an entry: what it means, and what to do next.

The codes are stable: programs compare them, and an auditor finds them in the refusal table of the tests.
"""

from collections.abc import Mapping

_RETRY = "Read the agreement's state (fedledger status) and make the entry anew."
_ASK = "Ask the federation's authority."
_WAIT = "Wait for the time that the message names."
_NONE = "Nothing: what the entry asks for has happened."
_FIX = "Correct the entry; the message names the field."

CODES: Mapping[str, tuple[str, str]] = {
    # Hosts
    "clock-skew": ("The entry's time is farther from the host's clock than the federation allows.", "Set the clock and sign again."),
    "log-key-mismatch": ("found states another log or log key than this ledger's.", _FIX),
    "duplicate-entry": ("The very entry is on the ledger.", _NONE),
    # The federation and its members
    "not-founded": ("The ledger has no federation yet.", "Submit found first."),
    "already-founded": ("The ledger has a federation.", "Use a new ledger for a new federation."),
    "wrong-federation": ("The entry was made for another federation.", "Submit it to that federation's ledger."),
    "not-the-authority": ("The signing DID is not one of the authority's.", _ASK),
    "policy-inconsistent": ("A key of the log or a cosigner is named twice, the quorum exceeds the cosigners, or the log key has another name than the log.", _FIX),
    "validity-out-of-range": ("An admission ends before it begins or lasts longer than 90 days.", _FIX),
    "member-name": ("A new member's name must be its first DID.", _FIX),
    "member-unknown": ("No such member was admitted.", _ASK),
    "member-revoked": ("The member's standing was revoked.", _ASK),
    "member-not-valid": ("The time lies outside the member's admission.", "Ask the authority for a renewed credential."),
    "role-change": ("A member's role does not change.", "Admit a second member for the other role."),
    "wrong-role": ("The member's role may not do this.", _ASK),
    "did-taken": ("The DID is or was in force for a member, or is the authority's.", "Make a new key."),
    "did-not-in-force": ("The signing DID is not the member's DID in force.", "Sign with the DID in force."),
    "rotation-proof": ("The new DID did not sign its own rotation.", "Sign the rotation with the new key."),
    # Agreements
    "subject-mismatch": ("The entry's subjects are not the digests of what it carries.", _FIX),
    "already-proposed": ("The agreement was proposed before.", _NONE),
    "agreement-unknown": ("No such agreement was proposed.", _RETRY),
    "agreement-inconsistent": ("The agreement contradicts itself.", "Correct the agreement and propose it again."),
    "not-supported": ("The agreement asks for what this version does not carry out.", "Correct the agreement and propose it again."),
    "agreement-closed": ("A newer agreement goes on from this one.", "Use the newer agreement."),
    "agreement-not-valid": ("The time lies outside the agreement's validity.", "Propose a new agreement that continues this one."),
    "not-the-coordinator": ("The author is not the agreement's coordinator.", "Let the agreement's coordinator sign."),
    "not-a-party": ("The member is not a party of the agreement.", _RETRY),
    "already-signed": ("The party has signed.", _NONE),
    "party-withdrawn": ("The party has left the agreement, for good.", "Propose a new agreement."),
    "sum-could-overflow": ("The weighted sum could leave 64 bits.", "Lower max_weight, the clip or the fraction bits."),
    # Rounds
    "at-precedes-head": ("The entry's time precedes the agreement's last step.", "Sign with the later of your clock and the head's time."),
    "wrong-round": ("The entry is for another round or attempt.", _RETRY),
    "round-not-open": ("No round has been opened yet.", "Wait for the coordinator's open."),
    "round-open": ("The round is open; this comes after the seal.", _RETRY),
    "round-sealed": ("The round is sealed; this comes before the seal.", _RETRY),
    "round-recorded": ("The round is recorded.", _RETRY),
    "round-aborted": ("The attempt was given up.", "Wait for the next attempt."),
    "rounds-exhausted": ("The agreement has no further rounds.", "Propose an agreement that continues this one."),
    "attempts-exhausted": ("The agreement allows no further attempts at this round.", "Propose an agreement that continues this one."),
    "base-mismatch": ("The base model is not the agreement's last result.", _RETRY),
    "deadline-mismatch": ("The stated deadline is not the agreed one.", _FIX),
    "budget-exceeded": ("The reservation exceeds the agreed privacy budget.", "Propose an agreement with a new budget."),
    "attestation-missing": ("Attestations that the agreement asks for are missing.", "Let members attest the round."),
    "list-incomplete": ("The list names not all, or one twice.", _RETRY),
    "not-in-standing": ("A listed member cannot take part.", _RETRY),
    "reason-unfounded": ("A member is left out for a reason that the state does not show.", _RETRY),
    "below-minimum": ("Fewer participants than the agreement's minimum.", "Abort the attempt, or wait for more participants."),
    # Seats
    "not-on-roster": ("The member has no seat in this attempt.", "Wait for the next opening."),
    "seat-open": ("The seat has not committed.", _RETRY),
    "already-committed": ("The seat has committed.", _NONE),
    "already-declined": ("The seat has declined this attempt.", "Wait for the next opening."),
    "seat-out-of-cohort": ("The seat is not in the sealed cohort.", "Wait for the next opening."),
    "past-deadline": ("The commitment comes after the deadline.", "Wait for the next opening."),
    "duplicate-commitment": ("The same digest was committed before.", _NONE),
    "conflicting-commitment": ("Another digest was committed before.", "Deliver the update that was committed."),
    "weight-out-of-range": ("The number of examples lies outside the agreement.", _FIX),
    "size-mismatch": ("An update of the agreed model cannot have this size.", _FIX),
    "metrics-not-agreed": ("The agreement does not share local metrics.", "Commit without metrics."),
    "seal-too-early": ("A silent seat may still commit.", _WAIT),
    "claim-mismatch": ("The claimed update is not the committed one.", _FIX),
    "receipt-invalid": ("The receipt is not the coordinator's for this update.", "Claim without the receipt."),
    "omission-too-early": ("The site may still deliver.", _WAIT),
    "omission-against-receipt": ("The coordinator gave a receipt for the update.", "Include the update or abort the attempt."),
    "weight-mismatch": ("The examples are not the sum of the commitments.", _FIX),
    "optimiser-state-mismatch": ("An optimiser's state is stated for an optimiser without one, or missing.", _FIX),
    "abort-too-early": ("The author may not give up the attempt yet.", _WAIT),
    # Results
    "result-unknown": ("The round has no recorded result.", _RETRY),
    "result-differs": ("The recorded model is another one.", _RETRY),
    "already-released": ("The round's model was released before.", _NONE),
    "attestation-inconsistent": ("The verdict does not follow from the stated digests.", _FIX),
    "already-attested": ("The member has attested the round.", _NONE),
}  # fmt: skip
