# SPDX-License-Identifier: Apache-2.0
"""The double network, set up: a real chaincode server, gateways of some organisations, a profile with fresh certificates."""

import asyncio
import datetime
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from chaincode.fabric_service import Server
from chaincode.fabric_transaction import functions
from chaincode.ledgers.fabric.profile import Node, Organisation, Profile
from tests.fakes.fabric_double import CHANNEL, Channel, Gateway
from tests.fakes.fabric_stream import PeerEnd

SOURCE = "0" * 64
PACKAGE = "fedledger:" + "1" * 64
Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@contextmanager
def serving(
    known: Any = None, credentials: Any = None, listen: str = "127.0.0.1:0", package: str = PACKAGE
) -> Iterator[str]:
    """A chaincode server in this process, on an event loop of its own; yields its address."""
    with serving_until(known, credentials, listen, package) as (address, _, _):
        yield address


@contextmanager
def serving_until(
    known: Any = None, credentials: Any = None, listen: str = "127.0.0.1:0", package: str = PACKAGE
) -> Iterator[tuple[str, Callable[[], None], Callable[[Callable[[], None]], object]]]:
    """The same; yields the address, what stops the server, and what calls a function on its event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = Server(package, known or functions(SOURCE))

    def stop() -> None:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)

    yield (
        asyncio.run_coroutine_threadsafe(server.start(listen, credentials), loop).result(10),
        stop,
        loop.call_soon_threadsafe,
    )
    stop()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@dataclass
class Double:
    """A double network: its channel, a gateway for each organisation, and the profile of it."""

    channel: Channel
    gateways: list[Gateway]
    profile: Profile

    def named(self, chaincode: str) -> Profile:
        """The profile of another chaincode on the channel: a ledger of its own."""
        return replace(self.profile, chaincode=chaincode)


@contextmanager
def double(folder: Path, *, organisations: int = 1, batches: tuple[int, int] | None = (1000, 1000)) -> Iterator[Double]:
    """Start a double network, and end it."""
    with serving() as address:
        peer = PeerEnd(address, batches)
        channel = Channel(peer)
        gateways = [Gateway(f"Org{i + 1}MSP", channel) for i in range(organisations)]
        (folder / "genesis.block").write_bytes(channel.blocks[0].SerializeToString())
        profile = Profile(
            CHANNEL, "fedledger", tuple(organisation(folder, g) for g in gateways), (), folder / "genesis.block",
            folder / "profile.json",
        )  # fmt: skip
        yield Double(channel, gateways, profile)
        for gateway in gateways:
            gateway.stop()
        peer.close()


def organisation(folder: Path, gateway: Gateway) -> Organisation:
    certificate, key = folder / f"{gateway.msp}.pem", folder / f"{gateway.msp}.key"
    made = ec.generate_private_key(ec.SECP256R1())
    certificate.write_bytes(self_signed(made, gateway.msp))
    key.write_bytes(pem(made))
    node = Node(gateway.address, gateway.msp, None)
    return Organisation(gateway.msp[:-3], gateway.msp, (node,), certificate, key)


def self_signed(key: Key, name: str) -> bytes:
    """A certificate of nobody's but the key's own, in PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(),
                                      now - datetime.timedelta(hours=1), now + datetime.timedelta(hours=1))  # fmt: skip
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM)


def pem(key: Key) -> bytes:
    """A private key in PEM, unencrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
