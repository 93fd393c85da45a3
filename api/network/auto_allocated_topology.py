"""Auto-allocated topology: a network, subnets and a router, made when a project first asks.

It needs a default external network and a default subnet pool that is shared; what is
missing is said (also ahead, by ``?fields=dry-run``).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from oslo_db import exception as db_exc

from api.common.operations import Call, Controller, operation
from api.network import subnet_rules
from api.network.subnets import ATTRIBUTES as SUBNET_ATTRIBUTES
from core.errors import Forbidden
from db import network_base as base
from db import networks as db_networks
from db import ports as db_ports
from db import routers as db_routers
from db import routing
from db import security_groups as db_security_groups
from db import subnet_pools as db_subnet_pools
from db import subnets as db_subnets
from db.network_base import TABLES
from db.network_errors import conflict
from db.sessions import retrying

topologies = TABLES["auto_allocated_topologies"]
_PATH = "/auto-allocated-topology/{project_id}"
NAME = "auto_allocated_network"


class AutoAllocatedTopologyController(Controller):
    """Get, made on demand; check ahead; delete."""

    def _project(self, call: Call) -> str:
        project_id = call.params["project_id"]
        if project_id == "None":  # what clients send for "my own"
            project_id = call.context.project_id or ""
        if not call.allowed(call.operation.policy, {"project_id": project_id}):
            raise Forbidden(f"rule:{call.operation.policy} is disallowed by policy")
        return project_id

    def _find(self, connection: sa.Connection, project_id: str) -> Any:
        statement = sa.select(topologies).where(topologies.c.project_id == project_id)
        return connection.execute(statement).mappings().first()

    @operation("GET", _PATH, policy="get_auto_allocated_topology", late_policy=True)
    def show(self, call: Call) -> dict[str, Any]:
        """The project's network, made now if there is none; with dry-run: could it be made?"""
        project_id = self._project(call)
        if call.query.get("fields") == ["dry-run"]:
            with self.services.databases.global_.read() as connection:
                self._needed(connection)
            return _view("dry-run=pass", project_id)
        return _view(retrying(self._ensure)(project_id), project_id)

    def _needed(self, connection: sa.Connection) -> tuple[str, list[dict[str, Any]]]:
        """(the default external network, the default subnet pools).

        :raises Conflict: one of them is missing.
        """
        networks = db_networks.networks
        external = connection.execute(
            sa.select(networks.c.id).where(networks.c.is_default.is_(True), networks.c.external.is_(True))
        ).scalar()
        found = [db_subnet_pools.default(connection, version) for version in (4, 6)]
        pools = [
            base.find(connection, db_subnet_pools.MODEL, pool_id, base.GOD) for pool_id in found if pool_id
        ]
        missing = [
            what
            for what, there in (("default router:external network", external), ("default subnetpools", pools))
            if not there
        ]
        if missing:
            raise conflict(
                "AutoAllocationFailure",
                f"Deployment error: No {' and no '.join(missing)} defined: an administrator has to make one.",
            )
        return str(external), pools

    def _ensure(self, project_id: str) -> str:
        try:
            with self.services.databases.global_.write() as connection:
                row = self._find(connection, project_id)
                return row["network_id"] if row else self._make(connection, project_id)
        except db_exc.DBDuplicateEntry:
            # another request made it meanwhile; ours was rolled back whole
            with self.services.databases.global_.read() as connection:
                return str(self._find(connection, project_id)["network_id"])

    def _make(self, connection: sa.Connection, project_id: str) -> str:
        external, pools = self._needed(connection)
        amounts = {"network": 1, "subnet": len(pools), "router": 1, "port": len(pools)}
        self.services.quotas.check(connection, project_id, amounts)
        db_security_groups.ensure_default(connection, project_id)
        network_id = db_networks.create(
            connection, self.services.segments, {"project_id": project_id, "name": NAME}
        )
        router_id = base.insert(
            connection, routing.routers, {"project_id": project_id, "name": "auto_allocated_router"}
        )
        connection.execute(
            topologies.insert().values(project_id=project_id, network_id=network_id, router_id=router_id)
        )
        self._gateway(connection, router_id, external)
        for pool in pools:
            self._subnet(connection, project_id, network_id, router_id, pool)
        return network_id

    def _gateway(self, connection: sa.Connection, router_id: str, external: str) -> None:
        port_id = db_ports.create(
            connection,
            {
                "project_id": "",
                "network_id": external,
                "device_id": router_id,
                "device_owner": routing.GATEWAY,
                "port_security_enabled": False,
            },
            db_subnets.of_network(connection, external),
            None,
            (),
            self.services.options.base_mac,
        )
        values = {"gateway_port_id": port_id, "gateway_network_id": external}
        base.change(connection, routing.routers, router_id, values)

    def _subnet(
        self, connection: sa.Connection, project_id: str, network_id: str, router_id: str, pool: Any
    ) -> None:
        version = pool["ip_version"]
        row: dict[str, Any] = {
            key: attr.default
            for key, attr in SUBNET_ATTRIBUTES.items()
            if attr.post and key in db_subnets.subnets.c
        }
        row.update(
            project_id=project_id,
            network_id=network_id,
            name=f"auto_allocated_subnet_v{version}",
            ip_version=version,
            subnetpool_id=pool["id"],
        )
        if version == 6:
            row.update(ipv6_ra_mode="slaac", ipv6_address_mode="slaac")
        # SLAAC takes a /64, whatever the pool's usual length is
        length = 64 if version == 6 and pool["min_prefixlen"] <= 64 <= pool["max_prefixlen"] else None
        cidr = db_subnet_pools.allocate(connection, pool, project_id, length, None)
        subnet_rules.complete(row, subnet_rules.network_of(cidr), gateway_given=False, pools_given=False)
        row["id"] = db_subnets.create(connection, row)
        port_id = db_ports.create(
            connection,
            {
                "project_id": project_id,
                "network_id": network_id,
                "device_id": router_id,
                "device_owner": routing.INTERFACE,
                "port_security_enabled": False,
            },
            [row],
            [{"subnet_id": row["id"], "ip_address": row["gateway_ip"]}],
            (),
            self.services.options.base_mac,
        )
        db_routers.attach(connection, router_id, row["id"], port_id)

    @operation("DELETE", _PATH, policy="delete_auto_allocated_topology", status=204, late_policy=True)
    def delete(self, call: Call) -> None:
        """Delete the network, its subnets and the router."""
        project_id = self._project(call)
        retrying(self._delete)(project_id)

    def _delete(self, project_id: str) -> None:
        with self.services.databases.global_.write() as connection:
            row = self._find(connection, project_id)
            if row is None:
                return  # as in upstream: what is wished is so already
            router = base.find(connection, db_routers.MODEL, row["router_id"], base.GOD, lock=True)
            for subnet in db_routers.attached(connection, router["id"]):
                if subnet["network_id"] != row["network_id"]:
                    raise conflict("RouterInUse", f"Router {router['id']} has been put into other networks.")
                db_routers.check_detachable(connection, router, subnet)
                db_ports.delete(connection, subnet["port_id"])
            db_routers.delete(connection, router)
            connection.execute(topologies.delete().where(topologies.c.project_id == project_id))
            db_networks.delete(connection, row["network_id"])


def _view(identifier: str, project_id: str) -> dict[str, Any]:
    return {"auto_allocated_topology": {"id": identifier, "project_id": project_id, "tenant_id": project_id}}
