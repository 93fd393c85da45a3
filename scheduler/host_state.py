"""The host table: what the scheduler knows of every host, in columns.

``scheduler.service`` follows the database by a change counter and calls ``apply`` with the rows that
changed; a pass (``scheduler.placement``) reads the columns through ``Hosts`` views and books what it
places at once, so that the next request sees it.

Threads: ``lock`` is re-entrant and guards everything.  Every method takes it; a pass holds it for
its whole length (milliseconds), so a pass sees one state and ``apply`` waits for its end.  Slots
(positions in the columns) are dense, and a removal moves the last host into the gap: a slot number
is worth nothing once the lock was let go.  What outlives a pass is a ``Hold``, which names the host
by provider uuid and the revision of its row: releasing a hold whose row was read again meanwhile
does nothing, because the new figures come from the database, where the failed claim never was.

Memory: about 830 bytes per host (measured on 10,000 with three resource classes); values that hosts share
(zones, trait sets, capabilities, aggregates) are stored once.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from scheduler.columns import CodedColumn, ResourceColumns, SparseCounts, grown
from scheduler.host_view import Hosts, HostView
from scheduler.request import DISK_GB, MEMORY_MB, VCPU, PlacementRequest

RATIO_KEYS = {
    VCPU: "cpu_allocation_ratio",
    MEMORY_MB: "ram_allocation_ratio",
    DISK_GB: "disk_allocation_ratio",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Inventory:
    """What a host has of one resource class; ``allocation_ratio`` None means the default, ``max_unit``
    None the total (one server can't have more than the host, whatever the ratio)."""

    total: int
    reserved: int = 0
    allocation_ratio: float | None = None
    min_unit: int = 1
    max_unit: int | None = None
    step_size: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Aggregate:
    """A host aggregate: a name and metadata that filters and weighers may read."""

    id: int
    name: str = ""
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class HostRow:
    """One host as the database knows it.

    ``last_seen`` is in seconds since the epoch; ``forced_down`` overrides it.  ``zone`` None means:
    from the metadata ``availability_zone`` of the host's aggregates, else the default zone.
    ``capabilities`` is what ComputeCapabilitiesFilter compares (hypervisor_type, hypervisor_version,
    cpu_info, ...); ``supported_instances`` holds (architecture, hypervisor type, vm mode).
    ``groups`` and ``projects`` count the servers on the host by server group and by project.
    """

    provider_uuid: str
    host: str
    node: str = ""
    cell: str = ""
    zone: str | None = None
    rack: str = ""
    inventories: Mapping[str, Inventory] = dataclasses.field(default_factory=dict)
    used: Mapping[str, int] = dataclasses.field(default_factory=dict)
    num_instances: int = 0
    num_io_ops: int = 0
    failed_builds: int = 0
    enabled: bool = True
    forced_down: bool = False
    last_seen: float = 0.0
    traits: frozenset[str] = frozenset()
    aggregates: frozenset[int] = frozenset()
    capabilities: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    supported_instances: frozenset[tuple[str, str, str]] = frozenset()
    groups: Mapping[str, int] = dataclasses.field(default_factory=dict)
    projects: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Hold:
    """Something booked by ``consume`` that ``release`` may give back."""

    provider_uuid: str
    revision: int
    request: PlacementRequest
    count: int = 1


def _capabilities_key(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, default=str)


class HostTable:
    """All hosts in columns; see the module's docstring for threads and slots.

    ``ratios``: default allocation ratio per resource class, for inventories that give none (1.0 for
    classes not named).  ``default_zone``: the zone of hosts that no aggregate puts into one.
    """

    _SCALARS = {
        "num_instances": np.int32,
        "num_io_ops": np.int32,
        "failed_builds": np.int32,
        "enabled": np.bool_,
        "forced_down": np.bool_,
        "last_seen": np.float64,
        "revision": np.int64,
    }
    _CODED = (
        "host",
        "node",
        "cell",
        "zone",
        "rack",
        "traits",
        "aggregates",
        "supported_instances",
        "capabilities",
    )

    def __init__(
        self, *, ratios: Mapping[str, float] | None = None, default_zone: str = "nova", capacity: int = 64
    ) -> None:
        self.lock = threading.RLock()
        self.count = 0
        self.revision_counter = 0
        self.default_zone = default_zone
        self.aggregates: dict[int, Aggregate] = {}
        self.scalars: dict[str, Any] = {
            name: np.zeros(capacity, dtype=dtype) for name, dtype in self._SCALARS.items()
        }
        self.coded: dict[str, CodedColumn[Any]] = {
            name: CodedColumn(capacity, _capabilities_key if name == "capabilities" else None)
            for name in self._CODED
        }
        self.resources: dict[str, ResourceColumns] = {}
        self.groups = SparseCounts()
        self.projects = SparseCounts()
        self.uuids: list[str] = []
        self._capacity = capacity
        self._slots: dict[str, int] = {}
        self._own_ratios: dict[str, dict[str, float]] = {}
        self._fixed_zone: set[str] = set()
        self._ratios = dict(ratios or {})

    def __len__(self) -> int:
        return self.count

    def __contains__(self, provider_uuid: str) -> bool:
        return provider_uuid in self._slots

    def slot(self, provider_uuid: str) -> int:
        """The slot of a host, valid while the lock is held. Raises KeyError for an unknown host."""
        return self._slots[provider_uuid]

    # Following the database

    def apply(self, rows: Iterable[HostRow]) -> None:
        """Insert or replace hosts; a row replaces all that was known or booked for its host."""
        with self.lock:
            for row in rows:
                self._apply(row)

    def _apply(self, row: HostRow) -> None:
        slot = self._slots.get(row.provider_uuid)
        if slot is None:
            slot = self._append(row.provider_uuid)
        self.revision_counter += 1
        for name in self._SCALARS:
            self.scalars[name][slot] = self.revision_counter if name == "revision" else getattr(row, name)
        for name in self._CODED:
            value = getattr(row, name)
            if name == "zone":
                value = row.zone if row.zone is not None else self._zone_of(row.aggregates)
            elif name == "node":
                value = row.node or row.host
            self.coded[name].set(slot, value)
        (self._fixed_zone.discard if row.zone is None else self._fixed_zone.add)(row.provider_uuid)
        self._apply_inventories(slot, row)
        for counts, wanted in ((self.groups, row.groups), (self.projects, row.projects)):
            counts.forget(row.provider_uuid)
            for key, number in wanted.items():
                counts.set(key, row.provider_uuid, number)

    def _apply_inventories(self, slot: int, row: HostRow) -> None:
        for name in (*row.inventories, *row.used):
            if name not in self.resources:
                self.resources[name] = ResourceColumns(self._capacity)
        own: dict[str, float] = {}
        for name, columns in self.resources.items():
            inventory = row.inventories.get(name)
            columns.clear(slot)
            columns.used[slot] = row.used.get(name, 0)
            if inventory is None:
                continue
            columns.total[slot] = inventory.total
            columns.reserved[slot] = inventory.reserved
            columns.min_unit[slot] = inventory.min_unit
            columns.max_unit[slot] = inventory.total if inventory.max_unit is None else inventory.max_unit
            columns.step_size[slot] = max(1, inventory.step_size)
            columns.stepped = columns.stepped or inventory.step_size > 1
            if inventory.allocation_ratio is not None:
                own[name] = inventory.allocation_ratio
            columns.set_ratio(slot, self._ratio(name, inventory.allocation_ratio, row.aggregates))
        if own:
            self._own_ratios[row.provider_uuid] = own
        else:
            self._own_ratios.pop(row.provider_uuid, None)

    def remove(self, provider_uuid: str) -> None:
        """Forget a host; an unknown one is no error (removal may be repeated)."""
        with self.lock:
            slot = self._slots.pop(provider_uuid, None)
            if slot is None:
                return
            self.groups.forget(provider_uuid)
            self.projects.forget(provider_uuid)
            self._own_ratios.pop(provider_uuid, None)
            self._fixed_zone.discard(provider_uuid)
            for column in self.coded.values():
                column.clear(slot)
            for columns in self.resources.values():
                columns.clear(slot)
            last = self.count - 1
            if slot != last:
                self._move(last, slot)
            self.uuids.pop()
            self.count = last

    def set_aggregates(self, aggregates: Iterable[Aggregate]) -> None:
        """Replace all aggregates; zones and allocation ratios that come from them follow."""
        with self.lock:
            self.aggregates = {aggregate.id: aggregate for aggregate in aggregates}
            for slot, uuid in enumerate(self.uuids):
                members = self.coded["aggregates"].get(slot)
                if uuid not in self._fixed_zone:
                    self.coded["zone"].set(slot, self._zone_of(members))
                own = self._own_ratios.get(uuid, {})
                for name, columns in self.resources.items():
                    columns.set_ratio(slot, self._ratio(name, own.get(name), members))

    def metadata_of(self, ids: Iterable[int], key: str) -> set[str]:
        """The values of a metadata key over some aggregates."""
        known = (self.aggregates.get(aggregate) for aggregate in ids)
        return {item.metadata[key] for item in known if item is not None and key in item.metadata}

    # Booking

    def consume(self, slot: int, request: PlacementRequest, count: int = 1) -> Hold:
        """Book ``count`` servers like ``request`` on the host in ``slot``."""
        with self.lock:
            uuid = self.uuids[slot]
            self._book(slot, uuid, request, count)
            return Hold(uuid, int(self.scalars["revision"][slot]), request, count)

    def release(self, hold: Hold) -> bool:
        """Give back what ``consume`` booked; False when the row was read anew, or is gone."""
        with self.lock:
            slot = self._slots.get(hold.provider_uuid)
            if slot is None or self.scalars["revision"][slot] != hold.revision:
                return False
            self._book(slot, hold.provider_uuid, hold.request, -hold.count)
            return True

    def _book(self, slot: int, uuid: str, request: PlacementRequest, count: int) -> None:
        for name, amount in request.resources.items():
            if name in self.resources:
                self.resources[name].used[slot] += amount * count
        self.scalars["num_instances"][slot] += count
        # A build reads an image and writes disks until it is done: upstream counts it as an I/O operation.
        self.scalars["num_io_ops"][slot] += count
        if request.group is not None:
            self.groups.add(request.group.id, uuid, count)
        if request.project_id:
            self.projects.add(request.project_id, uuid, count)

    def learn_group(self, group_id: str, hosts: Mapping[str, int]) -> None:
        """Raise the counts of a group's members to at least ``hosts`` (host name -> members).

        A request knows its group as of its writing, the table as of the last change it followed;
        the larger count is the safe one.
        """
        with self.lock:
            for host, number in hosts.items():
                code = self.coded["host"].code(host)
                slots = np.flatnonzero(self.coded["host"].codes[: self.count] == code) if code >= 0 else ()
                for slot in slots[:1]:
                    uuid = self.uuids[slot]
                    self.groups.set(group_id, uuid, max(self.groups.of(group_id).get(uuid, 0), number))

    # Reading

    def view(self, slots: Any = None, now: float | None = None) -> Hosts:
        """The columns of all hosts, or of those in ``slots``: an index array or a slice(start, stop)."""
        return Hosts(
            self, slice(0, self.count) if slots is None else slots, time.time() if now is None else now
        )

    def host_view(self, slot: int) -> HostView:
        """One host, for filters that look at hosts one by one."""
        return HostView(self, slot)

    def snapshot(self) -> HostTable:
        """An independent copy, for what-if questions."""
        with self.lock:
            other = HostTable(ratios=self._ratios, default_zone=self.default_zone, capacity=1)
            for name, value in vars(self).items():
                if name != "lock":
                    # Rows' values (mappings, frozensets, aggregates) are never changed in place.
                    setattr(other, name, _copied(value))
            return other

    # Slots

    def _append(self, uuid: str) -> int:
        if self.count == self._capacity:
            self._capacity *= 2
            for name, column in self.scalars.items():
                self.scalars[name] = grown(column, self._capacity)
            for coded in self.coded.values():
                coded.grow(self._capacity)
            for columns in self.resources.values():
                columns.grow(self._capacity)
        slot = self.count
        self.count += 1
        self._slots[uuid] = slot
        self.uuids.append(uuid)
        return slot

    def _move(self, source: int, target: int) -> None:
        for column in self.scalars.values():
            column[target] = column[source]
        for coded in self.coded.values():
            coded.move(source, target)
        for columns in self.resources.values():
            columns.move(source, target)
        uuid = self.uuids[source]
        self.uuids[target] = uuid
        self._slots[uuid] = target

    def _zone_of(self, aggregates: Iterable[int]) -> str:
        zones = self.metadata_of(aggregates, "availability_zone")
        return min(zones) if zones else self.default_zone

    def _ratio(self, name: str, own: float | None, aggregates: Iterable[int]) -> float:
        """Aggregates' metadata first (the smallest), then the host's own ratio, then the default."""
        found = []
        for value in self.metadata_of(aggregates, RATIO_KEYS[name]) if name in RATIO_KEYS else ():
            try:
                found.append(float(value))
            except ValueError:
                continue  # a malformed ratio in metadata must not stop scheduling: the next source counts
        if found:
            return min(found)
        return own if own is not None else self._ratios.get(name, 1.0)


def _copied(value: Any) -> Any:
    """A copy of the table's own containers and arrays that shares the values in them."""
    if isinstance(value, np.ndarray | set | SparseCounts):
        return value.copy()
    if isinstance(value, list):
        return list(value)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, CodedColumn | ResourceColumns):
        other = copy.copy(value)
        for name, item in vars(value).items():
            setattr(other, name, _copied(item))
        return other
    return value
