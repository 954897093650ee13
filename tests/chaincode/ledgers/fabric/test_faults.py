# SPDX-License-Identifier: Apache-2.0
"""What the Fabric ledger does when sending fails at a chosen moment: on the double network, which can fail on time."""

from dataclasses import replace
from pathlib import Path

import pytest

from chaincode.ledgers.fabric.ledger import FabricLedger
from identity.errors import CredentialError, OutcomeUnknown, Unavailable
from tests.chaincode.ledgers.fabric.trouble import (
    AWAY,
    CODE,
    CODES,
    HASTE,
    WHOLE,
    always,
    check_holds,
    failing,
    opened,
    pending,
)
from tests.chaincode.ledgers.hosts import accepted, codes
from tests.fakes.fabric_double import Fault
from tests.fakes.fabric_world import Double

# Endorsing


def test_another_organisations_peer_is_asked_where_ones_own_is_away(network: Double, ledger: FabricLedger) -> None:
    own, other = network.gateways
    own.fault = always("endorse", AWAY)
    assert accepted(ledger.submit(WHOLE[:1]))[0].index == 0
    assert "endorse" in other.calls


def test_an_endorsement_that_fails_for_a_while_is_asked_for_again(network: Double, ledger: FabricLedger) -> None:
    """As a network that has just started: the peers have not found one another yet."""
    for gateway in network.gateways:
        gateway.fault = failing("endorse", *[Fault(CODE.FAILED_PRECONDITION, "no peer combination")] * 3)
    accepted(ledger.submit(WHOLE[:1]))


def test_too_few_organisations_are_named(network: Double, ledger: FabricLedger) -> None:
    for gateway in network.gateways:
        gateway.fault = always(
            "endorse", Fault(CODE.ABORTED, "failed to collect enough", [("peer9:7", "Org9MSP", "gone")])
        )
    with pytest.raises(Unavailable) as caught:
        ledger.submit(WHOLE[:1])
    assert caught.value.code == "fabric-not-endorsed"
    assert not isinstance(caught.value, OutcomeUnknown)
    assert "Org9MSP at peer9:7: gone" in caught.value.message
    assert "endorse at Org1MSP's peer" in caught.value.message
    check_holds(ledger, [])
    assert pending(network) == []


@pytest.mark.parametrize(
    "said", ["ProposalResponsePayloads do not match", 'chaincode response 500, [{"rejected":"x"}]']
)
def test_organisations_that_differ_for_a_moment_are_asked_again(
    network: Double, ledger: FabricLedger, said: str
) -> None:
    """The other one's peer is a block behind: its verdict is no verdict."""
    lag = Fault(CODE.ABORTED, "failed to collect enough transaction endorsements", [("p:1", "Org2MSP", said)])
    network.gateways[0].fault = failing("endorse", lag, lag)
    accepted(ledger.submit(WHOLE[:1]))
    assert network.gateways[1].calls == []


def test_an_organisation_that_goes_on_differing_is_named(network: Double, ledger: FabricLedger) -> None:
    other = ("p:1", "Org2MSP", "ProposalResponsePayloads do not match")
    network.gateways[0].fault = always("endorse", Fault(CODE.ABORTED, "failed to collect enough", [other]))
    with pytest.raises(Unavailable) as caught:
        ledger.submit(WHOLE[:1])
    assert caught.value.code == "fabric-conflicts"
    assert "Org2MSP" in caught.value.message


def test_a_refusal_by_a_peer_that_is_behind_is_no_verdict(network: Double, ledger: FabricLedger) -> None:
    """A peer that has just been started again does not know what the others know; it is asked again when it does."""
    own, other = network.gateways
    accepted(ledger.submit(WHOLE[:1]))
    own.lag = 1
    with opened(network) as later:
        refused = Fault(CODE.ABORTED, "failed to endorse transaction", [
            ("p:1", "Org1MSP", 'chaincode response 500, [{"message":"No.","rejected":"not-founded"}]')
        ])  # fmt: skip

        def fault(step: str, _txid: str) -> None:
            """It catches up after its refusal, before it says how far it is: that refusal is no verdict either."""
            if step == "newest" and own.calls.count("newest") == 3:
                own.lag = 0
            if step == "endorse" and own.lag:
                raise refused

        own.fault = fault
        own.calls.clear()
        accepted(later.submit(WHOLE[1:2]))
    assert own.calls.count("endorse") == 4
    assert "endorse" not in other.calls
    own.fault = always("endorse", refused)
    assert codes(ledger.submit(WHOLE[2:3])) == ["not-founded"]
    other.fault = always("newest", AWAY)
    own.lag = 1
    assert codes(ledger.submit(WHOLE[2:3])) == ["not-founded"]


