# SPDX-License-Identifier: Apache-2.0
"""The chaincode server before a peer's end of the protocol, over real gRPC: what is asked for, and what comes back."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest
from fabric_protos.peer import proposal_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from chaincode import contract
from chaincode.entries import open_entry
from chaincode.fabric_outcomes import Accepted, Duplicate, parse_outcomes
from chaincode.fabric_service import MESSAGE_LIMIT
from chaincode.fabric_shim import AT_ONCE
from chaincode.fabric_transaction import OK, Peer, Response
from identity import canonical
from identity.errors import Rejected
from tests.chaincode.ledgers.fabric.hosts import FABRIC_STREAM, FABRIC_WHOLE
from tests.fakes.fabric_calls import begin, signed
from tests.fakes.fabric_double import CHANNEL
from tests.fakes.fabric_stream import MESSAGE, PeerEnd, Simulation
from tests.fakes.fabric_world import PACKAGE, SOURCE, serving

WHOLE, AT = FABRIC_WHOLE, FABRIC_STREAM.at
IDS = [open_entry(envelope).id for envelope in WHOLE]


@pytest.fixture
def server() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture
def peer(server: str) -> Iterator[PeerEnd]:
    end = PeerEnd(server)
    yield end
    end.close()


class State:
    """A channel's state, one transaction after the other."""

    def __init__(self, peer: PeerEnd) -> None:
        self.peer, self.number = peer, 0
        self.values: dict[str, tuple[bytes, tuple[int, int]]] = {}

    def run(self, function: bytes, *arguments: bytes, **header: Any) -> Simulation:
        self.number += 1
        done = self.peer.run(CHANNEL, f"tx{self.number}", [function, *arguments], signed(**header), self.values)
        if done.response.status == OK:
            self.values.update({key: (value, (self.number, 0)) for key, value in done.writes.items()})
        return done


@pytest.fixture
def state(peer: PeerEnd) -> State:
    return State(peer)


def outcomes(done: Simulation) -> list[Any]:
    return parse_outcomes(done.response.payload if done.response.status == OK else done.response.message.encode())


# The protocol


def test_it_registers_with_the_package_id(peer: PeerEnd) -> None:
    assert peer.ready.wait(10)
    assert peer.package == PACKAGE


def test_reads_and_writes_are_one_round_trip_each(state: State) -> None:
    done = state.run(b"submit", *WHOLE)
    assert done.asked == ["GET_STATE_MULTIPLE", "WRITE_BATCH_STATE", "COMPLETED"]
    assert set(done.reads) == contract.keys_of([open_entry(envelope) for envelope in WHOLE])


