# SPDX-License-Identifier: Apache-2.0
"""Changes of a channel's configuration: each one authorised under the configuration before it, and nothing more changed.

It follows Fabric's ``common/configtx``: an update states the versions that it read and the elements that it writes; what it
changes must carry the next version, and its signatures must satisfy the ``mod_policy`` of each element as it was before.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from fabric_protos.common import common_pb2, configtx_pb2

from chaincode.blocks.config import ChannelConfig, read_config
from chaincode.blocks.msp import Identity, distinct
from chaincode.blocks.policies import nobody
from chaincode.blocks.signatures import verifies
from chaincode.blocks.wire import Malformed, parse, strict

GROUP, VALUE, POLICY = "group", "value", "policy"
SIGNATURES: Final = 256
_NAME: Final = re.compile(r"(?!\.{1,2}\Z)[a-zA-Z0-9.-]{1,249}", re.ASCII)
_DEEPEST: Final = 9


@dataclass(frozen=True, slots=True)
class Item:
    """An element of a configuration: its kind, its path from the channel on (its own name last), and the element."""

    kind: str
    path: tuple[str, ...]
    element: Any

    @property
    def version(self) -> int:
        return int(self.element.version)

    @property
    def place(self) -> tuple[str, str]:
        return self.kind, "/".join(self.path)

    def __str__(self) -> str:
        return f"{self.kind} /{'/'.join(self.path)}"


@dataclass(frozen=True, slots=True)
class Change:
    """What one update changed: an element, and the policy that its signatures satisfy, empty for a new element (which the
    change of its group covers)."""

    block: int
    what: str
    policy: str
    signed: tuple[str, ...]

    def __str__(self) -> str:
        under = f" under {self.policy}" if self.policy else ""
        return f"block {self.block}: {self.what}, signed by {', '.join(self.signed)}{under}"


Items = dict[tuple[str, str], Item]


def flatten(group: Any) -> Items:
    """All elements of a configuration's root group, by kind and path. Raises Malformed."""
    return {item.place: item for item in _walk(group, ("Channel",))}


def _walk(group: Any, path: tuple[str, ...]) -> Iterator[Item]:
    if len(path) > _DEEPEST or _NAME.fullmatch(path[-1]) is None:
        raise Malformed("a configuration with names that are none, or nested too deep")
    yield Item(GROUP, path, group)
    for name, below in group.groups.items():
        yield from _walk(below, (*path, name))
    for kind, elements in ((VALUE, group.values), (POLICY, group.policies)):
        for name, element in elements.items():
            if _NAME.fullmatch(name) is None:
                raise Malformed("a configuration with names that are none")
            yield Item(kind, (*path, name), element)


def apply_update(before: ChannelConfig, envelope: Any, block: int) -> tuple[ChannelConfig, list[Change]]:
    """The configuration that a configuration block's ``ConfigEnvelope`` brings, and who changed what.

    Raises Unauthorised where the signatures do not suffice; Malformed where the block does not follow from the update in it.
    """
    if envelope.config.sequence != before.sequence + 1:
        raise Malformed(f"configuration {envelope.config.sequence} follows {before.sequence}")
    signed = _read_update(envelope.last_update, before.channel)
    update = strict(configtx_pb2.ConfigUpdate, signed.config_update)
    if update.channel_id != before.channel:
        raise Malformed(f"an update for the channel {update.channel_id[:80]!r}")
    items = flatten(before.config.channel_group)
    read, write = flatten(update.read_set), flatten(update.write_set)
    for place, item in read.items():
        if place not in items or items[place].version != item.version:
            raise Malformed(f"the update read another version of {item}")
    delta = {p: item for p, item in write.items() if p not in read or read[p].version != item.version}
    changes = _authorise(before, items, delta, _signers(before, signed), block)
    result = items | delta
    if any(place not in result for place in write) or _rebuild(result, ("Channel",)) != envelope.config.channel_group:
        raise Malformed("the configuration is not the one that the update makes")
    return read_config(envelope.config, before.channel, block), changes


class Unauthorised(Malformed):
    """A change without the signatures that it needs."""


def _read_update(envelope: Any, channel: str) -> Any:
    payload = parse(common_pb2.Payload, envelope.payload)
    header = parse(common_pb2.ChannelHeader, payload.header.channel_header)
    if header.type != common_pb2.CONFIG_UPDATE or header.channel_id != channel:
        raise Malformed("what changes the configuration is no update of it")
    signed = strict(configtx_pb2.ConfigUpdateEnvelope, payload.data)
    if len(signed.signatures) > SIGNATURES:
        raise Malformed(f"{len(signed.signatures)} signatures of an update, at most {SIGNATURES} are read")
    return signed


def _signers(config: ChannelConfig, signed: Any) -> list[Identity]:
    found: list[tuple[Identity | None, bool]] = []
    for one in signed.signatures:
        creator = parse(common_pb2.SignatureHeader, one.signature_header).creator
        ok = verifies(creator, one.signature_header + signed.config_update, one.signature)
        found.append((config.identity(creator), ok))
    return distinct(found)


def _authorise(config: ChannelConfig, items: Items, delta: Items, signers: list[Identity], block: int) -> list[Change]:
    """Judge each changed element. Raises Unauthorised, Malformed."""
    if not delta:
        raise Malformed("an update that changes nothing")
    names, changes = tuple(str(one) for one in signers), list[Change]()
    for place, item in sorted(delta.items()):
        _check_policy_name(item)
        known = items.get(place)
        if item.version != (0 if known is None else known.version + 1):
            raise Malformed(f"the version of {item} is not the next one")
        if known is None:
            if (GROUP, "/".join(item.path[:-1])) in items:  # what a new group holds comes with it
                changes.append(Change(block, f"added {item}", "", names))
            continue
        wanted, within = known.element.mod_policy, known.path[1:] if known.kind == GROUP else known.path[1:-1]
        if not (config.policies.get(wanted, within) or nobody)(signers):
            raise Unauthorised(
                f"{item} was changed with the signatures of {', '.join(names) or 'nobody'}, which do not satisfy {wanted}"
            )
        changes.append(Change(block, f"changed {item}", _full(wanted, known, within), names))
    return changes


def _full(policy: str, item: Item, within: tuple[str, ...]) -> str:
    return policy if policy.startswith("/") else f"/{'/'.join((item.path[0], *within, policy))}"


def _check_policy_name(item: Item) -> None:
    names = item.element.mod_policy.removeprefix("/").split("/")
    if not all(_NAME.fullmatch(name) for name in names):
        raise Malformed(f"{item} has no policy by which it could be changed")


def _rebuild(items: Items, path: tuple[str, ...]) -> Any:
    """The group that elements make, as Fabric puts it together. Raises Malformed where one is missing."""

    def at(kind: str, *name: str) -> Any:
        item = items.get((kind, "/".join((*path, *name))))
        if item is None:
            raise Malformed(f"the update leaves out {kind} {'/'.join((*path, *name))}")
        return item.element

    stated = at(GROUP)
    group = configtx_pb2.ConfigGroup(version=stated.version, mod_policy=stated.mod_policy or "Admins")
    for name in stated.groups:
        group.groups[name].CopyFrom(_rebuild(items, (*path, name)))
    for kind, there, here in ((VALUE, stated.values, group.values), (POLICY, stated.policies, group.policies)):
        for name in there:
            here[name].CopyFrom(at(kind, name))
            here[name].mod_policy = here[name].mod_policy or "Admins"
    return group
