# SPDX-License-Identifier: Apache-2.0
"""Which endorsements a write needs: the chaincodes' definitions as the lifecycle's own transactions wrote them.

Keys of the namespace ``_lifecycle``: ``namespaces/metadata/NAME`` says what a name is, ``namespaces/fields/NAME/FIELD`` what
was agreed of it: Sequence, EndorsementInfo (the version), ValidationInfo (the endorsement policy).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fabric_protos.common import collection_pb2
from fabric_protos.peer import policy_pb2
from fabric_protos.peer.lifecycle import chaincode_definition_pb2, db_pb2

from chaincode.blocks.config import ChannelConfig
from chaincode.blocks.msp import MEMBER, Identity
from chaincode.blocks.policies import Satisfies, nobody, signature_policy
from chaincode.blocks.wire import Malformed, strict, unsupported

NAMESPACE: Final = "_lifecycle"
REFERENCE: Final = "/Channel/Application/LifecycleEndorsement"
_IMPLICIT: Final = "_implicit_org_"
_PLUGIN: Final = "vscc"


@dataclass(frozen=True, slots=True)
class Definition:
    """What the organisations agreed of a chaincode: how often, its version, and its endorsement policy's bytes."""

    sequence: int
    version: str
    policy: bytes


class Lifecycle:
    """The definitions in force, of the values of ``_lifecycle``."""

    def __init__(self, values: Mapping[str, bytes]) -> None:
        """``values`` is looked at again and again."""
        self._values = values
        self._policies: dict[tuple[bytes, int], Satisfies] = {}
        self._definitions: dict[str, Definition | None] = {}

    def changed(self) -> None:
        """The values are other ones now."""
        self._definitions.clear()

    def definition(self, name: str) -> Definition | None:
        """The definition of a chaincode, None where there is none.

        Raises EvidenceError(fabric-unsupported) for one that asks for what is not judged here.
        """
        if name not in self._definitions:
            self._definitions[name] = self._read(name) if f"namespaces/metadata/{name}" in self._values else None
        return self._definitions[name]

    def _read(self, name: str) -> Definition:
        try:
            info = strict(chaincode_definition_pb2.ChaincodeValidationInfo, self._field(name, "ValidationInfo").Bytes)
            endorsing = strict(
                chaincode_definition_pb2.ChaincodeEndorsementInfo, self._field(name, "EndorsementInfo").Bytes
            )
            collections = strict(collection_pb2.CollectionConfigPackage, self._field(name, "Collections").Bytes)
            sequence = self._field(name, "Sequence").Int64
        except Malformed as error:
            unsupported(f"the definition of {name[:80]} ({error})")
        if info.validation_plugin != _PLUGIN or collections.config:
            unsupported(f"the validation by {info.validation_plugin[:40]!r}, or the private data, of {name[:80]}")
        return Definition(sequence, endorsing.version, info.validation_parameter)

    def policy(self, name: str, config: ChannelConfig) -> Satisfies | None:
        """Which endorsements a write to a namespace needs; None for a namespace that nobody defined."""
        if name == NAMESPACE:
            return config.policies.get(REFERENCE) or unsupported(f"a channel without {REFERENCE}")
        found = self.definition(name)
        if found is None or not found.policy:
            return None
        place = (found.policy, config.block)
        if place not in self._policies:
            self._policies[place] = _application_policy(found.policy, config)
        return self._policies[place]

    def collection_policy(self, name: str, collection: str, config: ChannelConfig) -> Satisfies:
        """Which endorsements a write to a collection of private data needs."""
        msp = collection.removeprefix(_IMPLICIT)
        if msp == collection:
            unsupported(f"the private data {collection[:80]} of {name[:80]}")
        group = config.group_of(msp)
        if group is None:
            return nobody
        return config.policies.get(f"/Channel/Application/{group}/Endorsement") or _any_member(msp)

    def _field(self, name: str, field: str) -> Any:
        data = self._values.get(f"namespaces/fields/{name}/{field}")
        if data is None:
            raise Malformed(f"no {field}")
        return strict(db_pb2.StateData, data)


def _any_member(msp: str) -> Satisfies:
    def satisfied(identities: Any) -> bool:
        members: list[Identity] = [one for one in identities if one.msp == msp and MEMBER in one.roles]
        return bool(members)

    return satisfied


def _application_policy(data: bytes, config: ChannelConfig) -> Satisfies:
    try:
        policy = strict(policy_pb2.ApplicationPolicy, data)
        if policy.WhichOneof("Type") == "channel_config_policy_reference":
            return config.policy(policy.channel_config_policy_reference)
        return signature_policy(policy.signature_policy)
    except Malformed:
        return nobody
