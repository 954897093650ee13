# SPDX-License-Identifier: Apache-2.0
"""A peer's end of the chaincode protocol, over real gRPC: it simulates transactions on a snapshot of the state."""

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2, chaincode_shim_pb2_grpc, proposal_response_pb2

MESSAGE = chaincode_shim_pb2.ChaincodeMessage
Version = tuple[int, int]
LIMIT = 32 << 20


@dataclass
class Simulation:
    """One transaction under way: what it may read, what it has read and written, and how it asked."""

    values: dict[str, tuple[bytes, Version]]
    reads: dict[str, Version | None] = field(default_factory=dict)
    writes: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    response: Any = None

    def read(self, key: str) -> bytes:
        value = self.values.get(key)
        self.reads[key] = value[1] if value else None
        return value[0] if value else b""


class PeerEnd:
    """A stream to a chaincode server. `batches` is what READY offers; None offers nothing, as an older peer."""

    def __init__(self, address: str, batches: tuple[int, int] | None = (1000, 1000), credentials: Any = None) -> None:
        options = [("grpc.max_receive_message_length", LIMIT), ("grpc.max_send_message_length", LIMIT)]
        self._channel = (
            grpc.secure_channel(address, credentials, options)
            if credentials
            else grpc.insecure_channel(address, options)
        )
        self._batches = batches
        self._out: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._running: dict[tuple[str, str], Simulation] = {}
        self.package = ""
        self.ready = threading.Event()
        self.failed: grpc.RpcError | None = None
        self._stream = chaincode_shim_pb2_grpc.ChaincodeStub(self._channel).Connect(iter(self._out.get, None))
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        self._out.put(None)
        self._channel.close()

    def run(
        self, channel: str, txid: str, arguments: list[bytes], proposal: Any, values: dict[str, tuple[bytes, Version]],
        *, timeout: float = 30.0,
    ) -> Simulation:  # fmt: skip
        """Simulate a transaction; its `response` is the chaincode's."""
        assert self.ready.wait(timeout), f"the chaincode server did not register: {self.failed}"
        simulation = self._running[channel, txid] = Simulation(values)
        payload = chaincode_pb2.ChaincodeInput(args=arguments).SerializeToString()
        self.send(MESSAGE(type=MESSAGE.TRANSACTION, payload=payload, txid=txid, channel_id=channel, proposal=proposal))
        assert simulation.done.wait(timeout), "the chaincode does not answer"
        del self._running[channel, txid]
        return simulation

    def send(self, message: Any) -> None:
        self._out.put(message)

    def _listen(self) -> None:
        try:
            for message in self._stream:
                self._take(message)
        except grpc.RpcError as error:
            self.failed = error
            self.ready.set()
        for simulation in list(self._running.values()):
            simulation.response = proposal_response_pb2.Response(status=500, message="stream terminated")
            simulation.done.set()

    def _take(self, message: Any) -> None:
        if message.type == MESSAGE.REGISTER:
            self.package = chaincode_pb2.ChaincodeID.FromString(message.payload).name
            self.send(MESSAGE(type=MESSAGE.REGISTERED))
            self.send(MESSAGE(type=MESSAGE.READY, payload=self._offer()))
            self.ready.set()
            return
        simulation = self._running[message.channel_id, message.txid]
        simulation.asked.append(MESSAGE.Type.Name(message.type))
        if message.type == MESSAGE.COMPLETED:
            simulation.response = proposal_response_pb2.Response.FromString(message.payload)
            simulation.done.set()
            return
        try:
            answer, kind = self._answer(message, simulation), MESSAGE.RESPONSE
        except ValueError as error:
            answer, kind = str(error).encode(), MESSAGE.ERROR
        self.send(MESSAGE(type=kind, payload=answer, txid=message.txid, channel_id=message.channel_id))

    def _offer(self) -> bytes:
        if self._batches is None:
            return b""
        write, read = self._batches
        return chaincode_pb2.ChaincodeAdditionalParams(
            use_write_batch=True,
            max_size_write_batch=write,
            use_get_multiple_keys=True,
            max_size_get_multiple_keys=read,
        ).SerializeToString()

    def _answer(self, message: Any, simulation: Simulation) -> bytes:
        if message.type == MESSAGE.GET_STATE:
            return simulation.read(chaincode_shim_pb2.GetState.FromString(message.payload).key)
        if message.type == MESSAGE.GET_STATE_MULTIPLE:
            keys = chaincode_shim_pb2.GetStateMultiple.FromString(message.payload).keys
            self._check_batch(len(keys), 1)
            values = [simulation.read(key) for key in keys]
            return chaincode_shim_pb2.GetStateMultipleResult(values=values).SerializeToString()
        if message.type == MESSAGE.PUT_STATE:
            put = chaincode_shim_pb2.PutState.FromString(message.payload)
            simulation.writes[put.key] = put.value
        elif message.type == MESSAGE.WRITE_BATCH_STATE:
            records = list(self._records(message.payload))
            self._check_batch(len(records), 0)
            simulation.writes.update(records)
        else:
            raise ValueError(f"a request that this peer does not know: {message.type}")
        return b""

    def _records(self, payload: bytes) -> Iterator[tuple[str, bytes]]:
        for record in chaincode_shim_pb2.WriteBatchState.FromString(payload).rec:
            if record.type != chaincode_shim_pb2.WriteRecord.PUT_STATE or not record.value:
                raise ValueError("a batch may only put values")
            yield record.key, record.value

    def _check_batch(self, size: int, which: int) -> None:
        if self._batches is None or size > self._batches[which]:
            raise ValueError("a batch larger than this peer takes")
