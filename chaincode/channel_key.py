# SPDX-License-Identifier: Apache-2.0
"""``federation.vkey`` of a federation on a Hyperledger Fabric channel, where no key signs the log: what an outsider keeps.

    fedledger-channel-v1
    ORIGIN                       the log's name; it ends in /CHANNEL/CHAINCODE
    GENESIS                      the hash of the channel's first block, 64 hex digits
    FEDERATION                   the federation's id, 64 hex digits
    MSP DIGEST                   an organisation's root certificate: the SHA-256 of its DER; one line each, ascending

The first block's hash pins the organisations, their root certificates and the policies. The digests of the roots say the
same again, in a form that an organisation's operator can compare with the certificate that he has.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chaincode.files import read_bounded
from chaincode.trust import FederationKey, parse_key
from identity.errors import EvidenceError

MARK: Final = "fedledger-channel-v1"
LIMIT: Final = 1 << 16
_ORIGIN: Final = re.compile(r"[!-*,-~]{1,128}", re.ASCII)
_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ROOT: Final = re.compile(r"([A-Za-z0-9._-]{1,100}) ([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ChannelKey:
    """What pins a federation's channel. ``roots`` are (MSP, SHA-256 of a root certificate's DER), ascending."""

    origin: str
    genesis: str
    federation: str
    roots: tuple[tuple[str, str], ...]

    @property
    def channel(self) -> str:
        return self.origin.split("/")[-2]

    @property
    def chaincode(self) -> str:
        return self.origin.split("/")[-1]

    def roots_of(self) -> dict[str, frozenset[str]]:
        """The digests of each organisation's root certificates."""
        return {msp: frozenset(digest for other, digest in self.roots if other == msp) for msp, _ in self.roots}


Key = FederationKey | ChannelKey
"""What a federation's key file holds: of a log that a key signs, or of a channel."""


def format_channel_key(key: ChannelKey) -> str:
    """The text of a key file. Raises EvidenceError(federation-key) for a key that could not be read again."""
    lines = [MARK, key.origin, key.genesis, key.federation, *(f"{msp} {digest}" for msp, digest in key.roots)]
    written = "\n".join(lines) + "\n"
    if parse_channel_key(written.encode()) != key:
        raise EvidenceError("federation-key", "The channel's key cannot be written.")
    return written


def is_channel_key(data: bytes) -> bool:
    """Whether bytes begin like the key file of a channel."""
    return data.startswith(f"{MARK}\n".encode())


def parse_channel_key(data: bytes) -> ChannelKey:
    """Read a key file's bytes. Raises EvidenceError(federation-key) for anything but what ``format_channel_key`` writes."""
    try:
        lines = data.decode("ascii").split("\n") if len(data) <= LIMIT else []
    except UnicodeDecodeError as error:
        raise _refused("it is not ASCII") from error
    if len(lines) < 6 or lines[0] != MARK or lines.pop():
        raise _refused(f"it must have the line {MARK}, three lines, and one or more for root certificates")
    _, origin, genesis, federation, *rest = lines
    if _ORIGIN.fullmatch(origin) is None or len(origin.split("/")) < 3 or not all(origin.split("/")[-2:]):
        raise _refused("the second line is not a log's name that ends in a channel and a chaincode")
    if _DIGEST.fullmatch(genesis) is None or _DIGEST.fullmatch(federation) is None:
        raise _refused("the third and the fourth line are not digests")
    found = [_ROOT.fullmatch(line) for line in rest]
    roots = tuple((one[1], one[2]) for one in found if one is not None)
    if len(roots) != len(rest) or list(roots) != sorted(set(roots)):
        raise _refused("the lines of root certificates are not MSP and digest, ascending")
    return ChannelKey(origin, genesis, federation, roots)


def parse_any_key(data: bytes) -> Key:
    """Read a key file of either form. Raises EvidenceError(federation-key)."""
    return parse_channel_key(data) if is_channel_key(data) else parse_key(data)


def read_any_key(path: Path) -> Key:
    """Read a key file of either form. Raises EvidenceError: federation-key, file-not-regular; OSError."""
    data = read_bounded(path, LIMIT)
    try:
        return parse_any_key(data)
    except EvidenceError as error:
        raise EvidenceError(error.code, f"{path}: {error.message}") from error


def _refused(why: str) -> EvidenceError:
    return EvidenceError("federation-key", f"This is not a federation's key file: {why}.")
