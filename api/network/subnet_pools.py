"""Subnet pools and address scopes."""

from __future__ import annotations

import ipaddress
from typing import Any

import sqlalchemy as sa

from api.common import validation as v
from api.common.operations import Call, operation
from api.network import attributes as a
from api.network import common
from api.network.attributes import MISSING, Attr
from api.network.resource import Row
from api.network.shared_resource import SharedResourceController
from db import network_base as base
from db import networks as db_networks
from db import subnet_pools as db_subnet_pools
from db.network_errors import bad_request, conflict, forbidden
from db.sessions import retrying

_LENGTH = a.or_null(a.integer(0, 128))
_PREFIXES = a.array(a.CIDR)
ATTRIBUTES: dict[str, Attr] = {
    **a.STANDARD,
    "prefixes": Attr(_PREFIXES, default=MISSING),
    "default_quota": Attr(a.or_null(a.integer(0)), convert=a.whole),
    "ip_version": a.read_only(),
    "default_prefixlen": Attr(_LENGTH, convert=a.whole),
    "min_prefixlen": Attr(_LENGTH, convert=a.whole),
    "max_prefixlen": Attr(_LENGTH, convert=a.whole),
    "address_scope_id": a.reference(),
    "is_default": a.boolean(False, create_rule=True, update_rule=True),
    "shared": a.boolean(False, put=False, create_rule=True),
}
SCOPE_ATTRIBUTES: dict[str, Attr] = {
    **{key: a.STANDARD[key] for key in ("id", "name", "project_id", "tenant_id")},
    "ip_version": Attr({"enum": [4, 6, "4", "6"]}, put=False, default=MISSING, convert=a.whole),
    "shared": a.boolean(False, create_rule=True, update_rule=True),
}
_ONBOARD = v.obj({"network_id": a.UUID}, ["network_id"])
_CHANGE = v.obj({"prefixes": _PREFIXES}, ["prefixes"])


def _lengths(row: Row) -> None:
    """Fill in and check the prefix lengths. :raises BadRequest:"""
    version = row["ip_version"]
    smallest, largest = (8, 32) if version == 4 else (64, 128)
    row["min_prefixlen"] = smallest if row["min_prefixlen"] is None else row["min_prefixlen"]
    row["max_prefixlen"] = largest if row["max_prefixlen"] is None else row["max_prefixlen"]
    if row["default_prefixlen"] is None:
        row["default_prefixlen"] = row["min_prefixlen"]
    low, high, usual = row["min_prefixlen"], row["max_prefixlen"], row["default_prefixlen"]
    if high > (32 if version == 4 else 128) or low > high:
        raise bad_request(
            "IllegalSubnetPoolPrefixBounds",
            f"Illegal prefix bounds: min_prefixlen={low}, max_prefixlen={high}.",
        )
    if not low <= usual <= high:
        raise bad_request(
            "IllegalSubnetPoolPrefixBounds",
            f"Illegal prefix bounds: default_prefixlen={usual} is not between {low} and {high}.",
        )


def _version(prefixes: list[str]) -> int:
    """The IP version of prefixes. :raises BadRequest: none, mixed, or malformed."""
    if not prefixes:
        raise bad_request("EmptySubnetPoolPrefixList", "Empty subnet pool prefix list.")
    versions = set()
    for prefix in prefixes:
        try:
            versions.add(ipaddress.ip_network(prefix, strict=False).version)
        except ValueError:
            raise bad_request(
                "HTTPBadRequest", f"Invalid input for prefixes. Reason: '{prefix}' is not a valid CIDR."
            ) from None
    if len(versions) > 1:
        raise bad_request("PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.")
    return versions.pop()


def _networks(prefixes: list[str]) -> list[str]:
    return db_subnet_pools.compact([str(ipaddress.ip_network(prefix, strict=False)) for prefix in prefixes])


