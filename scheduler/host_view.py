"""What filters and weighers see of the host table: many hosts as columns, or one host.

A ``Hosts`` view has the same attributes whether it covers all hosts or a few, so the code of a
filter serves a whole pass as well as the one host that the last placement touched.  Views are
windows, not copies: they are valid while the table's lock is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from scheduler.columns import BoolArray, CodedView, FloatArray, IntArray, ResourceColumns, Slots
from scheduler.request import DISK_GB, MEMORY_MB, VCPU

if TYPE_CHECKING:
    from scheduler.host_state import Aggregate, HostTable


class ResourceView:
    """One resource class over the hosts of a view; ``limit`` = (total - reserved) * ratio."""

    __slots__ = ("_columns", "_slots")

    def __init__(self, columns: ResourceColumns, slots: Slots) -> None:
        self._columns = columns
        self._slots = slots

    @property
    def stepped(self) -> bool:
        """Whether any host has a step size above 1."""
        return self._columns.stepped

    @property
    def total(self) -> IntArray:
        return self._columns.total[self._slots]

    @property
    def reserved(self) -> IntArray:
        return self._columns.reserved[self._slots]

    @property
    def used(self) -> IntArray:
        return self._columns.used[self._slots]

    @property
    def limit(self) -> FloatArray:
        return self._columns.limit[self._slots]

    @property
    def ratio(self) -> FloatArray:
        return self._columns.ratio[self._slots]

    @property
    def min_unit(self) -> IntArray:
        return self._columns.min_unit[self._slots]

    @property
    def max_unit(self) -> IntArray:
        return self._columns.max_unit[self._slots]

    @property
    def step_size(self) -> IntArray:
        return self._columns.step_size[self._slots]


class Hosts:
    """Columns of some hosts, all in the same order; ``len()`` is the number of hosts."""

    __slots__ = ("now", "slots", "table")

    def __init__(self, table: HostTable, slots: Slots, now: float) -> None:
        self.table = table
        self.slots = slots
        self.now = now

    def __len__(self) -> int:
        return self.slots.stop - self.slots.start if isinstance(self.slots, slice) else len(self.slots)

    def narrow(self, chosen: npt.NDArray[Any]) -> Hosts:
        """The hosts at ``chosen`` (a mask over this view, or positions in it)."""
        if isinstance(self.slots, slice):
            picked = (np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen) + self.slots.start
        else:
            picked = self.slots[chosen]
        return Hosts(self.table, picked, self.now)

    def slot_array(self) -> npt.NDArray[np.intp]:
        """The slots of this view as an index array."""
        if isinstance(self.slots, slice):
            return np.arange(self.slots.start, self.slots.stop)
        return self.slots

    # Plain columns

    @property
    def num_instances(self) -> npt.NDArray[np.int32]:
        return self.table.scalars["num_instances"][self.slots]

    @property
    def num_io_ops(self) -> npt.NDArray[np.int32]:
        return self.table.scalars["num_io_ops"][self.slots]

    @property
    def failed_builds(self) -> npt.NDArray[np.int32]:
        return self.table.scalars["failed_builds"][self.slots]

    @property
    def enabled(self) -> BoolArray:
        return self.table.scalars["enabled"][self.slots]

    @property
    def forced_down(self) -> BoolArray:
        return self.table.scalars["forced_down"][self.slots]

    @property
    def last_seen(self) -> FloatArray:
        """Seconds since the epoch."""
        return self.table.scalars["last_seen"][self.slots]

    def resource(self, name: str) -> ResourceView | None:
        """One resource class, or None when no host ever had it."""
        columns = self.table.resources.get(name)
        return None if columns is None else ResourceView(columns, self.slots)

    def free(self, name: str, *, overcommit: bool = False) -> FloatArray:
        """What is unused: of the physical amount, or with ``overcommit`` of what may be promised."""
        columns = self.table.resources.get(name)
        if columns is None:
            return np.zeros(len(self))
        used = columns.used[self.slots]
        if overcommit:
            return columns.limit[self.slots] - used
        return (columns.total[self.slots] - columns.reserved[self.slots] - used).astype(np.float64)

    # Columns of shared values

    @property
    def names(self) -> CodedView[str]:
        """Host names (``CONF.host`` of the agents)."""
        return self.table.coded["host"].view(self.slots)

    @property
    def nodes(self) -> CodedView[str]:
        return self.table.coded["node"].view(self.slots)

    @property
    def cells(self) -> CodedView[str]:
        return self.table.coded["cell"].view(self.slots)

    @property
    def zones(self) -> CodedView[str]:
        return self.table.coded["zone"].view(self.slots)

    @property
    def racks(self) -> CodedView[str]:
        return self.table.coded["rack"].view(self.slots)

    @property
    def traits(self) -> CodedView[frozenset[str]]:
        return self.table.coded["traits"].view(self.slots)

    @property
    def aggregates(self) -> CodedView[frozenset[int]]:
        """Aggregate ids; ``metadata`` asks what they say."""
        return self.table.coded["aggregates"].view(self.slots)

    @property
    def capabilities(self) -> CodedView[Mapping[str, Any]]:
        return self.table.coded["capabilities"].view(self.slots)

    @property
    def supported_instances(self) -> CodedView[frozenset[tuple[str, str, str]]]:
        """Sets of (architecture, hypervisor type, vm mode)."""
        return self.table.coded["supported_instances"].view(self.slots)

    def metadata(self, ids: Iterable[int], key: str) -> set[str]:
        """The values that a metadata key has over the aggregates ``ids``."""
        return self.table.metadata_of(ids, key)

    def group_counts(self, group_id: str) -> IntArray:
        """Members of a server group per host."""
        return self._sparse(self.table.groups.of(group_id))

    def project_counts(self, project_id: str) -> IntArray:
        """Servers of a project per host."""
        return self._sparse(self.table.projects.of(project_id))

    def _sparse(self, members: Mapping[str, int]) -> IntArray:
        if not members:
            return np.zeros(len(self), dtype=np.int64)
        if len(self) <= len(members):
            uuids = self.table.uuids
            numbers = [members.get(uuids[slot], 0) for slot in self.slot_array().tolist()]
            return np.array(numbers, dtype=np.int64)
        counts = np.zeros(self.table.count, dtype=np.int64)
        for uuid, number in members.items():
            counts[self.table.slot(uuid)] = number
        return counts[self.slots]

    def __iter__(self) -> Any:
        """The hosts one by one."""
        return (HostView(self.table, slot) for slot in self.slot_array().tolist())


class HostView:
    """One host, for filters and weighers that are written host by host."""

    __slots__ = ("slot", "table")

    def __init__(self, table: HostTable, slot: int) -> None:
        self.table = table
        self.slot = slot

    def __repr__(self) -> str:
        return f"<HostView {self.host} {self.node}>"

    def _coded(self, name: str) -> Any:
        return self.table.coded[name].get(self.slot)

    @property
    def provider_uuid(self) -> str:
        return self.table.uuids[self.slot]

    @property
    def host(self) -> str:
        return self._coded("host")

    @property
    def node(self) -> str:
        return self._coded("node")

    @property
    def cell(self) -> str:
        return self._coded("cell")

    @property
    def zone(self) -> str:
        return self._coded("zone")

    @property
    def rack(self) -> str:
        return self._coded("rack")

    @property
    def traits(self) -> frozenset[str]:
        return self._coded("traits")

    @property
    def capabilities(self) -> Mapping[str, Any]:
        return self._coded("capabilities")

    @property
    def supported_instances(self) -> frozenset[tuple[str, str, str]]:
        return self._coded("supported_instances")

    @property
    def aggregates(self) -> list[Aggregate]:
        known = (self.table.aggregates.get(item) for item in sorted(self._coded("aggregates")))
        return [item for item in known if item is not None]

    def aggregate_metadata(self, key: str) -> set[str]:
        """The values of a metadata key over the host's aggregates."""
        return self.table.metadata_of(self._coded("aggregates"), key)

    @property
    def enabled(self) -> bool:
        return bool(self.table.scalars["enabled"][self.slot])

    @property
    def forced_down(self) -> bool:
        return bool(self.table.scalars["forced_down"][self.slot])

    @property
    def last_seen(self) -> float:
        return float(self.table.scalars["last_seen"][self.slot])

    @property
    def num_instances(self) -> int:
        return int(self.table.scalars["num_instances"][self.slot])

    @property
    def num_io_ops(self) -> int:
        return int(self.table.scalars["num_io_ops"][self.slot])

    @property
    def failed_builds(self) -> int:
        return int(self.table.scalars["failed_builds"][self.slot])

    def total(self, name: str) -> int:
        columns = self.table.resources.get(name)
        return 0 if columns is None else int(columns.total[self.slot])

    def used(self, name: str) -> int:
        """Used by servers, what is reserved for the host not counted."""
        columns = self.table.resources.get(name)
        return 0 if columns is None else int(columns.used[self.slot])

    def limit(self, name: str) -> float:
        """(total - reserved) * ratio."""
        columns = self.table.resources.get(name)
        return 0.0 if columns is None else float(columns.limit[self.slot])

    def free(self, name: str) -> int:
        """The physical amount that neither the host nor servers use."""
        columns = self.table.resources.get(name)
        if columns is None:
            return 0
        return int(columns.total[self.slot] - columns.reserved[self.slot] - columns.used[self.slot])

    def group_count(self, group_id: str) -> int:
        return self.table.groups.of(group_id).get(self.provider_uuid, 0)

    def project_count(self, project_id: str) -> int:
        return self.table.projects.of(project_id).get(self.provider_uuid, 0)

    # Upstream's names of attributes, so that a filter moved over from there reads the same.

    @property
    def vcpus_total(self) -> int:
        return self.total(VCPU)

    @property
    def vcpus_used(self) -> int:
        return self.used(VCPU)

    @property
    def total_usable_ram_mb(self) -> int:
        return self.total(MEMORY_MB)

    @property
    def free_ram_mb(self) -> int:
        return self.free(MEMORY_MB)

    @property
    def total_usable_disk_gb(self) -> int:
        return self.total(DISK_GB)

    @property
    def free_disk_mb(self) -> int:
        return self.free(DISK_GB) * 1024
