"""The scheduler role: passes over all waiting intents, when rung and every few seconds.

Several schedulers may run: an intent is leased in SQL before anything is cast,
and claims are conditional on the provider's generation.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Sequence
from typing import Any

import oslo_messaging
import sqlalchemy as sa
from oslo_config import cfg

from conductor.ends import message_of
from conductor.hosts import Hosts
from core import config, logs, metrics
from core.context import RequestContext
from core.messaging import Messaging
from core.pools import Periodic
from db import cell_schema, global_schema, placement, sessions, volume_services
from db.sessions import Database, Databases
from db.types import Time, now
from lifecycle.roles import Role
from lifecycle.rpc import SCHEDULER_TOPIC, AgentClient
from lifecycle.states import IntentState
from lifecycle.volume_rpc import VolumeClient
from scheduler import options
from scheduler.dispatch import Dispatcher, Lost
from scheduler.host_state import HostTable
from scheduler.loader import Loader
from scheduler.placement import Choice, Decision, Pass
from scheduler.request import Group, PlacementRequest, demand_of_flavor
from scheduler.volume_pools import VolumePass

LOG = logging.getLogger(__name__)
Row = dict[str, Any]
_SPACING_S = 0.04
"""Passes begin at least so far apart: one for three servers costs little more than one for one."""

OPTS = [
    cfg.FloatOpt("interval_s", default=5, min=0.1, help="Seconds between passes that nobody rang for."),
    cfg.IntOpt("batch", default=500, min=1, help="Intents that one pass takes at the most."),
    cfg.FloatOpt("lease_s", default=30, min=0.1, help="How long a pass may be silent about its intents."),
    cfg.FloatOpt(
        "host_lease_s", default=60, min=0.1, help="How long a host may be silent about a new intent."
    ),
]


def list_opts() -> list[tuple[str, list[cfg.Opt]]]:
    return [("scheduler", OPTS), *options.list_opts()]


def _waiting_creates(intents: sa.Table, *, expired: bool) -> sa.Select[Any]:
    """Creates without a host; ``expired``: also those of a scheduler that died over them."""
    waiting = intents.c.state == IntentState.WAITING.value
    if expired:
        left = intents.c.lease_until < sa.bindparam("moment", type_=Time())
        waiting = sa.or_(waiting, sa.and_(intents.c.state == IntentState.RUNNING.value, left))
    return (
        sa.select(intents)
        .where(waiting, intents.c.kind == "server.create", intents.c.target.is_(None))
        .order_by(intents.c.created_at, intents.c.id)
        .limit(sa.bindparam("batch"))
    )


_WAITING_GLOBAL = _waiting_creates(global_schema.intents, expired=True)
_WAITING_IN_CELL = _waiting_creates(cell_schema.intents, expired=False)


def make_role(conf: cfg.ConfigOpts) -> SchedulerRole:
    """The factory that ``haneul serve scheduler`` calls."""
    config.register(conf, list_opts())
    config.register(conf, sessions.list_opts())
    return SchedulerRole(conf)


class SchedulerRole(Role):
    """One scheduler."""

    name = "scheduler"

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf
        self.databases = Databases(conf)
        self.owner = f"scheduler-{conf.host}-{uuid.uuid4().hex[:8]}"
        self.table = HostTable(ratios=options.default_ratios(conf))
        self.loader = Loader(self.databases, self.table, self.owner)
        self._pass = Pass.from_conf(self.table, conf)
        options_ = conf.scheduler
        self._dispatcher = Dispatcher(self.databases, self.owner, options_.lease_s, options_.host_lease_s)
        self._messaging = Messaging(conf)
        self._cell_messaging: dict[str, Messaging] = {}
        self._server = self._messaging.server(SCHEDULER_TOPIC, self.owner, [Endpoint(self)])
        self._loop = Periodic("scheduler-pass", conf.scheduler.interval_s, self.run_pass, _SPACING_S)
        self._volumes = VolumePass(
            self.databases, VolumeClient(self._messaging).ring, batch=conf.scheduler.batch
        )
        self._housekeeping_at = 0.0

    def start(self) -> None:
        self._server.start()
        self._loop.start()
        self._loop.ring()

    def stop(self) -> None:
        self._server.stop()
        self._server.wait()
        self._loop.stop()
        for messaging in self._cell_messaging.values():
            messaging.close()
        self._messaging.close()
        self.databases.dispose()

    def ring(self) -> None:
        self._loop.ring()

    # -- a pass --------------------------------------------------------------

    def run_pass(self) -> None:
        """Place everything that waits; repeats while whole batches come."""
        self._housekeep()
        self._place_servers()
        self._try_volumes()

    def _place_servers(self) -> None:
        while True:
            taken = sum(self._try_pass(source) for source in [self.databases.global_, *self._cells()])
            metrics.QUEUE.labels("scheduler").set(taken)
            if taken < self._conf.scheduler.batch:
                return

    def _try_volumes(self) -> None:
        """Volumes that can't be placed now must not keep servers waiting."""
        try:
            while self._volumes.run() >= self._conf.scheduler.batch:
                pass
        except Exception:  # noqa: BLE001 - logged; what waits is found by the next pass
            LOG.exception("the pass over volumes failed; it is tried again")

    def _cells(self) -> list[Database]:
        return [self.databases.cell(row["id"]) for row in self.databases.cell_rows() if not row["disabled"]]

    def _housekeep(self) -> None:
        if time.monotonic() - self._housekeeping_at < 10:
            return
        self._housekeeping_at = time.monotonic()
        for cell in self._cells()[:1]:
            Hosts(self._conf, self.databases, cell).ensure_service(self._conf.host, "nova-scheduler")
        with self.databases.global_.write() as connection:
            levels = volume_services.heartbeat(connection, self._conf.host, volume_services.SCHEDULER, "nova")
        logs.set_levels(levels)
        self.loader.prune()

    def _waiting(self, source: Database) -> list[Row]:
        statement = _WAITING_GLOBAL if source.cell_id is None else _WAITING_IN_CELL
        asked = {"batch": self._conf.scheduler.batch}
        if source.cell_id is None:
            asked["moment"] = now()
        with source.read() as connection:
            return [dict(row) for row in connection.execute(statement, asked).mappings()]

    def _try_pass(self, source: Database) -> int:
        """A database that fails must not keep the others' servers waiting."""
        try:
            return self._pass_over(source)
        except Exception:  # noqa: BLE001 - logged; what was claimed is found again when its lease runs out
            LOG.exception("the pass over database %s failed; it is tried again", source.name)
            return 0

    def _pass_over(self, source: Database) -> int:
        rows = self._waiting(source)
        if not rows:
            return 0
        started = time.monotonic()
        cancelled = [row for row in rows if row["cancel_requested"]]
        if cancelled and source.cell_id is None:
            self._dispatcher.finish_cancelled(cancelled)
        rows = [row for row in rows if not row["cancel_requested"]]
        for _ in range(5):
            if not rows:
                break
            try:
                rows = self._place(source, rows)
            except Lost:
                time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - spreads schedulers, no secret
                rows = [row for row in self._waiting(source) if not row["cancel_requested"]]
        metrics.SCHEDULER_PASSES.inc()
        metrics.SCHEDULER_PASS_SECONDS.observe(time.monotonic() - started)
        return len(cancelled) + len(rows)

    def _place(self, source: Database, rows: list[Row]) -> list[Row]:
        """Decide, claim, dispatch; returns the rows whose claim was lost."""
        self.loader.refresh()
        with self.databases.global_.read() as connection:
            held = placement.allocated(connection, [row["resource_id"] for row in rows if row["attempts"]])
        known = {item["id"] for item in self.loader.providers.values() if item["uuid"] in self.table}
        # a host whose cell can't be read now: what it has been promised waits for it
        rows = [row for row in rows if held.get(row["resource_id"], None) in {None, *known}]
        fresh = [row for row in rows if row["resource_id"] not in held]
        decisions = self._pass.place(self._request(source, row) for row in fresh)
        decided = list(zip(fresh, decisions, strict=True))
        decided += [
            (row, self._held(row, held[row["resource_id"]])) for row in rows if row["resource_id"] in held
        ]
        placed = [(row, decision) for row, decision in decided if decision.chosen is not None]
        failed = [(row, decision) for row, decision in decided if decision.chosen is None]
        again = self._dispatch(source, placed) if placed else []
        if failed:
            self._dispatcher.no_host(source, failed)
            metrics.SCHEDULED.labels("no_valid_host").inc(len(failed))
        return again

    def _dispatch(self, source: Database, placed: list[tuple[Row, Decision]]) -> list[Row]:
        claims: dict[tuple[int, int], list[Row]] = {}
        for row, decision in placed:
            if decision.hold is None:
                continue  # its allocation stands already
            assert decision.chosen is not None
            provider = self.loader.providers[decision.chosen.provider_uuid]
            claims.setdefault((provider["id"], provider["generation"]), []).append(
                {
                    "server_id": row["resource_id"],
                    "project_id": row["project_id"],
                    "user_id": row["user_id"],
                    "resources": decision.request.resources,
                }
            )
        try:
            lost = set(self._dispatcher.claim(source, placed, claims))
        except Exception:
            for _, decision in placed:
                if decision.hold is not None:
                    self.table.release(decision.hold)
            raise
        self._follow_claims(claims, lost)
        won, again = [], []
        for row, decision in placed:
            assert decision.chosen is not None
            provider = self.loader.providers[decision.chosen.provider_uuid]
            if decision.hold is not None and provider["id"] in lost:
                again.append(row)
            else:
                won.append((row, decision))
        if again:
            self._dispatcher.back_to_waiting(source, [row["id"] for row in again])
            self.loader.reload(lost)
        self._send(source, won)
        return again

    def _follow_claims(self, claims: dict[tuple[int, int], list[Row]], lost: set[int]) -> None:
        """Our own claims raised generations; the log entries that say so are skipped."""
        taken = {provider_id for provider_id, _ in claims} - lost
        for provider in self.loader.providers.values():
            if provider["id"] in taken:
                provider["generation"] += 1

    def _send(self, source: Database, won: list[tuple[Row, Decision]]) -> None:
        by_cell: dict[str, list[tuple[Row, Decision]]] = {}
        for row, decision in won:
            assert decision.chosen is not None
            by_cell.setdefault(decision.chosen.cell, []).append((row, decision))
        for name, group in by_cell.items():
            cell_row = next(row for row in self.databases.cell_rows() if row["name"] == name)
            try:
                cell = self.databases.cell(cell_row["id"])
                if source.cell_id is None:
                    granted = self._dispatcher.move(cell, group)
                else:
                    granted = self._dispatcher.replace(cell, group)
            except Exception:  # noqa: BLE001 - logged; found again when the lease runs out
                LOG.exception("%d servers could not be moved to cell %s", len(group), name)
                continue
            metrics.SCHEDULED.labels("placed").inc(len(granted))
            self._cast(cell_row, granted)

    def _cast(self, cell_row: Row, granted: Sequence[Row]) -> None:
        by_host: dict[str, list[Row]] = {}
        for row in granted:
            by_host.setdefault(row["target"], []).append(message_of(row))
        agents = AgentClient(self._transport(cell_row["transport_url"]))
        for host, messages in by_host.items():
            try:
                agents.run(host, messages)
            except oslo_messaging.MessagingException as error:
                LOG.warning("could not reach host %s (%s): its conductor sends again", host, error)

    def _transport(self, url: str | None) -> Messaging:
        if not url:
            return self._messaging
        if url not in self._cell_messaging:
            self._cell_messaging[url] = Messaging(self._conf, url)
        return self._cell_messaging[url]

    # -- requests ------------------------------------------------------------

    def _request(self, source: Database, row: Row) -> PlacementRequest:
        arguments = row["arguments"]
        specs = arguments.get("extra_specs") or {}
        demand = demand_of_flavor(0, 0, 0, extra_specs=specs)
        group = arguments.get("group")
        hints = arguments.get("hints") or {}
        guest = arguments.get("guest") or {}
        return PlacementRequest(
            intent_id=row["id"],
            server_id=row["resource_id"],
            project_id=row["project_id"] or "",
            user_id=row["user_id"] or "",
            resources={key: value for key, value in arguments["resources"].items() if value},
            flavor_name=guest.get("flavor_name") or "",
            extra_specs=specs,
            image_id=(guest.get("image") or {}).get("id"),
            image_properties=arguments.get("image_properties") or {},
            availability_zone=arguments.get("availability_zone"),
            group=Group(group["id"], group["policy"], group.get("rules") or {}) if group else None,
            host=arguments.get("requested_host"),
            node=arguments.get("requested_node"),
            forced=bool(arguments.get("forced_host")),
            ignore_hosts=tuple(arguments.get("ignore_hosts") or ()),
            excluded=tuple(arguments.get("excluded_hosts") or ()),
            cell=None if source.cell_id is None else source.name,
            required_traits=demand.required_traits,
            forbidden_traits=demand.forbidden_traits,
            same_hosts=self._hosts_of(hints.get("same_host")),
            different_hosts=self._hosts_of(hints.get("different_host")),
            hints=hints,
            attempt=row["attempts"] + 1,
        )

    def _hosts_of(self, server_ids: Any) -> tuple[str, ...] | None:
        """The hosts of the servers that a hint names; None: no such hint."""
        if not server_ids:
            return None
        ids = [server_ids] if isinstance(server_ids, str) else list(server_ids)
        providers, allocations = global_schema.providers, global_schema.allocations
        with self.databases.global_.read() as connection:
            found = connection.execute(
                sa.select(providers.c.host)
                .join(allocations, allocations.c.provider_id == providers.c.id)
                .where(allocations.c.consumer_uuid.in_(ids))
                .distinct()
            ).scalars()
            return tuple(found)

    def _held(self, row: Row, provider_id: int) -> Decision:
        """An earlier pass claimed this host and died before the rest: go on with it."""
        provider = next(item for item in self.loader.providers.values() if item["id"] == provider_id)
        with self.table.lock:
            slot, coded = self.table.slot(provider["uuid"]), self.table.coded
            choice = Choice(
                provider["uuid"],
                coded["host"].get(slot),
                coded["node"].get(slot),
                coded["cell"].get(slot),
                coded["zone"].get(slot),
            )
        record = {
            "version": 1,
            "driver": "resumed",
            "hosts": len(self.table),
            "candidates": 1,
            "filters": [],
            "weighers": [],
            "chosen": choice.host,
            "alternates": [],
        }
        request = PlacementRequest(intent_id=row["id"], server_id=row["resource_id"])
        return Decision(request, choice, (), None, record)


class Endpoint:
    """What the scheduler hears; see ``lifecycle.rpc``."""

    target = oslo_messaging.Target(version="1.0")

    def __init__(self, role: SchedulerRole) -> None:
        self._role = role

    @oslo_messaging.rpc.expose
    def ring(self, context: RequestContext) -> None:
        self._role.ring()