def test_larger_requests_are_cut_to_what_the_peer_takes(server: str) -> None:
    end = PeerEnd(server, (3, 4))
    done = State(end).run(b"submit", *WHOLE)
    end.close()
    assert done.asked.count("GET_STATE_MULTIPLE") == -(-len(done.reads) // 4)
    assert done.asked.count("WRITE_BATCH_STATE") == -(-len(done.writes) // 3)


def test_a_peer_without_batches_is_asked_key_by_key(server: str, peer: PeerEnd) -> None:
    older = PeerEnd(server, None)
    old, new = State(older), State(peer)
    one, two = old.run(b"submit", *WHOLE), new.run(b"submit", *WHOLE)
    assert one.asked == ["GET_STATE"] * len(one.reads) + ["PUT_STATE"] * len(one.writes) + ["COMPLETED"]
    assert (one.writes, one.reads, one.response) == (two.writes, two.reads, two.response)
    assert outcomes(old.run(b"submit", WHOLE[0])) == [Duplicate(IDS[0])]
    older.close()


def test_transactions_run_side_by_side() -> None:
    """Each waits until all are there."""
    together = asyncio.Barrier(8)

    async def meet(_peer: Peer, _args: Sequence[bytes]) -> Response:
        await asyncio.wait_for(together.wait(), 10)
        return Response(OK, payload=b"met")

    with serving({"meet": meet}) as address:
        end = PeerEnd(address)
        assert end.ready.wait(10)
        simulations = [begin(end, f"tx{i}") for i in range(8)]
        assert all(one.done.wait(10) for one in simulations)
        assert {one.response.payload for one in simulations} == {b"met"}
        end.close()


def test_transactions_under_way_are_bounded() -> None:
    async def sleep(_peer: Peer, _args: Sequence[bytes]) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    with serving({"sleep": sleep}) as address:
        end = PeerEnd(address)
        assert end.ready.wait(10)
        for i in range(AT_ONCE):
            begin(end, f"tx{i}", b"sleep")
        over = begin(end, "one more", b"sleep")
        assert over.done.wait(10)
        assert "too many" in over.response.message
        end.close()


def test_a_fault_of_our_own_is_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    async def fail(_peer: Peer, _args: Sequence[bytes]) -> Response:
        raise ZeroDivisionError("secret")

    with serving({"fail": fail}) as address:
        end = PeerEnd(address)
        done = State(end).run(b"fail")
        end.close()
    assert (done.response.status, done.response.payload, done.writes) == (500, b"", {})
    assert "internal error" in done.response.message
    assert "secret" not in done.response.message
    assert "ZeroDivisionError: secret" in capfd.readouterr().err


def test_nothing_is_deleted_by_an_empty_value() -> None:
    async def empty(peer: Peer, _args: Sequence[bytes]) -> Response:
        await peer.put_many({"key": b""})
        return Response(OK)

    with serving({"empty": empty}) as address:
        end = PeerEnd(address)
        done = State(end).run(b"empty")
        end.close()
    assert (done.response.status, done.asked) == (500, ["COMPLETED"])


def test_what_the_peer_refuses_is_said(peer: PeerEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "_answer", lambda *_: (_ for _ in ()).throw(ValueError("no such channel")))
    done = State(peer).run(b"get", b"key")
    assert (done.response.status, done.response.message) == (500, "no such channel")


def test_bytes_that_are_no_transaction_are_refused(peer: PeerEnd) -> None:
    assert peer.ready.wait(10)
    odd = [("one", b"\xff", signed()), ("other", b"", proposal_pb2.SignedProposal(proposal_bytes=b"\xff"))]
    for txid, payload, proposal in odd:  # the first one may be under way still when its answer is here
        simulation = peer._running[CHANNEL, txid] = Simulation({})
        peer.send(MESSAGE(type=MESSAGE.TRANSACTION, payload=payload, txid=txid, channel_id=CHANNEL, proposal=proposal))
        assert simulation.done.wait(10)
        assert "cannot be read" in simulation.response.message


def test_a_message_beyond_the_bound_ends_the_stream_and_nothing_else(server: str) -> None:
    big = PeerEnd(server)
    big._channel.close()
    options = [("grpc.max_send_message_length", -1)]
    channel = grpc.insecure_channel(server, options)
    call = channel.stream_stream("/protos.Chaincode/Connect", request_serializer=bytes, response_deserializer=bytes)
    with pytest.raises(grpc.RpcError) as caught:
        list(call(iter([bytes(MESSAGE_LIMIT + 1)])))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    channel.close()
    other = PeerEnd(server)
    assert State(other).run(b"source").response.payload == SOURCE.encode()
    other.close()


# The functions


def test_a_mixed_batch_says_what_became_of_each(state: State) -> None:
    state.run(b"submit", WHOLE[0])
    done = state.run(b"submit", WHOLE[0], b"no entry", WHOLE[1], WHOLE[5], WHOLE[1])
    assert done.response.status == OK
    first, second, third, fourth, fifth = outcomes(done)
    assert (first, third, fifth) == (Duplicate(IDS[0]), Accepted(IDS[1]), Duplicate(IDS[1]))
    assert (second.code, fourth.code) == ("json-syntax", "member-unknown")


def test_a_transaction_that_would_write_nothing_is_an_error_with_the_outcomes(state: State) -> None:
    done = state.run(b"submit", WHOLE[1], b"no entry")
    assert (done.response.status, done.response.payload, done.writes) == (500, b"", {})
    assert [one.code for one in outcomes(done)] == ["not-founded", "json-syntax"]
    refusal = contract.apply_all([open_entry(WHOLE[1])], dict.fromkeys(contract.keys(open_entry(WHOLE[1]))))[0][0]
    assert refusal is not None
    assert outcomes(done)[0].message == refusal.message
    assert outcomes(state.run(b"submit", b"nothing at all"))[0].code == "json-syntax"


def test_the_door_asks_the_transactions_own_time(state: State) -> None:
    assert outcomes(state.run(b"submit", WHOLE[0], time=AT + 61))[0].code == "clock-skew"
    assert outcomes(state.run(b"submit", WHOLE[0], time=AT + 60)) == [Accepted(IDS[0])]
    assert outcomes(state.run(b"submit", WHOLE[0], time=0)) == [Duplicate(IDS[0])]


def test_a_call_from_another_chaincode_is_refused(state: State) -> None:
    """Its arguments would not be those of the transaction, which the log is read from."""
    assert outcomes(state.run(b"submit", WHOLE[0], chaincode="other"))[0].code == "log-key-mismatch"
    state.run(b"submit", WHOLE[0])
    done = state.run(b"submit", WHOLE[1], chaincode="other")
    assert (done.response.status, done.writes) == (500, {})
    assert "was signed for other" in done.response.message


def test_values_are_read_in_the_order_of_the_keys(state: State) -> None:
    state.run(b"submit", *WHOLE)
    done = state.run(b"get", b"nothing", b"federation", b"nothing")
    stored = canonical.b64encode(state.values["federation"][0])
    assert canonical.loads(done.response.payload) == [None, stored, None]
    assert (done.asked, done.writes) == (["GET_STATE_MULTIPLE", "COMPLETED"], {})
    assert canonical.loads(state.run(b"get").response.payload) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([b"submit"], "1 to 4096 envelopes"), ([b"submit", *[b"x"] * 4097], "1 to 4096 envelopes"),
        ([b"get", b""], "keys of 1 to 512"), ([b"get", b"k" * 513], "keys of 1 to 512"),
        ([b"get", *[b"k"] * 4097], "at most 4096 keys"), ([b"get", b"\xff"], "not UTF-8"),
        ([b"delete"], "no function 'delete'"), ([], "no function ''"), ([b"\xff" * 1000], "no function"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused(state: State, arguments: list[bytes], said: str) -> None:
    done = state.peer.run(CHANNEL, "odd", arguments, signed(), {})
    assert (done.response.status, done.writes) == (500, {})
    assert said in done.response.message
    assert len(done.response.message) < 300


def test_more_state_than_an_answer_holds_is_refused(state: State) -> None:
    state.values = {f"k{i}": (bytes(1 << 20), (0, 0)) for i in range(9)}
    assert "fewer keys" in state.run(b"get", *(key.encode() for key in state.values)).response.message


def test_any_bytes_get_an_outcome(state: State) -> None:
    @settings(max_examples=60)
    @given(
        st.lists(
            st.one_of(st.binary(max_size=80), st.sampled_from(WHOLE).map(lambda e: e[:-1])), min_size=1, max_size=4
        )
    )
    def check(arguments: list[bytes]) -> None:
        done = state.run(b"submit", *arguments)
        assert done.response.status == 500
        assert all(isinstance(one, Rejected) for one in outcomes(done))
        assert len(outcomes(done)) == len(arguments)

    check()
