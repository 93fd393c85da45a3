"""What the scheduler is asked: one frozen, JSON-able description of a server that needs a host.

The API's intent is turned into a ``PlacementRequest`` by ``scheduler.service``; nothing in the
pure part of the scheduler knows where it came from.  Everything that filters and weighers may ask
about is here, resolved: server ids in hints have become host names, the flavor has become resource
amounts and traits (``demand_of_flavor``).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Mapping
from typing import Any

VCPU = "VCPU"
MEMORY_MB = "MEMORY_MB"
DISK_GB = "DISK_GB"


@dataclasses.dataclass(frozen=True)
class Group:
    """A server group as the scheduler needs it.

    ``policy`` is affinity, anti-affinity, soft-affinity or soft-anti-affinity; ``rules`` may hold
    ``max_server_per_host`` (anti-affinity only); ``hosts`` says how many members each host (by
    name) has, the asking server not counted.
    """

    id: str
    policy: str
    rules: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    hosts: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def max_per_host(self) -> int:
        """How many members of an anti-affinity group one host may have."""
        return int(self.rules.get("max_server_per_host", 1))


@dataclasses.dataclass(frozen=True)
class PlacementRequest:
    """One server (or ``num`` equal ones) in search of a host.

    ``host``/``node``: only this host (name) or node; with ``forced`` (``--availability-zone
    zone:host``) the configured filters are skipped, as upstream does, and only capacity, traits
    and cell are checked.  ``ignore_hosts`` is what the user or an evacuation rules out, ``excluded``
    the hosts that earlier attempts failed on (both host names).  ``cell`` restricts to one cell
    (a server that has a cell stays there).  ``same_hosts``/``different_hosts`` are the hosts of the
    servers named in the ``same_host``/``different_host`` hints; None means that the hint is absent.
    ``resources``: amount per resource class, zero amounts left out or 0.
    """

    intent_id: str
    server_id: str
    project_id: str = ""
    user_id: str = ""
    resources: Mapping[str, int] = dataclasses.field(default_factory=dict)
    flavor_name: str = ""
    extra_specs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    image_id: str | None = None
    image_properties: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    availability_zone: str | None = None
    group: Group | None = None
    host: str | None = None
    node: str | None = None
    forced: bool = False
    ignore_hosts: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    cell: str | None = None
    required_traits: frozenset[str] = frozenset()
    forbidden_traits: frozenset[str] = frozenset()
    same_hosts: tuple[str, ...] | None = None
    different_hosts: tuple[str, ...] | None = None
    hints: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    attempt: int = 1
    num: int = 1

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON types; fields that have their default are left out."""
        out: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            # An empty same_hosts says that the hint named servers without hosts: not the same as no hint.
            hint = field.name in ("same_hosts", "different_hosts")
            if value is None or (not hint and value in ((), frozenset(), {})):
                continue
            if isinstance(value, Group):
                value = dataclasses.asdict(value)
            elif isinstance(value, frozenset):
                value = sorted(value)
            elif isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, Mapping):
                value = dict(value)
            out[field.name] = value
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PlacementRequest:
        """The inverse of ``to_json``; unknown keys (of a newer release) are ignored."""
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        if values.get("group") is not None:
            group = values["group"]
            values["group"] = Group(
                group["id"], group["policy"], dict(group.get("rules") or {}), dict(group.get("hosts") or {})
            )
        for key in ("required_traits", "forbidden_traits"):
            if key in values:
                values[key] = frozenset(values[key])
        for key in ("ignore_hosts", "excluded", "same_hosts", "different_hosts"):
            if values.get(key) is not None:
                values[key] = tuple(values[key])
        return cls(**values)

    @functools.cached_property
    def profile(self) -> Hashable:
        """A key that is equal for requests which every filter and weigher must treat alike.

        Identity, project and user are left out; see ``personal_profile``.
        """
        # Spelled out, for it is made for every request of a batch; repr tells 1 from True.
        group = self.group
        return (
            _sorted(self.resources),
            self.flavor_name,
            _sorted(self.extra_specs),
            self.image_id,
            _sorted(self.image_properties),
            self.availability_zone,
            group and (group.id, group.policy, _sorted(group.rules), _sorted(group.hosts)),
            (self.host, self.node, self.forced, self.cell),
            (self.ignore_hosts, self.excluded, self.same_hosts, self.different_hosts),
            (self.required_traits, self.forbidden_traits),
            _sorted(self.hints),
        )

    @property
    def personal_profile(self) -> Hashable:
        """``profile`` with project and user, for filters that look at who asks."""
        return (self.project_id, self.user_id, self.profile)


def _sorted(values: Mapping[str, Any]) -> str:
    return repr(sorted(values.items())) if values else ""


@dataclasses.dataclass(frozen=True)
class Demand:
    """What a flavor asks of a host: amounts per resource class, and traits."""

    resources: dict[str, int]
    required_traits: frozenset[str]
    forbidden_traits: frozenset[str]


def demand_of_flavor(
    vcpus: int,
    ram_mb: int,
    root_gb: int,
    ephemeral_gb: int = 0,
    swap_mb: int = 0,
    extra_specs: Mapping[str, str] | None = None,
    *,
    boot_from_volume: bool = False,
) -> Demand:
    """The demand of a flavor, after upstream's documented rules.

    Swap counts in whole GB, rounded up; a root disk on a volume costs the host nothing; extra specs
    ``resources:CLASS=n`` override (0 removes the class) and ``trait:NAME=required|forbidden`` add
    traits.  Raises ValueError for a malformed amount or trait word.
    """
    disk = (0 if boot_from_volume else root_gb) + ephemeral_gb + -(-swap_mb // 1024)
    resources = {VCPU: vcpus, MEMORY_MB: ram_mb, DISK_GB: disk}
    traits: dict[str, set[str]] = {"required": set(), "forbidden": set()}
    for key, value in (extra_specs or {}).items():
        scope, _, name = key.partition(":")
        if scope == "resources" and name:
            amount = int(value)
            if amount < 0:
                raise ValueError(f"Extra spec {key} must not be negative.")
            resources[name] = amount
        elif scope == "trait" and name:
            if value not in traits:
                raise ValueError(f"Extra spec {key} must be 'required' or 'forbidden'.")
            traits[value].add(name)
    return Demand(
        {name: amount for name, amount in resources.items() if amount},
        frozenset(traits["required"]),
        frozenset(traits["forbidden"]),
    )
