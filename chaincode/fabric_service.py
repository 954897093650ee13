# SPDX-License-Identifier: Apache-2.0
"""The chaincode server: `python -m chaincode.fabric_service`, one for each peer (chaincode as a service).

    --listen HOST:PORT --package-id ID --source SHA256
    [--tls-certificate FILE --tls-key FILE --client-ca FILE]   demanded where HOST is not loopback
    --source-digest                                            print the digest of this source and end

It refuses to start on other source than `--source` says, which is the digest that the organisations approved with the
package. It prints `ready HOST:PORT` when it listens. An open port lets whoever reaches it run the contract (not change the
ledger: peers endorse, not this server), so elsewhere than on loopback the peer must show a certificate of `--client-ca`.
"""

import argparse
import asyncio
import ipaddress
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from fabric_protos.peer import chaincode_shim_pb2

from chaincode.fabric_shim import Conversation
from chaincode.fabric_source import source_digest
from chaincode.fabric_transaction import Function, functions
from identity.errors import UsageError

MESSAGE_LIMIT = 32 << 20
"""Bytes of one message: the arguments come twice, in the input and in the proposal."""
_GRACE = 5.0
_PAUSE = 0.01
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    # A peer pings an idle stream each minute, which gRPC would otherwise take for an attack and hang up.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a rival
)
_METHOD = "/protos.Chaincode/Connect"


class Server:
    """A chaincode server for one package."""

    def __init__(self, package: str, known: Mapping[str, Function]) -> None:
        self._package, self._functions = package, known
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="judging")
        self._conversations: set[Conversation] = set()
        self._server: Any = None

    async def start(self, listen: str, credentials: Any = None) -> str:
        """Listen, and return the address with the port in force. Raises UsageError(address-in-use)."""
        message = chaincode_shim_pb2.ChaincodeMessage
        handler = grpc.stream_stream_rpc_method_handler(
            self._connect, request_deserializer=message.FromString, response_serializer=message.SerializeToString
        )
        self._server = grpc.aio.server(options=_OPTIONS)
        service, method = _METHOD.strip("/").split("/")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        try:
            if credentials is None:
                port = self._server.add_insecure_port(listen)
            else:
                port = self._server.add_secure_port(listen, credentials)
        except RuntimeError as error:
            raise UsageError("address-in-use", f"The chaincode server cannot listen on {listen}.") from error
        await self._server.start()
        return f"{listen.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        """Let transactions that are under way end, then hang up: a peer that still runs never would."""
        end = asyncio.get_running_loop().time() + _GRACE
        while any(one.busy for one in self._conversations) and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_PAUSE)
        await self._server.stop(None)
        self._executor.shutdown(wait=False)

    async def _connect(self, messages: AsyncIterator[Any], context: Any) -> None:
        conversation = Conversation(self._package, self._functions, context.write, self._executor)
        self._conversations.add(conversation)
        try:
            await conversation.run(messages)
        finally:
            self._conversations.discard(conversation)


def credentials_of(listen: str, certificate: str | None, key: str | None, client_ca: str | None) -> Any:
    """Return the TLS credentials to listen with, None for a bare loopback address.

    Raises UsageError: fabric-tls-options, fabric-tls-needed, fabric-tls-file.
    """
    given = [certificate, key, client_ca]
    if not any(given):
        if _is_loopback(listen.rpartition(":")[0]):
            return None
        raise UsageError(
            "fabric-tls-needed", f"{listen} is not loopback: give --tls-certificate, --tls-key and --client-ca."
        )
    if certificate is None or key is None or client_ca is None:
        raise UsageError("fabric-tls-options", "Give --tls-certificate, --tls-key and --client-ca together.")
    try:
        chain, private, authority = (Path(path).read_bytes() for path in (certificate, key, client_ca))
    except OSError as error:
        raise UsageError("fabric-tls-file", f"A file for TLS cannot be read: {error}.") from error
    return grpc.ssl_server_credentials([(private, chain)], root_certificates=authority, require_client_auth=True)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_source(approved: str, actual: str) -> None:
    """Raise UsageError(fabric-source) where the source is not what was approved."""
    if approved != actual:
        raise UsageError(
            "fabric-source",
            f"The approved package is for the source {approved}; this is {actual}.",
            next="Run the approved version, or have the organisations approve a new package.",
        )


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT. Raises UsageError."""
    digest = source_digest()
    check_source(arguments.source, digest)
    tls = credentials_of(arguments.listen, arguments.tls_certificate, arguments.tls_key, arguments.client_ca)
    server, ending = Server(arguments.package_id, functions(digest)), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    print(f"ready {await server.start(arguments.listen, tls)}", flush=True)
    await ending.wait()
    await server.stop()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0, or 2 for a UsageError, which is printed."""
    parser = argparse.ArgumentParser(prog="python -m chaincode.fabric_service", description="The chaincode server.")
    parser.add_argument("--source-digest", action="store_true", help="print the digest of this source and end")
    for name in ("listen", "package-id", "source", "tls-certificate", "tls-key", "client-ca"):
        parser.add_argument(f"--{name}")
    arguments = parser.parse_args(argv)
    if arguments.source_digest:
        print(source_digest())
        return 0
    missing = [name for name in ("listen", "package_id", "source") if not getattr(arguments, name)]
    if missing:
        parser.error(f"missing: {', '.join('--' + name.replace('_', '-') for name in missing)}")
    try:
        asyncio.run(serve(arguments))
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
