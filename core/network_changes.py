"""What has changed in networks, said in ids: to an agent about its host, and to conductors about a commit.

``Changed`` is a part of one host's desired state (``lifecycle.host_network``). ``NetworkChanges`` is what
a commit of the Network API has changed, so that conductors can find out whom it
concerns: ids of what can be looked up; and for what is gone or has moved away, the hosts where it
was. Plain data, like all that travels over RPC.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

KINDS = ("networks", "ports", "groups", "routers")

Parts = dict[str, set[str]]
"""security group id → ids of ports (or addresses) that may have become its members, or not be any more"""


def _join(parts: Parts, others: Parts) -> None:
    for key, some in others.items():
        parts.setdefault(key, set()).update(some)


def _sorted(parts: Parts) -> dict[str, list[str]]:
    return {key: sorted(some) for key, some in parts.items()}


@dataclasses.dataclass
class Changed:
    """Ids of what may have changed, by kind. ``everything``: compare all, remove what is strange.

    Of the members of a security group those that changed are named, port by port: a group may
    have thousands.
    """

    networks: set[str] = dataclasses.field(default_factory=set)
    ports: set[str] = dataclasses.field(default_factory=set)
    groups: set[str] = dataclasses.field(default_factory=set)
    routers: set[str] = dataclasses.field(default_factory=set)
    named: set[str] = dataclasses.field(default_factory=set)
    """security groups of which all members are to be looked at"""
    members: Parts = dataclasses.field(default_factory=dict)
    """by port"""
    addresses: Parts = dataclasses.field(default_factory=dict)
    """by address: what the agent has found out about ``members``, for its driver; it doesn't travel"""
    everything: bool = False

    def __bool__(self) -> bool:
        return bool(self.everything or self.named or self.members or any(getattr(self, k) for k in KINDS))

    def __len__(self) -> int:
        """How many things are named."""
        return sum(len(getattr(self, kind)) for kind in (*KINDS, "named")) + sum(
            map(len, self.members.values())
        )

    def to_dict(self) -> dict[str, Any]:
        """Lists, as JSON has no sets."""
        if self.everything:
            return {"everything": True}
        made: dict[str, Any] = {
            kind: sorted(getattr(self, kind)) for kind in (*KINDS, "named") if getattr(self, kind)
        }
        if self.members:
            made["members"] = _sorted(self.members)
        return made

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Changed:
        made = cls(everything=bool(data.get("everything")))
        for kind in (*KINDS, "named"):
            getattr(made, kind).update(data.get(kind) or ())
        made.members = {key: set(some) for key, some in (data.get("members") or {}).items()}
        return made

    def add(self, other: Changed) -> None:
        """Both together."""
        self.everything = self.everything or other.everything
        for kind in (*KINDS, "named"):
            getattr(self, kind).update(getattr(other, kind))
        _join(self.members, other.members)
        _join(self.addresses, other.addresses)


CHANGE_KINDS = (
    "networks",
    "subnets",
    "ports",
    "addressed",
    "groups",
    "routers",
    "floating_ips",
    "qos_policies",
    "address_groups",
)


def _ids() -> Any:
    return dataclasses.field(default_factory=set)


@dataclasses.dataclass
class NetworkChanges:
    """What one or several commits have changed."""

    networks: set[str] = _ids()
    """their attributes, subnets or haneul's own ports in them"""
    subnets: set[str] = _ids()
    ports: set[str] = _ids()
    addressed: set[str] = _ids()
    """ports whose addresses (or allowed address pairs) are others now"""
    groups: set[str] = _ids()
    """security groups with other rules"""
    members: Parts = dataclasses.field(default_factory=dict)
    """security groups with other ports, and which"""
    routers: set[str] = _ids()
    floating_ips: set[str] = _ids()
    qos_policies: set[str] = _ids()
    address_groups: set[str] = _ids()
    hosts: dict[str, Changed] = dataclasses.field(default_factory=dict)
    """where something was that is not there any more"""
    servers: set[tuple[str, str, str]] = _ids()
    """(event, server id, port id): what compute is to be told; stays in the process"""
    shown: set[str] = _ids()
    """ports that have other floating IPs or groups now; stays in the process"""
    created: set[str] = _ids()
    """ports that were made; stays in the process"""

    def __bool__(self) -> bool:
        return bool(self.hosts or self.members) or any(getattr(self, kind) for kind in CHANGE_KINDS)

    def at(self, host: str) -> Changed:
        """What is gone from ``host``, to be added to."""
        return self.hosts.setdefault(host, Changed())

    def add(self, other: NetworkChanges) -> None:
        """Both together."""
        for kind in (*CHANGE_KINDS, "servers", "shown", "created"):
            getattr(self, kind).update(getattr(other, kind))
        _join(self.members, other.members)
        for host, changed in other.hosts.items():
            self.at(host).add(changed)

    def to_dict(self) -> dict[str, Any]:
        result: dict[str, Any] = {
            kind: sorted(getattr(self, kind)) for kind in CHANGE_KINDS if getattr(self, kind)
        }
        if self.members:
            result["members"] = _sorted(self.members)
        if self.hosts:
            result["hosts"] = {host: changed.to_dict() for host, changed in self.hosts.items()}
        return result

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NetworkChanges:
        made = cls()
        for kind in CHANGE_KINDS:
            getattr(made, kind).update(data.get(kind) or ())
        made.members = {key: set(some) for key, some in (data.get("members") or {}).items()}
        for host, changed in (data.get("hosts") or {}).items():
            made.at(host).add(Changed.from_dict(changed))
        return made
