"""Tables of the Volume API, in the global database: storage is shared by all cells.

A volume lives in a *pool*, named ``host@backend#pool`` as upstream does; ``host``
of a volume (group, backup) is such a name, or NULL while the scheduler has not
chosen one.  Pools and services are written by the volume workers' heartbeats.

Rows of volumes, snapshots, attachments, backups and groups go when the thing is
gone: the intent that deleted it stays as the record.  What a project uses is
counted from these rows, through the covering indexes named ``…_usage``.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from db.types import Json, Name, Time, Uuid, now, table_options

Status = sa.String(32)


def make_tables(metadata: sa.MetaData) -> None:
    """Add the tables of this API to ``metadata``."""
    _types(metadata)
    _volumes(metadata)
    _snapshots(metadata)
    _attachments(metadata)
    _transfers(metadata)
    _backups(metadata)
    _groups(metadata)
    _services(metadata)
    _messages(metadata)


def _owned() -> list[sa.Column[Any]]:
    """id, owner, name and description: fresh columns for one table."""
    return [
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("project_id", Name, nullable=False),
        sa.Column("user_id", Name, nullable=False),
        sa.Column("name", Name),
        sa.Column("description", Name),
    ]


def _times() -> list[sa.Column[Any]]:
    return [
        sa.Column("created_at", Time, nullable=False, default=now),
        sa.Column("updated_at", Time),
    ]


def _types(metadata: sa.MetaData) -> None:
    sa.Table(
        "qos_specs",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("name", Name, nullable=False, unique=True),
        sa.Column("consumer", sa.String(16), nullable=False, default="back-end"),
        sa.Column("specs", Json, nullable=False, default=dict),
        *_times(),
        **table_options(),
    )
    sa.Table(
        "volume_types",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("name", Name, nullable=False, unique=True),
        sa.Column("description", Name),
        sa.Column("is_public", sa.Boolean, nullable=False, default=True),
        sa.Column("qos_specs_id", Uuid, sa.ForeignKey("qos_specs.id")),
        sa.Column("extra_specs", Json, nullable=False, default=dict),
        *_times(),
        sa.Index("ix_volume_types_created_at", "created_at", "id"),
        **table_options(),
    )
    sa.Table(
        "volume_type_projects",
        metadata,
        sa.Column("type_id", Uuid, sa.ForeignKey("volume_types.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("project_id", Name, primary_key=True),
        sa.Index("ix_volume_type_projects_project_id", "project_id", "type_id"),
        **table_options(),
    )
    sa.Table(
        "volume_type_encryptions",
        metadata,
        sa.Column("type_id", Uuid, sa.ForeignKey("volume_types.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("id", Uuid, nullable=False, unique=True),
        sa.Column("provider", Name, nullable=False),
        sa.Column("control_location", sa.String(16), nullable=False, default="front-end"),
        sa.Column("cipher", Name),
        sa.Column("key_size", sa.Integer),
        *_times(),
        **table_options(),
    )
    sa.Table(
        "default_volume_types",
        metadata,
        sa.Column("project_id", Name, primary_key=True),
        sa.Column("type_id", Uuid, sa.ForeignKey("volume_types.id"), nullable=False),
        **table_options(),
    )


def _volumes(metadata: sa.MetaData) -> None:
    sa.Table(
        "volumes",
        metadata,
        *_owned(),
        sa.Column("size_gib", sa.Integer, nullable=False),
        sa.Column("status", Status, nullable=False),
        sa.Column("previous_status", Status, comment="to go back to when the running intent ends"),
        sa.Column("migration_status", Status),
        sa.Column("replication_status", Status),
        sa.Column("host", Name, comment="host@backend#pool"),
        sa.Column("availability_zone", Name),
        sa.Column("type_id", Uuid, sa.ForeignKey("volume_types.id")),
        sa.Column("snapshot_id", Uuid, comment="made from; it may be gone"),
        sa.Column("source_volume_id", Uuid, comment="made from; it may be gone"),
        sa.Column("group_id", Uuid),
        sa.Column("bootable", sa.Boolean, nullable=False, default=False),
        sa.Column("multiattach", sa.Boolean, nullable=False, default=False),
        sa.Column("readonly", sa.Boolean, comment="NULL: never said"),
        sa.Column("encrypted", sa.Boolean, nullable=False, default=False),
        sa.Column("encryption_key_id", Uuid),
        sa.Column("shared_targets", sa.Boolean),
        sa.Column("use_quota", sa.Boolean, nullable=False, default=True, comment="false: temporary"),
        sa.Column("migrating_to", Uuid, comment="the volume that will take this one's place"),
        sa.Column("data_id", Uuid, comment="whose name its data have; NULL: its own"),
        sa.Column("metadata", Json, nullable=False, default=dict),
        sa.Column("admin_metadata", Json, nullable=False, default=dict),
        sa.Column("image_metadata", Json, nullable=False, default=dict, comment="of its image, for booting"),
        sa.Column("provider_location", Json, comment="the driver's own: where the data is"),
        sa.Column("generation", sa.Integer, nullable=False, default=0),
        *_times(),
        sa.Column("launched_at", Time),
        sa.Index("ix_volumes_project_list", "project_id", "created_at", "id"),
        sa.Index("ix_volumes_list", "created_at", "id"),
        sa.Index("ix_volumes_usage", "project_id", "use_quota", "type_id", "size_gib"),
        sa.Index("ix_volumes_host", "host", "size_gib"),
        sa.Index("ix_volumes_name", "name"),
        sa.Index("ix_volumes_status", "status"),
        sa.Index("ix_volumes_type_id", "type_id"),
        sa.Index("ix_volumes_group_id", "group_id"),
        sa.Index("ix_volumes_source_volume_id", "source_volume_id"),
        sa.Index("ix_volumes_snapshot_id", "snapshot_id"),
        **table_options(),
    )


def _snapshots(metadata: sa.MetaData) -> None:
    sa.Table(
        "snapshots",
        metadata,
        *_owned(),
        sa.Column("volume_id", Uuid, sa.ForeignKey("volumes.id"), nullable=False),
        sa.Column("type_id", Uuid, comment="the volume's when it was taken"),
        sa.Column("size_gib", sa.Integer, nullable=False),
        sa.Column("status", Status, nullable=False),
        sa.Column("progress", sa.Integer, nullable=False, default=0, comment="percent"),
        sa.Column("group_snapshot_id", Uuid),
        sa.Column("encryption_key_id", Uuid),
        sa.Column("use_quota", sa.Boolean, nullable=False, default=True),
        sa.Column("metadata", Json, nullable=False, default=dict),
        sa.Column("provider_location", Json),
        *_times(),
        sa.Index("ix_snapshots_project_list", "project_id", "created_at", "id"),
        sa.Index("ix_snapshots_list", "created_at", "id"),
        sa.Index("ix_snapshots_usage", "project_id", "use_quota", "type_id", "size_gib"),
        sa.Index("ix_snapshots_volume_id", "volume_id", "status"),
        sa.Index("ix_snapshots_group_snapshot_id", "group_snapshot_id"),
        **table_options(),
    )


def _attachments(metadata: sa.MetaData) -> None:
    sa.Table(
        "volume_attachments",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("project_id", Name, nullable=False),
        sa.Column("volume_id", Uuid, sa.ForeignKey("volumes.id"), nullable=False),
        sa.Column("instance_id", Uuid),
        sa.Column("attached_host", Name),
        sa.Column("mountpoint", Name),
        sa.Column("status", Status, nullable=False, comment="reserved, attaching, attached, detached"),
        sa.Column("mode", sa.String(8), comment="rw, ro or null"),
        sa.Column("connector", Json, comment="what the host said of itself"),
        sa.Column("connection_info", Json, comment="what the driver answered"),
        *_times(),
        sa.Column("attached_at", Time),
        sa.Column("detached_at", Time),
        sa.Index("ix_volume_attachments_volume_id", "volume_id", "status"),
        sa.Index("ix_volume_attachments_instance_id", "instance_id"),
        sa.Index("ix_volume_attachments_list", "project_id", "created_at", "id"),
        **table_options(),
    )


def _transfers(metadata: sa.MetaData) -> None:
    sa.Table(
        "volume_transfers",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("volume_id", Uuid, sa.ForeignKey("volumes.id"), nullable=False, unique=True),
        sa.Column("name", Name),
        sa.Column("salt", sa.String(32), nullable=False),
        sa.Column("key_hash", sa.String(128), nullable=False, comment="of the key: the key is not kept"),
        sa.Column("source_project_id", Name, nullable=False),
        sa.Column("no_snapshots", sa.Boolean, nullable=False, default=False),
        *_times(),
        sa.Index("ix_volume_transfers_source_project_id", "source_project_id", "created_at", "id"),
        **table_options(),
    )


def _backups(metadata: sa.MetaData) -> None:
    sa.Table(
        "backups",
        metadata,
        *_owned(),
        sa.Column("volume_id", Uuid, nullable=False, comment="it may be gone"),
        sa.Column("snapshot_id", Uuid, comment="the data is this snapshot's; it may be gone"),
        sa.Column("parent_id", Uuid, sa.ForeignKey("backups.id"), comment="incremental to"),
        sa.Column("status", Status, nullable=False),
        sa.Column("fail_reason", sa.Text),
        sa.Column("size_gib", sa.Integer, nullable=False),
        sa.Column("object_count", sa.Integer, nullable=False, default=0),
        sa.Column("container", Name),
        sa.Column("availability_zone", Name),
        sa.Column("host", Name, comment="the backup service that wrote it"),
        sa.Column("service", Name, comment="the backup driver, for records that travel"),
        sa.Column("service_metadata", Json),
        sa.Column("restore_volume_id", Uuid),
        sa.Column("restored_at", Time),
        sa.Column("data_timestamp", Time, nullable=False, default=now),
        sa.Column("encryption_key_id", Uuid),
        sa.Column("metadata", Json, nullable=False, default=dict),
        *_times(),
        sa.Index("ix_backups_project_list", "project_id", "created_at", "id"),
        sa.Index("ix_backups_list", "created_at", "id"),
        sa.Index("ix_backups_usage", "project_id", "size_gib"),
        sa.Index("ix_backups_volume_id", "volume_id", "status"),
        sa.Index("ix_backups_parent_id", "parent_id"),
        **table_options(),
    )


def _groups(metadata: sa.MetaData) -> None:
    sa.Table(
        "group_types",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("name", Name, nullable=False, unique=True),
        sa.Column("description", Name),
        sa.Column("is_public", sa.Boolean, nullable=False, default=True),
        sa.Column("group_specs", Json, nullable=False, default=dict),
        *_times(),
        **table_options(),
    )
    sa.Table(
        "volume_groups",
        metadata,
        *_owned(),
        sa.Column("status", Status, nullable=False),
        sa.Column("host", Name),
        sa.Column("availability_zone", Name),
        sa.Column("group_type_id", Uuid, sa.ForeignKey("group_types.id"), nullable=False),
        sa.Column("volume_type_ids", Json, nullable=False, default=list),
        sa.Column("group_snapshot_id", Uuid, comment="made from"),
        sa.Column("source_group_id", Uuid, comment="made from"),
        sa.Column("replication_status", Status),
        *_times(),
        sa.Index("ix_volume_groups_project_list", "project_id", "created_at", "id"),
        sa.Index("ix_volume_groups_list", "created_at", "id"),
        **table_options(),
    )
    sa.Table(
        "group_snapshots",
        metadata,
        *_owned(),
        sa.Column("group_id", Uuid, sa.ForeignKey("volume_groups.id"), nullable=False),
        sa.Column("group_type_id", Uuid, nullable=False),
        sa.Column("status", Status, nullable=False),
        *_times(),
        sa.Index("ix_group_snapshots_project_list", "project_id", "created_at", "id"),
        sa.Index("ix_group_snapshots_list", "created_at", "id"),
        sa.Index("ix_group_snapshots_group_id", "group_id"),
        **table_options(),
    )


def _services(metadata: sa.MetaData) -> None:
    sa.Table(
        "volume_services",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("uuid", Uuid, nullable=False, unique=True),
        sa.Column("host", Name, nullable=False, comment="host@backend of a cinder-volume, else the host"),
        sa.Column("binary", sa.String(32), nullable=False, comment="cinder-volume, -scheduler, -backup"),
        sa.Column("availability_zone", Name, nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False, default=False),
        sa.Column("disabled_reason", Name),
        sa.Column("frozen", sa.Boolean, nullable=False, default=False),
        sa.Column("replication_status", Status, nullable=False, default="disabled"),
        sa.Column(
            "capabilities", Json, nullable=False, default=dict, comment="what the driver says of itself"
        ),
        sa.Column("log_levels", Json, nullable=False, default=dict),
        sa.Column("last_seen_at", Time),
        *_times(),
        sa.UniqueConstraint("host", "binary"),
        **table_options(),
    )
    sa.Table(
        "volume_pools",
        metadata,
        sa.Column("name", Name, primary_key=True, comment="host@backend#pool"),
        sa.Column("service_host", Name, nullable=False, comment="host@backend"),
        sa.Column("total_gib", sa.Float, comment="NULL: unknown or without bound"),
        sa.Column("free_gib", sa.Float),
        sa.Column("capabilities", Json, nullable=False, default=dict, comment="in upstream's names"),
        sa.Column("generation", sa.Integer, nullable=False, default=0, comment="bumped by every claim"),
        sa.Column("updated_at", Time, nullable=False, default=now),
        sa.Index("ix_volume_pools_service_host", "service_host"),
        **table_options(),
    )


def _messages(metadata: sa.MetaData) -> None:
    sa.Table(
        "volume_messages",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("project_id", Name, nullable=False),
        sa.Column("request_id", sa.String(64)),
        sa.Column("resource_type", sa.String(32)),
        sa.Column("resource_id", Uuid),
        sa.Column("event_id", sa.String(64), nullable=False),
        sa.Column("action_id", sa.String(8)),
        sa.Column("detail_id", sa.String(8)),
        sa.Column("message", sa.Text, comment="says more than upstream's fixed texts: the intent's error"),
        sa.Column("level", sa.String(16), nullable=False, default="ERROR"),
        sa.Column("created_at", Time, nullable=False, default=now),
        sa.Column("expires_at", Time),
        sa.Index("ix_volume_messages_project_id", "project_id", "created_at", "id"),
        sa.Index("ix_volume_messages_expires_at", "expires_at"),
        **table_options(),
    )