def test_a_client_that_the_network_does_not_know_is_told_so(network: Double, tmp_path: Path) -> None:
    """Its certificate is another's: the signature does not fit."""
    one, two = network.profile.organisations
    network.gateways[0].fault = always(
        "endorse",
        Fault(CODE.ABORTED, "failed to endorse", [("p:1", "Org1MSP", "error validating proposal: access denied")]),
    )
    with opened(network) as ledger, pytest.raises(CredentialError) as caught:
        ledger.submit(WHOLE[:1])
    assert caught.value.code == "fabric-access-denied"
    mixed = replace(network.profile, organisations=(replace(one, key=two.key), two))
    with pytest.raises(CredentialError) as caught:
        FabricLedger.open(mixed, "Org1")
    assert caught.value.code == "msp-key-mismatch"


def test_a_clock_that_is_far_off_is_named(network: Double, ledger: FabricLedger) -> None:
    said = "request unauthorized due to incorrect timestamp"
    for gateway in network.gateways:
        gateway.fault = always("endorse", Fault(CODE.ABORTED, "failed to endorse", [("p:1", "Org1MSP", said)]))
    with pytest.raises(Unavailable) as caught:
        ledger.submit(WHOLE[:1])
    assert caught.value.code == "fabric-clock"


# Ordering, and what became of it


def test_the_same_envelope_is_sent_again_where_the_orderers_were_away(network: Double, ledger: FabricLedger) -> None:
    seen: list[bytes] = []
    network.gateways[0].fault = failing("submit", Fault(CODE.UNAVAILABLE, "no orderers could process"))
    for gateway in network.gateways:
        gateway.order = lambda envelope: (seen.append(envelope.SerializeToString()), network.channel.append([envelope]))
    accepted(ledger.submit(WHOLE[:1]))
    assert len(seen) == 1
    assert pending(network) == []


def test_a_transaction_that_the_orderer_lost_is_sent_again(network: Double, ledger: FabricLedger) -> None:
    """Submit said yes, and the orderer died before it cut a block."""
    lost: list[bytes] = []

    def order(envelope: object) -> None:
        lost.append(envelope.SerializeToString())  # type: ignore[attr-defined]
        if len(lost) > 1:
            network.channel.append([envelope])

    network.gateways[0].order = order
    accepted(ledger.submit(WHOLE[:1]))
    assert lost[0] == lost[1]


def test_a_transaction_that_is_sent_twice_counts_once(network: Double, ledger: FabricLedger) -> None:
    network.gateways[0].order = lambda envelope: network.channel.append([envelope, envelope])
    accepted(ledger.submit(WHOLE[:1]))
    check_holds(ledger, WHOLE[:1])


def test_another_peer_says_what_became_of_it(network: Double, ledger: FabricLedger) -> None:
    """One's own peer dies between Submit and CommitStatus."""
    network.gateways[0].fault = failing("status", *[AWAY] * 50)
    accepted(ledger.submit(WHOLE[:1]))
    assert network.gateways[0].calls.count("submit") == 1


def test_a_second_copys_status_is_not_taken_for_the_firsts(network: Double, ledger: FabricLedger) -> None:
    network.gateways[0].code = int(CODES.DUPLICATE_TXID)
    accepted(ledger.submit(WHOLE[:1]))
    assert network.gateways[0].calls.count("endorse") == 1


def test_a_transaction_that_is_invalid_for_good_is_said_to_be(network: Double, ledger: FabricLedger) -> None:
    network.channel.refused = [int(CODES.BAD_PROPOSAL_TXID)]
    with pytest.raises(Unavailable) as caught:
        ledger.submit(WHOLE[:1])
    assert caught.value.code == "fabric-invalid"
    assert "BAD_PROPOSAL_TXID" in caught.value.message
    assert pending(network) == []
    check_holds(ledger, [])


def test_too_few_endorsements_for_a_moment_are_collected_anew(network: Double, ledger: FabricLedger) -> None:
    """An organisation has joined since the entry was endorsed."""
    network.channel.refused = [int(CODES.ENDORSEMENT_POLICY_FAILURE)] * 2
    accepted(ledger.submit(WHOLE[:1]))
    assert network.gateways[0].calls.count("endorse") == 3
    check_holds(ledger, WHOLE[:1])


