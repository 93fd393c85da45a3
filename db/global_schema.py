"""The global database: what belongs to the whole cloud.

Servers and intents are here only until they have a host (see
``db.shared_schema``); ``server_mappings`` says where each server lives.
"""

from __future__ import annotations

import sqlalchemy as sa

from db import image_schema, key_schema, network_schema, shared_schema, volume_schema
from db.types import NAMING, Json, Name, Time, Uuid, now, table_options

global_metadata = sa.MetaData(naming_convention=NAMING)

servers = shared_schema.servers_table(global_metadata)
server_tags = shared_schema.server_tags_table(global_metadata)
intents = shared_schema.intents_table(global_metadata)

images = image_schema.images_table(global_metadata)
image_properties = image_schema.image_properties_table(global_metadata)
image_tags = image_schema.image_tags_table(global_metadata)
image_members = image_schema.image_members_table(global_metadata)
image_locations = image_schema.image_locations_table(global_metadata)
metadef_namespaces = image_schema.metadef_namespaces_table(global_metadata)
metadef_items = image_schema.metadef_items_table(global_metadata)
metadef_resource_types = image_schema.metadef_resource_types_table(global_metadata)
metadef_associations = image_schema.metadef_associations_table(global_metadata)

secrets = key_schema.secrets_table(global_metadata)

network_schema.make_tables(global_metadata)
volume_schema.make_tables(global_metadata)

cells = sa.Table(
    "cells",
    global_metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("uuid", Uuid, nullable=False, unique=True),
    sa.Column("name", Name, nullable=False, unique=True),
    sa.Column("database_connection", sa.Text, nullable=False),
    sa.Column("transport_url", sa.Text),
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
    **table_options(),
)

server_mappings = sa.Table(
    "server_mappings",
    global_metadata,
    sa.Column("server_id", Uuid, primary_key=True),
    sa.Column("cell_id", sa.Integer, comment="NULL: the global database"),
    sa.Column("project_id", Name, nullable=False),
    sa.Column("user_id", Name, nullable=False),
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("deleted", sa.Boolean, nullable=False, default=False),
    sa.Column("created_at", Time, nullable=False, default=now),
    # covers the quota count: no row is read
    sa.Index("ix_server_mappings_usage", "project_id", "deleted", "user_id", "vcpus", "memory_mib"),
    sa.Index("ix_server_mappings_cell_id", "cell_id"),
    **table_options(),
)

hosts = sa.Table(
    "hosts",
    global_metadata,
    sa.Column("name", Name, primary_key=True),
    sa.Column("cell_id", sa.Integer, nullable=False),
    sa.Column("created_at", Time, nullable=False, default=now),
    **table_options(),
)

flavors = sa.Table(
    "flavors",
    global_metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("flavor_id", Name, nullable=False, unique=True),
    sa.Column("name", Name, nullable=False, unique=True),
    sa.Column("description", sa.Text),
    sa.Column("vcpus", sa.Integer, nullable=False),
    sa.Column("memory_mib", sa.Integer, nullable=False),
    sa.Column("root_gib", sa.Integer, nullable=False),
    sa.Column("ephemeral_gib", sa.Integer, nullable=False, default=0),
    sa.Column("swap_mib", sa.Integer, nullable=False, default=0),
    sa.Column("rxtx_factor", sa.Float, nullable=False, default=1.0),
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
    sa.Column("is_public", sa.Boolean, nullable=False, default=True),
    sa.Column("extra_specs", Json, nullable=False, default=dict),
    sa.Column("generation", sa.Integer, nullable=False, default=0),
    sa.Column("created_at", Time, nullable=False, default=now),
    sa.Column("updated_at", Time),
    **table_options(),
)

