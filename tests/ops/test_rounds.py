# SPDX-License-Identifier: Apache-2.0
"""Whole rounds: the driver, the agents, the contract, real training and exact sums; every fault that a site can have."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from chaincode.entries import open_entry
from chaincode.ledgers import Ledger, Receipt
from chaincode.place import Place
from coordinator.steps import Event
from identity.envelope import Unsigned
from identity.errors import Rejected, Unavailable
from ops.simulate import Honest, Silent, Tampering
from participant.agent import Agent, RoundView
from participant.ports import TrainFailure, TrainResult
from tests.ops.federated import Make, with_fault


def test_an_undisturbed_run_and_its_digest_do_not_depend_on_keys(make: Make) -> None:
    one, two = make().drive(), make().drive()
    assert [r.body["round"] for r in one] == [1, 2]
    assert [r.subjects["model"] for r in one] == [r.subjects["model"] for r in two]
    assert one[0].federation != two[0].federation
    assert all(len(r.body["included"]) == 3 and not r.body["omitted"] for r in one)


def test_bytes_other_than_the_committed_ones_are_refused_and_named(make: Make) -> None:
    federated = make()
    federated.agents["site-02"] = with_fault(federated.agents["site-02"], Tampering, 1)
    first, second = federated.drive()
    assert first.body["omitted"] == [{"member": federated.member("site-02"), "reason": "digest-mismatch"}]
    assert len(second.body["included"]) == 3
    told = [e.facts for e in federated.events if e.kind == "delivered" and e.facts["verdict"]]
    assert told == [{"member": federated.member("site-02"), "verdict": "update-digest"}], (
        "once, however often it was tried"
    )


def test_a_site_that_falls_silent_is_out_only_after_the_deadline(make: Make) -> None:
    federated = make()
    federated.agents["site-03"] = with_fault(federated.agents["site-03"], Silent, 2)
    federated.drive()
    first, second = federated.entries("seal")
    assert first.body["out"] == []
    assert second.body["out"] == [{"member": federated.member("site-03"), "reason": "silent"}]
    opened = federated.entries("open")[1]
    assert second.at > opened.body["commit_by"]


class Copying(Honest):
    """Commits to, and delivers, the update of another site."""

    victim: TrainResult | None = None

    def answer(self, view: RoundView, result: TrainResult | TrainFailure) -> Unsigned | None:
        assert Copying.victim is not None
        return self.agent.answer(view, Copying.victim)

    def deliver(self, view: RoundView) -> Place | None:
        assert Copying.victim is not None
        place: Place = self.agent.outbox.find([Copying.victim.digest])[Copying.victim.digest]  # type: ignore[attr-defined]
        return place


class Copied(Honest):
    """The site whose update is copied."""

    def answer(self, view: RoundView, result: TrainResult | TrainFailure) -> Unsigned | None:
        assert isinstance(result, TrainResult)
        Copying.victim = result
        return self.agent.answer(view, result)


def test_a_copied_update_names_another_member(make: Make) -> None:
    federated = make()
    federated.agents["site-01"] = with_fault(federated.agents["site-01"], Copied, 0)
    federated.agents["site-02"] = with_fault(federated.agents["site-02"], Copying, 0)
    first, *_ = federated.drive()
    assert first.body["omitted"] == [{"member": federated.member("site-02"), "reason": "invalid-update"}]
    assert federated.member("site-01") in first.body["included"]


class Linking(Honest):
    """Delivers a link to its own, honest blob."""

    def deliver(self, view: RoundView) -> Place | None:
        honest = self.agent.deliver(view)
        if honest is None:
            return None
        with honest.open() as data:
            real = Path(honest.path).with_name("real")
            real.write_bytes(data)
        link = real.with_name("link")
        link.unlink(missing_ok=True)
        link.symlink_to(real)
        return Place(str(link))


def test_a_link_is_no_delivery_and_holds_nobody_up(make: Make) -> None:
    federated = make()
    federated.agents["site-02"] = with_fault(federated.agents["site-02"], Linking, 0)
    first, _ = federated.drive()
    assert first.body["omitted"] == [{"member": federated.member("site-02"), "reason": "not-delivered"}]


class Failing(Honest):
    """Its training fails."""

    def answer(self, view: RoundView, result: TrainResult | TrainFailure) -> Unsigned | None:
        return self.agent.answer(view, TrainFailure(self.site, result.member, "training-failed", "out of memory"))


def test_a_site_whose_training_fails_declines_and_nobody_waits(make: Make) -> None:
    federated = make()
    federated.agents["site-02"] = with_fault(federated.agents["site-02"], Failing, 0)
    federated.drive()
    assert federated.moved == 0
    assert {e.body["reason"] for e in federated.entries("decline")} == {"training-failed"}
    assert federated.entries("seal")[0].body["out"] == [{"member": federated.member("site-02"), "reason": "declined"}]


def test_too_few_sites_end_in_a_named_refusal_after_the_agreed_attempts(make: Make) -> None:
    federated = make(least=3, more="attempts = 2")
    federated.agents["site-02"] = with_fault(federated.agents["site-02"], Failing, 0)
    with pytest.raises(Rejected) as refused:
        federated.drive()
    assert refused.value.code == "attempts-exhausted"
    assert [e.body["reason"] for e in federated.entries("abort")] == ["below-minimum", "below-minimum"]
    assert not federated.entries("record")


def test_a_withdrawn_site_is_absent_from_the_next_round(make: Make) -> None:
    federated = make()

    def watch(event: Event) -> None:
        federated.events.append(event)
        if event.kind == "before-record" and event.round == 1:
            federated.accept(federated.agents["site-03"].withdraw())  # type: ignore[attr-defined]

    federated.driver(watch=watch).drive()
    assert federated.entries("open")[1].body["absent"] == [
        {"member": federated.member("site-03"), "reason": "withdrawn"}
    ]


def test_a_site_that_acts_between_reading_and_writing_is_read_again(make: Make) -> None:
    federated = make()

    def watch(event: Event) -> None:
        if event.kind == "before-seal" and event.round == 2 and len(federated.entries("withdraw")) == 0:
            federated.accept(federated.agents["site-03"].withdraw())  # type: ignore[attr-defined]

    federated.driver(watch=watch).drive()
    assert federated.entries("seal")[1].body["out"] == [{"member": federated.member("site-03"), "reason": "withdrawn"}]


class Counting:
    """A ledger that remembers the kinds of what was submitted together."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self.batches, self.away = ledger, list[list[str]](), False

    def submit(self, envelopes: Sequence[bytes]) -> list[Receipt | Rejected]:
        self.batches.append([open_entry(envelope).kind for envelope in envelopes])
        return self._ledger.submit(envelopes)

    def get(self, keys: Collection[str]) -> dict[str, bytes | None]:
        return self._ledger.get(keys)

    def entries(self, start: int = 0) -> Iterator[bytes]:
        return self._ledger.entries(start)