def test_too_few_endorsements_again_and_again_are_an_error(network: Double, ledger: FabricLedger) -> None:
    network.channel.refused = [int(CODES.ENDORSEMENT_POLICY_FAILURE)] * 100
    with pytest.raises(Unavailable) as caught:
        ledger.submit(WHOLE[:1])
    assert caught.value.code == "fabric-invalid"
    assert not isinstance(caught.value, OutcomeUnknown)
    assert "ENDORSEMENT_POLICY_FAILURE" in caught.value.message
    assert network.gateways[0].calls.count("endorse") == HASTE.too_few + 1
    assert pending(network) == []
    check_holds(ledger, [])


def test_orderers_that_do_not_answer_are_named(network: Double, ledger: FabricLedger) -> None:
    """Two of four, in the words of a gateway."""
    away = [(f"127.0.0.1:{port}", "OrdererMSP", "connection refused") for port in (7, 9)]
    for gateway in network.gateways:
        gateway.fault = always("submit", Fault(CODE.UNAVAILABLE, "insufficient number of orderers", away))
    with pytest.raises(OutcomeUnknown) as caught:
        ledger.submit(WHOLE[:1])
    assert "Those that do not answer: 127.0.0.1:7, 127.0.0.1:9." in caught.value.message
    assert caught.value.next is not None
    assert "fedledger fabric up" in caught.value.next
    assert len(pending(network)) == 1


def test_an_unknown_outcome_is_kept_apart_and_on_the_disk(network: Double, ledger: FabricLedger) -> None:
    for gateway in network.gateways:
        gateway.order = lambda _: None
    with pytest.raises(OutcomeUnknown) as caught:
        ledger.submit(WHOLE[:1])
    assert caught.value.code == "fabric-outcome-unknown"
    assert caught.value.next is not None
    assert len(pending(network)) == 1


def test_a_later_process_settles_what_an_earlier_one_left(network: Double, ledger: FabricLedger) -> None:
    kept: list[object] = []
    for gateway in network.gateways:
        gateway.order = kept.append
    with pytest.raises(OutcomeUnknown):
        ledger.submit(WHOLE[:1])
    for gateway in network.gateways:
        gateway.order = lambda envelope: network.channel.append([envelope])
    with opened(network) as later:
        assert later.recover() == 1
        assert later.recover() == 0
        check_holds(later, WHOLE[:1])
    assert pending(network) == []
    network.channel.append([kept[0]])  # the first copy arrives after all
    check_holds(ledger, WHOLE[:1])


def test_an_envelope_that_the_orderers_refuse_is_not_sent_for_ever(network: Double, ledger: FabricLedger) -> None:
    network.gateways[0].fault = always("submit", Fault(CODE.ABORTED, "received unsuccessful response: BAD_REQUEST"))
    with pytest.raises(Unavailable) as caught:
        ledger.submit(WHOLE[:1])
    assert caught.value.code == "fabric-orderer-refused"
    assert not isinstance(caught.value, OutcomeUnknown)
    assert pending(network) == []


def test_a_conflict_of_versions_is_endorsed_anew(network: Double, ledger: FabricLedger) -> None:
    """Another client's transaction gets into the block first."""
    accepted(ledger.submit(WHOLE[:2]))
    held: list[object] = []

    def order(envelope: object) -> None:
        held.append(envelope)
        if len(held) == 1:
            with opened(network, "Org2") as rival:
                accepted(rival.submit([WHOLE[2]]))
        network.channel.append([envelope])

    network.gateways[0].order = order
    assert [r.index for r in accepted(ledger.submit(WHOLE[2:4]))] == [2, 3]
    assert len(held) == 2
    check_holds(ledger, WHOLE[:4])


def test_a_part_that_is_stored_is_said_to_be(
    network: Double, ledger: FabricLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaincode.ledgers.fabric.batches.BATCH_BYTES", 1)
    for gateway in network.gateways:
        gateway.fault = failing("endorse", None, *[AWAY] * 1000)
    network.gateways[1].fault = always("endorse", AWAY)
    with pytest.raises(OutcomeUnknown) as caught:
        ledger.submit(WHOLE[:2])
    assert caught.value.code == "fabric-not-endorsed"
    for gateway in network.gateways:
        gateway.fault = failing("")
    assert [r.index for r in accepted(ledger.submit(WHOLE[:2]))] == [0, 1]
