"""Security group rules: what is a sensible rule, and the controller."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from api.common.operations import Call
from api.network import attributes as a
from api.network import common
from api.network.attributes import MISSING, Attr
from api.network.resource import ResourceController, Row
from db import address_groups as db_address_groups
from db import network_base as base
from db import security_groups as db_security_groups
from db.network_errors import bad_request

PROTOCOLS = {
    "ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "hopopt": 0, "icmp": 1, "icmpv6": 58,
    "igmp": 2, "ip": 0, "ipip": 4, "ipv6-encap": 41, "ipv6-frag": 44, "ipv6-icmp": 58,
    "ipv6-nonxt": 59, "ipv6-opts": 60, "ipv6-route": 43, "ospf": 89, "pgm": 113, "rsvp": 46,
    "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136, "vrrp": 112,
}  # fmt: skip
"""IANA's numbers of the names that the API takes."""
_WITH_PORTS = {6, 17, 33, 132, 136}
_ICMP = {1, 58}
_V6_ONLY = {"icmpv6", "ipv6-icmp", "ipv6-encap", "ipv6-frag", "ipv6-nonxt", "ipv6-opts", "ipv6-route"}
_ETHERTYPES = {"ipv4": "IPv4", "ipv6": "IPv6"}
_ONCE: dict[str, Any] = {"put": False}
ATTRIBUTES: dict[str, Attr] = {
    **{key: attr for key, attr in a.STANDARD.items() if key not in ("name", "tags")},
    # (an id that is no UUID is one that does not exist: 404)
    "security_group_id": Attr(a.string(), default=MISSING, **_ONCE),
    "direction": Attr({"enum": ["ingress", "egress"]}, default=MISSING, **_ONCE),
    "ethertype": Attr(a.or_null(a.string(8)), default="IPv4", convert=lambda value: value or "IPv4", **_ONCE),
    "protocol": Attr({"type": ["string", "integer", "null"]}, **_ONCE),
    "port_range_min": Attr({"type": ["integer", "string", "null"]}, **_ONCE),
    "port_range_max": Attr({"type": ["integer", "string", "null"]}, **_ONCE),
    "remote_ip_prefix": Attr(a.or_null(a.string(64)), **_ONCE),
    "remote_group_id": Attr(a.or_null(a.string()), **_ONCE),
    "remote_address_group_id": Attr(a.or_null(a.string()), **_ONCE),
    "normalized_cidr": a.read_only(),
    "belongs_to_default_sg": a.read_only(),
}


def view(row: Mapping[str, Any]) -> dict[str, Any]:
    """A rule as it is shown by itself and in its group."""
    prefix = row["remote_ip_prefix"]
    return {
        **{
            key: row[key]
            for key in (
                "id", "project_id", "description", "revision_number", "security_group_id", "direction",
                "ethertype", "protocol", "port_range_min", "port_range_max", "remote_ip_prefix",
                "remote_group_id", "remote_address_group_id",
            )
        },
        "tenant_id": row["project_id"],
        "created_at": common.zulu(row["created_at"]),
        "updated_at": common.zulu(row["updated_at"]),
        "normalized_cidr": str(ipaddress.ip_network(prefix, strict=False)) if prefix else None,
        "belongs_to_default_sg": bool(row.get("group_default")),
    }  # fmt: skip


def _protocol(value: Any) -> tuple[str | None, int | None]:
    """(as it is kept, its number). :raises BadRequest: no protocol."""
    if value in (None, "", "any"):
        return None, None
    text = str(value).lower()
    if text in PROTOCOLS:
        return text, PROTOCOLS[text]
    if text.isdigit() and int(text) <= 255:
        # number 0 means any, as IANA's name for it does
        return str(int(text)), int(text)
    raise bad_request(
        "SecurityGroupRuleInvalidProtocol",
        f"Security group rule protocol {value} not supported. Only protocol values"
        f" {sorted(PROTOCOLS)} and integer representations [0 to 255] are supported.",
    )


def _number(value: Any) -> int | None:
    if value is None:
        return None
    try:
        return int(value)
    except ValueError:
        raise bad_request("SecurityGroupInvalidPortValue", f"Invalid value for port {value}") from None


