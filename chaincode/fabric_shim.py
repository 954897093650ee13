# SPDX-License-Identifier: Apache-2.0
"""The protocol between a Fabric peer and its chaincode: one stream, on which many transactions run at once.

Source: peer/chaincode_shim.proto of the Fabric protocol buffers, with the batch messages of Fabric 3.1.

    ours   REGISTER(package id)              theirs  REGISTERED, READY(what batches the peer can take)
    theirs TRANSACTION(arguments, proposal)  ours    GET_STATE_MULTIPLE -> RESPONSE, WRITE_BATCH_STATE -> RESPONSE
    ours   COMPLETED(response)

A transaction is known by (channel, id) and has one request under way at a time. A peer that cannot take batches is
asked key by key.
"""

import asyncio
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from fabric_protos.common import common_pb2
from fabric_protos.peer import chaincode_pb2, chaincode_shim_pb2, proposal_pb2, proposal_response_pb2
from google.protobuf.message import DecodeError

from chaincode.fabric_transaction import FAULT, Context, Function, Refused, Response, Result
from identity.wording import counted

AT_ONCE = 512
"""Transactions under way on one stream; what comes beyond is refused."""
_ALONE = 4  # entries that are judged on the spot; more go to a thread, so that other transactions go on
_TYPE = chaincode_shim_pb2.ChaincodeMessage
Message = Any
Write = Callable[[Message], Awaitable[None]]


class PeerError(Exception):
    """The peer answered a request with an error, or with what is no answer to it."""


@dataclass(frozen=True, slots=True)
class Batches:
    """How many keys the peer reads and writes per message; 0 where it takes them one by one."""

    read: int = 0
    write: int = 0


class Conversation:
    """One stream with a peer, from REGISTER until either side closes it."""

    def __init__(self, package: str, functions: Mapping[str, Function], write: Write, executor: Executor) -> None:
        self.executor = executor
        self.batches = Batches()
        self._package, self._functions, self._write = package, functions, write
        self._writing = asyncio.Lock()  # gRPC takes one message of a stream at a time
        self._answers: dict[tuple[str, str], asyncio.Future[Message]] = {}
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def run(self, messages: AsyncIterator[Message]) -> None:
        """Talk until the peer hangs up; transactions that are under way then are given up."""
        name = chaincode_pb2.ChaincodeID(name=self._package).SerializeToString()
        await self.send(_TYPE(type=_TYPE.REGISTER, payload=name))
        try:
            async for message in messages:
                await self._take(message)
        finally:
            for task in self._running.values():
                task.cancel()

    @property
    def busy(self) -> bool:
        """Whether a transaction is under way."""
        return bool(self._running)

    async def send(self, message: Message) -> None:
        """Put a message on the stream."""
        async with self._writing:
            await self._write(message)

    async def ask(self, message: Message) -> Message:
        """Send a request of a transaction and return the peer's RESPONSE. Raises PeerError."""
        place = (message.channel_id, message.txid)
        waiting = asyncio.get_running_loop().create_future()
        self._answers[place] = waiting
        try:
            await self.send(message)
            answer = await waiting
        finally:
            del self._answers[place]
        if answer.type != _TYPE.RESPONSE:
            raise PeerError(answer.payload.decode("utf-8", "replace")[:500])
        return answer

    async def _take(self, message: Message) -> None:
        """Deal with one message of the peer."""
        place = (message.channel_id, message.txid)
        if message.type == _TYPE.READY:
            self.batches = _batches(message.payload)
        elif message.type == _TYPE.KEEPALIVE:
            await self.send(message)
        elif message.type in (_TYPE.RESPONSE, _TYPE.ERROR):
            waiting = self._answers.get(place)
            if waiting and not waiting.done():
                waiting.set_result(message)
        elif message.type in (_TYPE.TRANSACTION, _TYPE.INIT):
            if place in self._running or len(self._running) >= AT_ONCE:
                await self._complete(message, Response(FAULT, "too many transactions are under way here"))
                return
            task = asyncio.get_running_loop().create_task(self._transact(message))
            self._running[place] = task
            task.add_done_callback(lambda _: self._running.pop(place, None))

    async def _transact(self, message: Message) -> None:
        try:
            response = await self._respond(message)
        except (Refused, PeerError) as refusal:
            response = Response(FAULT, str(refusal))
        except Exception:  # the client gets no traceback: it would be endorsed, and differ between organisations
            print(f"transaction {message.txid} on {message.channel_id}:", file=sys.stderr)
            traceback.print_exc()
            response = Response(FAULT, "internal error of the chaincode's server: its operator has the traceback")
        await self._complete(message, response)

    async def _respond(self, message: Message) -> Response:
        try:
            arguments = chaincode_pb2.ChaincodeInput.FromString(message.payload).args
            context = _context(message)
        except DecodeError as error:
            raise Refused("the transaction's bytes cannot be read") from error
        name = bytes(arguments[0]).decode("utf-8", "replace") if arguments else ""
        function = self._functions.get(name)
        if message.type == _TYPE.INIT or function is None:
            raise Refused(f"no function {name[:40]!r}; there are {', '.join(self._functions)}")
        return await function(Transaction(self, message.channel_id, message.txid, context), arguments[1:])

    async def _complete(self, message: Message, response: Response) -> None:
        body = _response(response)
        await self.send(_TYPE(type=_TYPE.COMPLETED, payload=body, txid=message.txid, channel_id=message.channel_id))


