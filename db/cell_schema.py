"""A cell's database: what belongs to the hosts of the cell."""

from __future__ import annotations

import sqlalchemy as sa

from db import shared_schema
from db.types import NAMING, Json, Name, Time, Uuid, now, table_options

cell_metadata = sa.MetaData(naming_convention=NAMING)

servers = shared_schema.servers_table(cell_metadata)
server_tags = shared_schema.server_tags_table(cell_metadata)
intents = shared_schema.intents_table(cell_metadata)

services = sa.Table(
    "services",
    cell_metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("uuid", Uuid, nullable=False, unique=True),
    sa.Column("host", Name, nullable=False),
    sa.Column("binary", sa.String(64), nullable=False, comment="upstream's names: nova-compute, …"),
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
    sa.Column("disabled_reason", Name),
    sa.Column("forced_down", sa.Boolean, nullable=False, default=False),
    sa.Column("release", sa.String(32)),
    sa.Column("last_seen_at", Time),
    sa.Column("created_at", Time, nullable=False, default=now),
    sa.Column("updated_at", Time),
    sa.UniqueConstraint("host", "binary"),
    **table_options(),
)

hypervisors = sa.Table(
    "hypervisors",
    cell_metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("uuid", Uuid, nullable=False, unique=True, comment="also the provider's uuid"),
    sa.Column("host", Name, nullable=False, unique=True),
    sa.Column("hypervisor_hostname", Name, nullable=False),
    sa.Column("hypervisor_type", sa.String(32), nullable=False),
    sa.Column("hypervisor_version", sa.Integer, nullable=False),
    sa.Column("host_ip", sa.String(39)),
    sa.Column("inventory", Json, nullable=False, comment="compute.drivers.base.HostInventory"),
    sa.Column("failed_builds", sa.Integer, nullable=False, default=0),
    sa.Column("created_at", Time, nullable=False, default=now),
    sa.Column("updated_at", Time),
    **table_options(),
)