class SubnetPoolsController(SharedResourceController):
    """Subnet pools."""

    name, collection, path = "subnetpool", "subnetpools", "/subnetpools"
    attributes = ATTRIBUTES
    model = db_subnet_pools.MODEL
    object_type = db_subnet_pools.RBAC
    quota = "subnetpool"

    def insert(self, call: Call, connection: sa.Connection, values: Row, asked: Row) -> str:
        row = dict(values)
        row["ip_version"] = _version(row["prefixes"])
        row["prefixes"] = _networks(row["prefixes"])
        _lengths(row)
        self._check(call, connection, row)
        return super().insert(call, connection, row, asked)

    def _check(self, call: Call, connection: sa.Connection, row: Row) -> None:
        if row["is_default"]:
            other = db_subnet_pools.default(connection, row["ip_version"])
            if other not in (None, row.get("id")):
                raise bad_request(
                    "InvalidInput", f"A default subnetpool for IPv{row['ip_version']} already exists: {other}"
                )
        if row["address_scope_id"] is not None:
            viewer = base.Viewer(row["project_id"], common.is_elevated(call))
            scope = base.find(
                connection, db_subnet_pools.SCOPE_MODEL, row["address_scope_id"], viewer, lock=True
            )
            if scope["ip_version"] != row["ip_version"]:
                raise bad_request(
                    "IllegalSubnetPoolIpVersionAssociationToAddressScope",
                    "Illegal subnetpool association: subnetpool and address scope are of different IP versions.",
                )
        db_subnet_pools.check_scope(connection, row, row["prefixes"], row["address_scope_id"])

    def modify(
        self, call: Call, connection: sa.Connection, row: Row, values: Row, revision: int | None
    ) -> None:
        if "prefixes" in values:
            if _version(values["prefixes"]) != row["ip_version"]:
                raise bad_request("PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes.")
            new = _networks(values["prefixes"])
            if not _cover(new, row["prefixes"]):
                raise bad_request(
                    "IllegalSubnetPoolPrefixUpdate",
                    f"Illegal update to prefixes: the new list {new} does not hold all of {row['prefixes']}.",
                )
            values["prefixes"] = new
        merged = {**row, **values}
        _lengths(merged)
        self._check(call, connection, merged)
        for key in ("default_prefixlen", "min_prefixlen", "max_prefixlen"):
            values[key] = merged[key]
        base.change(connection, self.model.table, row["id"], values, revision)

    def remove(self, call: Call, connection: sa.Connection, row: Row) -> None:
        if db_subnet_pools.in_use(connection, row["id"]):
            raise conflict(
                "SubnetPoolDeleteError", "Unable to delete subnet pool: Subnet pool has existing allocations."
            )
        base.delete(connection, self.model.table, row["id"])

    def _change_prefixes(self, call: Call, rule: str, *, add: bool) -> Row:
        version = _version(call.body["prefixes"])
        asked = _networks(call.body["prefixes"])

        def run() -> Row:
            with self.database.write() as connection:
                row = base.find(connection, self.model, self._id(call), common.viewer_of(call), lock=True)
                call.authorize(self.target(call, connection, row), rule)
                if version != row["ip_version"]:
                    raise bad_request("PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes.")
                if add:
                    new = _networks([*row["prefixes"], *asked])
                else:
                    new = _without(row["prefixes"], asked)
                    used = [net for net, _ in db_subnet_pools.used(connection, row["id"])]
                    if not _cover(new, [str(net) for net in used]):
                        raise bad_request(
                            "IllegalSubnetPoolPrefixUpdate", "Some of these prefixes are in use by subnets."
                        )
                self._check(call, connection, {**row, "prefixes": new})
                base.change(connection, self.model.table, row["id"], {"prefixes": new})
                return {"prefixes": new}

        return retrying(run)()

    @operation("PUT", "/subnetpools/{id}/add_prefixes", policy="add_prefixes", body=_CHANGE, late_policy=True)
    def add_prefixes(self, call: Call) -> Row:
        """Add prefixes to a subnet pool."""
        return self._change_prefixes(call, "add_prefixes", add=True)

    @operation(
        "PUT", "/subnetpools/{id}/remove_prefixes", policy="remove_prefixes", body=_CHANGE, late_policy=True
    )
    def remove_prefixes(self, call: Call) -> Row:
        """Take prefixes out of a subnet pool."""
        return self._change_prefixes(call, "remove_prefixes", add=False)

    @operation(
        "PUT",
        "/subnetpools/{id}/onboard_network_subnets",
        policy="onboard_network_subnets",
        body=_ONBOARD,
        late_policy=True,
    )
    def onboard(self, call: Call) -> Any:
        """Take a network's subnets into a subnet pool: its prefixes grow by theirs."""

        def run() -> Any:
            with self.database.write() as connection:
                viewer = common.viewer_of(call)
                network = base.find(connection, db_networks.MODEL, call.body["network_id"], viewer, lock=True)
                row = base.find(connection, self.model, self._id(call), viewer, lock=True)
                call.authorize(self.target(call, connection, row), "onboard_network_subnets")
                if not common.is_elevated(call) and network["project_id"] != viewer.project_id:
                    # who sees a network that others share must not take its subnets
                    raise forbidden("NotAuthorized", "Not authorized.")
                taken = db_subnet_pools.onboard(connection, row, network["id"])
                new = _networks([*row["prefixes"], *(subnet["cidr"] for subnet in taken)])
                self._check(call, connection, {**row, "prefixes": new})
                base.change(connection, self.model.table, row["id"], {"prefixes": new})
                return [{"id": subnet["id"], "cidr": subnet["cidr"]} for subnet in taken]

        return retrying(run)()


def _cover(outer: list[str], inner: list[str]) -> bool:
    nets: list[Any] = [ipaddress.ip_network(each) for each in outer]
    return all(any(ipaddress.ip_network(each).subnet_of(net) for net in nets) for each in inner)


def _without(prefixes: list[str], gone: list[str]) -> list[str]:
    left: list[Any] = [ipaddress.ip_network(each) for each in prefixes]
    for text in gone:
        removed: Any = ipaddress.ip_network(text)
        parts: list[Any] = []
        for net in left:
            if net.subnet_of(removed):
                continue
            parts += net.address_exclude(removed) if removed.subnet_of(net) else [net]
        left = parts
    return db_subnet_pools.compact([str(each) for each in left])


class AddressScopesController(SharedResourceController):
    """Address scopes: pools in one scope never overlap."""

    name, collection, path = "address_scope", "address_scopes", "/address-scopes"
    attributes = SCOPE_ATTRIBUTES
    model = db_subnet_pools.SCOPE_MODEL
    object_type = db_subnet_pools.SCOPE_RBAC

    def unshare(self, connection: sa.Connection, row: Row) -> None:
        raise bad_request(
            "AddressScopeUpdateError", "Unable to update address scope: it cannot be un-shared."
        )

    def remove(self, call: Call, connection: sa.Connection, row: Row) -> None:
        pools = db_subnet_pools.pools
        used = sa.select(pools.c.id).where(pools.c.address_scope_id == row["id"]).limit(1)
        if connection.execute(used).first() is not None:
            raise conflict(
                "AddressScopeInUse",
                f"Unable to complete operation on address scope {row['id']}. There are one or more subnet"
                " pools in use on the address scope.",
            )
        base.delete(connection, self.model.table, row["id"])
