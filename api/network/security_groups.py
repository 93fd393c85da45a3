"""Security groups and address groups."""

from __future__ import annotations

import ipaddress
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, operation
from api.network import attributes as a
from api.network import common
from api.network.attributes import Attr
from api.network.resource import ResourceController, Row
from api.network.security_group_rules import ensure_default, view
from core.errors import Forbidden
from db import address_groups as db_address_groups
from db import network_base as base
from db import security_groups as db_security_groups
from db.network_errors import bad_request, conflict
from db.sessions import retrying

ATTRIBUTES: dict[str, Attr] = {
    **a.STANDARD,
    "stateful": a.boolean(True),
    "security_group_rules": a.read_only(),
    "shared": a.read_only(),
}
ADDRESS_ATTRIBUTES: dict[str, Attr] = {
    **{key: attr for key, attr in a.STANDARD.items() if key != "tags"},
    "addresses": Attr(a.array(a.string(64)), put=False, default=[]),
    "shared": a.read_only(),
}
_ADDRESSES = v.obj({"addresses": a.array(a.string(64))}, ["addresses"])
_ADDRESSES = {"anyOf": [_ADDRESSES, v.obj({"address_group": _ADDRESSES}, ["address_group"])]}


class SecurityGroupsController(ResourceController):
    """Security groups."""

    name, collection, path = "security_group", "security_groups", "/security-groups"
    attributes = ATTRIBUTES
    model = db_security_groups.MODEL
    quota = "security_group"

    def decorate(self, call: Call, row: Row, shown: Row) -> None:
        shown["security_group_rules"] = [view(rule) for rule in row["security_group_rules"]]

    def before_list(self, call: Call) -> None:
        ensure_default(self.services, call)

    def insert(self, call: Call, connection: sa.Connection, values: Row, asked: Row) -> str:
        db_security_groups.ensure_default(connection, values["project_id"])
        if values["name"] == db_security_groups.DEFAULT:
            raise conflict("SecurityGroupDefaultAlreadyExists", "Default security group already exists.")
        return db_security_groups.create(connection, values)

    def modify(
        self, call: Call, connection: sa.Connection, row: Row, values: Row, revision: int | None
    ) -> None:
        default = row["default_of"] is not None
        if (default and "name" in values and values["name"] != row["name"]) or (
            not default and values.get("name") == db_security_groups.DEFAULT
        ):
            raise conflict("SecurityGroupCannotUpdateDefault", "Updating default security group not allowed.")
        turned = "stateful" in values and values["stateful"] != row["stateful"]
        if turned and db_security_groups.in_use(connection, row["id"]):
            raise db_security_groups.used(row["id"])
        base.change(connection, self.model.table, row["id"], values, revision)

    def remove(self, call: Call, connection: sa.Connection, row: Row) -> None:
        if row["default_of"] is not None and not self.services.policy.is_admin(call.context):
            raise conflict(
                "SecurityGroupCannotRemoveDefault",
                "Insufficient rights for removing default security group.",
            )
        db_security_groups.delete(connection, row["id"])


def _networks(addresses: list[str]) -> list[str]:
    """Addresses as CIDRs. :raises BadRequest: one is none."""
    try:
        return sorted({str(ipaddress.ip_network(each)) for each in addresses})
    except ValueError as error:
        raise bad_request("InvalidInput", f"Invalid input for operation: {error}.") from None


class AddressGroupsController(ResourceController):
    """Address groups: lists of addresses that rules name."""

    name, collection, path = "address_group", "address_groups", "/address-groups"
    attributes = ADDRESS_ATTRIBUTES
    model = db_address_groups.MODEL

    def insert(self, call: Call, connection: sa.Connection, values: Row, asked: Row) -> str:
        row = {**values, "addresses": _networks(values["addresses"])}
        return base.insert(connection, self.model.table, row)

    def remove(self, call: Call, connection: sa.Connection, row: Row) -> None:
        db_address_groups.delete(connection, row["id"])

    def _change(self, call: Call, *, add: bool) -> Row:
        body: Any = call.body.get("address_group", call.body)
        asked = _networks(body["addresses"])

        def run() -> Row:
            viewer = common.viewer_of(call)
            with self.database.write() as connection:
                row = base.find(connection, self.model, self._id(call), viewer, lock=True)
                if not call.allowed(call.operation.policy, row):
                    raise Forbidden(f"rule:{call.operation.policy} is disallowed by policy")
                db_address_groups.change_addresses(connection, row, asked, add=add)
                return self.view(call, base.show(connection, self.model, row["id"], viewer))

        return {self.name: retrying(run)()}

    @operation(
        "PUT", "/address-groups/{id}/add_addresses", policy="add_addresses", body=_ADDRESSES, late_policy=True
    )
    def add_addresses(self, call: Call) -> Row:
        """Add addresses to a group."""
        return self._change(call, add=True)

    @operation(
        "PUT",
        "/address-groups/{id}/remove_addresses",
        policy="remove_addresses",
        body=_ADDRESSES,
        late_policy=True,
    )
    def remove_addresses(self, call: Call) -> Row:
        """Remove addresses from a group."""
        return self._change(call, add=False)
