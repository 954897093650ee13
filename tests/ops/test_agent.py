# SPDX-License-Identifier: Apache-2.0
"""An agent acts on what the ledger says and on nothing else; each check is shown refusing."""

from dataclasses import replace

import pytest

from chaincode.author import Author
from chaincode.chunks import chunk_root
from identity import credentials
from identity.errors import CredentialError, Rejected
from participant.agent import Agent, RoundView, read_round
from tests.ops.federated import Federated, Make


def opened(federated: Federated) -> RoundView:
    """Open round 1 and read it as an agent does."""
    view = read_round(federated.ledger, federated.digest, federated.agreement["parties"])
    at = max(federated.now(), view.head.at)
    body = {"round": 1, "attempt": 1, "commit_by": at + view.terms.commit_seconds, "reservation": 0,
            "roster": federated.agreement["parties"], "absent": [], "attestations": []}  # fmt: skip
    federated.accept(federated.coordinator.entry(
        "open", at, body, agreement=federated.digest, subjects={"base-model": view.head.base}
    ))  # fmt: skip
    return read_round(federated.ledger, federated.digest, federated.agreement["parties"])


def agent(federated: Federated, site: str = "site-01") -> Agent:
    made = federated.agents[site]
    assert isinstance(made, Agent)
    return made


def refusal(made: Agent, view: RoundView, at: int) -> str:
    with pytest.raises((Rejected, CredentialError)) as refused:
        made.check(view, at)
    return refused.value.code


def test_a_round_that_the_ledger_states_is_ordered(make: Make) -> None:
    federated = make()
    view = opened(federated)
    order = agent(federated).order(view)
    assert order is not None
    assert (order.header.member, order.header.base) == (federated.member("site-01"), view.head.base)
    assert order.header.salt != (agent(federated, "site-02").order(view) or order).header.salt
    assert order == agent(federated).order(view), "a restart orders the same blob"


def test_before_an_opening_there_is_nothing_to_do(make: Make) -> None:
    federated = make()
    view = read_round(federated.ledger, federated.digest, federated.agreement["parties"])
    assert refusal(agent(federated), view, federated.now()) == "not-on-roster"


def test_after_the_deadline_nothing_is_trained(make: Make) -> None:
    federated = make()
    view = opened(federated)
    assert refusal(agent(federated), view, view.head.commit_by + 1) == "past-deadline"


def test_another_base_model_at_hand_is_refused(make: Make) -> None:
    federated = make()
    view = opened(federated)
    other = federated.agent("site-01", base_model=lambda _digest: "0" * 64)
    assert refusal(other, view, federated.now()) == "base-mismatch"


def test_a_coordinator_whose_standing_ended_is_not_followed(make: Make) -> None:
    federated = make()
    view = opened(federated)
    authority = federated.keys.authority
    body = {"revokes": federated.coordinator.member, "reason": "left"}
    federated.accept(Author(federated.federation, authority.did, authority).entry("revoke", federated.now(), body))
    view = read_round(federated.ledger, federated.digest, federated.agreement["parties"])
    assert refusal(agent(federated), view, federated.now()) == "member-revoked"


def test_a_coordinator_whose_credential_expired_is_not_followed(make: Make) -> None:
    federated = make()
    view = opened(federated)
    assert refusal(agent(federated), view, federated.now() + 91 * 86_400) == "member-not-valid"


def test_an_older_credential_of_a_coordinator_that_was_admitted_anew_is_not_followed(make: Make) -> None:
    federated = make()
    view, made = opened(federated), agent(federated)
    assert made._coordinator is not None
    made._coordinator = replace(made._coordinator, not_after=federated.now() - 1)
    assert refusal(made, view, federated.now()) == "credential-expired"


def test_an_agreement_that_was_not_adopted_is_not_followed(make: Make) -> None:
    federated = make()
    view = opened(federated)
    bare = Agent(
        site="site-01", author=agent(federated).author, secret=bytes(32), outbox=federated.outbox, ledger=federated.ledger,
        clock=federated.now, base_model=federated.base_model,
    )  # fmt: skip
    assert refusal(bare, view, federated.now()) == "agreement-unknown"


def test_a_site_that_withdrew_takes_no_part(make: Make) -> None:
    federated = make()
    opened(federated)
    federated.accept(agent(federated).withdraw())
    view = read_round(federated.ledger, federated.digest, federated.agreement["parties"])
    assert refusal(agent(federated), view, federated.now()) == "not-in-standing"


def test_only_the_coordinator_s_credential_of_the_ledger_counts(make: Make) -> None:
    federated = make()
    with pytest.raises(CredentialError) as refused:
        agent(federated).adopt(federated.proposal, federated.token("site-02"))
    assert refused.value.code == "credential-not-on-ledger"
    now = federated.now()
    forged = credentials.issue(
        federated.keys.sites["site-02"], subject=federated.coordinator.member, role="coordinator",
        organisation="coordinator", federation=federated.federation, not_before=now, not_after=now + 1000,
    )  # fmt: skip
    with pytest.raises(CredentialError) as refused:
        agent(federated).adopt(federated.proposal, forged)
    assert refused.value.code == "credential-issuer-untrusted"
    reissued = credentials.issue(
        federated.keys.authority, subject=federated.coordinator.member, role="coordinator",
        organisation="coordinator", federation=federated.federation, not_before=now - 7, not_after=now + 1000,
    )  # fmt: skip
    with pytest.raises(CredentialError) as refused:
        agent(federated).adopt(federated.proposal, reissued)
    assert refused.value.code == "credential-not-on-ledger"


def test_an_agreement_for_others_is_not_adopted(make: Make, tmp_path_factory: pytest.TempPathFactory) -> None:
    federated = make()
    identity = federated.keys.authority
    stranger = Agent(
        site="stranger", author=Author(federated.federation, identity.did, identity), secret=bytes(32),
        outbox=federated.outbox, ledger=federated.ledger, clock=federated.now, base_model=federated.base_model,
    )  # fmt: skip
    with pytest.raises(Rejected) as refused:
        stranger.adopt(federated.proposal, federated.token("coordinator"))
    assert refused.value.code == "not-a-party"


def test_bytes_are_delivered_after_the_seal_only(make: Make) -> None:
    federated = make()
    view = opened(federated)
    assert agent(federated).deliver(view) is None
    for answers in federated.sites().train(federated.digest, view.head.commit_by):
        for answer in answers:
            federated.accept(answer.envelope)
    view = read_round(federated.ledger, federated.digest, federated.agreement["parties"])
    assert agent(federated).deliver(view) is None, "R2: committed, but not sealed"
    at = max(federated.now(), view.head.at)
    body = {"round": 1, "attempt": 1, "deliver_by": at + view.terms.deliver_seconds,
            "cohort": federated.agreement["parties"], "out": []}  # fmt: skip
    federated.accept(federated.coordinator.entry("seal", at, body, agreement=federated.digest))
    view = read_round(federated.ledger, federated.digest, federated.agreement["parties"])
    place = agent(federated).deliver(view)
    assert place is not None
    with place.open() as data:
        assert chunk_root(data) == view.seats[federated.member("site-01")].update  # type: ignore[union-attr]
    federated.accept(agent(federated).claim(view, None))
    assert federated.entries("claim")[0].body["receipt"] is None
