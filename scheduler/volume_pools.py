"""Where new volumes go: pools as columns, filters as masks, a weigher, and the claim in SQL.

A pass takes all waiting ``volume.create`` intents at once.  Every pool's ``generation``
is bumped by the claim, so of two schedulers that saw the same free space one loses
and looks again.  What a pool has given away is counted from the volumes on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import sqlalchemy as sa

from conductor.direct_journal import finish
from core.intents import IntentState
from core.volume_capabilities import fits
from db import volume_ends, volume_services
from db.sessions import Databases, retrying
from db.types import now
from db.volume_base import Row, by_ids, groups, intents, pools, types, volumes

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
            pool, why = self._choose(connection, found[0], intent["arguments"])
            if pool is None:
                error = {"step": "schedule", "code": "haneul.no_pool", "message": why}
                finish(connection, intent, IntentState.FAILED, volume_ends.end, error)
                return None
            self._claim(connection, intent, found[0], pool)
            return str(pool["service_host"])

    def _place_group(self, connection: sa.Connection, intent: Row) -> None:
        """An empty group needs a pool that fits all its types, and no work there: it ends here."""
        for group in by_ids(connection, groups, [intent["resource_id"]]):
            pool, why = self._choose(
                connection, {**group, "size_gib": 0}, intent["arguments"], group["volume_type_ids"]
            )
            if pool is None:
                error = {"step": "schedule", "code": "haneul.no_pool", "message": why}
                finish(connection, intent, IntentState.FAILED, volume_ends.end, error)
                return
            if finish(connection, intent, IntentState.DONE, volume_ends.end):
                connection.execute(
                    sa.update(groups).where(groups.c.id == group["id"]).values(host=pool["name"])
                )
            return
        finish(connection, intent, IntentState.CANCELLED, volume_ends.end)

    def _choose(
        self, connection: sa.Connection, volume: Row, arguments: Row, type_ids: Sequence[str] = ()
    ) -> tuple[Row | None, str]:
        """(the pool, "") or (None, which filter left none). ``type_ids``: all of them must fit."""
        rows = volume_services.list_pools(connection)
        kinds = by_ids(connection, types, type_ids or [volume["type_id"]])
        left = np.ones(len(rows), dtype=bool)
        for name, mask in (
            ("Driver", [self._usable(row) for row in rows]),
            ("AvailabilityZone", [self._in_zone(row, volume) for row in rows]),
            ("Pool", [arguments.get("pool") in (None, row["name"]) for row in rows]),
            # where a volume that moves comes from
            ("IgnoreAttemptedHosts", [row["name"] not in (arguments.get("excluded") or ()) for row in rows]),
            (
                "Capabilities",
                [all(fits(row["capabilities"], each["extra_specs"]) for each in kinds) for row in rows],
            ),
            ("Capacity", room(rows) >= volume["size_gib"]),
        ):
            left &= np.asarray(mask, dtype=bool)
            if not left.any():
                return None, f"No valid backend was found: {name}Filter left none of {len(rows)} pools."
        weights = np.where(left, free(rows), -np.inf)
        return rows[int(np.argmax(weights))], ""

    def _usable(self, row: Row) -> bool:
        service = row["service"]
        return (
            service is not None
            and not service["disabled"]
            and not service["frozen"]
            and volume_services.is_up(service, self._down_after)
        )

    @staticmethod
    def _in_zone(row: Row, volume: Row) -> bool:
        return (
            row["service"] is not None and row["service"]["availability_zone"] == volume["availability_zone"]
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
            .values(target=pool["service_host"], updated_at=now())
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
