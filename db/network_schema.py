"""Tables of the Network API, in the global database: networks span cells.

What the API calls an object's *standard attributes* (description, revision_number,
created_at, updated_at) are columns of each table; tags and sharing (RBAC) are
tables of their own, keyed by the kind of object and its id.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from db.types import Json, Name, Time, Uuid, now, table_options

Mac = sa.String(17)
Address = sa.String(64)
Kind = sa.String(32)


def standard_columns(*, named: bool = True) -> list[sa.Column[Any]]:
    """id, project_id, name and the standard attributes: fresh columns for one table."""
    columns: list[sa.Column[Any]] = [
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("project_id", Name, nullable=False, default=""),
    ]
    if named:
        columns.append(sa.Column("name", Name, nullable=False, default=""))
    return [
        *columns,
        sa.Column("description", sa.String(1024), nullable=False, default=""),
        sa.Column("revision_number", sa.BigInteger, nullable=False, default=0),
        sa.Column("created_at", Time, nullable=False, default=now),
        sa.Column("updated_at", Time, nullable=False, default=now),
    ]


def flag(name: str, default: bool) -> sa.Column[Any]:
    """A boolean that is never NULL."""
    return sa.Column(name, sa.Boolean, nullable=False, default=default)


def make_tables(metadata: sa.MetaData) -> None:
    """Add the tables of this API to ``metadata``."""
    _networks(metadata)
    _subnets(metadata)
    _ports(metadata)
    _port_parts(metadata)
    _agents(metadata)
    _dhcp_placements(metadata)
    _security(metadata)
    _routers(metadata)
    _floating_ips(metadata)
    _policies(metadata)


def _networks(metadata: sa.MetaData) -> None:
    sa.Table(
        "networks",
        metadata,
        *standard_columns(),
        flag("admin_state_up", True),
        sa.Column("status", sa.String(16), nullable=False, default="ACTIVE"),
        sa.Column("mtu", sa.Integer, nullable=False),
        flag("port_security_enabled", True),
        flag("external", False),
        flag("is_default", False),
        flag("vlan_transparent", False),
        sa.Column("dns_domain", Name, nullable=False, default=""),
        sa.Column("availability_zone_hints", Json, nullable=False, default=list),
        sa.Column("qos_policy_id", Uuid),
        sa.Column("network_type", sa.String(16), nullable=False),
        sa.Column("physical_network", sa.String(64)),
        sa.Column("segmentation_id", sa.Integer),
        sa.Index("ix_networks_project_id", "project_id", "name"),
        sa.Index("ix_networks_name", "name"),
        sa.Index("ix_networks_external", "external"),
        sa.Index("ix_networks_qos_policy_id", "qos_policy_id"),
        **table_options(),
    )
    # who holds a segment; the primary key is what makes handing out atomic
    sa.Table(
        "segment_allocations",
        metadata,
        sa.Column("network_type", sa.String(16), primary_key=True),
        sa.Column("physical_network", sa.String(64), primary_key=True, comment="empty: overlays"),
        sa.Column("segmentation_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column(
            "network_id", Uuid, sa.ForeignKey("networks.id", ondelete="CASCADE"), nullable=False, index=True
        ),
        **table_options(),
    )


def _subnets(metadata: sa.MetaData) -> None:
    sa.Table(
        "subnet_pools",
        metadata,
        *standard_columns(),
        sa.Column("ip_version", sa.SmallInteger, nullable=False),
        sa.Column("prefixes", Json, nullable=False, default=list),
        sa.Column("default_prefixlen", sa.SmallInteger, nullable=False),
        sa.Column("min_prefixlen", sa.SmallInteger, nullable=False),
        sa.Column("max_prefixlen", sa.SmallInteger, nullable=False),
        sa.Column("default_quota", sa.BigInteger),
        sa.Column("address_scope_id", Uuid),
        flag("is_default", False),
        sa.Index("ix_subnet_pools_project_id", "project_id", "name"),
        sa.Index("ix_subnet_pools_address_scope_id", "address_scope_id"),
        **table_options(),
    )
    sa.Table(
        "address_scopes",
        metadata,
        *standard_columns(),
        sa.Column("ip_version", sa.SmallInteger, nullable=False),
        sa.Index("ix_address_scopes_project_id", "project_id", "name"),
        **table_options(),
    )
    sa.Table(
        "subnets",
        metadata,
        *standard_columns(),
        sa.Column("network_id", Uuid, sa.ForeignKey("networks.id"), nullable=False),
        sa.Column("ip_version", sa.SmallInteger, nullable=False),
        sa.Column("cidr", Address, nullable=False),
        sa.Column("gateway_ip", Address),
        flag("enable_dhcp", True),
        sa.Column("ipv6_ra_mode", Kind),
        sa.Column("ipv6_address_mode", Kind),
        sa.Column("subnetpool_id", Uuid),
        sa.Column("allocation_pools", Json, nullable=False, default=list),
        sa.Column("dns_nameservers", Json, nullable=False, default=list),
        sa.Column("host_routes", Json, nullable=False, default=list),
        sa.Column("service_types", Json, nullable=False, default=list),
        flag("dns_publish_fixed_ip", False),
        sa.Index("ix_subnets_project_id", "project_id", "name"),
        sa.Index("ix_subnets_network_id", "network_id"),
        sa.Index("ix_subnets_subnetpool_id", "subnetpool_id"),
        sa.Index("ix_subnets_cidr", "cidr"),
        **table_options(),
    )


def _ports(metadata: sa.MetaData) -> None:
    sa.Table(
        "ports",
        metadata,
        *standard_columns(),
        sa.Column("network_id", Uuid, sa.ForeignKey("networks.id"), nullable=False),
        sa.Column("mac_address", Mac, nullable=False),
        flag("admin_state_up", True),
        sa.Column("status", sa.String(16), nullable=False, default="DOWN"),
        sa.Column("device_id", Name, nullable=False, default=""),
        sa.Column("device_owner", Name, nullable=False, default=""),
        flag("port_security_enabled", True),
        sa.Column("vnic_type", Kind, nullable=False, default="normal"),
        sa.Column("binding_host", Name, nullable=False, default="", comment="the active binding's host"),
        sa.Column("binding_profile", Json, nullable=False, default=dict),
        sa.Column("dns_name", Name, nullable=False, default=""),
        sa.Column("dns_domain", Name, nullable=False, default=""),
        sa.Column("qos_policy_id", Uuid),
        sa.Column("numa_affinity_policy", Kind),
        flag("propagate_uplink_status", True),
        sa.Column("allowed_address_pairs", Json, nullable=False, default=list),
        sa.Column("extra_dhcp_opts", Json, nullable=False, default=list),
        sa.UniqueConstraint("network_id", "mac_address", name="uq_ports_network_id_mac_address"),
        sa.Index("ix_ports_project_id", "project_id", "name"),
        sa.Index("ix_ports_device_id", "device_id", "device_owner"),
        sa.Index("ix_ports_network_id", "network_id", "device_owner"),
        sa.Index("ix_ports_mac_address", "mac_address"),
        sa.Index("ix_ports_binding_host", "binding_host"),
        sa.Index("ix_ports_qos_policy_id", "qos_policy_id"),
        **table_options(),
    )


def _port_parts(metadata: sa.MetaData) -> None:
    # one row per address in use: the primary key is why no two ports ever share one
    sa.Table(
        "ip_allocations",
        metadata,
        sa.Column("subnet_id", Uuid, sa.ForeignKey("subnets.id"), primary_key=True),
        sa.Column("ip_address", Address, primary_key=True),
        sa.Column("port_id", Uuid, sa.ForeignKey("ports.id", ondelete="CASCADE"), nullable=False),
        sa.Column("position", sa.SmallInteger, nullable=False, default=0, comment="order in fixed_ips"),
        sa.Index("ix_ip_allocations_port_id", "port_id"),
        sa.Index("ix_ip_allocations_ip_address", "ip_address"),
        **table_options(),
    )
    sa.Table(
        "port_bindings",
        metadata,
        sa.Column("port_id", Uuid, sa.ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("host", Name, primary_key=True),
        sa.Column("status", sa.String(16), nullable=False, default="ACTIVE"),
        sa.Column("vif_type", Kind, nullable=False, default="unbound"),
        sa.Column("vif_details", Json, nullable=False, default=dict),
        sa.Column("vnic_type", Kind, nullable=False, default="normal"),
        sa.Column("profile", Json, nullable=False, default=dict),
        sa.Index("ix_port_bindings_host", "host"),
        **table_options(),
    )


def _agents(metadata: sa.MetaData) -> None:
    sa.Table(
        "network_agents",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("agent_type", sa.String(64), nullable=False),
        sa.Column("binary", sa.String(64), nullable=False),
        sa.Column("host", Name, nullable=False),
        sa.Column("topic", sa.String(64), nullable=False, default=""),
        sa.Column("availability_zone", Name),
        flag("admin_state_up", True),
        sa.Column("description", sa.String(1024), nullable=False, default=""),
        sa.Column("configurations", Json, nullable=False, default=dict),
        sa.Column("resources_synced", sa.Boolean),
        sa.Column("cell_id", sa.Integer, comment="whose conductors reach the host"),
        sa.Column("created_at", Time, nullable=False, default=now),
        sa.Column("started_at", Time, nullable=False, default=now),
        sa.Column("heartbeat_timestamp", Time, nullable=False, default=now),
        sa.UniqueConstraint("agent_type", "host", name="uq_network_agents_agent_type_host"),
        sa.Index("ix_network_agents_host", "host"),
        **table_options(),
    )


def _dhcp_placements(metadata: sa.MetaData) -> None:
    sa.Table(
        "dhcp_placements",
        metadata,
        sa.Column("network_id", Uuid, sa.ForeignKey("networks.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("host", Name, primary_key=True),
        sa.Column("serves", sa.Boolean, nullable=False, comment="false: taken off the host by hand"),
        sa.Index("ix_dhcp_placements_host", "host"),
        **table_options(),
    )


def _security(metadata: sa.MetaData) -> None:
    sa.Table(
        "security_groups",
        metadata,
        *standard_columns(),
        flag("stateful", True),
        # the project for its default group, else NULL: unique, so that one is ever made
        sa.Column("default_of", Name, unique=True),
        sa.Index("ix_security_groups_project_id", "project_id", "name"),
        sa.Index("ix_security_groups_name", "name"),
        **table_options(),
    )
    sa.Table(
        "address_groups",
        metadata,
        *standard_columns(),
        sa.Column("addresses", Json, nullable=False, default=list),
        sa.Index("ix_address_groups_project_id", "project_id", "name"),
        **table_options(),
    )
    sa.Table(
        "security_group_rules",
        metadata,
        *standard_columns(named=False),
        sa.Column(
            "security_group_id",
            Uuid,
            sa.ForeignKey("security_groups.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("direction", sa.String(8), nullable=False),
        sa.Column("ethertype", sa.String(8), nullable=False),
        sa.Column("protocol", sa.String(40)),
        sa.Column("port_range_min", sa.Integer),
        sa.Column("port_range_max", sa.Integer),
        sa.Column("remote_ip_prefix", Address),
        sa.Column("remote_group_id", Uuid, sa.ForeignKey("security_groups.id", ondelete="CASCADE")),
        sa.Column("remote_address_group_id", Uuid, sa.ForeignKey("address_groups.id")),
        sa.Column("fingerprint", sa.String(64), nullable=False, comment="of what the rule matches"),
        sa.UniqueConstraint("security_group_id", "fingerprint", name="uq_security_group_rules_fingerprint"),
        sa.Index("ix_security_group_rules_project_id", "project_id"),
        sa.Index("ix_security_group_rules_remote_group_id", "remote_group_id"),
        sa.Index("ix_security_group_rules_remote_address_group_id", "remote_address_group_id"),
        **table_options(),
    )
    # what new groups begin with; no foreign keys: the groups that a rule names may go
    sa.Table(
        "default_security_group_rules",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("description", sa.String(1024), nullable=False, default=""),
        sa.Column("direction", sa.String(8), nullable=False),
        sa.Column("ethertype", sa.String(8), nullable=False),
        sa.Column("protocol", sa.String(40)),
        sa.Column("port_range_min", sa.Integer),
        sa.Column("port_range_max", sa.Integer),
        sa.Column("remote_ip_prefix", Address),
        sa.Column("remote_group_id", Uuid, comment="PARENT: the group that the rule will be in"),
        sa.Column("remote_address_group_id", Uuid),
        flag("used_in_default_sg", False),
        flag("used_in_non_default_sg", True),
        sa.Column(
            "marker", sa.Boolean, nullable=False, default=False, comment="no rule: upstream's are rows"
        ),
        **table_options(),
    )
    sa.Table(
        "port_security_groups",
        metadata,
        sa.Column("port_id", Uuid, sa.ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True),
        # no cascade: a group in use can't be deleted
        sa.Column("security_group_id", Uuid, sa.ForeignKey("security_groups.id"), primary_key=True),
        sa.Index("ix_port_security_groups_security_group_id", "security_group_id"),
        **table_options(),
    )


def _routers(metadata: sa.MetaData) -> None:
    sa.Table(
        "routers",
        metadata,
        *standard_columns(),
        flag("admin_state_up", True),
        sa.Column("status", sa.String(16), nullable=False, default="ACTIVE"),
        sa.Column("gateway_port_id", Uuid, sa.ForeignKey("ports.id"), unique=True),
        sa.Column("gateway_network_id", Uuid),
        flag("enable_snat", True),
        sa.Column("qos_policy_id", Uuid, comment="of its gateway"),
        flag("distributed", False),
        flag("ha", False),
        sa.Column("routes", Json, nullable=False, default=list),
        sa.Column("availability_zone_hints", Json, nullable=False, default=list),
        sa.Column("host", Name, nullable=False, default="", comment="where its namespace is"),
        sa.Column(
            "unscheduled", sa.Boolean, nullable=False, default=False, comment="taken off its host by hand"
        ),
        sa.Index("ix_routers_project_id", "project_id", "name"),
        sa.Index("ix_routers_host", "host"),
        sa.Index("ix_routers_qos_policy_id", "qos_policy_id"),
        **table_options(),
    )
    # a subnet is at a router once only, however many requests race
    sa.Table(
        "router_interfaces",
        metadata,
        sa.Column("router_id", Uuid, sa.ForeignKey("routers.id"), primary_key=True),
        sa.Column("subnet_id", Uuid, sa.ForeignKey("subnets.id"), primary_key=True),
        sa.Column("port_id", Uuid, sa.ForeignKey("ports.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Index("ix_router_interfaces_subnet_id", "subnet_id"),
        **table_options(),
    )


def _floating_ips(metadata: sa.MetaData) -> None:
    sa.Table(
        "floating_ips",
        metadata,
        *standard_columns(named=False),
        sa.Column("floating_network_id", Uuid, nullable=False),
        sa.Column("floating_ip_address", Address, nullable=False),
        sa.Column("floating_port_id", Uuid, sa.ForeignKey("ports.id"), nullable=False, unique=True),
        sa.Column("port_id", Uuid, sa.ForeignKey("ports.id")),
        sa.Column("fixed_ip_address", Address),
        sa.Column("router_id", Uuid, sa.ForeignKey("routers.id")),
        sa.Column("status", sa.String(16), nullable=False, default="DOWN"),
        sa.Column("dns_name", Name, nullable=False, default=""),
        sa.Column("dns_domain", Name, nullable=False, default=""),
        sa.Column("qos_policy_id", Uuid),
        sa.UniqueConstraint("port_id", "fixed_ip_address", name="uq_floating_ips_port_id_fixed_ip_address"),
        sa.Index("ix_floating_ips_project_id", "project_id"),
        sa.Index("ix_floating_ips_router_id", "router_id"),
        sa.Index("ix_floating_ips_qos_policy_id", "qos_policy_id"),
        sa.Index("ix_floating_ips_floating_ip_address", "floating_ip_address"),
        sa.Index("ix_floating_ips_floating_network_id", "floating_network_id"),
        **table_options(),
    )
    sa.Table(
        "port_forwardings",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("floatingip_id", Uuid, sa.ForeignKey("floating_ips.id"), nullable=False),
        sa.Column("internal_port_id", Uuid, sa.ForeignKey("ports.id"), nullable=False),
        sa.Column("internal_ip_address", Address, nullable=False),
        sa.Column("protocol", sa.String(8), nullable=False),
        sa.Column("external_port", sa.Integer, nullable=False),
        sa.Column("external_port_last", sa.Integer, nullable=False),
        sa.Column("internal_port", sa.Integer, nullable=False),
        sa.Column("internal_port_last", sa.Integer, nullable=False),
        sa.Column("description", sa.String(1024), nullable=False, default=""),
        sa.UniqueConstraint(
            "floatingip_id", "protocol", "external_port", name="uq_port_forwardings_external_port"
        ),
        sa.Index("ix_port_forwardings_internal_port_id", "internal_port_id"),
        **table_options(),
    )


def _policies(metadata: sa.MetaData) -> None:
    sa.Table(
        "network_rbac_policies",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("project_id", Name, nullable=False),
        sa.Column("object_type", Kind, nullable=False),
        sa.Column("object_id", Uuid, nullable=False),
        sa.Column("action", Kind, nullable=False),
        sa.Column("target_project", Name, nullable=False, comment="*: everyone"),
        sa.UniqueConstraint(
            "object_id", "object_type", "action", "target_project", name="uq_network_rbac_policies_object_id"
        ),
        sa.Index("ix_network_rbac_policies_target_project", "target_project", "object_type", "action"),
        sa.Index("ix_network_rbac_policies_project_id", "project_id"),
        **table_options(),
    )
    sa.Table(
        "network_tags",
        metadata,
        sa.Column("resource_id", Uuid, primary_key=True),
        sa.Column("tag", Name, primary_key=True),
        sa.Index("ix_network_tags_tag", "tag"),
        **table_options(),
    )
    sa.Table(
        "qos_policies",
        metadata,
        *standard_columns(),
        flag("is_default", False),
        sa.Index("ix_qos_policies_project_id", "project_id", "name"),
        **table_options(),
    )
    sa.Table(
        "qos_rules",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column(
            "qos_policy_id", Uuid, sa.ForeignKey("qos_policies.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("type", Kind, nullable=False),
        sa.Column("direction", sa.String(8), nullable=False, default=""),
        sa.Column("values", Json, nullable=False, default=dict),
        sa.UniqueConstraint("qos_policy_id", "type", "direction", name="uq_qos_rules_qos_policy_id"),
        **table_options(),
    )
    sa.Table(
        "auto_allocated_topologies",
        metadata,
        sa.Column("project_id", Name, primary_key=True),
        sa.Column("network_id", Uuid, sa.ForeignKey("networks.id", ondelete="CASCADE"), nullable=False),
        sa.Column("router_id", Uuid),
        sa.Index("ix_auto_allocated_topologies_network_id", "network_id"),
        **table_options(),
    )
