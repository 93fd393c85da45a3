"""What stands behind the API: services, hosts, pools, capabilities, zones, clusters, workers."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, Controller, operation
from api.volume import common, schemas
from core.errors import BadRequest, NotFound
from db import volume_services as db_services
from db.sessions import retrying
from db.volume_base import Row, snapshots, volumes

_TARGET = {"host": schemas.TEXT, "binary": schemas.TEXT, "disabled_reason": schemas.MAYBE_TEXT}
_SERVICE_TARGET = {**_TARGET, "service": schemas.TEXT}
_ACTION = v.obj(_SERVICE_TARGET, ["host"])
_REASON = v.obj({**_SERVICE_TARGET, "disabled_reason": schemas.TEXT}, ["host", "disabled_reason"])
_HOST = v.obj({"host": schemas.TEXT, "cluster": schemas.MAYBE_TEXT})
_FAILOVER = v.obj({"host": schemas.TEXT, "cluster": schemas.MAYBE_TEXT, "backend_id": schemas.MAYBE_TEXT})
_LOG = {
    "binary": {"enum": ["", "*", "cinder-api", "cinder-volume", "cinder-scheduler", "cinder-backup", None]},
    "server": schemas.MAYBE_TEXT,
    "prefix": schemas.MAYBE_TEXT,
}
_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")
_SET_LOG = v.obj({**_LOG, "level": {"type": "string", "pattern": f"^(?i:{'|'.join(_LEVELS)})$"}}, ["level"])
_UPDATE = "volume_extension:services:update"


def is_up(call: Call, row: Mapping[str, Any]) -> bool:
    return db_services.is_up(row, call.services.options.service_down_time)


class ServicesController(Controller):
    """Volume services: list, enable, disable, freeze, logs."""

    @operation("GET", "/os-services", policy="volume_extension:services:index")
    def index(self, call: Call) -> dict[str, Any]:
        """List services."""
        host, binary = call.first("host"), call.first("binary") or call.first("service")
        with self.services.databases.global_.read() as connection:
            rows = db_services.list_(connection, host, binary)
        return {"services": [self._view(call, row) for row in rows]}

    @staticmethod
    def _view(call: Call, row: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {
            "binary": row["binary"],
            "host": row["host"],
            "zone": row["availability_zone"],
            "status": "disabled" if row["disabled"] else "enabled",
            "state": "up" if is_up(call, row) else "down",
            "updated_at": common.micro(db_services.seen(row)),
            "disabled_reason": row["disabled_reason"],
        }
        if row["binary"] == db_services.VOLUME:
            found.update(
                replication_status=row["replication_status"],
                active_backend_id=None,
                frozen=bool(row["frozen"]),
            )
        if call.since("3.7"):
            found["cluster"] = None
        if call.since("3.49"):
            found["backend_state"] = row["capabilities"].get("backend_state", "up")
        return found

    @retrying
    def _set(self, call: Call, values: Row, binary: str | None = None) -> Row:
        asked = call.body
        binary = binary or asked.get("binary") or asked.get("service")
        if not binary:
            raise BadRequest("Missing required element 'binary' in request body.")
        if not asked.get("host"):
            raise BadRequest("Missing required element 'host' in request body.")
        with self.services.databases.global_.write() as connection:
            row = db_services.get(connection, asked["host"], binary)
            db_services.update(connection, row["id"], values)
        return row

    def _switched(self, call: Call, disabled: bool, reason: str | None) -> dict[str, Any]:
        row = self._set(call, {"disabled": disabled, "disabled_reason": reason})
        found: dict[str, Any] = {
            "host": row["host"],
            "service": row["binary"],
            "binary": row["binary"],
            "status": "disabled" if disabled else "enabled",
            "disabled": disabled,
        }
        if reason is not None:
            found["disabled_reason"] = reason
        return found

    @operation("PUT", "/os-services/enable", policy=_UPDATE, body=_ACTION)
    def enable(self, call: Call) -> dict[str, Any]:
        """Let the scheduler use a service."""
        return self._switched(call, False, None)

    @operation("PUT", "/os-services/disable", policy=_UPDATE, body=_ACTION)
    def disable(self, call: Call) -> dict[str, Any]:
        """Do not place anything there any more."""
        return self._switched(call, True, None)

    @operation("PUT", "/os-services/disable-log-reason", policy=_UPDATE, body=_REASON)
    def disable_with_reason(self, call: Call) -> dict[str, Any]:
        """Disable a service and say why."""
        reason = call.body["disabled_reason"].strip()
        if not reason:
            raise BadRequest("Disabled reason contains invalid characters or is too long.")
        return self._switched(call, True, reason)

    @operation("PUT", "/os-services/freeze", policy="volume:freeze_host", body=_HOST)
    def freeze(self, call: Call) -> None:
        """Nothing on a backend may be made, changed or deleted."""
        self._frozen(call, True)

    @operation("PUT", "/os-services/thaw", policy="volume:thaw_host", body=_HOST)
    def thaw(self, call: Call) -> None:
        """It may again."""
        self._frozen(call, False)

    def _frozen(self, call: Call, frozen: bool) -> None:
        try:
            self._set(call, {"frozen": frozen, "disabled": frozen}, db_services.VOLUME)
        except NotFound as error:
            raise BadRequest(error.message) from error

    @operation(
        "PUT",
        "/os-services/failover",
        policy="volume:failover_host",
        body=_FAILOVER,
        since="3.26",
        status=202,
    )
    @operation("PUT", "/os-services/failover_host", policy="volume:failover_host", body=_FAILOVER, status=202)
    def failover(self, call: Call) -> None:
        """Fail a replicated backend over: none here is replicated."""
        with self.services.databases.global_.read() as connection:
            host = call.body.get("host")
            if not host:
                raise BadRequest("Missing required element 'host' in request body.")
            try:
                row = db_services.get(connection, host, db_services.VOLUME)
            except NotFound as error:
                raise BadRequest(error.message) from error
        raise BadRequest(
            f"Invalid input received: Replication status of {row['host']} is {row['replication_status']}: it can't"
            " fail over."
        )

    @operation("PUT", "/os-services/get-log", policy=_UPDATE, body=v.obj(_LOG), since="3.32")
    def get_log(self, call: Call) -> dict[str, Any]:
        """The log levels that were asked for."""
        prefix = call.body.get("prefix") or ""
        with self.services.databases.global_.read() as connection:
            rows = self._logged(connection, call.body)
        return {
            "log_levels": [
                {
                    "binary": row["binary"],
                    "host": row["host"],
                    "levels": {
                        name: level for name, level in row["log_levels"].items() if name.startswith(prefix)
                    },
                }
                for row in rows
            ]
        }

    @operation("PUT", "/os-services/set-log", policy=_UPDATE, body=_SET_LOG, since="3.32", status=202)
    def set_log(self, call: Call) -> None:
        """Set log levels: a service takes them over with its next heartbeat."""
        level, prefix = call.body["level"].upper(), call.body.get("prefix") or ""
        with self.services.databases.global_.write() as connection:
            for row in self._logged(connection, call.body):
                levels = {**row["log_levels"], prefix: level}
                db_services.update(connection, row["id"], {"log_levels": levels})

    @staticmethod
    def _logged(connection: sa.Connection, asked: Mapping[str, Any]) -> list[Row]:
        binary = asked.get("binary")
        return db_services.list_(
            connection, asked.get("server") or None, None if binary in (None, "", "*") else binary
        )


class HostsController(Controller):
    """Hosts, as they were before services."""

    @operation("GET", "/os-hosts", policy="volume_extension:hosts")
    def index(self, call: Call) -> dict[str, Any]:
        """List the services of all hosts."""
        zone = call.first("zone")
        with self.services.databases.global_.read() as connection:
            rows = [row for row in db_services.list_(connection) if zone in (None, row["availability_zone"])]
        return {
            "hosts": [
                {
                    "host_name": row["host"],
                    "service": row["binary"],
                    "zone": row["availability_zone"],
                    "service-status": "available" if is_up(call, row) else "unavailable",
                    "service-state": "disabled" if row["disabled"] else "enabled",
                    "last-update": common.micro(db_services.seen(row)),
                }
                for row in rows
            ]
        }

    @operation("GET", "/os-hosts/{host}", policy="volume_extension:hosts")
    def show(self, call: Call) -> dict[str, Any]:
        """What is on a host, in all and per project."""
        host = call.params["host"]
        with self.services.databases.global_.read() as connection:
            if not [row for row in db_services.list_(connection, host) if row["host"] == host]:
                raise NotFound(f"Host {host} could not be found.")
            made = self._sums(connection, volumes.c.host.startswith(host, autoescape=True), volumes)
            below = self._sums(connection, volumes.c.host.startswith(host, autoescape=True), snapshots)
        projects = sorted({*made, *below})
        resources = [
            self._resource(host, project, made.get(project, (0, 0)), below.get(project, (0, 0)))
            for project in projects
        ]
        total = [
            (sum(number for number, _ in sums.values()), sum(size for _, size in sums.values()))
            for sums in (made, below)
        ]
        return {"host": [self._resource(host, "(total)", total[0], total[1]), *resources]}

    @staticmethod
    def _resource(host: str, project: str, made: tuple[int, int], below: tuple[int, int]) -> dict[str, Any]:
        return {
            "resource": {
                "host": host,
                "project": project,
                "volume_count": str(made[0]),
                "total_volume_gb": str(made[1]),
                "snapshot_count": str(below[0]),
                "total_snapshot_gb": str(below[1]),
            }
        }

    @staticmethod
    def _sums(connection: sa.Connection, here: Any, table: sa.Table) -> dict[str, tuple[int, int]]:
        size = sa.func.coalesce(sa.func.sum(table.c.size_gib), 0)
        source = table if table is volumes else table.join(volumes, volumes.c.id == table.c.volume_id)
        statement = sa.select(table.c.project_id, sa.func.count(), size).select_from(source).where(here)
        rows = connection.execute(statement.group_by(table.c.project_id))
        return {project: (int(number), int(total)) for project, number, total in rows}

    @operation(
        "PUT",
        "/os-hosts/{host}",
        policy="volume_extension:hosts",
        body=v.obj({"status": {"type": "string", "pattern": "^(?i:enable|disable)$"}}, ["status"]),
    )
    def update(self, call: Call) -> dict[str, Any]:
        """Enable or disable a host's volume service."""
        disabled = call.body["status"].lower() == "disable"
        with self.services.databases.global_.write() as connection:
            row = db_services.get(connection, call.params["host"], db_services.VOLUME)
            db_services.update(connection, row["id"], {"disabled": disabled, "disabled_reason": None})
        return {"host": row["host"], "status": "disabled" if disabled else "enabled"}


