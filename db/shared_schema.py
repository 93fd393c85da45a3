"""Tables that exist in the global database and in every cell alike.

A server that has no host yet lives in the global database, and so does its
intent; dispatch copies both into the chosen cell.
"""

from __future__ import annotations

import sqlalchemy as sa

from db.types import Json, LongText, Name, Time, Uuid, now, table_options


def servers_table(metadata: sa.MetaData) -> sa.Table:
    """Servers. ``deleted`` is 0, or 1 for a soft-deleted row that lists may still show."""
    return sa.Table(
        "servers",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("project_id", Name, nullable=False),
        sa.Column("user_id", Name, nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("hostname", Name, nullable=False),
        sa.Column("description", Name),
        sa.Column("host", Name),
        sa.Column("node", Name),
        sa.Column("launched_on", Name),
        sa.Column("availability_zone", Name),
        sa.Column("pinned_availability_zone", Name),
        sa.Column("vm_state", sa.String(32), nullable=False),
        sa.Column("task_state", sa.String(32)),
        sa.Column("power_state", sa.Integer, nullable=False, default=0),
        sa.Column("progress", sa.Integer, nullable=False, default=0),
        sa.Column("flavor_id", Name, nullable=False),
        sa.Column("vcpus", sa.Integer, nullable=False),
        sa.Column("memory_mib", sa.Integer, nullable=False),
        sa.Column("root_gib", sa.Integer, nullable=False),
        sa.Column("ephemeral_gib", sa.Integer, nullable=False),
        sa.Column("flavor", Json, nullable=False),
        sa.Column("image_id", Uuid),
        sa.Column("image", Json),
        sa.Column("block_devices", Json, nullable=False, default=list),
        sa.Column("networks", Json, nullable=False, default=list),
        sa.Column("network_info", Json, nullable=False, default=list),
        sa.Column("metadata", Json, nullable=False, default=dict),
        sa.Column("system_metadata", Json, nullable=False, default=dict),
        sa.Column("key_name", Name),
        sa.Column("public_key", sa.Text),
        sa.Column("user_data", LongText),
        sa.Column("config_drive", sa.Boolean, nullable=False, default=False),
        sa.Column("disk_config", sa.String(8), nullable=False, default="MANUAL"),
        sa.Column("access_ip_v4", sa.String(39)),
        sa.Column("access_ip_v6", sa.String(39)),
        sa.Column("reservation_id", sa.String(32)),
        sa.Column("launch_index", sa.Integer, nullable=False, default=0),
        sa.Column("root_device_name", sa.String(64)),
        sa.Column("server_group_id", Uuid),
        sa.Column("locked_by", sa.String(16)),
        sa.Column("locked_reason", Name),
        sa.Column("fault", Json),
        sa.Column("generation", sa.Integer, nullable=False, default=0),
        sa.Column("created_at", Time, nullable=False, default=now),
        sa.Column("updated_at", Time, nullable=False, default=now),
        sa.Column("launched_at", Time),
        sa.Column("terminated_at", Time),
        sa.Column("deleted", sa.Integer, nullable=False, default=0),
        *_server_indexes(),
        **table_options(),
    )


def _server_indexes() -> list[sa.Index]:
    """One for every way in which lists select and sort."""
    return [
        sa.Index("ix_servers_project_list", "deleted", "project_id", "created_at", "id"),
        sa.Index("ix_servers_list", "deleted", "created_at", "id"),
        sa.Index("ix_servers_host", "host", "deleted"),
        sa.Index("ix_servers_updated_at", "updated_at"),
        sa.Index("ix_servers_name", "name"),
        sa.Index("ix_servers_usage", "project_id", "launched_at"),
        sa.Index("ix_servers_reservation_id", "reservation_id"),
    ]


def server_tags_table(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "server_tags",
        metadata,
        sa.Column("server_id", Uuid, primary_key=True),
        sa.Column("tag", sa.String(60), primary_key=True),
        sa.Index("ix_server_tags_tag", "tag"),
        **table_options(),
    )


def intents_table(metadata: sa.MetaData) -> sa.Table:
    """The journal. See ``conductor.journal`` for how rows move.

    ``exclusive_key`` is the resource's id while an exclusive intent is
    unfinished and NULL afterwards: its unique index is what admits only one.
    ``target`` is the host (or role) that is to carry the intent out, NULL while
    the scheduler has not chosen one.  ``available_at``: not to be taken before.
    """
    return sa.Table(
        "intents",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("resource_type", sa.String(32), nullable=False),
        sa.Column("resource_id", Uuid, nullable=False),
        sa.Column("exclusive_key", sa.String(64), unique=True),
        sa.Column("project_id", Name),
        sa.Column("user_id", Name),
        sa.Column("request_id", sa.String(64)),
        sa.Column("target", Name),
        sa.Column("arguments", Json, nullable=False, default=dict),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("step", sa.String(64)),
        sa.Column("results", Json, nullable=False, default=dict),
        sa.Column("events", Json, nullable=False, default=list),
        sa.Column("cancel_requested", sa.Boolean, nullable=False, default=False),
        sa.Column("lease_owner", Name),
        sa.Column("lease_until", Time),
        sa.Column("attempts", sa.Integer, nullable=False, default=0),
        sa.Column("available_at", Time),
        sa.Column("error", Json),
        sa.Column("message", Name),
        sa.Column("created_at", Time, nullable=False, default=now),
        sa.Column("updated_at", Time, nullable=False, default=now),
        sa.Column("started_at", Time),
        sa.Column("finished_at", Time),
        sa.Index("ix_intents_state_created_at", "state", "created_at"),
        sa.Index("ix_intents_resource", "resource_id", "created_at"),
        sa.Index("ix_intents_target_state", "target", "state"),
        **table_options(),
    )
