"""Keeps the host table like the database: everything once, then only what changed.

``provider_changes`` in the global database is a log of providers that changed.
Sequence numbers are given at insertion and become visible at commit, so a small
number may appear after a larger one: the loader looks back a window of numbers
and skips those that it has seen.

Signs of life change without a log entry: they are read from the cells every few
seconds and put into the columns directly. At once when the log says that a service was
enabled, disabled or forced down: who was told that it is done expects no more servers there.
"""

from __future__ import annotations

import datetime
import logging
import math
import time
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from conductor.hosts import COMPUTE_BINARY
from db import placement
from db.cell_schema import hypervisors, intents, services
from db.global_schema import (
    aggregate_hosts,
    aggregates,
    allocations,
    inventories,
    provider_changes,
    providers,
    server_group_members,
)
from db.sessions import Database, Databases
from db.types import now
from lifecycle.states import IntentState
from scheduler.host_state import Aggregate, HostRow, HostTable, Inventory

LOG = logging.getLogger(__name__)
_WINDOW = 1000
_KEEP = datetime.timedelta(minutes=10)


_CHANGES = sa.union_all(
    # of what a busy scheduler writes itself there is much, and it is known here
    sa.select(provider_changes.c.seq, provider_changes.c.provider_id, provider_changes.c.source).where(
        provider_changes.c.seq > sa.bindparam("low"),
        sa.or_(provider_changes.c.source.is_(None), provider_changes.c.source != sa.bindparam("source")),
    ),
    sa.select(sa.func.max(provider_changes.c.seq), sa.null(), sa.null()),
)
"""(number, provider, source) of the changes since ``low``, and the newest number of all with None: one view of the log."""


class Loader:
    """Feeds one ``HostTable``; used by one thread."""

    def __init__(self, databases: Databases, table: HostTable, source: str, liveness_s: float = 5) -> None:
        self._databases = databases
        self._table = table
        self._source = source
        self._liveness_s = liveness_s
        self._seen: set[int] = set()
        self._high = 0
        self._loaded = False
        self._lively_at = -math.inf
        self._hosts: dict[str, dict[str, Any]] = {}
        self.providers: dict[str, dict[str, Any]] = {}
        """provider uuid → its row: id and generation, for claims"""

    def refresh(self) -> None:
        """Follow the database; cheap when nothing changed (one statement)."""
        if not self._loaded:
            changed: set[int] | None = None
            self._read_changes()
        else:
            changed = self._read_changes()
        if time.monotonic() - self._lively_at > self._liveness_s:
            fresh = self._read_cells()
            if changed is not None:
                changed |= fresh
        if changed is None or changed:
            self._load(changed)
            self._loaded = True
        self._apply_liveness()

    def _read_changes(self) -> set[int]:
        low = max(self._high - _WINDOW, 0)
        with self._databases.global_.read() as connection:
            found = connection.execute(_CHANGES, {"low": low, "source": self._source}).tuples().all()
        rows = [row for row in found if row[1] is not None]
        new = [row for row in rows if row[0] not in self._seen]
        self._seen = {seq for seq, _, _ in rows}
        self._high = max([self._high, *(seq for seq, _, _ in found if seq is not None)])
        if any(source == placement.SERVICE for _, _, source in new):
            self._lively_at = -math.inf
        return {provider_id for _, provider_id, _ in new}

    def prune(self) -> None:
        """Drop old entries of the log; every scheduler does, no harm done."""
        with self._databases.global_.write() as connection:
            connection.execute(
                sa.delete(provider_changes).where(
                    provider_changes.c.created_at < now() - _KEEP,
                    provider_changes.c.seq < self._high - _WINDOW,
                )
            )

    def reload(self, provider_ids: Iterable[int]) -> None:
        """Read these again: a claim was lost on them."""
        self._load(set(provider_ids))

    # -- cells ---------------------------------------------------------------

    def _read_cells(self) -> set[int]:
        """Services, hypervisors and work in progress of all cells; ids of providers to load again."""
        self._lively_at = time.monotonic()
        known: dict[str, dict[str, Any]] = {}
        for cell in self._databases.cells():
            try:
                known.update(self._read_cell(cell))
            except Exception:  # noqa: BLE001 - one cell down must not stop the others; logged
                LOG.exception("cell %s can't be read: its hosts get nothing new", cell.name)
        changed = {
            name
            for name, row in known.items()
            if name not in self._hosts or self._hosts[name]["fixed"] != row["fixed"]
        }
        changed |= set(self._hosts) - set(known)
        self._hosts = known
        return {row["id"] for row in self.providers.values() if row["host"] in changed}

    def _read_cell(self, cell: Database) -> dict[str, dict[str, Any]]:
        with cell.read() as connection:
            rows = connection.execute(
                sa.select(
                    services.c.host,
                    services.c.disabled,
                    services.c.forced_down,
                    services.c.last_seen_at,
                    hypervisors.c.hypervisor_hostname,
                    hypervisors.c.failed_builds,
                    hypervisors.c.inventory,
                    hypervisors.c.updated_at,
                )
                .join(hypervisors, hypervisors.c.host == services.c.host)
                .where(services.c.binary == COMPUTE_BINARY)
            ).all()
            work = connection.execute(
                sa.select(intents.c.target, sa.func.count())
                .where(
                    intents.c.state.in_([IntentState.RUNNING.value, IntentState.ENDING.value]),
                    intents.c.target.is_not(None),
                )
                .group_by(intents.c.target)
            ).all()
        io_ops = {row[0]: row[1] for row in work}
        return {
            row.host: {
                "fixed": (row.disabled, row.forced_down, row.failed_builds, row.updated_at, cell.name),
                "inventory": row.inventory,
                "node": row.hypervisor_hostname,
                "last_seen": _epoch(row.last_seen_at),
                "io_ops": io_ops.get(row.host, 0),
            }
            for row in rows
        }

    def _apply_liveness(self) -> None:
        with self._table.lock:
            for slot, uuid in enumerate(self._table.uuids):
                host = self._hosts.get(self.providers.get(uuid, {}).get("host", ""))
                if host is not None:
                    self._table.scalars["last_seen"][slot] = host["last_seen"]

    # -- providers -----------------------------------------------------------

    def _load(self, ids: set[int] | None) -> None:
        """Read providers (all: None) with inventories, usage, groups and aggregates."""

        def chosen(column: Any) -> Any:
            return sa.true() if ids is None else column.in_(sorted(ids))

        with self._databases.global_.read() as connection:
            rows = connection.execute(sa.select(providers).where(chosen(providers.c.id))).mappings().all()
            stock = (
                connection.execute(sa.select(inventories).where(chosen(inventories.c.provider_id)))
                .mappings()
                .all()
            )
            used = connection.execute(
                sa.select(
                    allocations.c.provider_id,
                    allocations.c.resource_class,
                    sa.func.sum(allocations.c.used),
                    sa.func.count(),
                )
                .where(chosen(allocations.c.provider_id))
                .group_by(allocations.c.provider_id, allocations.c.resource_class)
            ).all()
            groups = connection.execute(
                sa.select(
                    allocations.c.provider_id,
                    server_group_members.c.group_id,
                    sa.func.count(sa.distinct(allocations.c.consumer_uuid)),
                )
                .join(server_group_members, server_group_members.c.server_id == allocations.c.consumer_uuid)
                .where(chosen(allocations.c.provider_id))
                .group_by(allocations.c.provider_id, server_group_members.c.group_id)
            ).all()
            members = connection.execute(sa.select(aggregate_hosts)).all()
            known = connection.execute(sa.select(aggregates)).mappings().all()
        self._table.set_aggregates(Aggregate(row["id"], row["name"], dict(row["metadata"])) for row in known)
        of_host: dict[str, set[int]] = {}
        for aggregate_id, host in members:
            of_host.setdefault(host, set()).add(aggregate_id)
        facts = _Facts(stock, used, groups, of_host)
        gone = set() if ids is None else ids - {row["id"] for row in rows}
        for uuid, row in list(self.providers.items()):
            if row["id"] in gone or (ids is None and row["id"] not in {found["id"] for found in rows}):
                del self.providers[uuid]
                self._table.remove(uuid)
        hosts = []
        for found in rows:
            self.providers[found["uuid"]] = dict(found)
            host = self._hosts.get(found["host"])
            if host is not None:
                hosts.append(facts.host_row(dict(found), host))
        self._table.apply(hosts)


