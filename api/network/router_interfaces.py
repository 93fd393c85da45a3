"""A router's interfaces: adding and removing subnets and ports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.network import attributes as a
from db import addresses, routing
from db import network_base as base
from db import ports as db_ports
from db import routers as db_routers
from db import subnets as db_subnets
from db.network_errors import bad_request, conflict

BODY = v.obj({"subnet_id": a.or_null(a.string(36)), "port_id": a.or_null(a.string(36))})
Row = dict[str, Any]


class Interfaces:
    """Within a transaction that holds the router's row."""

    def __init__(self, services: Any) -> None:
        self.services = services

    def add(self, connection: sa.Connection, router: Row, body: Row, viewer: base.Viewer) -> Row:
        """:raises BadRequest: it is there already, overlaps, has no gateway. :raises Conflict: port in use."""
        subnet_id, port_id = body.get("subnet_id"), body.get("port_id")
        if subnet_id and port_id:
            raise db_routers.bad("Cannot specify both subnet-id and port-id")
        if port_id:
            port = base.find(connection, db_ports.MODEL, port_id, viewer, lock=True)
            return self._add_port(connection, router, port)
        if subnet_id:
            subnet = base.find(connection, db_subnets.MODEL, subnet_id, viewer)
            return self._add_subnet(connection, router, subnet)
        raise db_routers.bad("Either subnet_id or port_id must be specified")

    def _check(self, connection: sa.Connection, router: Row, subnet: Mapping[str, Any]) -> list[Row]:
        others = db_routers.attached(connection, router["id"])
        there = f"Router already has a port on subnet {subnet['id']}"
        db_routers.check_no_overlap(subnet, others, same_is=there)
        if router["gateway_network_id"]:
            outside = db_subnets.of_network(connection, router["gateway_network_id"])
            db_routers.check_no_overlap(subnet, outside)
        return others

    def _add_subnet(self, connection: sa.Connection, router: Row, subnet: Row) -> Row:
        if subnet["gateway_ip"] is None:
            raise db_routers.bad("Subnet for router interface must have a gateway IP")
        others = self._check(connection, router, subnet)
        fixed = {"subnet_id": subnet["id"], "ip_address": subnet["gateway_ip"]}
        port_id = None
        if subnet["ip_version"] == 6:
            # one port holds all IPv6 subnets that the router has in a network
            for other in others:
                if other["network_id"] == subnet["network_id"] and other["ip_version"] == 6:
                    port_id = other["port_id"]
        if port_id is not None:
            wish = addresses.Wish(subnet, subnet["gateway_ip"])
            addresses.take(connection, [wish], port_id, subnet["network_id"], len(others))
        else:
            self.services.quotas.check(connection, router["project_id"], {"port": 1})
            port_id = db_ports.create(
                connection,
                {
                    "project_id": router["project_id"],
                    "network_id": subnet["network_id"],
                    "device_id": router["id"],
                    "device_owner": routing.INTERFACE,
                    "port_security_enabled": False,
                },
                db_subnets.of_network(connection, subnet["network_id"]),
                [fixed],
                (),
                self.services.options.base_mac,
            )
        db_routers.attach(connection, router["id"], subnet["id"], port_id)
        return _view(subnet, port_id)

    def _add_port(self, connection: sa.Connection, router: Row, port: Row) -> Row:
        if port["device_id"]:
            raise conflict(
                "PortInUse",
                f"Unable to complete operation on port {port['id']} for network {port['network_id']}. Port"
                f" already has an attached device {port['device_id']}.",
            )
        row = base.expanded(connection, db_ports.MODEL, [port], base.GOD)[0]
        if not row["fixed_ips"]:
            raise db_routers.bad("Router port must have at least one fixed IP")
        subnets = {each["id"]: each for each in db_subnets.of_network(connection, port["network_id"])}
        mine = [subnets[fixed["subnet_id"]] for fixed in row["fixed_ips"]]
        if len({each["id"] for each in mine if each["ip_version"] == 4}) > 1:
            raise db_routers.bad("Cannot have multiple IPv4 subnets on router port")
        for subnet in mine:
            self._check(connection, router, subnet)
        values = {
            "device_id": router["id"],
            "device_owner": routing.INTERFACE,
            "port_security_enabled": False,
        }
        db_ports.set_groups(connection, port["id"], ())
        db_ports.update(connection, port, values)
        for subnet in {each["id"]: each for each in mine}.values():
            db_routers.attach(connection, router["id"], subnet["id"], port["id"])
        return {**_view(mine[0], port["id"]), "subnet_ids": [each["id"] for each in mine]}

    def remove(self, connection: sa.Connection, router: Row, body: Row, viewer: base.Viewer) -> Row:
        """:raises NotFound: no such interface. :raises Conflict: floating IPs or routes need it."""
        subnet_id, port_id = body.get("subnet_id"), body.get("port_id")
        if not subnet_id and not port_id:
            raise db_routers.bad("Either subnet_id or port_id must be specified")
        attached = db_routers.attached(connection, router["id"])
        if port_id:
            gone = [each for each in attached if each["port_id"] == port_id]
            if not gone:
                raise db_routers.interface_missing(router["id"], port_id=port_id)
            if subnet_id and subnet_id not in [each["id"] for each in gone]:
                raise bad_request(
                    "SubnetMismatchForPort",
                    f"Subnet on port {port_id} does not match the requested subnet {subnet_id}.",
                )
        else:
            gone = [each for each in attached if each["id"] == subnet_id]
            if not gone:
                raise db_routers.interface_missing(router["id"], subnet_id=subnet_id)
        for subnet in gone:
            db_routers.check_detachable(connection, router, subnet)
        holder = gone[0]["port_id"]
        stays = [each for each in attached if each["port_id"] == holder and each not in gone]
        interfaces, allocations = routing.interfaces, routing.ip_allocations
        ids = [each["id"] for each in gone]
        connection.execute(
            interfaces.delete().where(interfaces.c.port_id == holder, interfaces.c.subnet_id.in_(ids))
        )
        if stays:
            connection.execute(
                allocations.delete().where(allocations.c.port_id == holder, allocations.c.subnet_id.in_(ids))
            )
        else:
            routing.release_port(connection, holder)
            db_ports.delete(connection, holder)
        return {**_view(gone[0], holder), "subnet_ids": ids}


def _view(subnet: Mapping[str, Any], port_id: str) -> Row:
    return {
        "port_id": port_id,
        "network_id": subnet["network_id"],
        "subnet_id": subnet["id"],
        "subnet_ids": [subnet["id"]],
    }
