"""Where new volumes go: filters (``volume_filters``), a weigher, the record of the decision, and the claim in SQL.

A pass takes all waiting ``volume.create`` intents at once.  Every pool's ``generation``
is bumped by the claim, so of two schedulers that saw the same free space one loses
and looks again.  What a pool has given away is counted from the volumes on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import sqlalchemy as sa
from oslo_utils.uuidutils import is_uuid_like

from conductor.direct_journal import finish
from core.errors import NotFound
from core.intents import IntentState
from db import servers, volume_ends, volume_services
from db.sessions import Databases, retrying
from db.types import now
from db.volume_base import Row, by_ids, groups, intents, pools, types, volumes
from scheduler import explain, volume_filters

LOG = logging.getLogger(__name__)
_DELETIONS = ("volume.delete", "volume.force_delete", "group.delete")
_UNBOUNDED = 1e12


class Claimed(Exception):
    """Another scheduler claimed from the pool meanwhile."""


class VolumePass:
    """Places volumes. ``ring(host)`` is called for each backend that got work."""

    def __init__(
        self, databases: Databases, ring: Callable[[str], None], *, batch: int = 500, down_after_s: float = 60
    ) -> None:
        self._databases = databases
        self._ring = ring
        self._batch = batch
        self._down_after = down_after_s

    def run(self) -> int:
        """One pass; how many intents it took."""
        rows = self._waiting()
        if not rows:
            return 0
        hosts = set()
        for row in rows:
            for _ in range(5):
                try:
                    host = self._place(row)
                except Claimed:
                    continue
                if host is not None:
                    hosts.add(host)
                break
        for host in hosts:
            self._ring(host)
        return len(rows)

    def _waiting(self) -> list[Row]:
        """Creates (also of empty groups) that need a pool, and deletions of what never got one."""
        statement = (
            sa.select(intents)
            .where(
                intents.c.state == IntentState.WAITING.value,
                intents.c.target.is_(None),
                intents.c.kind.in_(["volume.create", "group.create", *_DELETIONS]),
            )
            .order_by(intents.c.created_at, intents.c.id)
            .limit(self._batch)
        )
        with self._databases.global_.read() as connection:
            return [dict(row) for row in connection.execute(statement).mappings()]

    @retrying
    def _place(self, intent: Row) -> str | None:
        # asked before the transaction, since it may read another database
        local_to = self._local_to(intent) if intent["kind"] == "volume.create" else None
        with self._databases.global_.write() as connection:
            if intent["kind"] in _DELETIONS:
                finish(connection, intent, IntentState.DONE, volume_ends.end)
                return None
            if intent["kind"] == "group.create":
                self._place_group(connection, intent)
                return None
            found = by_ids(connection, volumes, [intent["resource_id"]])
            if not found:
                finish(connection, intent, IntentState.CANCELLED, volume_ends.end)
                return None
            pool, record = self._choose(connection, found[0], intent["arguments"], local_to=local_to)
            # the row keeps it as long as the intent is kept; workers look at the arguments they know
            intent["arguments"] = {**intent["arguments"], "decision": record}
            if pool is None:
                self._refuse(connection, intent, record)
                return None
            self._claim(connection, intent, found[0], pool)
            return str(pool["service_host"])

    def _place_group(self, connection: sa.Connection, intent: Row) -> None:
        """An empty group needs a pool that fits all its types, and no work there: it ends here."""
        for group in by_ids(connection, groups, [intent["resource_id"]]):
            pool, record = self._choose(
                connection, {**group, "size_gib": 0}, intent["arguments"], group["volume_type_ids"]
            )
            if pool is None:
                self._refuse(connection, intent, record)
                return
            if finish(connection, intent, IntentState.DONE, volume_ends.end):
                connection.execute(
                    sa.update(groups).where(groups.c.id == group["id"]).values(host=pool["name"])
                )
            return
        finish(connection, intent, IntentState.CANCELLED, volume_ends.end)

    @staticmethod
    def _refuse(connection: sa.Connection, intent: Row, record: Row) -> None:
        error = {"step": "schedule", "code": "haneul.no_pool", "message": explain.summary(record)}
        connection.execute(
            sa.update(intents).where(intents.c.id == intent["id"]).values(arguments=intent["arguments"])
        )
        finish(connection, intent, IntentState.FAILED, volume_ends.end, error)

    def _local_to(self, intent: Row) -> str | None:
        """The host of the server that the volume is to be near to; empty: the asker has no such server, or it has no host."""
        asked = volume_filters.hinted(
            intent["arguments"].get("scheduler_hints") or {}, volume_filters.LOCAL_TO_INSTANCE
        )
        if asked is None:
            return None
        if not is_uuid_like(asked[0]):
            return ""
        try:
            row = servers.find(self._databases, asked[0]).row
        except NotFound:
            return ""
        return (row.get("host") or "") if row["project_id"] == intent["project_id"] else ""

    def _choose(
        self,
        connection: sa.Connection,
        volume: Row,
        arguments: Row,
        type_ids: Sequence[str] = (),
        local_to: str | None = None,
    ) -> tuple[Row | None, Row]:
        """(the pool or None, the record of the decision). ``type_ids``: all of them must fit."""
        rows = volume_services.list_pools(connection)
        kinds = by_ids(connection, types, type_ids or [volume["type_id"]])
        hints = arguments.get("scheduler_hints") or {}
        wanted = volume_filters.Wanted(
            size_gib=volume["size_gib"],
            availability_zone=volume["availability_zone"],
            specs=[each["extra_specs"] for each in kinds],
            pool=arguments.get("pool"),
            excluded=arguments.get("excluded") or (),
            same=self._pools_of(connection, volume, hints, volume_filters.SAME_HOST),
            different=self._pools_of(connection, volume, hints, volume_filters.DIFFERENT_HOST),
            local_to=local_to,
        )
        left, record = volume_filters.judge(rows, wanted, self._usable, room(rows).tolist())
        if not any(left):
            return None, record
        spare = free(rows).tolist()
        best = sorted((index for index in range(len(rows)) if left[index]), key=lambda i: -spare[i])
        raw = [spare[index] for index in best]
        record["weighers"] = [{"name": "CapacityWeigher", "low": min(raw), "high": max(raw)}]
        shown = best[: explain.MAX_TOP]
        span = max(raw) - min(raw)
        record["top"] = {
            "hosts": [rows[index]["name"] for index in shown],
            "weights": [(spare[index] - min(raw)) / span if span else 0.0 for index in shown],
            "raw": [[spare[index] for index in shown]],
            "multipliers": [1.0],
        }
        record["chosen"] = rows[best[0]]["name"]
        return rows[best[0]], record

    @staticmethod
    def _pools_of(connection: sa.Connection, volume: Row, hints: Row, name: str) -> frozenset[str] | None:
        """Pools of the volumes in a hint. Other projects' are not looked at: who asks must not learn where they are."""
        asked = volume_filters.hinted(hints, name)
        if asked is None:
            return None
        found = by_ids(connection, volumes, [each for each in asked if is_uuid_like(each)])
        return frozenset(
            row["host"] for row in found if row["host"] and row["project_id"] == volume["project_id"]
        )

    def _usable(self, row: Mapping[str, Any]) -> bool:
        service = row["service"]
        return (
            service is not None
            and not service["disabled"]
            and not service["frozen"]
            and volume_services.is_up(service, self._down_after)
        )

    @staticmethod
    def _claim(connection: sa.Connection, intent: Row, volume: Row, pool: Row) -> None:
        bumped = connection.execute(
            sa.update(pools)
            .where(pools.c.name == pool["name"], pools.c.generation == pool["generation"])
            .values(generation=pools.c.generation + 1)
        )
        taken = connection.execute(
            sa.update(intents)
            .where(
                intents.c.id == intent["id"],
                intents.c.state == IntentState.WAITING.value,
                intents.c.target.is_(None),
            )
            .values(target=pool["service_host"], arguments=intent["arguments"], updated_at=now())
        )
        if bumped.rowcount != 1 or taken.rowcount != 1:
            raise Claimed
        connection.execute(
            sa.update(volumes)
            .where(volumes.c.id == volume["id"])
            .values(host=pool["name"], generation=volumes.c.generation + 1)
        )


def free(rows: list[Row]) -> np.ndarray:
    """GiB that are free by the drivers' word, without what is to be kept free."""
    return np.asarray([_free(row) for row in rows])


def _free(row: Row) -> float:
    if row["free_gib"] is None:
        return _UNBOUNDED
    return float(row["free_gib"]) - _reserved(row)


def _reserved(row: Row) -> float:
    return (row["total_gib"] or 0) * float(row["capabilities"].get("reserved_percentage") or 0) / 100


def room(rows: list[Row]) -> np.ndarray:
    """GiB that a pool may still promise: by what it has promised, which counts at once, and by what its driver says is free.

    A thin one promises ``max_over_subscription_ratio`` times as much, by both counts, as upstream's CapacityFilter
    has it; ``reserved_percentage`` of the whole pool is kept free.
    """
    found = []
    for row in rows:
        said, total, promised = row["capabilities"], row["total_gib"], row["allocated"][1]
        if total is None:
            found.append(_UNBOUNDED)
        elif said.get("thin_provisioning_support"):
            ratio = float(said.get("max_over_subscription_ratio") or 1)
            found.append(min(total * ratio - promised, _free(row) * ratio))
        else:
            found.append(min(total - _reserved(row) - promised, _free(row)))
    return np.asarray(found)