class PoolsController(Controller):
    """Pools and what backends can do."""

    @operation("GET", "/scheduler-stats/get_pools", policy="scheduler_extension:scheduler_stats:get_pools")
    def index(self, call: Call) -> dict[str, Any]:
        """List pools; in full with detail."""
        detail = common.strict_truth(call.first("detail", "false"), "detail")
        with self.services.databases.global_.read() as connection:
            rows = db_services.list_pools(connection)
        if call.since("3.28") and (name := call.first("name")) is not None:
            rows = [row for row in rows if row["name"] == name]
        if call.since("3.35") and (kind := call.first("volume_type")) is not None:
            rows = self._fitting(rows, kind)
        return {
            "pools": [
                {"name": row["name"], **({"capabilities": capabilities(row)} if detail else {})}
                for row in rows
            ]
        }

    def _fitting(self, rows: list[Row], kind: str) -> list[Row]:
        from db import volume_types

        with self.services.databases.global_.read() as connection:
            type_ = volume_types.by_name_or_id(connection, kind)
        wanted = type_["extra_specs"].get("volume_backend_name")
        return [row for row in rows if wanted in (None, row["capabilities"].get("volume_backend_name"))]

    @operation("GET", "/capabilities/{host}", policy="volume_extension:capabilities")
    def capabilities(self, call: Call) -> dict[str, Any]:
        """What a backend can do."""
        host = call.params["host"]
        with self.services.databases.global_.read() as connection:
            row = db_services.get(connection, host.partition("#")[0], db_services.VOLUME)
        said = row["capabilities"]
        return {
            "namespace": f"OS::Storage::Capabilities::{host}",
            "vendor_name": said.get("vendor_name"),
            "volume_backend_name": said.get("volume_backend_name"),
            "pool_name": said.get("pool_name"),
            "driver_version": said.get("driver_version"),
            "storage_protocol": said.get("storage_protocol"),
            "display_name": said.get("display_name"),
            "description": said.get("description"),
            "visibility": said.get("visibility"),
            "replication_targets": said.get("replication_targets", []),
            "properties": said.get("properties", {}),
        }


