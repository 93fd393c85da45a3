"""Ports."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from api.common.operations import Call
from api.network import attributes as a
from api.network import common
from api.network.attributes import MISSING, Attr
from api.network.networks import check_qos, network_target
from api.network.resource import ResourceController, Row
from core.errors import Forbidden
from db import addresses, network_agents
from db import network_base as base
from db import networks as db_networks
from db import ports as db_ports
from db import routing as db_routing
from db import security_groups as db_security_groups
from db import subnets as db_subnets
from db.network_errors import bad_request, conflict, invalid_input

_FIXED_IP = {
    "type": "object",
    "properties": {"subnet_id": a.or_null(a.UUID), "ip_address": a.or_null(a.IP)},
    "additionalProperties": False,
}
_PAIR = {
    "type": "object",
    "properties": {"ip_address": a.string(64), "mac_address": a.MAC},
    "required": ["ip_address"],
    "additionalProperties": False,
}
_DHCP_OPTION = {
    "type": "object",
    "properties": {
        "opt_name": {"type": "string", "minLength": 1, "maxLength": 64},
        "opt_value": a.or_null(a.string()),
        "ip_version": {"enum": [4, 6, "4", "6"]},
    },
    "required": ["opt_name"],
    "additionalProperties": False,
}
_VNIC_TYPES = ["normal", "direct", "macvtap", "direct-physical", "baremetal", "virtio-forwarder", "smart-nic"]
_BOTH: dict[str, Any] = {"create_rule": True, "update_rule": True}
ATTRIBUTES: dict[str, Attr] = {
    **a.STANDARD,
    "network_id": Attr(a.UUID, put=False, default=MISSING),
    "admin_state_up": a.boolean(True),
    "status": a.read_only(),
    "mac_address": Attr(a.or_null(a.MAC), convert=a.lower, **_BOTH),
    "fixed_ips": Attr(a.or_null(a.array(_FIXED_IP, 100)), **_BOTH),
    "device_id": Attr(a.string(), default=""),
    "device_owner": Attr(a.string(), default="", **_BOTH),
    "security_groups": Attr(a.or_null(a.array(a.UUID, 200))),
    "allowed_address_pairs": Attr(a.or_null(a.array(_PAIR)), default=[], convert=a.listed, **_BOTH),
    "extra_dhcp_opts": Attr(a.or_null(a.array(_DHCP_OPTION)), default=[], convert=a.listed),
    "port_security_enabled": Attr(a.BOOLEAN, default=None, convert=a.truth, **_BOTH),
    "binding:host_id": Attr(
        a.or_null(a.string()), default="", column="binding_host", convert=a.blank, get_rule=True, **_BOTH
    ),
    "binding:profile": Attr(
        a.or_null({"type": "object"}),
        default={},
        column="binding_profile",
        convert=lambda value: value or {},
        get_rule=True,
        **_BOTH,
    ),
    "binding:vnic_type": Attr({"enum": _VNIC_TYPES}, default="normal", column="vnic_type", **_BOTH),
    "binding:vif_type": a.read_only(get_rule=True),
    "binding:vif_details": a.read_only(get_rule=True),
    "qos_policy_id": a.reference(),
    "qos_network_policy_id": a.read_only(),
    "resource_request": a.read_only(get_rule=True),
    "ip_allocation": a.read_only(),
    "dns_name": Attr(a.or_null(a.string()), default="", convert=a.blank),
    "dns_domain": Attr(a.or_null(a.string()), default="", convert=a.blank),
    "dns_assignment": a.read_only(),
    "propagate_uplink_status": a.boolean(True, put=False),
}
_NETWORK_OWNED = ("network:", "neutron:")


class PortsController(ResourceController):
    """Ports: where servers, routers and the like meet a network."""

    name, collection, path = "port", "ports", "/ports"
    attributes = ATTRIBUTES
    model = db_ports.MODEL
    quota = "port"

    # -- policy and views ----------------------------------------------------

    def target(self, call: Call, connection: sa.Connection, row: Mapping[str, Any]) -> Row:
        owner = row.get("device_owner") or ""
        found = network_target(call, connection, row)
        return {
            **super().target(call, connection, row),
            **found,
            "network_device": owner.startswith(_NETWORK_OWNED),
        }

    def enforce(self, call: Call, verb: str, target: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        if "device_owner" in given:
            new = str(given["device_owner"]).startswith(_NETWORK_OWNED)
            target = {**target, "network_device": new or target["network_device"]}
        super().enforce(call, verb, target, given)
        for key in ("ip_address", "subnet_id"):
            if any(fixed.get(key) is not None for fixed in given.get("fixed_ips") or []):
                rule = self.rule(verb, f"fixed_ips:{key}")
                if not call.allowed(rule, target):
                    raise Forbidden(f"rule:{rule} is disallowed by policy")

    def decorate(self, call: Call, row: Row, view: Row) -> None:
        binding = row["binding"]
        for key in ("vif_type", "vif_details"):
            if f"binding:{key}" in view:
                view[f"binding:{key}"] = binding[key]
        view["ip_allocation"] = "immediate" if row["fixed_ips"] else "none"
        view["extra_dhcp_opts"] = [{"ip_version": 4, **option} for option in row["extra_dhcp_opts"]]
        # what the hosts' DNS servers say
        domain = row["network_dns_domain"].strip(".") or "openstacklocal"
        view["dns_assignment"] = [
            {"ip_address": address, "hostname": name, "fqdn": f"{name}.{domain}."}
            for address, name in (
                (fixed["ip_address"], row["dns_name"] or _host_name(fixed["ip_address"]))
                for fixed in row["fixed_ips"]
            )
        ]
        view["qos_network_policy_id"] = None

    # -- create --------------------------------------------------------------

    def insert(self, call: Call, connection: sa.Connection, values: Row, asked: Row) -> str:
        row = dict(values)
        network = base.find(
            connection, db_networks.MODEL, row["network_id"], _user_of(call, row["project_id"])
        )
        fixed_ips, groups = row.pop("fixed_ips"), row.pop("security_groups")
        if row["port_security_enabled"] is None:
            row["port_security_enabled"] = network["port_security_enabled"]
        check_qos(connection, row["qos_policy_id"], row["project_id"])
        groups = self._groups(connection, row, groups)
        self._check(row)
        row["extra_dhcp_opts"] = _dhcp_options([], row["extra_dhcp_opts"])
        row["allowed_address_pairs"] = self._pairs(row, row["allowed_address_pairs"], row["mac_address"])
        identifier = db_ports.create(
            connection,
            row,
            db_subnets.of_network(connection, network["id"]),
            fixed_ips,
            groups,
            self.services.options.base_mac,
        )
        self._bind(connection, identifier, row["binding_host"], network, row)
        return identifier

    def _groups(self, connection: sa.Connection, row: Row, asked: Sequence[str] | None) -> list[str]:
        """The security groups of a new port: as asked for, else the project's default group."""
        network_device = row["device_owner"].startswith(_NETWORK_OWNED)
        if asked is None:
            if network_device or not row["port_security_enabled"] or not row["project_id"]:
                return []
            return [db_security_groups.ensure_default(connection, row["project_id"])]
        db_security_groups.check_usable(connection, asked, row["project_id"])
        return list(asked)

    def _check(self, row: Mapping[str, Any], groups: Sequence[str] = ()) -> None:
        name = row.get("dns_name") or ""
        if name and not a.HOST_NAME.match(name):
            raise bad_request(
                "HTTPBadRequest", f"Invalid input for dns_name. Reason: '{name}' not a valid PQDN or FQDN."
            )

    def _pairs(self, row: Mapping[str, Any], pairs: Sequence[Row], mac: str | None) -> list[Row]:
        """Allowed address pairs, checked. :raises BadRequest: malformed, double or too many."""
        most = self.services.options.max_allowed_address_pairs
        if len(pairs) > most:
            raise bad_request(
                "AllowedAddressPairExhausted",
                f"The number of allowed address pair exceeds the maximum {most}.",
            )
        if pairs and not row["port_security_enabled"]:
            raise conflict(
                "AddressPairAndPortSecurityRequired",
                "Port Security must be enabled in order to have allowed address pairs on a port.",
            )
        result: list[Row] = []
        for pair in pairs:
            try:
                ipaddress.ip_interface(pair["ip_address"])
            except ValueError:
                raise bad_request(
                    "HTTPBadRequest",
                    f"Invalid input for allowed_address_pairs. Reason: '{pair['ip_address']}' is not a valid"
                    " IP address or subnet.",
                ) from None
            entry = {"ip_address": pair["ip_address"]}
            # "" is replaced by the port's own MAC, once that is known
            entry["mac_address"] = (pair.get("mac_address") or mac or "").lower()
            if entry in result:
                raise bad_request(
                    "DuplicateAddressPairInRequest",
                    f"Request contains duplicate address pair: mac_address {entry['mac_address']}"
                    f" ip_address {entry['ip_address']}.",
                )
            result.append(entry)
        return result

    def _bind(
        self, connection: sa.Connection, port_id: str, host: str, network: Mapping[str, Any], row: Row
    ) -> None:
        vif = network_agents.vif_for(connection, host, network, self.services.options.agent_down_time)
        values = {**vif, "vnic_type": row["vnic_type"], "profile": row["binding_profile"]}
        db_ports.bind(connection, port_id, host, values)

    # -- change ----------------------------------------------------------------

    def modify(
        self, call: Call, connection: sa.Connection, row: Row, values: Row, revision: int | None
    ) -> None:
        merged = {**row, **values}
        fixed_ips, groups = values.pop("fixed_ips", None), values.pop("security_groups", None)
        self._check(values)
        check_qos(connection, values.get("qos_policy_id"), row["project_id"])
        if values.get("mac_address", row["mac_address"]) is None:
            raise bad_request("HTTPBadRequest", "Invalid input for mac_address: it can't be null.")
        if values.get("mac_address") not in (None, row["mac_address"]) and row["binding_host"]:
            raise conflict(
                "PortBound",
                f"Unable to complete operation on port {row['id']}, port is already bound, port type: bound,"
                f" old_mac {row['mac_address']}, new_mac {values['mac_address']}.",
            )
        if "device_owner" in values or "device_id" in values:
            db_routing.check_device_change(connection, row, merged)
        if "extra_dhcp_opts" in values:
            values["extra_dhcp_opts"] = _dhcp_options(row["extra_dhcp_opts"], values["extra_dhcp_opts"])
        if "allowed_address_pairs" in values:
            values["allowed_address_pairs"] = self._pairs(
                merged, values["allowed_address_pairs"], merged["mac_address"]
            )
        self._check_security(connection, row, merged, values, groups)
        db_ports.update(connection, row, values, revision)
        if groups is not None:
            db_security_groups.check_usable(connection, groups, row["project_id"])
            db_ports.set_groups(connection, row["id"], groups)
        if fixed_ips is not None:
            subnets = db_subnets.of_network(connection, row["network_id"])
            addresses.reallocate(connection, row, subnets, fixed_ips, merged["mac_address"])
            db_routing.addresses_changed(connection, row)
        if any(key in values for key in ("binding_host", "vnic_type", "binding_profile")):
            if merged["binding_host"] != row["binding_host"]:
                # the new host's agent has plugged nothing yet
                base.change(connection, self.model.table, row["id"], {"status": "DOWN"})
            network = base.find(connection, db_networks.MODEL, row["network_id"], base.GOD)
            self._bind(connection, row["id"], merged["binding_host"], network, merged)

    def _check_security(
        self,
        connection: sa.Connection,
        row: Mapping[str, Any],
        merged: Mapping[str, Any],
        values: Mapping[str, Any],
        groups: Sequence[str] | None,
    ) -> None:
        """Groups and address pairs need port security."""
        if merged["port_security_enabled"]:
            return
        table = db_ports.port_security_groups
        has = groups
        if has is None:
            statement = sa.select(table.c.security_group_id).where(table.c.port_id == row["id"])
            has = list(connection.execute(statement).scalars())
        if has:
            raise conflict(
                "PortSecurityPortHasSecurityGroup",
                "Port has security group associated. Cannot disable port security or ip address until"
                " security group is removed.",
            )
        if merged["allowed_address_pairs"]:
            raise conflict(
                "AddressPairAndPortSecurityRequired",
                "Port Security must be enabled in order to have allowed address pairs on a port.",
            )

    # -- delete ------------------------------------------------------------------

    def remove(self, call: Call, connection: sa.Connection, row: Row) -> None:
        db_routing.check_port_deletable(connection, row)
        db_routing.release_port(connection, row["id"])
        db_ports.delete(connection, row["id"])


def _user_of(call: Call, project_id: str) -> base.Viewer:
    return base.Viewer(project_id, common.is_elevated(call))


def _host_name(address: str) -> str:
    return "host-" + address.replace(".", "-").replace(":", "-")


def _dhcp_options(old: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """DHCP options after a change: set by name and version; a null value removes one.

    :raises BadRequest: one is given twice.
    """
    options = {(option["opt_name"], option["ip_version"]): option["opt_value"] for option in old}
    seen = set()
    for option in new:
        key = (option["opt_name"], int(option.get("ip_version", 4)))
        if key in seen:
            raise invalid_input(f"Duplicate DHCP option {key[0]} for IPv{key[1]}")
        seen.add(key)
        if option.get("opt_value") is None:
            options.pop(key, None)
        else:
            options[key] = option["opt_value"]
    return [
        {"opt_name": name, "opt_value": value, "ip_version": version}
        for (name, version), value in options.items()
    ]