def _check_ports(protocol: int | None, name: str | None, low: int | None, high: int | None) -> None:
    if low is None and high is None:
        return
    if protocol is None:
        raise bad_request(
            "SecurityGroupProtocolRequiredWithPorts",
            "Must also specify protocol if port range is given.",
        )
    if protocol in _ICMP:
        if low is None:
            raise bad_request(
                "SecurityGroupMissingIcmpType",
                f"ICMP code (port-range-max) {high} is provided but ICMP type (port-range-min) is missing.",
            )
        for field, value in (("port_range_min", low), ("port_range_max", high)):
            if value is not None and not 0 <= value <= 255:
                raise bad_request(
                    "SecurityGroupInvalidIcmpValue",
                    f"Invalid value for ICMP {'type' if field.endswith('min') else 'code'} ({field})"
                    f" {value}. It must be 0 to 255.",
                )
        return
    if protocol not in _WITH_PORTS:
        raise bad_request(
            "SecurityGroupInvalidProtocolForPort",
            f"Invalid protocol {name} for port range, only supported for tcp, udp, sctp, dccp, udplite.",
        )
    for value in (low, high):
        if value is not None and not 0 <= value <= 65535:
            raise bad_request("SecurityGroupInvalidPortValue", f"Invalid value for port {value}")
    if low is None or high is None or low > high or low == 0 and protocol not in (6, 17):
        raise bad_request(
            "SecurityGroupInvalidPortRange",
            "For TCP/UDP protocols, port_range_min must be <= port_range_max",
        )
    if high == 0:
        raise bad_request("SecurityGroupInvalidPortValue", f"Invalid value for port {low}")


def _prefix(row: Row) -> str | None:
    """:raises BadRequest: no CIDR, or of the other IP version."""
    text = row["remote_ip_prefix"]
    if text in (None, ""):
        return None
    try:
        net = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise bad_request("InvalidCIDR", f"Invalid CIDR {text} given as IP prefix.") from None
    if f"IPv{net.version}" != row["ethertype"]:
        raise bad_request(
            "SecurityGroupRuleParameterConflict",
            f"Conflicting value ethertype {row['ethertype']} for CIDR {text}",
        )
    return text if "/" in text else str(net)


def checked(values: Row) -> Row:
    """A rule's row, complete and sensible. :raises BadRequest: it is not."""
    row = dict(values)
    row["ethertype"] = _ETHERTYPES.get(str(row["ethertype"]).lower(), "")
    if not row["ethertype"]:
        raise bad_request(
            "SecurityGroupRuleInvalidEtherType",
            f"Security group rule for ethertype '{values['ethertype']}' not supported."
            " Allowed values are ['IPv4', 'IPv6'].",
        )
    row["protocol"], number = _protocol(row["protocol"])
    if row["protocol"] in _V6_ONLY and row["ethertype"] == "IPv4":
        raise bad_request(
            "SecurityGroupEthertypeConflictWithProtocol",
            f"Invalid ethertype {row['ethertype']} for protocol {row['protocol']}.",
        )
    if row["protocol"] in ("icmp", "icmpv6") and row["ethertype"] == "IPv6":
        row["protocol"], number = "ipv6-icmp", 58
    row["port_range_min"], row["port_range_max"] = (
        _number(row["port_range_min"]),
        _number(row["port_range_max"]),
    )
    _check_ports(number, row["protocol"], row["port_range_min"], row["port_range_max"])
    remotes = [
        key
        for key in ("remote_ip_prefix", "remote_group_id", "remote_address_group_id")
        if row[key] not in (None, "")
    ]
    if len(remotes) > 1:
        raise bad_request(
            "SecurityGroupMultipleRemoteEntites",
            "Only remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.",
        )
    row["remote_ip_prefix"] = _prefix(row)
    return row


class SecurityGroupRulesController(ResourceController):
    """Rules: created and deleted, never changed."""

    name, collection, path = "security_group_rule", "security_group_rules", "/security-group-rules"
    attributes = ATTRIBUTES
    model = db_security_groups.RULE_MODEL
    quota = "security_group_rule"
    actions = ("index", "show", "create", "delete")

    def decorate(self, call: Call, row: Row, shown: Row) -> None:
        shown.update(view(row))

    def before_list(self, call: Call) -> None:
        ensure_default(self.services, call)

    def target(self, call: Call, connection: sa.Connection, row: Mapping[str, Any]) -> Row:
        table = db_security_groups.groups
        owner = connection.execute(
            sa.select(table.c.project_id).where(table.c.id == row["security_group_id"])
        ).scalar()
        return {**super().target(call, connection, row), "security_group:project_id": owner or ""}

    def insert(self, call: Call, connection: sa.Connection, values: Row, asked: Row) -> str:
        row = checked(values)
        viewer = base.Viewer(row["project_id"], common.is_elevated(call))
        base.find(connection, db_security_groups.MODEL, row["security_group_id"], viewer, lock=True)
        if row["remote_group_id"]:
            base.find(connection, db_security_groups.MODEL, row["remote_group_id"], viewer)
        if row["remote_address_group_id"]:
            base.find(connection, db_address_groups.MODEL, row["remote_address_group_id"], viewer)
        return db_security_groups.create_rule(connection, row)

    def remove(self, call: Call, connection: sa.Connection, row: Row) -> None:
        db_security_groups.delete_rule(connection, row)


def ensure_default(services: Any, call: Call) -> None:
    """The asker's project gets its default group before it looks at groups."""
    project_id = call.context.project_id
    if not project_id:
        return
    database = services.databases.global_
    with database.read() as connection:
        if db_security_groups.has_default(connection, project_id):
            return
    with database.write() as connection:
        db_security_groups.ensure_default(connection, project_id)
