"""Servers: create, list, show, change, delete."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from oslo_db import exception as db_exc

from api.common.operations import Call, Controller, operation
from api.common.paging import next_link
from api.compute import common, server_access, server_create, server_filters
from api.compute.schemas import servers as schemas
from api.compute.server_views import View
from db import server_list, servers
from db.server_list import Filter, Listed
from db.servers import Located, Row
from db.sessions import Database, retrying

_PATH = "/servers/{server_id}"


class ServersController(Controller):
    """The life of servers, apart from their actions."""

    # -- lists -----------------------------------------------------------------

    @operation("GET", "/servers", policy="os_compute_api:servers:index", query=schemas.LIST)
    def index(self, call: Call) -> dict[str, Any]:
        """List servers, briefly."""
        view = View(call)
        listed, wanted, limit = self._page(call, "os_compute_api:servers:index:get_all_tenants", view)
        shown = [view.brief(row) for _, row in listed.rows]
        return self._answer(call, view, "servers", shown, listed, wanted, limit, detail=False)

    @operation("GET", "/servers/detail", policy="os_compute_api:servers:detail", query=schemas.LIST)
    def detail(self, call: Call) -> dict[str, Any]:
        """List servers with everything."""
        view = View(call)
        listed, wanted, limit = self._page(call, "os_compute_api:servers:detail:get_all_tenants", view)
        tags = self._tags(listed.rows) if view.needs_tags else {}
        status = self._host_status(view, listed.rows)
        shown = [
            view.full(row, tags=tags.get(row["id"], ()), host_status=status.get(row["id"]))
            for _, row in listed.rows
        ]
        return self._answer(call, view, "servers/detail", shown, listed, wanted, limit, detail=True)

    def _page(self, call: Call, policy: str, view: View) -> tuple[Listed, Filter | None, int]:
        limit = common.limit_of(call)
        sort = server_filters.sort_of(call)
        try:
            wanted = server_filters.filter_of(call, policy=policy)
        except server_filters.Nothing:
            return Listed([], []), None, limit
        listed = server_list.page(
            self.services.databases, wanted, sort, call.first("marker"), limit, heavy=view.needs_everything
        )
        return listed, wanted, limit

    def _answer(
        self,
        call: Call,
        view: View,
        path: str,
        shown: list[dict[str, Any]],
        listed: Listed,
        wanted: Filter | None,
        limit: int,
        *,
        detail: bool,
    ) -> dict[str, Any]:
        result: dict[str, Any] = {"servers": shown}
        if shown and len(shown) == limit:
            result["servers_links"] = [next_link(call, common.collection_url(call, path), shown[-1]["id"])]
        if listed.down and wanted is not None and wanted.plain and call.since("2.69"):
            # only an unfiltered list can say what is missing: the rest of such a server is not known
            room = limit - len(shown)
            if room > 0 and "marker" not in call.query:
                missing = server_list.mapped(self.services.databases, listed.down, wanted.project_id, room)
                result["servers"] += [view.unreachable(row, detail=detail) for row in missing]
        return result

    def _tags(self, rows: Iterable[tuple[Database, Row]]) -> dict[str, list[str]]:
        """One statement per database that has servers with tags on the page."""
        by_database: dict[int | None, tuple[Database, list[str]]] = {}
        for database, row in rows:
            if not row.get("tagged", True):
                continue
            by_database.setdefault(database.cell_id, (database, []))[1].append(row["id"])
        found: dict[str, list[str]] = {}
        for database, ids in by_database.values():
            found.update(servers.tags_of(database, ids))
        return found

    def _host_status(self, view: View, rows: Iterable[tuple[Database, Row]]) -> dict[str, str]:
        """host_status by server, as far as the asker may see it."""
        if not (view.sees_host_status or view.sees_unknown_hosts):
            return {}
        result: dict[str, str] = {}
        by_cell: dict[int, tuple[Database, list[Row]]] = {}
        down_after_s = self.services.conf.service_down_time
        for database, row in rows:
            if (known := servers.host_state_of(row, down_after_s)) is not None:
                result[row["id"]] = known
            elif row["host"] and database.cell_id:
                by_cell.setdefault(database.cell_id, (database, []))[1].append(row)
            else:
                result[row["id"]] = ""
        for database, placed in by_cell.values():
            hosts = {row["host"] for row in placed}
            states = servers.host_states(database, hosts, down_after_s)
            result.update((row["id"], states.get(row["host"], "UNKNOWN")) for row in placed)
        if view.sees_unknown_hosts:
            return {server_id: state for server_id, state in result.items() if state == "UNKNOWN"}
        return result

    # -- one server --------------------------------------------------------------

    @operation("GET", _PATH, policy="os_compute_api:servers:show")
    def show(self, call: Call) -> dict[str, Any]:
        """Show a server."""
        try:
            found = server_access.find(call, shown=True)
        except db_exc.DBConnectionError:
            return self._unreachable(call)
        return {"server": self.shown(call, found)}

    def shown(self, call: Call, found: Located) -> dict[str, Any]:
        """A server as show and update answer it."""
        view = View(call)
        tags = self._tags([(found.database, found.row)]) if view.needs_tags else {}
        status = self._host_status(view, [(found.database, found.row)])
        groups = None
        if call.since("2.71"):
            groups = (
                servers.groups_of(self.services.databases, found.id) if found.row["server_group_id"] else []
            )
        return view.full(
            found.row, tags=tags.get(found.id, ()), host_status=status.get(found.id), groups=groups
        )

    def _unreachable(self, call: Call) -> dict[str, Any]:
        """The server's cell is down: what the global database knows (2.69)."""
        server_id = call.params["server_id"]
        row = servers.mapping(self.services.databases, server_id)
        if row is None or not call.since("2.69"):
            raise db_exc.DBConnectionError()
        if row["project_id"] != call.context.project_id and not common.is_admin(call):
            raise servers.not_found(server_id)
        result = View(call).unreachable(row, detail=True)
        result.update(
            {
                "user_id": row["user_id"],
                "OS-EXT-AZ:availability_zone": "UNKNOWN",
                "OS-EXT-STS:power_state": 0,
            }
        )
        if call.since("2.71"):
            result["server_groups"] = servers.groups_of(self.services.databases, server_id)
        return {"server": result}

    @operation("POST", "/servers", policy="os_compute_api:servers:create", status=202, body=schemas.CREATE)
    def create(self, call: Call) -> dict[str, Any]:
        """Create servers."""
        made = server_create.create(call)
        if common.truth(call.body["server"].get("return_reservation_id", False)):
            return {"reservation_id": made.reservation_id}
        row = made.rows[0]
        path = f"servers/{row['id']}"
        call.response.headers["Location"] = f"{common.collection_url(call, path)}"
        result = {
            "id": row["id"],
            "links": common.resource_links(call, path),
            "OS-DCF:diskConfig": row["disk_config"],
            "security_groups": [{"name": name} for name in row["system_metadata"]["security_groups"]],
        }
        if self.services.options.enable_instance_password:
            result["adminPass"] = made.password
        return {"server": result}

    @operation("PUT", _PATH, policy="os_compute_api:servers:update", body=schemas.UPDATE)
    def update(self, call: Call) -> dict[str, Any]:
        """Change a server's name and the like."""
        found = self._update(call)
        if call.since("2.75"):
            return {"server": self.shown(call, found)}
        full = self.shown(call, found)
        return {"server": {key: value for key, value in full.items() if key in _UPDATED}}

    @retrying
    def _update(self, call: Call) -> Located:
        found = server_access.find(call)
        asked = call.body["server"]
        values: dict[str, Any] = {
            column: asked[key]
            for key, column in (
                ("name", "name"),
                ("description", "description"),
                ("hostname", "hostname"),
                ("OS-DCF:diskConfig", "disk_config"),
            )
            if key in asked
        }
        for key, column in (("accessIPv4", "access_ip_v4"), ("accessIPv6", "access_ip_v6")):
            if key in asked:
                values[column] = asked[key] or None
        if not values:
            return found
        with found.database.write() as connection:
            servers.stay(connection, found)
            row = servers.change(connection, found.database, found.row, values)
        return Located(found.database, row)

    @operation("DELETE", _PATH, policy="os_compute_api:servers:delete", status=204)
    def delete(self, call: Call) -> None:
        """Delete a server."""
        server_access.delete(call)


# what PUT answers before 2.75: without the attributes that extensions once added
_UPDATED = frozenset(
    ["id", "name", "status", "tenant_id", "user_id", "metadata", "hostId", "image", "flavor", "created"]
    + ["updated", "addresses", "accessIPv4", "accessIPv6", "links", "OS-DCF:diskConfig", "progress", "fault"]
    + ["locked", "description", "tags", "trusted_image_certificates", "server_groups", "locked_reason"]
)