def capabilities(row: Row) -> dict[str, Any]:
    """A pool's capabilities in upstream's names, with what is counted."""
    number, size = row["allocated"]
    return {
        **row["capabilities"],
        "allocated_capacity_gb": size,
        "total_volumes": number,
        "timestamp": common.micro(row["updated_at"]),
    }


class AvailabilityZonesController(Controller):
    """Zones in which volumes can be made."""

    @operation("GET", "/os-availability-zone", policy="volume:availability_zone_list")
    def index(self, call: Call) -> dict[str, Any]:
        """List zones."""
        options = self.services.options
        with self.services.databases.global_.read() as connection:
            zones = db_services.zones(connection, options.service_down_time)
        zones = zones or {options.default_availability_zone: False}
        return {
            "availabilityZoneInfo": [
                {"zoneName": name, "zoneState": {"available": usable}}
                for name, usable in sorted(zones.items())
            ]
        }


_CLUSTER = v.obj(
    {"name": schemas.TEXT, "binary": schemas.TEXT, "disabled_reason": schemas.MAYBE_TEXT}, ["name"]
)


class ClustersController(Controller):
    """Backends that several services share: each worker here may serve every backend's intents, so none is one."""

    @operation("GET", "/clusters", policy="clusters:get_all", since="3.7")
    @operation("GET", "/clusters/detail", policy="clusters:get_all", since="3.7")
    def index(self, call: Call) -> dict[str, Any]:
        """List clusters: there are none."""
        return {"clusters": []}

    @operation("GET", "/clusters/{cluster_name}", policy="clusters:get", since="3.7")
    def show(self, call: Call) -> dict[str, Any]:
        """Show a cluster."""
        raise NotFound(f"Cluster {call.params['cluster_name']} could not be found.")

    @operation("PUT", "/clusters/enable", policy="clusters:update", since="3.7", status=202, body=_CLUSTER)
    @operation("PUT", "/clusters/disable", policy="clusters:update", since="3.7", status=202, body=_CLUSTER)
    def update(self, call: Call) -> dict[str, Any]:
        """Enable or disable a cluster."""
        raise NotFound(f"Cluster {call.body['name']} could not be found.")