def test_what_follows_at_once_is_submitted_together(make: Make) -> None:
    federated = make()
    counting = Counting(federated.ledger)
    federated.driver(ledger=counting).drive()
    commitments = ["commit", "commit", "commit", "seal"]
    assert counting.batches == [["open"], commitments, ["record", "open"], commitments, ["record"]]


def test_a_single_attempt_is_not_opened_before_somebody_is_there_to_drive_it(make: Make) -> None:
    federated = make(more="attempts = 1")
    counting = Counting(federated.ledger)
    federated.driver(ledger=counting).drive()
    assert [kinds for kinds in counting.batches if "record" in kinds] == [["record"], ["record"]]


def test_a_record_does_not_wait_for_what_the_next_opening_wants_to_know(make: Make) -> None:
    federated = make()
    counting = Counting(federated.ledger)
    recording = list[bool]()

    def watch(event: Event) -> None:
        counting.away = event.kind == "delivered"  # from here on the driver reads before it records
        recording.append(counting.away)

    def get(keys: Collection[str]) -> dict[str, bytes | None]:
        if counting.away and any(key.startswith("party/") for key in keys):
            raise Unavailable("ledger-locked", "Somebody else writes.")
        return federated.ledger.get(keys)

    counting.get = get  # type: ignore[method-assign]
    federated.driver(ledger=counting, watch=watch).drive()
    assert [kinds for kinds in counting.batches if "record" in kinds] == [["record"], ["record"]]
    assert any(recording)


class Late(Honest):
    """Its clock is an hour behind in the first round: the ledger refuses its commitment."""

    def answer(self, view: RoundView, result: TrainResult | TrainFailure) -> Unsigned | None:
        behind = replace(view, head=replace(view.head, at=view.head.at - 3600))
        agent: Agent = self.agent  # type: ignore[assignment]
        clock = agent._clock
        agent._clock = lambda: clock() - 3600
        try:
            return agent.answer(behind if view.head.round == 1 else view, result)
        finally:
            agent._clock = clock


def test_a_refused_commitment_takes_the_seal_behind_it_along(make: Make) -> None:
    federated = make()
    federated.agents["site-02"] = with_fault(federated.agents["site-02"], Late, 1)
    federated.drive()
    told = [(e.kind, e.facts["site"], e.facts["code"]) for e in federated.events if e.kind == "site-rejected"]
    assert told == [("site-rejected", "site-02", "clock-skew")]
    first, second = federated.entries("seal")
    assert first.body["out"] == [{"member": federated.member("site-02"), "reason": "silent"}]
    assert first.at > federated.entries("open")[0].body["commit_by"], "no sooner than the deadline"
    assert second.body["out"] == []


def test_an_opening_that_is_refused_behind_a_record_is_decided_anew(make: Make) -> None:
    federated = make()

    def watch(event: Event) -> None:
        federated.events.append(event)
        if (event.kind, event.round) == ("before-open", 2) and not federated.entries("withdraw"):
            federated.accept(federated.agents["site-03"].withdraw())  # type: ignore[attr-defined]

    federated.driver(watch=watch).drive()
    assert [(e.kind, e.round) for e in federated.events if e.kind in {"record", "before-open", "open"}] == [
        ("before-open", 1), ("open", 1), ("before-open", 2), ("record", 1), ("before-open", 2), ("open", 2), ("record", 2),
    ]  # fmt: skip
    absent = [{"member": federated.member("site-03"), "reason": "withdrawn"}]
    assert [e.body["absent"] for e in federated.entries("open")] == [[], absent]
    assert len(federated.entries("record")[1].body["included"]) == 2


def test_attestations_that_the_agreement_asks_for(make: Make) -> None:
    federated = make(more="[agreement.attestations]\nnext_open = 2\n")
    federated.drive()
    assert len(federated.entries("attest")) == 2
    assert len(federated.entries("open")[1].body["attestations"]) == 2


def test_a_dispute_keeps_the_next_round_closed(make: Make) -> None:
    federated = make(more="[agreement.attestations]\nnext_open = 2\n")
    sites = federated.sites(recompute=lambda _agreement, _round: ("0" * 64, "1" * 64))
    with pytest.raises(Rejected) as refused:
        federated.driver(sites).drive()
    assert refused.value.code == "attestation-missing"
    assert [e.body["verdict"] for e in federated.entries("attest")] == ["disputes", "disputes"]