flavor_projects = sa.Table(
    "flavor_projects",
    global_metadata,
    sa.Column("flavor_id", sa.Integer, sa.ForeignKey("flavors.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("project_id", Name, primary_key=True),
    **table_options(),
)

keypairs = sa.Table(
    "keypairs",
    global_metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("user_id", Name, nullable=False),
    sa.Column("name", Name, nullable=False),
    sa.Column("type", sa.String(8), nullable=False, default="ssh"),
    sa.Column("fingerprint", Name, nullable=False),
    sa.Column("public_key", sa.Text, nullable=False),
    sa.Column("created_at", Time, nullable=False, default=now),
    sa.UniqueConstraint("user_id", "name"),
    **table_options(),
)

quotas = sa.Table(
    "quotas",
    global_metadata,
    sa.Column("service", sa.String(16), primary_key=True, comment="compute, volume, image, network"),
    sa.Column("project_id", Name, primary_key=True),
    sa.Column("user_id", Name, primary_key=True, default="", comment="empty: the whole project"),
    sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("hard_limit", sa.Integer, nullable=False, comment="-1: no limit"),
    **table_options(),
)

quota_classes = sa.Table(
    "quota_classes",
    global_metadata,
    sa.Column("service", sa.String(16), primary_key=True),
    sa.Column("class_name", Name, primary_key=True),
    sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("hard_limit", sa.Integer, nullable=False),
    **table_options(),
)

quota_generations = sa.Table(
    "quota_generations",
    global_metadata,
    sa.Column("project_id", Name, primary_key=True),
    sa.Column("generation", sa.BigInteger, nullable=False, default=0),
    **table_options(),
)
"""One row per project, bumped first in each transaction that checks a quota: the
count that follows sees every earlier creation of the project (see db.quotas)."""

server_groups = sa.Table(
    "server_groups",
    global_metadata,
    sa.Column("id", Uuid, primary_key=True),
    sa.Column("project_id", Name, nullable=False),
    sa.Column("user_id", Name, nullable=False),
    sa.Column("name", Name, nullable=False),
    sa.Column("policy", sa.String(32), nullable=False),
    sa.Column("rules", Json, nullable=False, default=dict),
    sa.Column("created_at", Time, nullable=False, default=now),
    sa.Index("ix_server_groups_project_id", "project_id", "created_at"),
    **table_options(),
)

server_group_members = sa.Table(
    "server_group_members",
    global_metadata,
    sa.Column("group_id", Uuid, sa.ForeignKey("server_groups.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("server_id", Uuid, primary_key=True),
    sa.Index("ix_server_group_members_server_id", "server_id"),
    **table_options(),
)

aggregates = sa.Table(
    "aggregates",
    global_metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("uuid", Uuid, nullable=False, unique=True),
    sa.Column("name", Name, nullable=False, unique=True),
    sa.Column("metadata", Json, nullable=False, default=dict, comment="availability_zone among the keys"),
    sa.Column("created_at", Time, nullable=False, default=now),
    sa.Column("updated_at", Time),
    **table_options(),
)

aggregate_hosts = sa.Table(
    "aggregate_hosts",
    global_metadata,
    sa.Column(
        "aggregate_id", sa.Integer, sa.ForeignKey("aggregates.id", ondelete="CASCADE"), primary_key=True
    ),
    sa.Column("host", Name, primary_key=True),
    sa.Index("ix_aggregate_hosts_host", "host"),
    **table_options(),
)

providers = sa.Table(
    "providers",
    global_metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("uuid", Uuid, nullable=False, unique=True),
    sa.Column("name", Name, nullable=False, unique=True),
    sa.Column("host", Name, comment="the compute host it stands for"),
    sa.Column("cell_id", sa.Integer),
    sa.Column("parent_id", sa.Integer),
    sa.Column("root_id", sa.Integer),
    sa.Column("generation", sa.Integer, nullable=False, default=0),
    sa.Column("traits", Json, nullable=False, default=list),
    sa.Index("ix_providers_host", "host"),
    **table_options(),
)

inventories = sa.Table(
    "inventories",
    global_metadata,
    sa.Column("provider_id", sa.Integer, sa.ForeignKey("providers.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("resource_class", sa.String(64), primary_key=True),
    sa.Column("total", sa.BigInteger, nullable=False),
    sa.Column("reserved", sa.BigInteger, nullable=False, default=0),
    sa.Column("min_unit", sa.BigInteger, nullable=False, default=1),
    sa.Column("max_unit", sa.BigInteger, nullable=False),
    sa.Column("step_size", sa.BigInteger, nullable=False, default=1),
    sa.Column("allocation_ratio", sa.Float, nullable=False, default=1.0),
    **table_options(),
)

consumers = sa.Table(
    "consumers",
    global_metadata,
    sa.Column("uuid", Uuid, primary_key=True),
    sa.Column("project_id", Name, nullable=False),
    sa.Column("user_id", Name, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False, default=0),
    sa.Column("created_at", Time, nullable=False, default=now),
    **table_options(),
)

allocations = sa.Table(
    "allocations",
    global_metadata,
    sa.Column("consumer_uuid", Uuid, primary_key=True),
    sa.Column("provider_id", sa.Integer, sa.ForeignKey("providers.id"), primary_key=True),
    sa.Column("resource_class", sa.String(64), primary_key=True),
    sa.Column("used", sa.BigInteger, nullable=False),
    sa.Index("ix_allocations_provider_id", "provider_id", "resource_class", "used"),
    **table_options(),
)

provider_changes = sa.Table(
    "provider_changes",
    global_metadata,
    sa.Column(
        "seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    sa.Column("provider_id", sa.Integer, nullable=False),
    sa.Column("source", sa.String(64), comment="the scheduler that made the change, and knows it"),
    sa.Column("created_at", Time, nullable=False, default=now),
    sa.Index("ix_provider_changes_created_at", "created_at"),
    **table_options(),
)
"""Appended to with every change that a scheduler must see (inventory, usage, aggregates,
service state): schedulers read what is new instead of everything.  Pruned by age."""

decisions = sa.Table(
    "decisions",
    global_metadata,
    sa.Column("intent_id", Uuid, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("server_id", Uuid, nullable=False),
    sa.Column("host", Name),
    sa.Column("summary", sa.Text, nullable=False),
    sa.Column("explanation", Json, nullable=False),
    sa.Column("created_at", Time, nullable=False, default=now),
    sa.Index("ix_decisions_server_id", "server_id", "created_at"),
    **table_options(),
)

console_tokens = sa.Table(
    "console_tokens",
    global_metadata,
    sa.Column(
        "token_hash", sa.String(64), primary_key=True, comment="SHA-256: a copy of the table opens nothing"
    ),
    sa.Column("server_id", Uuid, nullable=False),
    sa.Column("console_type", sa.String(32), nullable=False),
    sa.Column("host", Name, nullable=False),
    sa.Column("port", sa.Integer, nullable=False),
    sa.Column("expires_at", Time, nullable=False),
    sa.Index("ix_console_tokens_expires_at", "expires_at"),
    **table_options(),
)

__all__ = ["global_metadata", "Json"]