_CLEANUP = v.obj(
    {
        "cluster_name": schemas.MAYBE_TEXT,
        "service_id": {"type": ["integer", "null"], "minimum": 0, "maximum": 0x7FFFFFFF},
        "host": schemas.MAYBE_TEXT,
        "binary": {"enum": ["cinder-volume", "cinder-scheduler", None]},
        "is_up": {"anyOf": [v.BOOLEAN, {"type": "null"}]},
        "disabled": {"anyOf": [v.BOOLEAN, {"type": "null"}]},
        "resource_id": schemas.MAYBE_UUID,
        "resource_type": {"enum": ["Volume", "Snapshot", "volume", "snapshot", None]},
        "until": {"type": ["string", "null"]},
    }
)


class WorkersController(Controller):
    """What a dead worker left: leases run out and another goes on, so a cleanup only rings."""

    @operation("POST", "/workers/cleanup", policy="workers:cleanup", since="3.24", status=202, body=_CLEANUP)
    def cleanup(self, call: Call) -> dict[str, Any]:
        """Let the services that fit look for work that was left."""
        asked = call.body
        with self.services.databases.global_.read() as connection:
            rows = db_services.list_(connection, asked.get("host"), asked.get("binary") or db_services.VOLUME)
        if (until := asked.get("until")) is not None:
            try:
                datetime.datetime.fromisoformat(until)
            except ValueError:
                raise BadRequest(f"Invalid value for until: {until!r} is no time in ISO 8601.") from None
        rows = [row for row in rows if self._fits(call, row)]
        shown = [
            {"id": row["id"], "host": row["host"], "binary": row["binary"], "cluster_name": None}
            for row in rows
        ]
        up = [each for each, row in zip(shown, rows, strict=True) if is_up(call, row)]
        for each in up:
            self.services.doorbells.ring_volume(each["host"])
        return {"cleaning": up, "unavailable": [each for each in shown if each not in up]}

    @staticmethod
    def _fits(call: Call, row: Row) -> bool:
        asked = call.body
        if asked.get("service_id") not in (None, row["id"]) or asked.get("cluster_name"):
            return False
        if asked.get("is_up") is not None and common.truth(asked["is_up"]) != is_up(call, row):
            return False
        return asked.get("disabled") is None or common.truth(asked["disabled"]) == bool(row["disabled"])
