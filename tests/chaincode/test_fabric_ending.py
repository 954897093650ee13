# SPDX-License-Identifier: Apache-2.0
"""The end of a chaincode server whose peer still runs: what is under way comes to its end, and nothing else is waited for."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from chaincode.fabric_transaction import OK, Peer, Response
from tests.fakes.fabric_calls import begin
from tests.fakes.fabric_stream import PeerEnd
from tests.fakes.fabric_world import serving_until


@pytest.mark.parametrize("under_way", [False, True])
def test_a_server_that_is_asked_to_end_waits_for_what_is_under_way_and_for_nothing_else(under_way: bool) -> None:
    began, ending = threading.Event(), asyncio.Event()

    async def work(_peer: Peer, _args: Sequence[bytes]) -> Response:
        began.set()
        await ending.wait()
        return Response(OK, payload=b"done")

    with ThreadPoolExecutor(1) as threads, serving_until({"work": work}) as (address, stop, call):
        end = PeerEnd(address)
        assert end.ready.wait(10)
        last = begin(end, "tx", b"work") if under_way else None
        assert last is None or began.wait(10)
        stopped = threads.submit(stop)
        if last is not None:
            with pytest.raises(TimeoutError):
                stopped.result(0.1)
            call(ending.set)
            assert last.done.wait(10)
            assert last.response.payload == b"done"
        stopped.result(2.0)
        end.close()
