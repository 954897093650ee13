# SPDX-License-Identifier: Apache-2.0
"""The configuration of a channel that is in force at a block: its organisations, their members, its policies and orderers."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding
from fabric_protos.common import configtx_pb2, configuration_pb2
from fabric_protos.msp import identities_pb2
from fabric_protos.orderer import configuration_pb2 as orderer_pb2

from chaincode.blocks.msp import Identity, Msp, distinct, identity_of, read_msp
from chaincode.blocks.policies import Policies, Satisfies, nobody
from chaincode.blocks.wire import Malformed, strict, unsupported

CAPABILITIES: Final = {
    (): {"V2_0", "V3_0"},
    ("Orderer",): {"V1_4_2", "V2_0"},
    ("Application",): {"V2_0", "V2_5"},
}
"""The capability of each group, one of these; what other ones mean is not known here."""
RAFT, BFT = "etcdraft", "BFT"
APPLICATION, ORDERER = "Application", "Orderer"
KNOWN_IDENTITIES: Final = 4096


class ChannelConfig:
    """A channel's configuration, as of the block ``block`` that holds it."""

    def __init__(self, config: Any, channel: str, block: int) -> None:
        """Of a ``Config``. Raises Malformed, EvidenceError(fabric-unsupported)."""
        self.config, self.channel, self.block = config, channel, block
        self.policies = Policies(config.channel_group)
        self.capabilities = {path: self._capability(path) for path in CAPABILITIES}
        self._check_hashing()
        self.msps: dict[str, Msp] = {}
        self.organisations: dict[str, str] = {}
        for group in (APPLICATION, ORDERER):
            self._read_organisations(group)
        consensus = self._value((ORDERER,), "ConsensusType", orderer_pb2.ConsensusType)
        self.consensus: str = consensus.type
        if consensus.type not in (RAFT, BFT) or consensus.state != orderer_pb2.ConsensusType.STATE_NORMAL:
            unsupported(f"a channel ordered by {consensus.type[:40]!r}, or under maintenance")
        self.consenters = self._consenters() if consensus.type == BFT else {}
        self._identities: dict[bytes, Identity | None] = {}

    @property
    def sequence(self) -> int:
        """How often the configuration was changed."""
        return int(self.config.sequence)

    def identity(self, serialised: bytes) -> Identity | None:
        """Whom a serialised identity names here; None for nobody."""
        if serialised not in self._identities:
            if len(self._identities) >= KNOWN_IDENTITIES:
                self._identities.clear()
            self._identities[serialised] = identity_of(serialised, self.msps)
        return self._identities[serialised]

    def policy(self, name: str, within: Sequence[str] = ()) -> Satisfies:
        """A policy by its name; nobody satisfies one that is not there."""
        return self.policies.get(name, within) or nobody

    def satisfied(self, policy: Satisfies, signed: Iterable[tuple[bytes, bool]]) -> bool:
        """Whether signatures satisfy a policy: of (serialised identity, whether its signature verifies)."""
        return policy(distinct([(self.identity(who), ok) for who, ok in signed]))

    def group_of(self, msp: str) -> str | None:
        """The name of an application organisation's group in the configuration."""
        return self.organisations.get(msp)

    @property
    def roots(self) -> dict[str, list[bytes]]:
        """The root certificates (DER) of each organisation."""
        return {name: [one.public_bytes(Encoding.DER) for one in msp.roots] for name, msp in self.msps.items()}

    def _value(self, path: Sequence[str], name: str, kind: Any) -> Any:
        group = self.policies.group(path)
        if group is None or name not in group.values:
            raise Malformed(f"the configuration has no {'/'.join((*path, name))}")
        return strict(kind, group.values[name].value)

    def _capability(self, path: tuple[str, ...]) -> str:
        found = set(self._value(path, "Capabilities", configuration_pb2.Capabilities).capabilities)
        if len(found) != 1 or not found <= CAPABILITIES[path]:
            unsupported(f"the capabilities {', '.join(sorted(found))[:80]} of {'/'.join(('Channel', *path))}")
        return str(found.pop())

    def _check_hashing(self) -> None:
        algorithm = self._value((), "HashingAlgorithm", configuration_pb2.HashingAlgorithm).name
        width = self._value((), "BlockDataHashingStructure", configuration_pb2.BlockDataHashingStructure).width
        if algorithm != "SHA256" or width != (1 << 32) - 1:
            unsupported("a channel whose blocks are hashed in another way")

    def _read_organisations(self, group: str) -> None:
        ed25519_allowed = self.capabilities[()] == "V3_0"
        found = self.policies.group((group,))
        if found is None:
            raise Malformed(f"the configuration has no {group}")
        for name, organisation in found.groups.items():
            if "MSP" not in organisation.values:
                raise Malformed(f"the organisation {name[:40]} has no MSP")
            msp = read_msp(organisation.values["MSP"].value, ed25519_allowed=ed25519_allowed)
            known = self.msps.get(msp.name)
            if not msp.name or (known is not None and _roots(known) != _roots(msp)):
                unsupported(f"two organisations called {msp.name[:40]}")
            self.msps[msp.name] = msp
            if group == APPLICATION:
                self.organisations[msp.name] = name

    def _consenters(self) -> dict[int, bytes]:
        """The orderers' serialised identities by their numbers."""
        listed = self._value((ORDERER,), "Orderers", configuration_pb2.Orderers).consenter_mapping
        found = {
            one.id: identities_pb2.SerializedIdentity(mspid=one.msp_id, id_bytes=one.identity).SerializeToString()
            for one in listed
        }
        if len(found) != len(listed) or not found:
            raise Malformed("orderers without a number of their own")
        return found


def _roots(msp: Msp) -> set[bytes]:
    return {one.tbs_certificate_bytes for one in msp.roots}


def read_config(config: Any, channel: str, block: int) -> ChannelConfig:
    """The configuration of a ``Config`` message, all of whose policies can be read. Raises Malformed, EvidenceError."""
    read = ChannelConfig(config, channel, block)
    _read_policies(read, config.channel_group, ())
    return read


def _read_policies(config: ChannelConfig, group: Any, path: tuple[str, ...]) -> None:
    if len(path) > 8:
        raise Malformed("a configuration that is nested too deep")
    for name in group.policies:
        config.policies.get(name, path)
    for name in group.groups:
        _read_policies(config, group.groups[name], (*path, name))


def config_envelope(data: bytes) -> Any:
    """The ``ConfigEnvelope`` of a configuration block's payload. Raises Malformed."""
    return strict(configtx_pb2.ConfigEnvelope, data)
