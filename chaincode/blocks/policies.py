# SPDX-License-Identifier: Apache-2.0
"""The policies of a channel's configuration: which signatures an act needs (Fabric's signature and implicit meta policies)."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2

from chaincode.blocks.msp import MEMBER, ROLES, Identity
from chaincode.blocks.signatures import named
from chaincode.blocks.wire import Malformed, strict, unsupported

DEEPEST: Final = 16
_RULES: Final = policies_pb2.ImplicitMetaPolicy
_PRINCIPAL: Final = msp_principal_pb2.MSPPrincipal
Satisfies = Callable[[Sequence[Identity]], bool]
"""Whether these, each of whom has signed, satisfy a policy."""


def nobody(_: Sequence[Identity]) -> bool:
    """The policy that nobody satisfies: what a missing one is."""
    return False


class Policies:
    """The policies of a configuration, by their paths. Raises Malformed where one cannot be read, when it is asked for."""

    def __init__(self, root: Any) -> None:
        """Of the channel's ``ConfigGroup``, which is called Channel."""
        self._root = root
        self._read: dict[tuple[str, ...], Satisfies] = {}

    def get(self, name: str, within: Sequence[str] = ()) -> Satisfies | None:
        """A policy by its absolute path (``/Channel/Application/Endorsement``), or by its name within a group, None
        where there is none. ``within`` is the group's path below the channel."""
        if name.startswith("/"):
            first, *path = name[1:].split("/")
            if first != "Channel" or not path:
                return None
            return self._at(tuple(path))
        return self._at((*within, *name.split("/")))

    def group(self, path: Sequence[str]) -> Any | None:
        """The group at a path below the channel."""
        group = self._root
        for name in path:
            if name not in group.groups:
                return None
            group = group.groups[name]
        return group

    def _at(self, path: tuple[str, ...]) -> Satisfies | None:
        if path not in self._read:
            group = self.group(path[:-1])
            if group is None or path[-1] not in group.policies:
                return None
            self._read[path] = self._make(group.policies[path[-1]].policy, path[:-1], group)
        return self._read[path]

    def _make(self, policy: Any, within: tuple[str, ...], group: Any) -> Satisfies:
        if policy.type == policies_pb2.Policy.SIGNATURE:
            return signature_policy(strict(policies_pb2.SignaturePolicyEnvelope, policy.value))
        if policy.type != policies_pb2.Policy.IMPLICIT_META:
            unsupported(f"a policy of type {policy.type}")
        meta = strict(policies_pb2.ImplicitMetaPolicy, policy.value)
        below = [self.get(meta.sub_policy, (*within, name)) or nobody for name in group.groups]
        needed = {_RULES.ANY: 1, _RULES.ALL: len(below), _RULES.MAJORITY: len(below) // 2 + 1}.get(meta.rule)
        if needed is None:
            unsupported(f"an implicit policy of rule {meta.rule}")
        least = needed if below else 0
        return lambda identities: sum(one(identities) for one in below) >= least


def signature_policy(envelope: Any) -> Satisfies:
    """The policy of a ``SignaturePolicyEnvelope``. Raises Malformed, EvidenceError(fabric-unsupported)."""
    if envelope.version != 0:
        raise Malformed(f"a signature policy of version {envelope.version}")
    principals = [_principal(one, DEEPEST) for one in envelope.identities]
    rule = _rule(envelope.rule, principals, DEEPEST)
    return lambda identities: rule(identities, [False] * len(identities))


Rule = Callable[[Sequence[Identity], list[bool]], bool]
Principal = Callable[[Identity], bool]


def _rule(policy: Any, principals: list[Principal], depth: int) -> Rule:
    """Each signature counts once: ``used`` says whose have been counted."""
    which = policy.WhichOneof("Type")
    if which == "signed_by":
        if not 0 <= policy.signed_by < len(principals):
            raise Malformed("a signature policy that asks for nobody it names")
        principal = principals[policy.signed_by]

        def signed_by(identities: Sequence[Identity], used: list[bool]) -> bool:
            for i, one in enumerate(identities):
                if not used[i] and principal(one):
                    used[i] = True
                    return True
            return False

        return signed_by
    if which != "n_out_of" or depth == 0:
        raise Malformed("a signature policy that is none, or nested too deep")
    rules, least = [_rule(one, principals, depth - 1) for one in policy.n_out_of.rules], int(policy.n_out_of.n)

    def n_out_of(identities: Sequence[Identity], used: list[bool]) -> bool:
        count = 0
        for one in rules:
            trial = list(used)
            if one(identities, trial):
                count += 1
                used[:] = trial
        return count >= least

    return n_out_of


def _principal(principal: Any, depth: int) -> Principal:
    kind = principal.principal_classification
    if kind == _PRINCIPAL.ROLE:
        role = strict(msp_principal_pb2.MSPRole, principal.principal)
        if not MEMBER <= role.role < len(ROLES):
            raise Malformed(f"a role {role.role}")
        msp, wanted = str(role.msp_identifier), int(role.role)
        return lambda one: one.msp == msp and wanted in one.roles
    if kind == _PRINCIPAL.IDENTITY:
        who = named(principal.principal)
        if who is None:
            raise Malformed("a policy that asks for a certificate and gives none")
        msp, tbs = who.msp, who.certificate.tbs_certificate_bytes
        return lambda one: one.msp == msp and not one.why and one.certificate.tbs_certificate_bytes == tbs
    if kind == _PRINCIPAL.COMBINED and depth:
        parts = strict(msp_principal_pb2.CombinedPrincipal, principal.principal).principals
        inner = [_principal(one, depth - 1) for one in parts]
        return lambda one: bool(inner) and all(part(one) for part in inner)
    return unsupported(f"a policy's principal of class {kind}")
