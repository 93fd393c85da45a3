"""Tables of the image service, in the global database.

An image's data is an object in a store, named by a row of ``image_locations``.
That row is written before the first byte and outlives the object:

saving → active → deleted → (the object is gone, then the row)

so whatever is in a store has a row that says whether it is still wanted, and a
process that dies at any point leaves nothing that the janitor can't find.
"""

from __future__ import annotations

import sqlalchemy as sa

from db.types import Json, LongText, Name, Time, Uuid, now, table_options

PROPERTY_KEY_LENGTH = 255


def images_table(metadata: sa.MetaData) -> sa.Table:
    """Images. A deleted image keeps its row, so that its id is never used again."""
    return sa.Table(
        "images",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("owner", Name, comment="project id"),
        sa.Column("name", Name),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("visibility", sa.String(16), nullable=False),
        sa.Column("container_format", sa.String(32)),
        sa.Column("disk_format", sa.String(32)),
        sa.Column("size", sa.BigInteger, comment="bytes"),
        sa.Column("virtual_size", sa.BigInteger, comment="bytes"),
        sa.Column("min_ram", sa.Integer, nullable=False, default=0, comment="MiB"),
        sa.Column("min_disk", sa.Integer, nullable=False, default=0, comment="GiB"),
        sa.Column("protected", sa.Boolean, nullable=False, default=False),
        sa.Column("os_hidden", sa.Boolean, nullable=False, default=False),
        sa.Column("checksum", sa.String(32), comment="md5"),
        sa.Column("os_hash_algo", sa.String(64)),
        sa.Column("os_hash_value", sa.String(128)),
        sa.Column("upload_id", Uuid, comment="the upload that may still end; fences older ones"),
        sa.Column("generation", sa.Integer, nullable=False, default=0),
        sa.Column("deleted", sa.Boolean, nullable=False, default=False),
        sa.Column("created_at", Time, nullable=False, default=now),
        sa.Column("updated_at", Time, nullable=False, default=now),
        sa.Column("deleted_at", Time),
        # the list of a project, and the counts of its quota
        sa.Index("ix_images_owner", "owner", "deleted", "created_at", "id"),
        sa.Index("ix_images_visibility", "visibility", "deleted", "created_at", "id"),
        # the administrator's list, the oldest and newest of all
        sa.Index("ix_images_created_at", "deleted", "created_at", "id"),
        sa.Index("ix_images_name", "name", "deleted"),
        sa.Index("ix_images_status", "status", "deleted"),
        **table_options(),
    )


def image_properties_table(metadata: sa.MetaData) -> sa.Table:
    """What users add to an image. ``value_key``: the beginning of the value, for the index."""
    return sa.Table(
        "image_properties",
        metadata,
        sa.Column("image_id", Uuid, sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", Name, primary_key=True),
        sa.Column("value", LongText),
        sa.Column("value_key", sa.String(PROPERTY_KEY_LENGTH)),
        sa.Index("ix_image_properties_name", "name", "value_key", "image_id"),
        **table_options(),
    )


def image_tags_table(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "image_tags",
        metadata,
        sa.Column("image_id", Uuid, sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("tag", Name, primary_key=True),
        sa.Index("ix_image_tags_tag", "tag", "image_id"),
        **table_options(),
    )


def image_members_table(metadata: sa.MetaData) -> sa.Table:
    """Projects that a shared image is shared with."""
    return sa.Table(
        "image_members",
        metadata,
        sa.Column("image_id", Uuid, sa.ForeignKey("images.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("member_id", Name, primary_key=True, comment="project id"),
        sa.Column("status", sa.String(16), nullable=False, default="pending"),
        sa.Column("created_at", Time, nullable=False, default=now),
        sa.Column("updated_at", Time, nullable=False, default=now),
        sa.Index("ix_image_members_member_id", "member_id", "status", "image_id"),
        **table_options(),
    )


def image_locations_table(metadata: sa.MetaData) -> sa.Table:
    """Objects in stores. ``id`` is the upload's id, ``name`` the object's name in the store."""
    return sa.Table(
        "image_locations",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("image_id", Uuid, sa.ForeignKey("images.id", ondelete="CASCADE"), nullable=False),
        sa.Column("store", sa.String(64), nullable=False),
        sa.Column("name", Name, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("metadata", Json, nullable=False, default=dict),
        sa.Column("lease_until", Time, comment="while saving: the sender is alive until then"),
        sa.Column("created_at", Time, nullable=False, default=now),
        sa.Index("ix_image_locations_image_id", "image_id", "status"),
        sa.Index("ix_image_locations_status", "status", "lease_until"),
        **table_options(),
    )


def metadef_namespaces_table(metadata: sa.MetaData) -> sa.Table:
    """Metadata definitions live in namespaces, which can be renamed: others name them by ``id``."""
    return sa.Table(
        "metadef_namespaces",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("namespace", sa.String(80), nullable=False),
        sa.Column("display_name", sa.String(80)),
        sa.Column("description", sa.Text),
        sa.Column("visibility", sa.String(16), nullable=False),
        sa.Column("protected", sa.Boolean, nullable=False, default=False),
        sa.Column("owner", Name, nullable=False, comment="project id"),
        sa.Column("created_at", Time, nullable=False, default=now),
        sa.Column("updated_at", Time, nullable=False, default=now),
        sa.UniqueConstraint("namespace"),
        sa.Index("ix_metadef_namespaces_owner", "owner", "created_at"),
        sa.Index("ix_metadef_namespaces_visibility", "visibility", "created_at"),
        **table_options(),
    )


def metadef_items_table(metadata: sa.MetaData) -> sa.Table:
    """What a namespace defines: objects, properties and tags. ``body``: all but the name and times."""
    return sa.Table(
        "metadef_items",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column(
            "namespace_id", Uuid, sa.ForeignKey("metadef_namespaces.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("kind", sa.String(16), nullable=False, comment="object, property, tag"),
        sa.Column("name", Name, nullable=False),
        sa.Column("body", Json, nullable=False, default=dict),
        sa.Column("created_at", Time, nullable=False, default=now),
        sa.Column("updated_at", Time, nullable=False, default=now),
        sa.UniqueConstraint("namespace_id", "kind", "name"),
        sa.Index("ix_metadef_items_created_at", "namespace_id", "kind", "created_at", "id"),
        **table_options(),
    )


def metadef_resource_types_table(metadata: sa.MetaData) -> sa.Table:
    """Resource types that somebody has named, the well-known ones among them once they are used."""
    return sa.Table(
        "metadef_resource_types",
        metadata,
        sa.Column("name", sa.String(80), primary_key=True),
        sa.Column("created_at", Time, nullable=False, default=now),
        sa.Column("updated_at", Time, nullable=False, default=now),
        **table_options(),
    )


def metadef_associations_table(metadata: sa.MetaData) -> sa.Table:
    """Which namespaces are meant for which resource types."""
    return sa.Table(
        "metadef_associations",
        metadata,
        sa.Column(
            "namespace_id",
            Uuid,
            sa.ForeignKey("metadef_namespaces.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("name", sa.String(80), primary_key=True, comment="resource type"),
        sa.Column("prefix", sa.String(80)),
        sa.Column("properties_target", sa.String(80)),
        sa.Column("created_at", Time, nullable=False, default=now),
        sa.Column("updated_at", Time, nullable=False, default=now),
        sa.Index("ix_metadef_associations_name", "name", "namespace_id"),
        **table_options(),
    )
