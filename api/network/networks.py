"""Networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api.common.operations import Call
from api.network import attributes as a
from api.network import common
from api.network.attributes import Attr
from api.network.resource import ResourceController, Row
from db import network_base as base
from db import networks as db_networks
from db import security_groups as db_security_groups
from db.network_errors import conflict, invalid_input

_ADMIN: dict[str, Any] = {"create_rule": True, "update_rule": True}
ATTRIBUTES: dict[str, Attr] = {
    **a.STANDARD,
    "admin_state_up": a.boolean(True),
    "status": a.read_only(),
    "subnets": a.read_only(),
    "shared": a.boolean(False, **_ADMIN),
    "router:external": a.boolean(False, column="external", **_ADMIN),
    "is_default": a.boolean(False, **_ADMIN),
    "mtu": Attr(a.integer(0, 65535), default=0, convert=a.whole),
    "port_security_enabled": a.boolean(True, **_ADMIN),
    "dns_domain": a.text(),
    "availability_zone_hints": Attr(a.array(a.string()), put=False, default=[]),
    "availability_zones": a.read_only(),
    "ipv4_address_scope": a.read_only(),
    "ipv6_address_scope": a.read_only(),
    "qos_policy_id": a.reference(),
    "provider:network_type": Attr(a.or_null(a.string(16)), column="network_type", get_rule=True, **_ADMIN),
    "provider:physical_network": Attr(
        a.or_null(a.string(64)), column="physical_network", get_rule=True, **_ADMIN
    ),
    "provider:segmentation_id": Attr(
        a.or_null(a.integer(1, 2**24 - 1)),
        column="segmentation_id",
        convert=a.whole,
        get_rule=True,
        **_ADMIN,
    ),
}
_PROVIDER = ("network_type", "physical_network", "segmentation_id")


class NetworksController(ResourceController):
    """Networks: overlays for everyone, VLAN and flat ones for administrators."""

    name, collection, path = "network", "networks", "/networks"
    attributes = ATTRIBUTES
    model = db_networks.MODEL
    quota = "network"

    def decorate(self, call: Call, row: Row, view: Row) -> None:
        view["availability_zones"] = zones_of(self.services, row)

    def insert(self, call: Call, connection: sa.Connection, values: Row, asked: Row) -> str:
        _check_mtu(values["mtu"])
        check_qos(connection, values["qos_policy_id"], values["project_id"])
        db_security_groups.ensure_default(connection, values["project_id"])
        if values["is_default"]:
            self._only_default(connection, None)
            if not values["external"]:
                raise invalid_input("is_default is for external networks")
        return db_networks.create(connection, self.services.segments, values)

    def modify(
        self, call: Call, connection: sa.Connection, row: Row, values: Row, revision: int | None
    ) -> None:
        for key in _PROVIDER:
            if key in values and values[key] != row[key]:
                raise invalid_input("Plugin does not support updating provider attributes")
            values.pop(key, None)
        if "mtu" in values:
            _check_mtu(values["mtu"])
        check_qos(connection, values.get("qos_policy_id"), row["project_id"])
        if values.get("is_default"):
            self._only_default(connection, row["id"])
        db_networks.update(connection, self.services.segments, row, values, revision)

    def _only_default(self, connection: sa.Connection, network_id: str | None) -> None:
        table = self.model.table
        other = connection.execute(
            sa.select(table.c.id).where(table.c.is_default.is_(True), table.c.id != (network_id or ""))
        ).first()
        if other is not None:
            raise conflict(
                "DefaultExternalNetworkExists", f"A default external network already exists: {other[0]}."
            )

    def remove(self, call: Call, connection: sa.Connection, row: Row) -> None:
        db_networks.delete(connection, row["id"])


def zones_of(services: Any, row: Mapping[str, Any]) -> list[str]:
    """The zones in which a network or router is served; agents that name none are in the default one."""
    return sorted({zone or services.options.default_availability_zone for zone in row["zones"]})


def _check_mtu(mtu: int) -> None:
    if 0 < mtu < 68:
        raise invalid_input(f"Requested MTU {mtu} is too small, minimum is 68")


def check_qos(connection: sa.Connection, policy_id: str | None, project_id: str) -> None:
    """May the project use this QoS policy? :raises NotFound: :raises Conflict: nobody can."""
    if policy_id is not None:
        from db import qos

        base.find(connection, qos.MODEL, policy_id, base.Viewer(project_id))
        qos.check_usable(connection, policy_id)


def network_target(call: Call, connection: sa.Connection, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What policies of subnets and ports want to know of the network.

    :raises NotFound: something new is to go into a network that the asker can't see.
    """
    network_id, viewer = row["network_id"], common.viewer_of(call)
    if "id" not in row:
        base.find(connection, db_networks.MODEL, network_id, viewer)
    table = db_networks.networks
    statement = sa.select(
        table.c.project_id, base.granted(db_networks.RBAC, table.c.id, viewer, base.SHARED)
    ).where(table.c.id == network_id)
    owner, shared = connection.execute(statement).tuples().first() or ("", False)
    return {"network:project_id": owner, "network:tenant_id": owner, "network:shared": bool(shared)}