class _Facts:
    """Query results by provider."""

    def __init__(self, stock: Any, used: Any, groups: Any, of_host: dict[str, set[int]]) -> None:
        self._stock: dict[int, dict[str, Inventory]] = {}
        for row in stock:
            self._stock.setdefault(row["provider_id"], {})[row["resource_class"]] = Inventory(
                total=row["total"],
                reserved=row["reserved"],
                allocation_ratio=row["allocation_ratio"],
                min_unit=row["min_unit"],
                max_unit=row["max_unit"],
                step_size=row["step_size"],
            )
        self._used: dict[int, dict[str, int]] = {}
        self._count: dict[int, int] = {}
        for provider_id, name, amount, count in used:
            self._used.setdefault(provider_id, {})[name] = int(amount)
            self._count[provider_id] = max(self._count.get(provider_id, 0), count)
        self._groups: dict[int, dict[str, int]] = {}
        for provider_id, group_id, count in groups:
            self._groups.setdefault(provider_id, {})[group_id] = count
        self._of_host = of_host

    def host_row(self, provider: dict[str, Any], host: dict[str, Any]) -> HostRow:
        disabled, forced_down, failed_builds, _, cell = host["fixed"]
        inventory = host["inventory"]
        id_ = provider["id"]
        return HostRow(
            provider_uuid=provider["uuid"],
            host=provider["host"],
            node=host["node"],
            cell=cell,
            inventories=self._stock.get(id_, {}),
            used=self._used.get(id_, {}),
            num_instances=self._count.get(id_, 0),
            num_io_ops=host["io_ops"],
            failed_builds=failed_builds,
            enabled=not disabled,
            forced_down=forced_down,
            last_seen=host["last_seen"],
            traits=frozenset(provider["traits"]),
            aggregates=frozenset(self._of_host.get(provider["host"], ())),
            capabilities={
                "hypervisor_type": inventory["hypervisor_type"],
                "hypervisor_version": inventory["hypervisor_version"],
                "cpu_info": inventory.get("cpu_info") or {},
            },
            supported_instances=frozenset(
                (str(item[0]), str(item[1]), str(item[2]))
                for item in inventory.get("supported_instances") or ()
            ),
            groups=self._groups.get(id_, {}),
        )


def _epoch(moment: datetime.datetime | None) -> float:
    return moment.replace(tzinfo=datetime.UTC).timestamp() if moment else 0.0
