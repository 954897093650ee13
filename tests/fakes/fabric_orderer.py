# SPDX-License-Identifier: Apache-2.0
"""An orderer of the double network: it takes transactions from clients that reach no orderer by a peer's gateway."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
from fabric_protos.common import common_pb2
from fabric_protos.orderer import ab_pb2, ab_pb2_grpc

from chaincode.ledgers.fabric.profile import Node, Profile
from tests.fakes.fabric_world import Double


class Orderer:
    """Takes what is broadcast to it, unless `status` says otherwise; `taken` counts."""

    def __init__(self, network: Double) -> None:
        self.network, self.taken, self.status = network, 0, common_pb2.SUCCESS

    def Broadcast(self, requests: Any, _context: Any) -> Iterator[Any]:  # noqa: N802 - as the service says
        for envelope in requests:
            if self.status == common_pb2.SUCCESS:
                self.taken += 1
                self.network.channel.append([envelope])
            yield ab_pb2.BroadcastResponse(status=self.status, info="says the double")

    Deliver = None


@contextmanager
def ordering(network: Double) -> Iterator[tuple[Orderer, Profile]]:
    """Start an orderer beside a double network; it, and the network's profile with it in."""
    orderer = Orderer(network)
    server = grpc.server(ThreadPoolExecutor(8))
    ab_pb2_grpc.add_AtomicBroadcastServicer_to_server(orderer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield orderer, replace(network.profile, orderers=(Node(address, "OrdererMSP", None),))
    server.stop(0).wait()
