"""The table of the key store, in the global database: secrets, encrypted with a key that is not in it."""

from __future__ import annotations

import sqlalchemy as sa

from db.types import LongText, Name, Time, Uuid, now, table_options


def secrets_table(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        "secrets",
        metadata,
        sa.Column("id", Uuid, primary_key=True),
        sa.Column("project_id", Name, nullable=False),
        sa.Column("creator_id", Name),
        sa.Column("name", Name),
        sa.Column("secret_type", sa.String(16), nullable=False),
        sa.Column("algorithm", Name),
        sa.Column("mode", Name),
        sa.Column("bit_length", sa.Integer),
        sa.Column("content_type", sa.String(64), nullable=False),
        sa.Column("expiration", Time),
        sa.Column("sealed", LongText, nullable=False, comment="base64 of nonce and ciphertext"),
        sa.Column("sealed_with", sa.String(16), nullable=False, comment="which key of the key file"),
        sa.Column("created_at", Time, nullable=False, default=now),
        sa.Column("updated_at", Time),
        sa.Index("ix_secrets_list", "project_id", "created_at", "id"),
        sa.Index("ix_secrets_name", "project_id", "name"),
        sa.Index("ix_secrets_sealed_with", "sealed_with", "id"),
        **table_options(),
    )
