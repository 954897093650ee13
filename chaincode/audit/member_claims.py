# SPDX-License-Identifier: Apache-2.0
"""Claims about members: credentials at the time of their admission (5), and signatures under agreements (6)."""

from hashlib import sha256

from chaincode import artefacts
from chaincode.audit.facts import Admission, Agreement, Facts, Ref
from chaincode.audit.report import Draft
from chaincode.audit.source import Progress, Source
from identity import credentials
from identity.errors import CredentialError, EvidenceError
from identity.jws import TOKEN_LIMIT
from identity.wording import counted


def check_credentials(draft: Draft, source: Source, facts: Facts, progress: Progress) -> None:
    """Claim 5: each admission's credential is here, is the one on the ledger, and was valid when it was admitted."""
    verified = 0
    for number, admission in enumerate(facts.admissions):
        draft.rest(admission.ref.index)
        verified += _check_admission(draft, source, facts.federation, admission)
        progress("verifying credentials", number + 1, len(facts.admissions))
    for ref, member in facts.acted_after_revocation:
        draft.fail(
            "acted-after-revocation",
            str(ref),
            f"{member} had been revoked before this entry, and was not admitted again.",
        )
    for member, ref in facts.revoked.items():
        draft.rest(ref.index)
        draft.note(
            f"{member} was revoked ({ref}); nothing that needs standing was accepted from that member afterwards."
        )
    _tell_new_keys(draft, facts)
    if not facts.admissions:
        draft.lack("an admission: nobody has been admitted")
    draft.summary = f"{verified} of {counted(len(facts.admissions), 'admission')}: the credential is here and was valid at that time."


def _check_admission(draft: Draft, source: Source, federation: str, admission: Admission) -> bool:
    """Check one admission; whether it is borne out."""
    name = artefacts.credential(admission.credential)
    where = f"{name} of {admission.ref}"
    try:
        with source.open(name) as data:
            if data is None:
                draft.lose(f"{name}, the credential of {admission.organisation} ({admission.ref})")
                return False
            token = bytes(data[: TOKEN_LIMIT + 1])
        if sha256(token).hexdigest() != admission.credential:
            draft.fail(
                "credential-digest", where, "The credential's bytes are not those whose digest is on the ledger."
            )
            return False
        membership = credentials.verify(
            token.decode("ascii"),
            issuers=admission.issuers,
            federation=federation,
            now=max(admission.ref.at, admission.not_before),  # one may be admitted ahead of time
        )
    except (EvidenceError, CredentialError) as error:
        draft.fail(error.code, where, error.message)
        return False
    except UnicodeDecodeError:
        draft.fail("credential-format", where, "The credential is not ASCII.")
        return False
    stated = {
        "subject": admission.did, "role": admission.role, "organisation": admission.organisation,
        "not_before": admission.not_before, "not_after": admission.not_after,
    }  # fmt: skip
    differing = [field for field, value in stated.items() if getattr(membership, field) != value]
    for field in differing:
        what = f"The credential says {field} {getattr(membership, field)!r}, the admission {stated[field]!r}."
        draft.fail("credential-differs", where, what)
    return not differing


def _tell_new_keys(draft: Draft, facts: Facts) -> None:
    """Note each key that the authority put in force for a member in the place of another: the member's old key did not consent."""
    for admission in facts.admissions:
        if admission.did != admission.member:
            draft.note(
                f"The authority gave {admission.member} the new key {admission.did} ({admission.ref}); ask the member."
            )


def _tell_lineage(draft: Draft, facts: Facts, agreement: Agreement) -> None:
    """Note an agreement that starts from another one's result without saying so: what is in that result goes on in its models."""
    initial = agreement.terms["model"]["initial"]
    for attempt in facts.attempts.values():
        if attempt.model == initial and attempt.agreement != agreement.digest and not agreement.continues:
            draft.note(f"Agreement {agreement.digest[:12]} ({agreement.ref}) starts from the model of {attempt} of agreement "
                       f"{attempt.agreement[:12]} and does not continue it.")  # fmt: skip


def check_signatures(draft: Draft, facts: Facts) -> None:
    """Claim 6: at each opening, every member of the roster had signed that agreement and not left it; at each seal too."""
    for attempt in facts.attempts.values():
        agreement = facts.agreements[attempt.agreement]
        draft.rest(attempt.opened.index)
        _check_listed(draft, agreement, f"roster of {attempt}", attempt.opened, attempt.roster)
        if attempt.sealed is not None:
            _check_listed(draft, agreement, f"cohort of {attempt}", attempt.sealed, attempt.cohort)
    for agreement in facts.agreements.values():
        draft.rest(agreement.ref.index, *(ref.index for ref in agreement.signed.values()))
        _tell_lineage(draft, facts, agreement)
        for member, ref in agreement.withdrawn.items():
            draft.note(f"{member} withdrew from agreement {agreement.digest[:12]} ({ref}).")
    signed = sum(len(agreement.signed) for agreement in facts.agreements.values())
    draft.summary = f"{counted(signed, 'signature')} under {counted(len(facts.agreements), 'agreement')}; {counted(len(facts.attempts), 'opening')}."
    if not facts.attempts:
        draft.lack("an opened round: no signature was needed yet")


def _check_listed(draft: Draft, agreement: Agreement, what: str, ref: Ref, members: tuple[str, ...]) -> None:
    for member in members:
        signed, left = agreement.signed.get(member), agreement.withdrawn.get(member)
        if signed is None or signed.index > ref.index:
            why = f"{member} is in the {what} and had not signed agreement {agreement.digest[:12]}."
            draft.fail("agreement-not-signed", str(ref), why)
        elif left is not None and left.index < ref.index:
            why = f"{member} is in the {what} and had left agreement {agreement.digest[:12]} ({left})."
            draft.fail("agreement-left", str(ref), why)