@dataclass(frozen=True, slots=True)
class Transaction:
    """The state of a channel as one transaction sees it (`fabric_transaction.Peer`)."""

    conversation: Conversation
    channel: str
    txid: str
    context: Context

    async def get_many(self, keys: Sequence[str]) -> dict[str, bytes | None]:
        """Return the value under each key, in as few round trips as the peer allows. Raises PeerError."""
        size = self.conversation.batches.read
        values: list[bytes] = []
        if size:
            for i in range(0, len(keys), size):
                asked = chaincode_shim_pb2.GetStateMultiple(keys=keys[i : i + size])
                payload = await self._ask(_TYPE.GET_STATE_MULTIPLE, asked)
                values += chaincode_shim_pb2.GetStateMultipleResult.FromString(payload).values
        else:
            values = [await self._ask(_TYPE.GET_STATE, chaincode_shim_pb2.GetState(key=key)) for key in keys]
        if len(values) != len(keys):
            raise PeerError(f"the peer answered with {counted(len(values), 'value')} for {counted(len(keys), 'key')}")
        return {key: value or None for key, value in zip(keys, values, strict=True)}

    async def put_many(self, values: dict[str, bytes]) -> None:
        """Write values in the order of their keys, in as few round trips as the peer allows. Raises PeerError."""
        if not all(values.values()):
            raise ValueError("an empty value deletes its key")
        size, items = self.conversation.batches.write, sorted(values.items())
        if not size:
            for key, value in items:
                await self._ask(_TYPE.PUT_STATE, chaincode_shim_pb2.PutState(key=key, value=value))
        for i in range(0, len(items) if size else 0, size or 1):
            records = [
                chaincode_shim_pb2.WriteRecord(key=key, value=value, type=chaincode_shim_pb2.WriteRecord.PUT_STATE)
                for key, value in items[i : i + size]
            ]
            await self._ask(_TYPE.WRITE_BATCH_STATE, chaincode_shim_pb2.WriteBatchState(rec=records))

    async def aside(self, work: Callable[[], Result], size: int) -> Result:
        """Do `work` on `size` entries here if they are few, in a thread if they are many."""
        if size <= _ALONE:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self.conversation.executor, work)

    async def _ask(self, kind: Any, request: Any) -> bytes:
        payload = request.SerializeToString()
        message = _TYPE(type=kind, payload=payload, txid=self.txid, channel_id=self.channel)
        answer: bytes = (await self.conversation.ask(message)).payload
        return answer


def _response(response: Response) -> bytes:
    """Return the bytes of the `Response` message that COMPLETED carries."""
    message = proposal_response_pb2.Response(status=response.status, message=response.message, payload=response.payload)
    data: bytes = message.SerializeToString()
    return data


def _batches(payload: bytes) -> Batches:
    """Return what a peer says in READY; one before Fabric 3.1 says nothing."""
    try:
        said = chaincode_pb2.ChaincodeAdditionalParams.FromString(payload)
    except DecodeError:
        return Batches()
    return Batches(
        said.max_size_get_multiple_keys if said.use_get_multiple_keys else 0,
        said.max_size_write_batch if said.use_write_batch else 0,
    )


def _context(message: Message) -> Context:
    """Return the header that the client signed."""
    proposal = proposal_pb2.Proposal.FromString(message.proposal.proposal_bytes)
    header = common_pb2.ChannelHeader.FromString(common_pb2.Header.FromString(proposal.header).channel_header)
    extension = proposal_pb2.ChaincodeHeaderExtension.FromString(header.extension)
    return Context(header.channel_id, extension.chaincode_id.name, header.timestamp.seconds)
